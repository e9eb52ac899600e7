"""`lrsa rationalize` against real servers: killed, shared, interrupted, with faults and without room."""

import base64
import importlib.util
import io
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from hub_scripts.cli import main
from processing import load_posts, save_posts


HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def load_fault_server():
    spec = importlib.util.spec_from_file_location(
        "fault_server", HERE.parent / "processing/rationales/fault_server.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RunningServer = load_fault_server().RunningServer


def write_posts(folder: Path, count: int) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize((20, 16)).save(folder / "images" / "one.png")
    rows = ({"id": f"p{n}", "text": f"the pizza number {n} was great", "image": "one.png"} for n in range(count))
    path = folder / "posts.jsonl"
    path.write_text("".join(json.dumps(row | {"aspects": [GOLD]}) + "\n" for row in rows))
    return path


GOLD = {"start": 4, "end": 9, "polarity": "positive"}


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rationalize(*arguments, before: str = "", **environment) -> subprocess.Popen:
    """Starts the command in a process of its own, after the statements of `before`."""
    code = f"import sys\n{before}\nfrom hub_scripts.cli import main\nsys.exit(main(['rationalize', *sys.argv[1:]]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, error = process.communicate(timeout=300)
    return process.returncode, out + error


def wait_for(server, answers: int) -> None:
    deadline = time.monotonic() + 60
    while server.stats()["answers"] < answers and time.monotonic() < deadline:
        time.sleep(0.02)


def answered_twice(server) -> int:
    return sum(question["answers"] - 1 for question in server.stats()["questions"].values() if question["answers"])


def check_store(path: Path, answers: int) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM answers").fetchone() == (answers,)
    assert connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    connection.close()


def check_whole(posts: Path, out: Path) -> None:
    for before, after in zip(read(posts), read(out), strict=True):
        assert after["text_rationale"] and after["image_rationale"]
        assert {name: after[name] for name in before} == before
        assert all(after["rationale_provenance"].values())


# --- from posts to posts with rationales


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


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl", "out.jsonl"], "none.jsonl: no such file"),
        (["none", "out"], "none: no such file or folder"),
        (["images", "out"], "images: holds none of train.jsonl"),
        (["bad.jsonl", "out.jsonl"], "bad.jsonl:2: text: "),
        (["posts.jsonl", "out"], "out: .*posts.jsonl is no folder; name a file that ends in .jsonl"),
        ([".", "out.jsonl"], "out.jsonl: .* is a folder of splits; name a folder for them"),
        (["posts.jsonl", "posts.jsonl/out.jsonl"], "can't be written to"),
        (["posts.jsonl", "out.jsonl", "--store", "posts.jsonl"], "posts.jsonl: is no store of answers"),
        (["posts.jsonl", "out.jsonl", "--text-prompt", "none.yaml"], "none.yaml: no prompt file"),
        (
            ["posts.jsonl", "out.jsonl", "--text-prompt", "image_rationale"],
            "is image_rationale; one for text_rationale",
        ),
        (["posts.jsonl", "out.jsonl", "--evidence", "none.jsonl"], "none.jsonl: no such file"),
        (["posts.jsonl", "out.jsonl", "--shots", "50"], "has 3 examples; 50 shots are asked for"),
        (["posts.jsonl", "out.jsonl", "--url", "no url"], "The base URL is no address"),
        (["posts.jsonl", "out.jsonl"], "no server answers there .* What was answered is kept in .*out.answers.sqlite"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_posts(tmp_path, 2)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"bad": 1}\n')
    server = [] if "--url" in arguments else ["--url", "http://127.0.0.1:9"]
    assert main(["rationalize", *arguments, "--model", "m", *server]) == 2
    error = capfd.readouterr().err
    assert re.match(f"lrsa rationalize: .*{message}", error) and len(error.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--temperature=nan", "nan is no temperature"),
        ("--temperature=-1", "-1 is no temperature"),
        ("--temperature=inf", "inf is no temperature"),
        ("--top-p=0", "0 does not lie between 0 and 1"),
        ("--top-p=7", "7 does not lie between 0 and 1"),
        ("--top-p=nan", "nan does not lie between 0 and 1"),
    ],
)
def test_sampling_that_cannot_be(option, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["rationalize", "posts.jsonl", "out.jsonl", "--model", "m", "--url", "http://127.0.0.1:9", option])
    assert message in capsys.readouterr().err


def test_what_a_server_answered_before_it_broke_down_is_kept(tmp_path):
    posts = write_posts(tmp_path, 100)
    out = tmp_path / "out.jsonl"
    with RunningServer("--delay", 0.02) as server:
        port = server.port
        run = rationalize(posts, out, "--model", "m", "--url", server.url, "--concurrency", 4)
        wait_for(server, 50)
        run.send_signal(signal.SIGSTOP)
        answered = server.stats()["answers"]
    run.send_signal(signal.SIGCONT)
    run.kill()
    run.communicate()
    with RunningServer("--port", port) as server:
        code, told = finish(rationalize(posts, out, "--model", "m", "--url", server.url))
        assert code == 0 and 200 - answered <= server.stats()["answers"] <= 200 - answered + 4, told
    check_whole(posts, out)


# --- secrets


def test_secrets_are_nowhere(tmp_path):
    posts = write_posts(tmp_path, 3)
    secrets = ["tok-Uri7SECRET", "pass-9SECRET", "hf_AbCdSECRET12345", "sk-SECRETopenai99"]
    environment = {"HF_TOKEN": secrets[2], "OPENAI_API_KEY": secrets[3], "TRANSFORMERS_VERBOSITY": "debug"}
    said = ""
    before = "import logging; logging.basicConfig(level=logging.DEBUG)"
    with RunningServer() as good, RunningServer("--key", "another") as strict:
        for server, code in ((good, 0), (strict, 2)):
            url = server.url.replace("://", f"://user:{secrets[1]}@") + f"?key={secrets[0]}"
            command = [posts, tmp_path / f"{code}.jsonl", "--model", "m", "--url", url]
            for extra in (["--dry-run"], []):
                found, told = finish(rationalize(*command, *extra, before=before, **environment))
                assert found == (0 if extra else code), told
                said += told
        command = [
            posts,
            tmp_path / "dead.jsonl",
            "--model",
            "m",
            "--url",
            f"http://u:{secrets[1]}@127.0.0.1:9/?k={secrets[0]}",
        ]
        found, told = finish(rationalize(*command, before=before, **environment))
        assert found == 2
        said += told
    assert "Asked 6" in said and "key is refused" in said
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {"0.jsonl", "0.answers.sqlite", "2.answers.sqlite"} <= set(files)
    for secret in secrets:
        assert secret not in said
        assert not [name for name, content in files.items() if secret.encode() in content]


def test_a_picture_is_sent_without_what_its_file_says_besides(tmp_path):
    posts = write_posts(tmp_path, 1)
    said = Image.Exif()
    said[0x010F] = "a camera"
    Image.new("RGB", (20, 20)).save(
        tmp_path / "images" / "one.png", "JPEG", exif=said, xmp=b"<x:xmpmeta>a place</x:xmpmeta>", comment=b"a comment"
    )
    with RunningServer("--record") as server:
        command = ["rationalize", str(posts), str(tmp_path / "out.jsonl"), "--model", "m", "--url", server.url]
        assert main([*command, "--kinds", "image"]) == 0
        content = server.requests()[0]["body"]["messages"][-1]["content"]
    (url,) = (part["image_url"]["url"] for part in content if part["type"] == "image_url")
    picture = base64.b64decode(url.partition(",")[2])
    assert Image.open(io.BytesIO(picture)).size == (20, 20)
    for what in (b"a camera", b"a place", b"a comment"):
        assert what in (tmp_path / "images" / "one.png").read_bytes() and what not in picture


# --- ends of a run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_ends_the_run_and_loses_what_is_in_flight_alone(tmp_path, number):
    posts = write_posts(tmp_path, 100)
    out = tmp_path / "out.jsonl"
    with RunningServer("--delay", 0.05) as server:
        command = [posts, out, "--model", "m", "--url", server.url, "--concurrency", 4]
        run = rationalize(*command)
        wait_for(server, 20)
        run.send_signal(number)
        code, told = finish(run)
        assert code == 1 and "Stopped: it was interrupted. Run again to go on." in told and "Traceback" not in told
        assert f"Nothing is written to {out}" in told and not out.exists()
        assert finish(rationalize(*command))[0] == 0
        assert answered_twice(server) <= 4
    check_whole(posts, out)
    check_store(tmp_path / "out.answers.sqlite", 200)


def test_an_interrupt_while_the_posts_are_read(tmp_path):
    """Before anything is asked."""
    os.mkfifo(tmp_path / "posts.jsonl")
    before = "import pathlib; pathlib.Path.is_file = lambda path: True"  # a pipe that nobody writes to
    run = rationalize(
        tmp_path / "posts.jsonl", tmp_path / "out.jsonl", "--model", "m", "--url", "http://127.0.0.1:9", before=before
    )
    writer = os.open(tmp_path / "posts.jsonl", os.O_WRONLY)  # returns when the run reads
    run.send_signal(signal.SIGTERM)
    code, told = finish(run)
    os.close(writer)
    assert code == 1 and told == "Stopped: it was interrupted. Run again to go on.\n"


def test_a_full_disk(tmp_path):
    """A limit on the size of files stands for the disk."""
    posts = write_posts(tmp_path, 300)
    out = tmp_path / "out.jsonl"
    full = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
    )
    with RunningServer() as server:
        command = [posts, out, "--model", "m", "--url", server.url, "--concurrency", 4]
        code, told = finish(rationalize(*command, before=full))
        assert code == 2 and len(told.splitlines()) == 1, told
        assert told.startswith(f"lrsa rationalize: {tmp_path / 'out.answers.sqlite'}: the disk is full")
        assert 10 < server.stats()["answers"] < 600
        assert finish(rationalize(*command))[0] == 0
        assert answered_twice(server) <= 4
    check_whole(posts, out)


# --- two runs


def test_two_runs_on_one_store_ask_nothing_twice(tmp_path):
    posts = write_posts(tmp_path, 150)
    with RunningServer("--delay", 0.02) as server:
        common = ["--model", "m", "--url", server.url, "--store", tmp_path / "answers.sqlite", "--concurrency", 8]
        runs = [rationalize(posts, tmp_path / f"{name}.jsonl", *common) for name in ("one", "two")]
        ends = [finish(run) for run in runs]
        stats = server.stats()
    assert [code for code, _ in ends] == [0, 0], ends
    asked = [int(re.search(r"Asked (\d+)", told)[1]) for _, told in ends]
    assert stats["requests"] == stats["answers"] == sum(asked) == 300 and min(asked) > 0
    assert read(tmp_path / "one.jsonl") == read(tmp_path / "two.jsonl")
    check_whole(posts, tmp_path / "one.jsonl")


@pytest.mark.slow
def test_five_kills_among_faults(tmp_path):
    posts = write_posts(tmp_path, 1000)
    out = tmp_path / "out.jsonl"
    concurrency, chance = 16, random.Random(0)
    with RunningServer("--faults", 0.2, "--delay", 0.02) as server:
        command = [posts, out, "--model", "m", "--url", server.url, "--concurrency", concurrency, "--timeout", 4]
        for kill in range(5):
            run = rationalize(*command)
            wait_for(server, 300 * kill + chance.randrange(300))
            time.sleep(chance.random())
            assert run.poll() is None
            run.kill()
            run.communicate()
        for _ in range(5):  # answers that are too long are failures, and one in fifty is
            code, told = finish(rationalize(*command, "--retry-failed"))
            if code == 0:
                break
        stats = server.stats()
        print(told, stats["requests"], stats["answers"], stats["faults"], "answered twice:", answered_twice(server))
        assert code == 0, told
        assert set(stats["faults"]) >= {"429", "500", "503", "hang", "reset", "empty", "junk", "refusal", "huge"}
        assert answered_twice(server) <= 5 * concurrency
    check_whole(posts, out)
    check_store(tmp_path / "out.answers.sqlite", 2000)


# --- what it costs


def test_neither_torch_nor_models_are_imported(tmp_path):
    posts = write_posts(tmp_path, 2)
    code = (
        "import sys; from hub_scripts.cli import main; code = main(['rationalize', *sys.argv[1:]])\n"
        "loaded = [n for n in sys.modules if n == 'torch' or n.startswith('transformers.models')]\n"
        "print(code, loaded)"
    )
    with RunningServer() as server:
        command = [sys.executable, "-c", code, str(posts), str(tmp_path / "out.jsonl"), "--model", "m"]
        done = subprocess.run([*command, "--url", server.url], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.endswith("0 []\n"), done


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_posts(tmp_path, print_peak):
    def peak(count: int) -> int:
        posts = write_posts(tmp_path / str(count), count)
        code = (
            "import sys; from hub_scripts.cli import main\n"
            f"assert main(['rationalize', *sys.argv[1:]]) == 0\n{print_peak}"
        )
        command = [sys.executable, "-c", code, str(posts), str(posts.with_name("out.jsonl")), "--model", "m"]
        command += ["--url", server.url, "--kinds", "text", "--concurrency", "32"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
        assert done.returncode == 0, done
        return int(done.stdout.split()[-1])

    with RunningServer() as server:
        assert peak(5000) - peak(500) < 10  # MB


# --- a model in this process


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
