"""`lrsa rationalize` killed, interrupted, shared by two runs, without room, and without its server."""

import os
import random
import re
import signal
import time

import pytest

from .cases import (
    RunningServer,
    answered_twice,
    check_store,
    check_whole,
    finish,
    rationalize,
    read,
    wait_for,
    write_posts,
)


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
