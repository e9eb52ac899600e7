"""Servers that are not there, refuse, vanish and come back."""

import socket
import threading
import time

import pytest

from processing.rationales import Answer, GenerationSettings, HTTPWriter, WriterError

from ..fault_server import RunningServer
from .cases import KEY, NAME, ask, make, question


def test_wrong_key_and_unknown_model():
    with RunningServer("--key", KEY, "--model", "other") as server:
        with pytest.raises(WriterError, match="the key is refused; set OPENAI_API_KEY"):
            ask(server, api_key="sk-wrong-0123456789")
        with pytest.raises(WriterError, match="there is no model 'tiny'.*The model 'tiny' does not exist"):
            ask(server, api_key=KEY)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_no_server():
    begun = time.monotonic()
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(
        WriterError, match=rf"{url}/chat/completions: no server answers there \(no connection: .*start it"
    ):
        list(make(url).write([(0, question("q-0"))]))
    assert time.monotonic() - begun < 8


def test_no_such_host():
    with pytest.raises(WriterError, match="no server answers there"):
        list(make("http://no-such-host.invalid/v1").write([(0, question("q-0"))]))


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "user:hunter22@host/v1",
        "ftp://host/v1",
        "http://",
        "x",
        "http://[",
        "http://h:99999",
        "http://a..b",
    ],
)
def test_an_address_that_is_none(url):
    with pytest.raises(WriterError, match="is no address of a server; one such as http://localhost:8000/v1") as error:
        make(url)
    assert "hunter22" not in str(error.value)


def test_a_base_url_in_place_of_the_model_and_both_ways_at_once():
    with pytest.raises(WriterError, match="give its address as base URL"):
        HTTPWriter("http://localhost:8000/v1", GenerationSettings())
    with pytest.raises(WriterError, match="Give a base URL or a provider, not both"):
        HTTPWriter("tiny", GenerationSettings(), base_url="http://localhost:8000/v1", provider="groq")


@pytest.mark.parametrize("provider", [None, "groq", "no-such"])
def test_a_provider_that_can_not_be_asked(provider):
    with pytest.raises(WriterError, match=f"provider {provider or 'auto'}: "):
        list(HTTPWriter("org/tiny", GenerationSettings(), provider=provider).write([(0, question("q-0"))]))


def test_a_server_that_vanishes_is_waited_for(server):
    first = RunningServer(*NAME, "--delay", 0.05)
    answers = []
    with pytest.raises(WriterError, match=r"no answer for 1 s \(no connection.*run again when the server is back"):
        for name, answer in make(first.url, patience=1).write((f"q-{i}", question(f"q-{i}")) for i in range(1000)):
            answers.append((name, answer))
            if len(answers) == 20:
                first.kill()
    assert len(answers) >= 20 and all(isinstance(answer, Answer) for _, answer in answers)


def test_a_server_that_comes_back_goes_on(server):
    first = RunningServer(*NAME, "--delay", 0.05)
    answers = {}
    for name, answer in make(first.url, retries=1).write((f"q-{i}", question(f"q-{i}")) for i in range(60)):
        answers[name] = answer
        if len(answers) == 20:
            first.kill()
            threading.Timer(1, lambda: started.append(RunningServer("--port", first.port, *NAME))).start()
            started: list = []
    assert len(answers) == 60 and all(isinstance(answer, Answer) for answer in answers.values())
    started[0].kill()


def test_random_faults_and_no_question_is_answered_twice():
    kinds = ["429", "429@1", "500", "503", "hang", "reset", "empty", "junk", "refusal"]
    with RunningServer(*NAME, "--faults", 0.2, "--kinds", *kinds, "--delay", 0.02) as server:
        writer = make(server.url, concurrency=32, timeout=2, retries=9)
        answers = list(writer.write((f"q-{i}", question(f"q-{i}")) for i in range(500)))
        stats = server.stats()
    assert sorted(name for name, _ in answers) == sorted(f"q-{i}" for i in range(500))
    assert all(isinstance(answer, Answer) for _, answer in answers)
    assert {seen["answers"] for seen in stats["questions"].values()} == {1}
    assert stats["requests"] == 500 + sum(count for kind, count in stats["faults"].items() if kind != "refusal")
    assert set(stats["faults"]) == set(kinds)
    assert stats["most_at_once"] <= 32
