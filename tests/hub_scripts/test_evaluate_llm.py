"""`lrsa evaluate --llm` against a server on loopback that knows some answers."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from hub_scripts.cli import main
from hub_scripts.evaluate_llm import answers_of
from processing import load_posts
from processing.rationales import Answer, AnswerStore, Failure, GenerationSettings, Limits, load_prompt, score_answers


ROOT = Path(__file__).parents[2]
POSTS = ROOT / "examples" / "posts"


@pytest.fixture(scope="module")
def posts():
    return load_posts(POSTS, "test", labelled=True)


@pytest.fixture(scope="module")
def gold(posts) -> dict[str, str]:
    """The right answer by text."""
    return {
        text: json.dumps(
            {"aspects": [{"aspect": text[a["start"] : a["end"]], "polarity": a["polarity"]} for a in aspects]}
        )
        for text, aspects in zip(posts["text"], posts["aspects"])
    }


def text_in(prompt: str) -> str:
    """The post that a filled prompt asks about."""
    return json.loads(prompt.rpartition("The post: ")[2])


class KnowingWriter:
    """Answers in this process, with what `answer` makes of a post's text."""

    model, settings = "knowing", GenerationSettings()

    def __init__(self, answer, sees_pictures=True):
        self.answer, self.sees_pictures, self.requests = answer, sees_pictures, []

    def write(self, requests):
        for name, request in requests:
            self.requests.append(request)
            yield name, self.answer(text_in(request.messages[-1]["content"][-1]["text"]))


@pytest.fixture
def store(tmp_path):
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        yield store


def test_a_model_that_knows_scores_all(posts, gold, store):
    writer = KnowingWriter(lambda text: Answer(gold[text]))
    found, summary = answers_of(writer, store, posts, load_prompt("aspects"), shots=2)
    scores = score_answers(posts, found)
    assert scores["jmasa_f1"] == scores["mate_f1"] == scores["masc_accuracy"] == 100
    assert (scores["unanswered"], scores["invalid_answers"], scores["invalid_items"]) == (0, 0, 0)
    assert summary.answered == len(posts) == len(writer.requests)
    again, summary = answers_of(writer, store, posts, load_prompt("aspects"), shots=2)
    assert again == found and summary.stored == len(posts) == len(writer.requests)
    answers_of(writer, store, posts, load_prompt("aspects"), shots=1, limits=Limits(requests=3))
    assert len(writer.requests) == len(posts) + 3, "another number of shots is another question"


def test_requests_hold_pictures_and_evidence_but_no_labels(posts, gold, store):
    writer = KnowingWriter(lambda text: Answer('{"aspects": []}'))
    prompt = load_prompt("aspects")
    answers_of(writer, store, posts, prompt)
    parts = [part for request in writer.requests for part in request.messages[-1]["content"]]
    pictures = [part for part in parts if part["type"] == "image"]
    assert {Path(part["image"]).parent for part in pictures} == {POSTS / "images"}
    assert len(pictures) == sum(image is not None for image in posts["image"]) > 0
    blind = KnowingWriter(lambda text: Answer('{"aspects": []}'), sees_pictures=False)
    blind.model = "blind"
    evidence = {posts["id"][0]: {"caption": "a board of departures"}}
    answers_of(blind, store, posts, prompt, 0, evidence)
    assert blind.requests == [
        prompt.request(text, None, evidence.get(name)) for name, text in zip(posts["id"], posts["text"])
    ]


def test_failures_count_as_posts_without_aspects(posts, gold, store):
    texts = posts["text"]
    answers = {
        texts[0]: Failure("too long"),
        texts[1]: Answer("Sorry, no."),
        texts[2]: Answer(gold[texts[2]][:-3], "length"),
    }
    writer = KnowingWriter(lambda text: answers.get(text) or Answer(gold[text]))
    found, summary = answers_of(writer, store, posts, load_prompt("aspects"))
    scores = score_answers(posts, found)
    counts = [len(aspects) for aspects in posts["aspects"]]
    assert (scores["unanswered"], scores["invalid_answers"]) == (1, 2) and summary.failures == {"too long": 1}
    assert scores["mate_precision"] == 100
    assert scores["mate_recall"] == pytest.approx(100 * sum(counts[3:]) / sum(counts))


# --- the command


@pytest.fixture(scope="module")
def server(gold):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            content = body["messages"][-1]["content"]
            text = text_in(content if isinstance(content, str) else content[-1]["text"])
            answer = "I can't." if text.startswith("Wedding") else gold[text]
            choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
            reply = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
                                "choices": [choice], "usage": usage}).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/v1", asked
        running.shutdown()


def test_the_command_asks_a_server_and_writes_scores(server, posts, tmp_path):
    url, asked = server
    output = tmp_path / "scores.json"
    command = ["evaluate", "--llm", url, "--model", "some-model", str(POSTS), "--shots", "1", "--output", str(output)]
    code = f"import sys\nfrom hub_scripts.cli import main\ncode = main({command!r})\n"
    code += "print(sorted({'torch', 'modeling_lrsa'} & set(sys.modules)), code)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr
    scores = json.loads(output.read_text())
    assert (scores["model"], scores["prompt"], scores["shots"]) == ("some-model", "aspects@1", 1)
    assert (scores["posts"], scores["unanswered"], scores["invalid_answers"]) == (len(posts), 0, 1)
    assert scores["jmasa_precision"] == 100 > scores["jmasa_recall"] > 95
    assert list(scores["aspects"]) == posts["id"]
    spans = [[a["start"], a["end"], a["polarity"]] for a in posts["aspects"][1]]
    assert scores["aspects"][posts["id"][1]] == spans
    assert f"{scores['jmasa_f1']:9.2f}" in done.stdout and "Invalid: 1 answers." in done.stdout
    assert len(asked) == len(posts)
    schema = asked[0]["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["required"] == ["aspects"]
    assert main(command) == 0
    assert len(asked) == len(posts), "nothing is asked twice"
    assert main([*command, "--prompt", str(ROOT / "processing/rationales/prompts/aspects.yaml")]) == 0
    assert len(asked) == len(posts)


def test_two_posts_of_one_id_have_no_place_in_the_output(tmp_path, capsys):
    post = json.dumps({"id": "a", "text": "Marta", "aspects": []}) + "\n"
    (tmp_path / "posts.jsonl").write_text(2 * post)
    command = ["evaluate", "--llm", "http://h/v1", "--model", "m", str(tmp_path / "posts.jsonl")]
    assert main([*command, "--output", str(tmp_path / "out.json")]) == 2
    assert "two posts have the id 'a'" in capsys.readouterr().err


def test_a_stopped_run_scores_nothing(server, tmp_path, capsys):
    url, asked = server
    before = len(asked)
    command = ["evaluate", "--llm", url, "--model", "m", str(POSTS), "--store", str(tmp_path / "s.sqlite")]
    assert main([*command, "--max-requests", "5"]) == 1
    assert len(asked) == before + 5
    told = capsys.readouterr().out
    assert "Nothing is scored before every post was asked" in told and "JMASA" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--llm", "http://127.0.0.1:9/v1"], "--model names the model of a URL"),
        (["--llm", "some/model", "--model", "m"], "--model names the model of a URL"),
        (["--llm", "http://127.0.0.1:9/v1", "--model", "m", "--provider", "auto"], "or a model and its --provider"),
        (["--llm", "some/model", "--text-only"], "--text-only is for servers"),
        (["--llm", "http://h/v1", "--model", "m", "--shots", "9"], "aspects@1: has 5 examples; 9 shots are"),
        (["--llm", "http://h/v1", "--model", "m", "--prompt", "none.yaml"], "none.yaml: no prompt file"),
        (["--llm", "http://h/v1", "--model", "m", "--prompt", "text_rationale"], "kind: is text_rationale"),
        (["--llm", "http://h/v1", "--model", "m", "--split", "dev"], "there is no dev.jsonl"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["evaluate", *arguments, str(POSTS)])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
