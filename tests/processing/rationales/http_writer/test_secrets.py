"""Keys reach the server that they are for, and nothing else."""

import base64
import json
import logging
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing.rationales import GenerationSettings, HTTPWriter, WriterError, http_writer

from ..fault_server import RunningServer
from .cases import KEY, NAME, make, question


def test_keys_reach_the_server_and_nothing_else(caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    password, in_query, token = "pass-0123456789", "query-0123456789", "hf_" + "t0ken" * 6
    monkeypatch.setenv("HF_TOKEN", token)
    with RunningServer(*NAME, "--key", KEY, "--record") as server:
        address = f"http://me:{password}@127.0.0.1:{server.port}/v1?key={in_query}"
        told = []
        for url, options in [
            (address, {}),
            (address, {"api_key": KEY}),
            (server.url, {}),
            (server.url, {"api_key": KEY}),
        ]:
            writer = make(url, **options)
            told += [repr(writer), str(writer), writer.model]
            try:
                told += [repr(answer) for _, answer in writer.write([(0, question("q-secret <<400>>"))])]
            except WriterError as error:
                told += [str(error), repr(error), *traceback.format_exception(error)]
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        list(make(server.url).write([(0, question("q-environment"))]))
        requests = server.requests()
    basic = f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"
    bearer = f"Bearer {KEY}"
    assert [request["headers"].get("authorization") for request in requests] == [basic, bearer, None, bearer, bearer]
    path = f"/v1/chat/completions?key={in_query}"
    assert [request["path"] for request in requests] == [path] * 2 + ["/v1/chat/completions"] * 3
    told = "\n".join([*told, caplog.text])
    assert "Incorrect API key provided: " in told and "400: fault 400" in told and "HTTP Request: POST" in told
    for secret in (password, in_query, token, KEY, basic.split()[1]):
        assert secret not in told


@pytest.mark.parametrize(
    "url", ["https://router.huggingface.co/v1", "https://a.us-east-1.aws.endpoints.huggingface.cloud"]
)
def test_hugging_faces_token_is_for_hugging_face(monkeypatch, url):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert make(url)._client["headers"] == {"authorization": "Bearer hf_0123456789"}
    for other in ("https://evilhuggingface.co/v1", "https://huggingface.co.evil.org/v1", "http://localhost:8000/v1"):
        assert make(other)._client["headers"] == {"authorization": f"Bearer {KEY}"}
    assert HTTPWriter("org/tiny", GenerationSettings(), provider="groq")._client["api_key"] == "hf_0123456789"
    assert HTTPWriter("tiny", GenerationSettings(), provider="openai")._client["api_key"] == KEY


def test_a_key_that_no_header_takes():
    with pytest.raises(WriterError, match="holds characters that no key has") as error:
        make("http://localhost:8000/v1", api_key="sk-test\nx-injected: 1")
    assert "injected" not in str(error.value)
    assert make("http://localhost:8000/v1", api_key=f" {KEY}\n")._client["headers"]["authorization"] == f"Bearer {KEY}"


words = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=8, max_size=30)


@given(key=words, before=st.text(max_size=400), after=st.text(max_size=400))
def test_no_message_holds_a_key(key, before, after):
    told = make("http://localhost:8000/v1", api_key=key)._clean(f"{before}{key}{after}")
    assert key not in told
    assert len(told) <= 300 and told.isprintable()


@pytest.mark.parametrize(
    "told",
    [
        "GET https://me:secret-1@host/v1?key=secret-2 failed",
        "Incorrect API key provided: sk-secret12345678",
        "token hf_secret12345678 is invalid",
        '{"authorization": "Bearer secret.123456"}',
    ],
)
def test_secrets_of_others_are_hidden_too(told):
    assert "secret" not in make("http://localhost:8000/v1")._clean(told)


@given(st.one_of(st.text(max_size=40), st.from_regex(r"\d{1,400}(\.\d+)?", fullmatch=True)))
def test_any_retry_after_is_a_time(value):
    assert http_writer._retry_after(value) >= 0


@given(
    st.text(max_size=60)
    | st.recursive(
        st.none() | st.text(max_size=5),
        lambda c: st.lists(c) | st.dictionaries(st.sampled_from(["error", "message", "detail"]), c),
    ).map(json.dumps)
)
def test_any_body_has_a_message(body):
    assert isinstance(http_writer._server_message(body), str)
