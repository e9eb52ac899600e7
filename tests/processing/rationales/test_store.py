"""The store of answers: killed, shared, damaged, full."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processing import PostError
from processing.rationales import Answer, AnswerStore, Failure, GenerationSettings, Source, store


SETTINGS = GenerationSettings(max_new_tokens=64, seed=3)
SOURCE = Source("text_rationale", "a model", "text@1", SETTINGS)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "answers.sqlite"


def start(code: str, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


HEAD = """
import sys, time
from processing.rationales import Answer, AnswerStore, Failure, GenerationSettings, Source
source = Source("text_rationale", "a model", "text@1", GenerationSettings())
"""


# --- what is kept


def test_an_answer_and_where_it_came_from(path):
    before = store.now()
    with AnswerStore(path) as answers:
        assert answers.get("k") is None and answers.claim("k") == "free"
        answers.add_answer("k", Answer("Great pizza.", "length", 12, 64), SOURCE)
    with AnswerStore(path) as answers:
        answer, source = answers.get("k")
        assert answers.state("k") == answers.claim("k") == "answered"
    assert answer == Answer("Great pizza.", "length", 12, 64)
    assert before <= source.date <= store.now()
    assert source == Source("text_rationale", "a model", "text@1", SETTINGS, source.date)


def test_the_first_answer_stays(path):
    with AnswerStore(path) as answers:
        answers.add_answer("k", Answer("first"), SOURCE)
        answers.add_answer("k", Answer("second"), SOURCE)
        assert answers.get("k")[0] == Answer("first")


def test_a_failure_is_asked_again_on_request_and_goes_with_an_answer(path):
    with AnswerStore(path) as answers:
        assert answers.claim("k") == "free"
        answers.add_failure("k", Failure("503, three times"), SOURCE)
        assert answers.failure("k") == "503, three times" and answers.claim("k") == "failed"
        retry_before = store.now()
        assert answers.claim("k", retry_before) == "free"
        answers.add_failure("k", Failure("503 again"), SOURCE)
        assert answers.claim("k", retry_before) == "failed"  # of this run
        assert answers.failure("k") == "503 again"
        answers.add_answer("k", Answer("at last"), SOURCE)
        assert answers.failure("k") is None and answers.state("k") == "answered"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=40))
def test_any_text_is_kept(tmp_path, text):
    whole = text.encode("utf-8", "replace").decode()  # halves of surrogate pairs become question marks
    with AnswerStore(tmp_path / "answers.sqlite") as answers:
        key = repr(text).encode("unicode_escape").decode()
        answers.add_failure(key, Failure(text), SOURCE)
        assert answers.failure(key) == whole
        answers.add_answer(key, Answer(text), SOURCE)
        assert answers.get(key)[0].text == whole


# --- several runs


def test_a_claim_lasts_until_it_is_released_or_its_run_closes(path):
    with AnswerStore(path) as one, AnswerStore(path) as other:
        assert one.claim("a") == one.claim("b") == "free"
        assert one.claim("a") == other.claim("a") == other.state("b") == "claimed"
        one.release()
        assert other.claim("a") == "free" and one.claim("a") == "claimed"
    with AnswerStore(path) as third:
        assert third.claim("a") == third.claim("b") == "free"


def test_the_claim_of_a_killed_run_is_void(path):
    child = start("s = AnswerStore(sys.argv[1]); s.claim('k'); print('claimed', flush=True); time.sleep(60)", path)
    assert child.stdout.readline() == "claimed\n"
    with AnswerStore(path) as answers:
        assert answers.claim("k") == "claimed"
        child.kill()
        deadline = time.monotonic() + 10
        while answers.state("k") != "free" and time.monotonic() < deadline:  # a zombie, since nobody waits for it
            time.sleep(0.01)
        assert answers.claim("k") == "free"
    child.communicate()


@pytest.mark.parametrize("closed", [True, False])
def test_the_claim_of_a_store_that_could_not_give_it_up_is_void(path, closed):
    """A full disk keeps claims in the file, though the process goes on, as notebooks do."""
    full = AnswerStore(path)
    full.claim("k")
    full._connection.execute("PRAGMA query_only = on")
    if closed:
        with pytest.raises(PostError):
            full.close()
    else:
        del full
    with AnswerStore(path) as answers:
        assert answers.claim("k") == "free"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("host = 'elsewhere'", "claimed"),
        ("host = 'elsewhere', seen = '2020-01-01T00:00:00.000000Z'", "free"),
        ("seen = '2020-01-01T00:00:00.000000Z'", "claimed"),
        ("started = started - 100", "free"),  # the number was given to another process
        ("pid = 2147483646", "free"),
    ],
)
def test_which_runs_are_alive(path, change, state):
    with AnswerStore(path) as one, AnswerStore(path) as other:
        one.claim("k")
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE runs SET {change} WHERE id = (SELECT run FROM claims)")
        connection.close()
        assert other.claim("k") == state


def test_many_processes_open_one_new_file_and_share_its_keys(path):
    code = """
with AnswerStore(sys.argv[1]) as answers:
    for number in range(300):
        if answers.claim(str(number)) == "free":
            print(number)
            answers.add_answer(str(number), Answer("x"), source)
"""
    children = [start(code, path) for _ in range(4)]
    asked = []
    for child in children:
        out, error = child.communicate(timeout=120)
        assert child.returncode == 0, error
        asked += out.split()
    assert sorted(map(int, asked)) == list(range(300))


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5])
def test_a_killed_run_loses_nothing_that_it_said_was_kept(path, seconds):
    code = """
answers = AnswerStore(sys.argv[1])
for number in range(10**6):
    answers.claim(str(number))
    answers.add_answer(str(number), Answer("x" * 2000), source)
    print(number, flush=True)
"""
    child = start(code, path)
    assert child.stdout.readline() == "0\n"
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    last = int(child.communicate()[0].split()[-1])
    with AnswerStore(path) as answers:
        assert all(answers.get(str(number)) for number in range(last + 1))
        assert answers.claim(str(last + 2)) == "free"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    connection.close()


# --- bad files


def other_database(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name)")
    connection.close()


def newer(path):
    AnswerStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def damaged(path):
    with AnswerStore(path) as answers:
        for number in range(500):
            answers.add_answer(str(number), Answer("x" * 500), SOURCE)
    content = bytearray(path.read_bytes())
    content[20_000:60_000] = os.urandom(40_000)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.write_text("no database " * 100), "is no store of answers; give another file by --store"),
        (lambda path: path.mkdir(), "can't be opened; choose another place"),
        (other_database, "is a database of another program; give another file by --store"),
        (newer, "was written by a newer lrsa .tables 99, known are 1.; update lrsa"),
        (damaged, "is damaged"),
    ],
)
def test_files_that_are_no_store(path, make, problem):
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(PostError, match=f"^{path}: {problem}") as error:
        AnswerStore(path)
    assert len(str(error.value).splitlines()) == 1
    assert before is None or path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path):
    path.touch()
    with AnswerStore(path) as answers:
        assert answers.claim("k") == "free"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PostError, match="can't be made .*; choose another place"):
        AnswerStore(tmp_path / "file" / "answers.sqlite")


def test_a_locked_store(path, monkeypatch):
    AnswerStore(path).close()
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(PostError, match="has been locked by another program"):
        AnswerStore(path)
    connection.execute("ROLLBACK")
    connection.close()
    AnswerStore(path).close()


def test_a_store_that_cannot_be_written_to(path, tmp_path):
    with AnswerStore(path) as answers:
        answers.add_answer("k", Answer("kept"), SOURCE)
        answers._connection.execute("PRAGMA query_only = on")  # root may write to any file
        with pytest.raises(PostError, match="can't be written to; make the file and its folder writable"):
            answers.claim("other")
        answers._connection.execute("PRAGMA query_only = off")
        assert answers.get("k")[0].text == "kept"


def test_a_full_disk(path):
    """A limit on the size of files stands for the disk."""
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from processing import PostError
number = 0
try:
    with AnswerStore(sys.argv[1]) as answers:
        while True:
            answers.add_answer(str(number), Answer("x" * 5000), source)
            number += 1
except PostError as error:
    print(number, error)
"""
    out, error = start(code, path).communicate(timeout=60)
    assert not error
    number, message = out.split(maxsplit=1)
    assert int(number) > 10 and message.startswith(f"{path}: the disk is full")
    with AnswerStore(path) as answers:
        assert all(answers.get(str(index)) for index in range(int(number)))
        answers.add_answer("more", Answer("there is room again"), SOURCE)


def test_what_the_file_holds_can_be_read_by_any_program(path):
    with AnswerStore(path) as answers:
        answers.add_answer("k", Answer("Great pizza.", "stop", 12, 6), SOURCE)
    connection = sqlite3.connect(path)
    row = connection.execute("SELECT kind, model, prompt, settings, text FROM answers").fetchone()
    connection.close()
    assert row[:3] == ("text_rationale", "a model", "text@1") and row[4] == "Great pizza."
    assert json.loads(row[3])["max_new_tokens"] == 64
