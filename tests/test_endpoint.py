"""Rationales of sample posts by a real language model: in this process, and behind a real server."""

import json
from pathlib import Path

import pytest

from processing.rationales import Answer, GenerationSettings, HTTPWriter, LocalWriter, load_prompt


POSTS = Path(__file__).parents[1] / "examples" / "posts"
SETTINGS = GenerationSettings(max_new_tokens=24)


@pytest.fixture(scope="module")
def questions() -> dict:
    """Both questions about each of eight posts, by (post, kind). The model sees no pictures: it is told of them."""
    posts = [json.loads(line) for line in (POSTS / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    posts = [post for post in posts if post["image"]][:8]
    pictures = [json.loads(line) for line in (POSTS / "pictures.jsonl").read_text(encoding="utf-8").splitlines()]
    captions = {picture["file"]: picture["caption"] for picture in pictures}
    text, image = load_prompt("text_rationale"), load_prompt("image_rationale")
    questions = {(post["id"], "text"): text.request(post["text"]) for post in posts}
    for post in posts:
        questions[post["id"], "image"] = image.request(post["text"], evidence={"caption": captions[post["image"]]})
    assert len(questions) == 16
    return questions


@pytest.mark.slow
def test_the_server_writes_what_the_model_writes_in_this_process(chat_server, language_model, questions):
    writer = HTTPWriter(str(language_model), SETTINGS, base_url=chat_server, concurrency=2)
    written = dict(writer.write(questions.items()))
    assert written.keys() == questions.keys()
    assert all(isinstance(answer, Answer) for answer in written.values()), written
    assert all(0 < answer.completion_tokens <= 24 for answer in written.values())
    assert len({answer.text for answer in written.values()}) >= 12  # each is of its own post

    some = {name: questions[name] for name in list(questions)[4:12]}
    assert len({kind for _, kind in some}) == 2
    in_process = dict(LocalWriter(language_model, SETTINGS, batch_size=4).write(some.items()))
    assert in_process == {name: written[name] for name in some}
