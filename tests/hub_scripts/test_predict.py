"""`lrsa predict` over many posts: in parts, by shares, killed and gone on with, with bad rows and without room."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hub_scripts import scale
from hub_scripts.cli import main
from modeling_lrsa import predictor
from processing import load_posts, save_posts
from processing.parts import Parts


ROOT = Path(__file__).parents[2]
WORDS = "great gig at riverbend hall never again northline rail opens in may love marta hate it is about".split()


@pytest.fixture(scope="module")
def posts(tmp_path_factory):
    """70 posts of all lengths, as JSON Lines."""
    chance, path = random.Random(0), tmp_path_factory.mktemp("many") / "posts.jsonl"
    texts = [" ".join(chance.choices(WORDS, k=chance.randrange(1, 12))) for _ in range(70)]
    rows = [
        {"id": f"p{i}", "text": text, "text_rationale": text[:20] if i % 3 else None} for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def command(picture_model, posts, monkeypatch):
    """Chunks of 10 posts, batches of 8."""
    monkeypatch.setattr(scale, "CHUNK", 10)
    monkeypatch.setattr("hub_scripts.predict.CHUNK", 10)
    return ["predict", str(picture_model), str(posts), "--batch-size", "8", "--output"]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def plain(rows):
    """Without scores, which batches of other posts round otherwise, and without words of none."""
    kept = ("aspect", "polarity", "start", "end")
    return [{"id": row["id"], "aspects": [{name: a[name] for name in kept} for a in row["aspects"]]} for row in rows]


@pytest.fixture(scope="module")
def expected(picture_model, posts, tmp_path_factory):
    from modeling_lrsa.loading import load_model

    data = load_posts(posts)
    found = predictor.predict_posts(*load_model(str(picture_model)), data)
    rows = [{"id": name, "aspects": aspects} for name, aspects in zip(data["id"], found)]
    assert sum(len(row["aspects"]) for row in rows) > 30
    return rows


def test_files_parts_and_shares_hold_the_same(command, posts, expected, tmp_path, capsys):
    assert main([*command, str(tmp_path / "out.jsonl")]) == 0
    rows = read(tmp_path / "out.jsonl")
    assert plain(rows) == plain(expected)
    for row, other in zip(rows, expected):
        assert [a["score"] for a in row["aspects"]] == pytest.approx([a["score"] for a in other["aspects"]], abs=1e-4)
    aspects = sum(len(row["aspects"]) for row in rows)
    assert capsys.readouterr().out == f"{aspects:,} aspects in 70 posts: {tmp_path / 'out.jsonl'}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]

    save_posts(load_posts(posts), tmp_path / "posts.parquet")
    from_parquet = [*command[:2], str(tmp_path / "posts.parquet"), *command[3:]]
    assert main([*from_parquet, str(tmp_path / "out.parquet")]) == 0
    assert plain(pq.read_table(tmp_path / "out.parquet").to_pylist()) == plain(expected)

    for number in ("2/3", "1/3", "3/3"):
        shares = ["--part-size", "7", "--format", "parquet", "--shard", number]
        assert main([*from_parquet, str(tmp_path / "parts"), *shares]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-5:-4] == ["7 of 10 parts are left to other shares."] and "parts are left" not in told[-1]
    assert len(list((tmp_path / "parts").glob("part-*.parquet"))) == 10
    assert plain(pq.read_table(tmp_path / "parts").to_pylist()) == plain(expected)


def test_what_was_answered_before_a_run_ended_is_kept(command, expected, tmp_path, monkeypatch, capsys):
    written, write = [], Parts.write

    def dies(parts, worker, chunk):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(chunk.number)
        return write(parts, worker, chunk)

    monkeypatch.setattr(Parts, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        main([*command, str(tmp_path / "out.jsonl")])
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.parts"]
    monkeypatch.setattr(Parts, "write", lambda *given: written.append(given[2].number) or write(*given))
    assert main([*command, str(tmp_path / "out.jsonl"), "--task", "mate"]) == 2
    assert 'another task ("mabsa", now "mate"); go on with that, or delete' in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out.jsonl")]) == 0
    assert "3 of 7 parts were answered before." in capsys.readouterr().out
    assert written == list(range(7))
    assert plain(read(tmp_path / "out.jsonl")) == plain(expected)


def test_bad_rows_are_listed_and_the_others_answered(command, posts, expected, tmp_path, capsys):
    lines = posts.read_text().splitlines(keepends=True)
    lines[30:30] = ['{"text": 1}\n']
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(lines))
    given = [*command[:2], str(path), *command[3:], str(tmp_path / "out.jsonl")]
    assert main(given) == 2
    assert capsys.readouterr().err.startswith(f"lrsa predict: {path}:31: text: a string")
    assert [file.name for file in tmp_path.iterdir()] == ["posts.jsonl"], "all are checked before any is answered"
    assert main([*given, "--on-bad-post", "skip"]) == 0
    listed = tmp_path / "out.bad.jsonl"
    assert f"1 rows are no posts and listed in {listed}, such as {path}:31: text: " in capsys.readouterr().out
    assert plain(read(tmp_path / "out.jsonl")) == plain(expected)
    assert [row["place"] for row in read(listed)] == [f"{path}:31"]


def test_a_share_that_fails_leaves_the_folder_to_the_others(command, posts, tmp_path, capsys):
    path = tmp_path / "posts.jsonl"
    path.write_text('{"text": 1}\n' + posts.read_text())
    given = [*command[:2], str(path), *command[3:], str(tmp_path / "out"), "--part-size", "10"]
    assert main([*given, "--shard", "1/2"]) == 2
    assert "posts.jsonl:1: text: a string" in capsys.readouterr().err
    assert (tmp_path / "out" / ".run" / "settings.json").is_file()
    assert main([*given, "--shard", "2/2"]) == 0


@pytest.mark.parametrize("bad", ["no parquet", "no column"])
def test_a_bad_shard_is_one_line_before_anything_is_answered(bad, command, posts, tmp_path, capsys):
    shards = tmp_path / "shards"
    save_posts(load_posts(posts), shards / "a.parquet")
    if bad == "no parquet":
        (shards / "b.parquet").write_text("no parquet")
    else:
        pq.write_table(pq.read_table(shards / "a.parquet").select(["id"]), shards / "b.parquet")
    assert main([*command[:2], str(shards), *command[3:], str(tmp_path / "out"), "--part-size", "5"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lrsa predict: {shards}/b.parquet: ") and len(error.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"shards"}


def test_a_full_disk_loses_nothing(command, expected, tmp_path, capsys):
    """A limit on the size of files stands for the disk: parts are smaller than it, the whole is not."""
    output = tmp_path / "out.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, problem in ((300, "out.jsonl.parts: can't be written"), (5_000, "out.jsonl.parts: can't be written")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            code = main([*command, str(output)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        error = capsys.readouterr().err
        assert code == 2 and problem in error and "File too large" in error and len(error.splitlines()) == 1
        assert not output.exists()
    assert len(list((tmp_path / "out.jsonl.parts").glob("part-*"))) == 7
    assert main([*command, str(output)]) == 0
    assert plain(read(output)) == plain(expected)


def test_memory_that_runs_out_halves_the_batch(command, expected, tmp_path, monkeypatch, caplog):
    predict_batch, sizes = predictor.predict_batch, []

    def full(model, processor, batch, *given):
        sizes.append(len(batch.posts))
        if sizes[-1] > 4:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            )
        return predict_batch(model, processor, batch, *given)

    monkeypatch.setattr(predictor, "predict_batch", full)
    assert main([*command, str(tmp_path / "out.jsonl")]) == 0
    assert "Memory ran out over 8 posts; they are predicted 4 at a time." in caplog.text
    assert plain(read(tmp_path / "out.jsonl")) == plain(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "1/2"], "--shard needs --part-size"),
        (["--shard", "3/2", "--part-size", "9"], "3/2 is no share; 1/4 to 4/4 are those of four"),
        (["--workers", "2"], "--workers is for --engine ray"),
        (["--part-size", "0"], "0 is less than 1"),
        (["--format", "parquet"], "a file has the form of its name: out.parquet"),
        (["--image", "one.png"], "--image goes with --text"),
        (["--text-rationale", "fine"], "--text-rationale goes with --text"),
    ],
)
def test_options_that_contradict_each_other(options, message, command, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*command, "out", *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--output", "out.jsonl"], ["--split", "test"], ["--task", "masc"]])
def test_options_that_one_post_has_no_use_for(options, command, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*command[:2], "--text", "so good", *options])
    assert "with neither --output nor --split nor --task masc" in capsys.readouterr().err


def test_posts_are_not_written_over(command, posts, tmp_path, capsys):
    path = tmp_path / "test.jsonl"
    path.write_bytes(posts.read_bytes())
    for given, output in ((path, path), (tmp_path, tmp_path / "test.jsonl"), (path, tmp_path / "." / path.name)):
        assert main([*command[:2], str(given), "--split", "test", "--output", str(output)]) == 2
        assert f"{output}: holds the posts; name another file." in capsys.readouterr().err
    assert path.read_bytes() == posts.read_bytes()


def test_missing_pictures_are_told_wherever_predictions_go(command, tmp_path, capsys):
    path = tmp_path / "posts.jsonl"
    path.write_text('{"text": "so good", "image": "none.jpg"}\n' * 3)
    assert main([*command[:2], str(path)]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3
    assert shown.err == "3 pictures are not there; their posts count as without.\n"
    assert main([*command[:2], str(path), "--output", str(tmp_path / "out.jsonl")]) == 0
    assert "3 pictures are not there; their posts count as without.\n" in capsys.readouterr().out


@pytest.mark.slow
def test_kill_minus_nine_again_and_again(picture_model, posts, expected, tmp_path):
    """Each run is killed at another moment; each post is answered exactly once, and no part is written twice."""
    output, chance = tmp_path / "out", random.Random(1)
    command = [sys.executable, "-m", "hub_scripts.cli", "predict", str(picture_model), str(posts)]
    command += ["--output", str(output), "--part-size", "2", "--batch-size", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    stamps, kills = {}, 0
    while True:
        run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        before = len(stamps)
        while run.poll() is None and len(list(output.glob("part-*"))) < before + 6:
            time.sleep(0.01)
        if run.poll() is not None:
            break
        time.sleep(chance.random() / 10)
        run.send_signal(signal.SIGKILL)
        run.wait()
        kills += 1
        found = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
        assert stamps.items() <= found.items(), "what was there is as it was"
        stamps = found
    assert run.returncode == 0 and kills >= 3, run.communicate()
    rows = [row for path in sorted(output.glob("part-*.jsonl")) for row in read(path)]
    assert plain(rows) == plain(expected)
    assert not list(output.glob(".part-*"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_posts(picture_model, posts, tmp_path, print_peak):
    def peak(times: int) -> int:
        given = tmp_path / f"{times}.parquet"
        rows = [row | {"id": f"{row['id']}-{i}"} for i in range(times) for row in read(posts)]
        given.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        save_posts(load_posts(given.with_suffix(".jsonl")), given)
        code = (
            f"import sys; from hub_scripts.cli import main\nassert main(['predict', *sys.argv[1:]]) == 0\n{print_peak}"
        )
        command = [sys.executable, "-c", code, str(picture_model), str(given), "--output", f"{given}.out"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
        assert done.returncode == 0, done
        return int(done.stdout.split()[-1])

    assert peak(120) - peak(20) < 15  # MB; 8,400 posts and 1,400
