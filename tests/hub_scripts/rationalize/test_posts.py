"""`lrsa rationalize`: from posts to posts with rationales."""

import json
import re

import pyarrow.parquet as pq
import pytest

from hub_scripts.cli import main
from processing import load_posts, save_posts

from .cases import GOLD, ROOT, RunningServer, answered_twice, check_store, check_whole, read, write_posts


def test_both_rationales_for_each_post(tmp_path, capsys):
    posts = write_posts(tmp_path, 20)
    out = tmp_path / "out.jsonl"
    with RunningServer("--record") as server:
        command = ["rationalize", str(posts), str(out), "--model", "m", "--url", server.url, "--shots", "1"]
        assert main([*command, "--kinds", "text", "--max-requests", "15"]) == 1
        told = capsys.readouterr().out
        assert "Asked 15 in " in told and ": 15 answered, 0 failed" in told
        assert "Stopped: the limit of 15 requests is reached. Run again to go on." in told
        assert "20 posts with 15 text rationales and 0 image rationales" in told
        assert main(command) == 0
        told = capsys.readouterr().out
        assert "Asked 25 in " in told and "Answered before: 15. Tokens: 275 of prompts, 175 of answers." in told
        assert f"20 posts with 20 text rationales and 20 image rationales: {out}" in told
        assert main(command) == 0
        assert server.stats()["requests"] == 40 and answered_twice(server) == 0
        requests = server.requests()
    check_whole(posts, out)
    assert load_posts(out)["aspects"] == [[GOLD]] * 20
    check_store(tmp_path / "out.answers.sqlite", 40)
    pictured = [request for request in requests if "data:image/" in json.dumps(request["body"])]
    assert len(pictured) == 20
    assert not any("positive" in json.dumps(r["body"]["messages"][-1]) for r in requests)


def test_what_fails_is_told_kept_and_asked_again_on_request(tmp_path, capsys):
    posts = tmp_path / "posts.jsonl"
    rows = [
        {"text": "fine"},
        {"text": "<<400 ok>> once"},
        {"text": "<<400 ok>> more"},
        {"text": "a", "image": "no.png"},
    ]
    rows = [row | {"id": str(number)} for number, row in enumerate(rows)]
    posts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    with RunningServer() as server:
        command = ["rationalize", str(posts), str(out), "--model", "m", "--url", server.url]
        assert main(command) == 1
        told = capsys.readouterr().out
        assert "2  400: fault 400\n" in told
        assert "3  the post has no picture\n" in told and "1  the picture is not there\n" in told
        assert [row["text_rationale"] is None for row in read(out)] == [False, True, True, False]
        assert main(command) == 1
        told = capsys.readouterr().out
        assert "Asked 0" in told and "Failed in earlier runs (--retry-failed asks again):\n       3  " in told
        assert main([*command, "--retry-failed", "--kinds", "text"]) == 0
        evidence = tmp_path / "evidence.jsonl"
        evidence.write_text("".join(json.dumps({"id": row["id"], "caption": "a dog"}) + "\n" for row in rows))
        capsys.readouterr()
        code = main([*command, "--evidence", str(evidence), "--retry-failed"])
    assert code == 1 and "<<400" not in capsys.readouterr().out  # the caption makes these new questions
    assert [bool(row["image_rationale"]) for row in read(out)] == [True, False, False, True]


def test_a_model_that_sees_no_pictures(tmp_path, capsys):
    posts = write_posts(tmp_path, 2)
    evidence = tmp_path / "evidence.jsonl"
    evidence.write_text('{"id": "p0", "objects": ["pizza", "table"]}\n')
    out = tmp_path / "out.jsonl"
    with RunningServer("--record") as server:
        command = ["rationalize", str(posts), str(out), "--model", "m", "--url", server.url, "--text-only"]
        assert main(command) == 1
        told = capsys.readouterr().out
        assert told.startswith(
            "m sees no pictures, and no --evidence tells of them: image rationales can't be written."
        )
        assert "2  m sees no pictures, and no evidence tells of this one\n" in told
        assert main([*command, "--evidence", str(evidence)]) == 1
        assert "m sees no pictures, and no --evidence" not in capsys.readouterr().out
        bodies = [json.dumps(request["body"]) for request in server.requests()]
    assert [bool(row["image_rationale"]) for row in read(out)] == [True, False]
    assert not any("data:image/" in body for body in bodies)


def test_a_dry_run_asks_nothing(tmp_path, capsys):
    posts = write_posts(tmp_path, 6)
    out = tmp_path / "out" / "posts.jsonl"
    with RunningServer() as server:
        command = ["rationalize", str(posts), str(out), "--model", "m", "--url", server.url]
        assert main([*command, "--dry-run"]) == 0
        told = capsys.readouterr().out
        assert "the pizza number 0 was great" in told and "number 1" not in told
        assert f"<picture {tmp_path / 'images' / 'one.png'}>" in told
        assert "You explain short posts" in told and "Nothing was asked." in told
        found = re.findall(r"(\w+): 6 to ask, about ([\d,]+) tokens of prompts and at most 1,536 of answers", told)
        assert [kind for kind, _ in found] == ["text_rationale", "image_rationale"]
        assert all(600 < int(tokens.replace(",", "")) < 3000 for _, tokens in found)
        assert not out.parent.exists()
        assert main([*command, "--max-requests", "5"]) == 1
        capsys.readouterr()
        assert main([*command, "--dry-run"]) == 0
        counts = re.findall(r"(\d+) to ask|(\d+) not asked: answered", capsys.readouterr().out)
        assert sum(int(free or 0) for free, _ in counts) == 7 and sum(int(old or 0) for _, old in counts) == 5
        assert server.stats()["requests"] == 5


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_rationales_that_posts_have_already_are_told(tmp_path, capsys, option):
    posts = write_posts(tmp_path, 3)
    posts.write_text("".join(json.dumps(row | {"text_rationale": "mine"}) + "\n" for row in read(posts)))
    command = ["rationalize", str(posts), str(tmp_path / "out.jsonl"), "--model", "m", "--url", "http://127.0.0.1:9"]
    main([*command, *option, "--kinds", "text"])
    assert "3 rationales are there already; --overwrite asks for them anew." in capsys.readouterr().out
    main([*command, *option, "--kinds", "text", "--overwrite"])
    assert "there already" not in capsys.readouterr().out


def test_a_folder_of_splits(tmp_path):
    data = tmp_path / "data"
    for split in ("train", "validation"):
        write_posts(data, 3).rename(data / f"{split}.jsonl")
    with RunningServer() as server:
        assert main(["rationalize", str(data), str(tmp_path / "out"), "--model", "m", "--url", server.url]) == 0
        # Both splits hold the same posts: each question is asked once.
        assert server.stats()["requests"] == 6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.jsonl", "validation.jsonl"]
    check_whole(data / "train.jsonl", tmp_path / "out" / "train.jsonl")
    assert (tmp_path / "out.answers.sqlite").is_file()


def test_parquet_in_and_out_with_its_pictures(tmp_path, capsys):
    save_posts(load_posts(write_posts(tmp_path, 6)), tmp_path / "in" / "a.parquet")
    save_posts(load_posts(write_posts(tmp_path, 4)), tmp_path / "in" / "b.parquet")
    with RunningServer() as server:
        command = ["--model", "m", "--url", server.url]
        assert main(["rationalize", str(tmp_path / "in"), str(tmp_path / "out"), *command, "--format", "parquet"]) == 0
        assert main(["rationalize", str(tmp_path / "in" / "a.parquet"), str(tmp_path / "a.jsonl"), *command]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.parquet", "b.parquet"]
    rows = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    check = read(tmp_path / "a.jsonl")
    for row, former, lines in zip(rows, pq.read_table(tmp_path / "in" / "a.parquet").to_pylist(), check, strict=True):
        texts = ("text_rationale", "image_rationale")
        assert {name: row[name] for name in former if name not in texts} == {
            name: former[name] for name in former if name not in texts
        }
        assert [row[kind] for kind in texts] == [lines[kind] for kind in texts] and all(row[kind] for kind in texts)
        settings = row["rationale_provenance"]["image_rationale"]["settings"]
        assert settings == lines["rationale_provenance"]["image_rationale"]["settings"]
    loaded = load_posts(tmp_path / "out" / "b.parquet")
    assert len(loaded) == 4 and loaded[0]["image"].size == (20, 16) and loaded["aspects"] == [[GOLD]] * 4
    again = ["rationalize", str(tmp_path / "out"), str(tmp_path / "again"), *command, "--format", "parquet"]
    assert main(again) == 0
    assert pq.read_table(tmp_path / "again" / "a.parquet").to_pylist() == rows, "with the provenance that they had"


def test_pictures_go_into_parquet(tmp_path):
    posts = write_posts(tmp_path, 3)
    with RunningServer() as server:
        command = ["--model", "m", "--url", server.url, "--kinds", "text"]
        assert main(["rationalize", str(posts), str(tmp_path / "out.parquet"), *command]) == 0
    for row in pq.read_table(tmp_path / "out.parquet").to_pylist():
        assert row["image"]["bytes"] == (tmp_path / "images" / row["image"]["path"]).read_bytes()


def test_posts_in_place_keep_their_form(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_posts(tmp_path / "in", 2).rename(tmp_path / "in" / "train.jsonl")
    command = ["rationalize", str(tmp_path / "in"), str(tmp_path / "in"), "--model", "m", "--url", "http://h/v1"]
    assert main([*command, "--format", "parquet"]) == 2
    assert "holds the posts, in another form than --format parquet" in capsys.readouterr().err


def test_half_a_surrogate_pair_in_a_field_of_no_account(tmp_path):
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"text": "fine", "user": "\\ud83d"}\n')
    with RunningServer() as server:
        command = ["--model", "m", "--url", server.url, "--kinds", "text"]
        assert main(["rationalize", str(posts), str(tmp_path / "out.jsonl"), *command]) == 0
    assert read(tmp_path / "out.jsonl")[0]["user"] == "\ud83d"


def test_pictures_that_json_lines_cannot_hold_are_told_of(tmp_path, caplog):
    save_posts(load_posts(write_posts(tmp_path, 3)), tmp_path / "in.parquet")
    with RunningServer() as server:
        command = ["rationalize", str(tmp_path / "in.parquet"), str(tmp_path / "out.jsonl"), "--model", "m"]
        assert main([*command, "--url", server.url, "--kinds", "text"]) == 0
    assert caplog.text.count("in.parquet: JSON Lines can't hold the pictures that are in it") == 1


@pytest.mark.parametrize("name", ["out", "out.parquet", "out.jsonl"])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_parts_have_the_form_that_is_asked_for(tmp_path, name, form):
    posts, out = write_posts(tmp_path, 3), tmp_path / name
    with RunningServer() as server:
        command = ["rationalize", str(posts), str(out), "--model", "m", "--url", server.url, "--kinds", "text"]
        assert main([*command, "--part-size", "2", "--format", form]) == 0
    files = sorted(out.glob("part-*"))
    assert [file.suffix for file in files] == [f".{form}"] * 2
    rows = [row for file in files for row in (read(file) if form == "jsonl" else pq.read_table(file).to_pylist())]
    picture = (tmp_path / "images" / "one.png").read_bytes()
    expected = "one.png" if form == "jsonl" else {"bytes": picture, "path": "one.png"}
    assert [row["image"] for row in rows] == [expected] * 3 and all(row["text_rationale"] for row in rows)


def test_rationales_in_parts(tmp_path, capsys):
    posts = write_posts(tmp_path, 25)
    posts.write_text(posts.read_text().replace("number 7 was", "<<400 ok>> was") + "torn\n")
    out = tmp_path / "out"
    with RunningServer() as server:
        command = ["rationalize", str(posts), str(out), "--model", "m", "--url", server.url, "--kinds", "text"]
        command += ["--part-size", "10", "--on-bad-post", "skip"]
        assert main([*command, "--shard", "2/2"]) == 0
        assert "2 of 3 parts are left to other shares." in capsys.readouterr().out
        assert server.stats()["answers"] == 10
        assert main(command) == 1
        told = capsys.readouterr().out
        assert "1 of 3 parts were answered before." in told and "Asked 15: 14 answered, 1 failed." in told
        assert f"1 rows are no posts and listed in {out / '.run'}, such as {posts}:26: no JSON" in told
        assert main(command) == 1, "the one that failed is still missing"
        assert "25 posts with 24 text rationales" in capsys.readouterr().out
        assert main([*command, "--retry-failed"]) == 0
        told = capsys.readouterr().out
        assert "2 of 3 parts were answered before." in told and "Asked 1: 1 answered, 0 failed." in told
        assert main(command) == 0
        assert answered_twice(server) == 0
        assert main([*command, "--temperature", "1"]) == 2
        assert "holds parts of a run with another generation" in capsys.readouterr().err
    rows = [row for part in sorted(out.glob("part-*.jsonl")) for row in read(part)]
    assert [row["id"] for row in rows] == [f"p{n}" for n in range(25)] and all(row["text_rationale"] for row in rows)
    assert sorted(path.name for path in (tmp_path / "out.answers").glob("*.sqlite")) == [
        f"part-{number:06d}.sqlite" for number in range(3)
    ]


def test_bad_rows_of_a_folder_are_listed_beside_it(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    posts = write_posts(tmp_path / "in", 3).rename(tmp_path / "in" / "train.jsonl")
    posts.write_text(posts.read_text() + "torn\n")
    out = tmp_path / "out.v1"
    with RunningServer() as server:
        command = ["rationalize", str(tmp_path / "in"), str(out), "--model", "m", "--url", server.url]
        assert main([*command, "--kinds", "text", "--on-bad-post", "skip"]) == 0
        assert f"1 rows are no posts and listed in {out}.bad.jsonl" in capsys.readouterr().out
        assert [path.name for path in out.iterdir()] == ["train.jsonl"]
        assert json.loads((tmp_path / "out.v1.bad.jsonl").read_text())["place"].endswith("train.jsonl:4")
        posts.write_text(posts.read_text().replace("torn\n", ""))
        assert main([*command, "--kinds", "text"]) == 0
    assert not (tmp_path / "out.v1.bad.jsonl").exists()


def test_the_example_in_the_documentation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_posts(tmp_path, 3)
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "rationales.md").read_text(encoding="utf-8"), re.S
    )
    with RunningServer() as server:
        exec(compile(example.replace("http://localhost:8000/v1", server.url), "rationales.md", "exec"), {})
    assert capsys.readouterr().out == "6 Counter()\n"
    check_whole(tmp_path / "posts.jsonl", tmp_path / "explained.jsonl")


@pytest.mark.slow
def test_a_local_model(tmp_path, gguf_folder, capsys):
    posts = write_posts(tmp_path, 2)
    evidence = tmp_path / "evidence.jsonl"
    evidence.write_text('{"id": "p0", "caption": "a pizza"}\n{"id": "p1", "caption": "a pizza with olives"}\n')
    out = tmp_path / "out.jsonl"
    command = ["rationalize", str(posts), str(out), "--model", str(gguf_folder), "--evidence", str(evidence)]
    command += ["--max-new-tokens", "8", "--dtype", "float32"]
    assert main(command) == 0
    assert "Asked 4 in " in capsys.readouterr().out
    check_whole(posts, out)
    provenance = read(out)[0]["rationale_provenance"]["image_rationale"]
    assert provenance["model"].startswith("SmolLM2-135M-Instruct.Q4_1@") and provenance["finish_reason"] == "length"
    assert main(command) == 0 and "Asked 0 in " in capsys.readouterr().out
