"""Asking what is missing: limits, interrupts, other runs, memory."""

import os
import signal
import threading
import time

import pytest

from processing import PostError
from processing.rationales import (
    Answer,
    AnswerStore,
    Failure,
    GenerationSettings,
    Limits,
    Question,
    Request,
    Source,
    WriterError,
    answer_key,
    ask,
)

from .stub_writer import StubWriter, text_of


SETTINGS = GenerationSettings()


def request(text, kind="text_rationale", image=None, schema=None) -> Request:
    parts = [{"type": "image", "image": image}] if image is not None else []
    return Request(kind, [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}], schema)


def question(text, prompt="text@1", problem=None) -> Question:
    asked = request(text)
    return Question(answer_key(asked, "stub", prompt, SETTINGS), asked, prompt, problem)


def questions(count, **arguments) -> list[Question]:
    return [question(f"post {number}", **arguments) for number in range(count)]


@pytest.fixture
def store(tmp_path):
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        yield store


# --- keys


def test_all_that_an_answer_depends_on_is_in_its_key(tmp_path):
    one, same, other = (tmp_path / name for name in ("one.jpg", "same.png", "other.jpg"))
    one.write_bytes(b"1"), same.write_bytes(b"1"), other.write_bytes(b"2")
    asked = request("a", image=str(one))
    key = answer_key(asked, "m", "p@1", SETTINGS)
    assert key == answer_key(request("a", image=str(same)), "m", "p@1", SETTINGS)
    assert key == answer_key(request("a", image=b"1"), "m", "p@1", SETTINGS)
    keys = {
        key,
        answer_key(request("b", image=str(one)), "m", "p@1", SETTINGS),
        answer_key(request("a", image=str(other)), "m", "p@1", SETTINGS),
        answer_key(request("a", image=str(tmp_path / "gone.jpg")), "m", "p@1", SETTINGS),
        answer_key(request("a", image="https://example.org/one.jpg"), "m", "p@1", SETTINGS),
        answer_key(request("a"), "m", "p@1", SETTINGS),
        answer_key(request("a", "image_rationale", str(one)), "m", "p@1", SETTINGS),
        answer_key(request("a", image=str(one), schema={}), "m", "p@1", SETTINGS),
        answer_key(asked, "n", "p@1", SETTINGS),
        answer_key(asked, "m", "p@2", SETTINGS),
        answer_key(asked, "m", "p@1", GenerationSettings(temperature=0.5)),
        answer_key(asked, "m", "p@1", GenerationSettings(max_image_side=512)),
    }
    assert len(keys) == 12 and all(len(key) == 64 for key in keys)


# --- what is asked


def test_each_question_once(store):
    writer = StubWriter()
    summary = ask(writer, store, questions(10))
    assert (summary.asked, summary.answered, summary.stored) == (10, 10, 0)
    assert (summary.prompt_tokens, summary.completion_tokens) == (100, 50)
    assert summary.stopped is None and summary.seconds > 0 and writer.closed
    summary = ask(writer, store, questions(12))
    assert (summary.asked, summary.answered, summary.stored) == (2, 2, 10)
    assert set(writer.asked.values()) == {1}
    assert store.get(question("post 3").key)[0].text == "About: post 3"


def test_one_question_for_posts_that_are_the_same(store):
    writer = StubWriter()
    summary = ask(writer, store, [question("twin")] * 10)
    assert (summary.asked, summary.answered, summary.stored) == (1, 1, 1) and writer.asked["twin"] == 1


def test_another_prompt_asks_anew_and_keeps_the_old(store):
    ask(StubWriter(), store, questions(3))
    summary = ask(StubWriter(lambda request: Answer("new")), store, questions(3, prompt="text@2"))
    assert summary.answered == 3
    assert store.get(question("post 0").key)[0].text == "About: post 0"
    answer, source = store.get(question("post 0", prompt="text@2").key)
    assert answer.text == "new" and source.prompt == "text@2"


def test_failures_are_kept_and_asked_again_on_request(store):
    def answer(request):
        return Failure("503") if text_of(request) in ("post 1", "post 2") else Answer("fine")

    summary = ask(StubWriter(answer), store, questions(4))
    assert summary.answered == 2 and summary.failures == {"503": 2}
    summary = ask(StubWriter(), store, questions(4))
    assert (summary.asked, summary.stored, summary.former_failures) == (0, 2, {"503": 2})
    summary = ask(StubWriter(answer), store, questions(4), retry_failed=True)
    assert (summary.asked, summary.failures) == (2, {"503": 2})
    summary = ask(StubWriter(), store, questions(4), retry_failed=True)
    assert (summary.asked, summary.answered, summary.stored) == (2, 2, 2)


def test_what_cannot_be_asked_is_a_failure(store):
    writer = StubWriter()
    summary = ask(writer, store, [question("a"), question("b", problem="its picture is not there")])
    assert summary.answered == 1 and summary.failures == {"its picture is not there": 1}
    assert store.failure(question("b").key) == "its picture is not there" and not writer.asked["b"]


def test_posts_that_share_a_question_fail_together(store):
    """They fail in this run, not in an earlier one."""
    posts = [question(text, problem="it has no picture") for text in ("a", "b", "a")]
    summary = ask(StubWriter(), store, posts)
    assert (summary.failures, summary.former_failures) == ({"it has no picture": 3}, {})
    posts = [question(text) for text in ("c", "d", "c")]
    summary = ask(StubWriter(lambda request: Failure("503")), store, posts)
    assert (summary.failures, summary.former_failures) == ({"503": 3}, {})
    summary = ask(StubWriter(), store, posts)
    assert (summary.failures, summary.former_failures) == ({}, {"503": 3})


def test_many_reasons_are_counted_together(store):
    summary = ask(StubWriter(lambda request: Failure(f"cannot: {text_of(request)}")), store, questions(300))
    assert len(summary.failures) == 101 and summary.failures["other reasons"] == 200


@pytest.mark.parametrize("at_once", [1, 7])
def test_the_limit_of_requests(store, at_once):
    summary = ask(StubWriter(at_once=at_once), store, questions(20), Limits(requests=12))
    assert summary.asked == summary.answered == 12 and summary.stopped == "the limit of 12 requests is reached"
    summary = ask(StubWriter(at_once=at_once), store, questions(20), Limits(requests=8))
    assert summary.asked == 8 and summary.stored == 12 and summary.stopped is None


@pytest.mark.parametrize("at_once", [1, 7])
def test_the_limit_of_tokens(store, at_once):
    summary = ask(StubWriter(at_once=at_once), store, questions(100), Limits(tokens=300))
    assert 20 <= summary.answered < 20 + at_once and summary.stopped == "the limit of 300 tokens is reached"


def test_tokens_that_nobody_counts_are_estimated(store):
    summary = ask(StubWriter(lambda request: Answer("x" * 40)), store, questions(1))
    assert (summary.prompt_tokens, summary.completion_tokens) == (2, 10)  # "post 0" is a token and a half


def test_no_request_is_asked_at_a_limit_of_none(store):
    writer = StubWriter()
    assert ask(writer, store, questions(3), Limits(requests=0)).asked == 0 and not writer.asked


def test_a_writer_that_cannot_go_on_ends_the_run_and_loses_nothing(store):
    def answer(request):
        if text_of(request) == "post 5":
            raise WriterError("the key is wrong")
        return Answer("fine")

    with pytest.raises(WriterError, match="the key is wrong"):
        ask(StubWriter(answer, at_once=1), store, questions(10))
    assert [store.state(q.key) for q in questions(10)] == ["answered"] * 5 + ["free"] * 5


def test_a_store_that_fails_ends_the_run(store):
    writer = StubWriter(at_once=1)
    stream = iter(questions(10))

    def fails_later():
        yield from (next(stream) for _ in range(4))
        store._connection.execute("PRAGMA query_only = on")
        yield from stream

    with pytest.raises(PostError, match="can't be written to"):
        ask(writer, store, fails_later())
    store._connection.execute("PRAGMA query_only = off")
    assert [store.state(q.key) for q in questions(5)] == ["answered"] * 4 + ["free"] and writer.closed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_run(store, number):
    def answer(request):
        if text_of(request) == "post 5":
            os.kill(os.getpid(), number)
            time.sleep(5)
        return Answer("fine")

    handler = signal.getsignal(number)
    writer = StubWriter(answer, at_once=1)
    summary = ask(writer, store, questions(10))
    assert (
        summary.interrupted and summary.stopped == "it was interrupted" and (summary.asked, summary.answered) == (6, 5)
    )
    assert writer.closed and signal.getsignal(number) is handler
    assert [store.state(q.key) for q in questions(10)] == ["answered"] * 5 + ["free"] * 5


# --- two runs


def test_what_another_run_asks_is_left_to_it(store, tmp_path):
    """The other run answers one of its two questions and gives up the other, which this run then asks."""
    source = Source("text_rationale", "stub", "text@1", SETTINGS)
    asked = questions(6)
    with AnswerStore(store.path) as other:
        assert other.claim(asked[0].key) == other.claim(asked[1].key) == "free"

        def go_on():
            time.sleep(0.3)
            other.add_answer(asked[0].key, Answer("by the other"), source)
            time.sleep(0.3)
            other.release()

        thread = threading.Thread(target=go_on)
        thread.start()
        writer = StubWriter()
        summary = ask(writer, store, asked)
        thread.join()
    assert (summary.asked, summary.answered, summary.stored) == (5, 5, 1)
    assert writer.asked["post 0"] == 0 and writer.asked["post 1"] == 1
    assert store.get(asked[0].key)[0].text == "by the other"


def test_two_runs_at_a_time(tmp_path):
    summaries, writers = [], [StubWriter(slow), StubWriter(slow)]

    def run(writer):
        with AnswerStore(tmp_path / "answers.sqlite") as store:
            summaries.append(ask(writer, store, questions(200)))

    threads = [threading.Thread(target=run, args=[writer]) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [summary.answered + summary.stored for summary in summaries] == [200, 200]
    assert sum(summary.answered for summary in summaries) == 200
    assert all(count == 1 for count in (writers[0].asked + writers[1].asked).values())


def slow(request):
    time.sleep(0.002)
    return Answer("fine")


# --- many


def test_questions_are_fetched_as_they_are_asked_and_forgotten(store):
    """No more than the writer works on at once is held."""
    alive = set()

    def stream():
        for number in range(2000):
            fresh = question(f"post {number}")
            alive.add(number)
            yield fresh

    def answer(request):
        number = int(text_of(request).removeprefix("post "))
        assert max(alive) - number < 8
        return Answer("fine")

    assert ask(StubWriter(answer, at_once=8), store, stream()).answered == 2000


def test_the_bar_shows_what_is_left_to_ask(store, capsys):
    ask(StubWriter(), store, questions(3))
    ask(StubWriter(), store, questions(10), progress=True, total=10)
    bar = capsys.readouterr().err
    assert "7/7" in bar and "105 tokens, 0 failed" in bar
    ask(StubWriter(), store, questions(12))
    assert not capsys.readouterr().err
