"""What is asked again, what ends a question, and what ends a run."""

import time

import pytest

from processing.rationales import Answer, Failure, WriterError, http_writer

from ..fault_server import REFUSAL
from .cases import ask, make, question


def test_an_answer_tells_its_text_its_end_and_its_tokens(server):
    texts = {name: f"{name} <<{kind}>>" for name, kind in [("q-a", "ok"), ("q-b", "cut"), ("q-c", "refusal")]}
    answers = dict(make(server.url).write((name, question(text)) for name, text in texts.items()))
    assert answers == {
        "q-a": Answer("The answer to q-a.", "stop", 11, 7),
        "q-b": Answer("The answer to q-b.", "length", 11, 7),
        "q-c": Answer(REFUSAL, "stop", 11, 7),
    }


def test_no_questions_no_answers_and_no_server_is_asked_for():
    assert list(make("http://127.0.0.1:9/v1").write([])) == []


AGAIN = ["408", "429", "429@0", "500", "502", "503", "504", "529", "reset", "close", "empty", "junk", "list", "error"]


@pytest.mark.parametrize("kind", AGAIN)
def test_what_may_go_better_is_tried_again(server, kind):
    answer, seen = ask(server, f"{kind} {kind} ok")
    assert isinstance(answer, Answer)
    assert (seen["requests"], seen["answers"]) == (3, 1)


def test_a_server_that_hangs_is_asked_again(server):
    begun = time.monotonic()
    answer, seen = ask(server, "hang hang ok", timeout=0.4)
    assert isinstance(answer, Answer)
    assert (seen["requests"], seen["answers"]) == (3, 1)
    assert time.monotonic() - begun > 0.8


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("500", "500: fault 500 (tries: 3)"),
        ("504", "504: fault 504 (tries: 3)"),
        ("hang", "no answer within 0.3 s (tries: 3)"),
        ("reset", "the connection broke: ReadError (tries: 3)"),
        ("close", "the connection broke: Server disconnected without sending a response. (tries: 3)"),
    ],
)
def test_a_question_is_given_up_after_its_retries(server, kind, reason):
    answer, seen = ask(server, kind, retries=2, timeout=0.3 if kind == "hang" else 20)
    assert answer == Failure(reason)
    assert (seen["requests"], seen["answers"]) == (3, 0)


@pytest.mark.parametrize("kind", ["empty", "junk", "list", "error"])
def test_an_answer_that_is_none_is_quoted(server, kind):
    answer, seen = ask(server, kind, retries=1)
    assert seen["requests"] == 2
    assert answer.reason.startswith("the answer is no chat completion") and answer.reason.endswith("(tries: 2)")
    if kind == "junk":
        assert "<html>" in answer.reason


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("400", "400: fault 400"),
        ("413", "413: fault 413"),
        ("422", "422: fault 422"),
        ("blank", "the answer is empty (finish reason stop)"),
        ("huge", "the answer has more than 1,048,576 bytes"),
    ],
)
def test_what_will_not_go_better_is_asked_once(server, kind, reason):
    answer, seen = ask(server, kind)
    assert answer == Failure(reason)
    assert seen["requests"] == 1


@pytest.mark.parametrize("after, least", [("1", 1.0), ("0.7", 0.7), ("date2", 1.0)])  # dates are cut to seconds
@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_honoured(server, status, after, least):
    answer, seen = ask(server, f"{status}@{after} ok", retries=1)
    assert isinstance(answer, Answer)
    first, second = seen["times"]
    assert least <= second - first < least + 1.6


def test_a_server_that_is_over_its_limits_costs_no_tries(server):
    answer, seen = ask(server, " ".join(["429"] * 6 + ["ok"]), retries=0)
    assert isinstance(answer, Answer)
    assert seen["requests"] == 7


def test_a_longer_wait_than_patience_ends_the_run_at_once(server):
    begun = time.monotonic()
    with pytest.raises(WriterError, match=r"the server asks to come back in 7200 s \(429: fault 429 \(tries: 1\)\)"):
        ask(server, "429@7200")
    assert time.monotonic() - begun < 5


def test_one_question_that_is_always_over_the_limits_fails_alone(server):
    questions = [("q-big", question("q-big <<429>>"))] + [(i, question(f"q-other{i}")) for i in range(60)]
    answers = {}
    for name, answer in make(server.url, patience=1, concurrency=2).write(iter(questions)):
        answers[name] = answer
        time.sleep(0.05)
    assert len(answers) == 61
    assert answers["q-big"].reason.startswith("429: fault 429 (")
    assert all(isinstance(answer, Answer) for name, answer in answers.items() if name != "q-big")


def test_waits_double_with_full_jitter(server, monkeypatch):
    drawn = []
    monkeypatch.setattr(http_writer, "BACKOFF", 0.5)
    monkeypatch.setattr(http_writer, "MAX_BACKOFF", 6.0)
    monkeypatch.setattr(http_writer.random, "uniform", lambda low, high: drawn.append((low, high)) or 0.0)
    ask(server, "500", retries=5)
    assert drawn == [(0, 0.5), (0, 1.0), (0, 2.0), (0, 4.0), (0, 6.0), (0, 6.0)]


@pytest.mark.parametrize(
    "kind, mend",
    [
        ("401", "the key is refused; set OPENAI_API_KEY to a valid one (401: fault 401)"),
        ("402", "the account has nothing left; run again when it has (402: fault 402)"),
        ("403", "the key opens no access to 'tiny'; set OPENAI_API_KEY to one that does (403: fault 403)"),
        ("404", "there is no model 'tiny', or no chat server; look at the name and at the base URL (404: fault 404)"),
        ("429:insufficient_quota", "the account has nothing left; run again when it has (429: fault 429)"),
        ("400:API_KEY_INVALID", "the key is refused; set OPENAI_API_KEY to a valid one (400: fault 400)"),
        ("405", "no chat server is at this address; look at the base URL (405: fault 405)"),
        ("307", "no chat server is at this address; look at the base URL (307: fault 307)"),
    ],
)
def test_what_is_wrong_for_all_ends_the_run(server, kind, mend):
    with pytest.raises(WriterError) as error:
        ask(server, kind)
    assert str(error.value) == f"{server.url}/chat/completions: {mend}."


def test_answers_that_came_before_the_end_are_given_out(server):
    questions = [(f"q-before{i}", question(f"q-before{i}")) for i in range(8)] + [("q-x", question("q-x <<401>>"))]
    answers = []
    with pytest.raises(WriterError, match="the key is refused"):
        for name, _ in make(server.url, concurrency=1).write(questions):
            answers.append(name)
    assert answers == [name for name, _ in questions[:8]]


def test_a_post_that_is_moderated_away_does_not_end_the_run(server):
    questions = [(f"q-m{i}", question(f"q-m{i} <<{'403' if i == 3 else 'ok'}>>")) for i in range(6)]
    answers = dict(make(server.url, concurrency=1).write(questions))
    assert [name for name, answer in answers.items() if answer == Failure("403: fault 403")] == ["q-m3"]


def test_a_post_that_is_quoted_in_an_error_is_no_code(server):
    answer, _ = ask(server, "400:quote", 'say "insufficient_quota" and "model_not_found"')
    assert answer.reason.startswith("400: ") and "insufficient_quota" in answer.reason


def test_a_refusal_that_names_the_model_before_any_answer(server):
    with pytest.raises(WriterError, match="there is no model 'tiny', or no chat server"):
        ask(server, "400:quote", "Server is pinned to 'other'; requested 'tiny'.")
    answer, _ = ask(server, "400:quote", "The maximum context length of 'tiny' is 512 tokens.")
    assert isinstance(answer, Failure)


def test_many_failures_one_after_another_end_the_run(server):
    questions = ((f"q-f{i}", question(f"q-f{i} <<400>>")) for i in range(1000))
    failures = []
    with pytest.raises(WriterError, match="50 questions one after another got no answer, .*: 400: fault 400. Mend it"):
        for _, failure in make(server.url).write(questions):
            failures.append(failure)
    assert failures == [Failure("400: fault 400")] * 49
