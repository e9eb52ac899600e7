"""What the sample posts promise: enough of everything, no leaks, pictures of known origin."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from processing import split_words


FOLDER = Path(__file__).parents[1] / "examples" / "posts"
SPLITS = ("train", "validation", "test")
LICENCES = {"CC0-1.0", "Public domain", "Apache-2.0"}


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def posts() -> dict[str, list[dict]]:
    return {split: read(split) for split in SPLITS}


@pytest.fixture(scope="module")
def all_posts(posts) -> list[dict]:
    return [post for rows in posts.values() for post in rows]


@pytest.fixture(scope="module")
def pictures() -> dict[str, dict]:
    rows = read("pictures")
    assert len({row["file"] for row in rows}) == len(rows)
    return {row["file"]: row for row in rows}


def strings(rows: list[dict]) -> set[str]:
    return {post["text"][a["start"] : a["end"]].lower() for post in rows for a in post["aspects"]}


def test_enough_posts(posts, all_posts):
    both = [post for post in all_posts if post["image_rationale"] and post["text_rationale"]]
    assert len(both) >= 240
    assert len(posts["validation"]) >= 40
    assert len({post["id"] for post in all_posts}) == len(all_posts)
    assert len({post["text"] for post in all_posts}) == len(all_posts)


def test_spans_match_word_borders(all_posts):
    for post in all_posts:
        words = split_words(post["text"])
        starts, ends = {start for start, _ in words}, {end for _, end in words}
        position = 0
        for aspect in sorted(post["aspects"], key=lambda aspect: aspect["start"]):
            assert aspect["start"] in starts and aspect["end"] in ends, post["id"]
            assert position <= aspect["start"] < aspect["end"], post["id"]
            position = aspect["end"]


def test_aspects_and_polarities(posts, all_posts):
    assert {len(post["aspects"]) for post in all_posts} == {1, 2, 3}
    counts = Counter(aspect["polarity"] for post in all_posts for aspect in post["aspects"])
    assert set(counts) == {"positive", "neutral", "negative"}
    assert min(counts.values()) >= 0.2 * counts.total(), counts


@pytest.mark.parametrize("split", ["validation", "test"])
def test_no_aspect_of_a_split_occurs_in_training(posts, split):
    """Neither as an aspect, nor elsewhere in a text."""
    seen = "\n".join(post["text"].lower() for post in posts["train"])
    for aspect in strings(posts[split]):
        assert not re.search(rf"\b{re.escape(aspect)}\b", seen), aspect
    assert not strings(posts[split]) & strings(posts["train"])


def test_no_rationale_says_the_polarity(all_posts):
    telling = re.compile("positive|negative|neutral", re.IGNORECASE)
    for post in all_posts:
        for kind in ("image_rationale", "text_rationale"):
            assert not telling.search(post[kind] or ""), post["id"]


def test_pictures_have_a_licence_and_a_source(all_posts, pictures):
    used = {post["image"] for post in all_posts if post["image"]}
    assert len(used) >= 24
    assert used <= pictures.keys()
    for name, row in pictures.items():
        assert row["licence"] in LICENCES, name
        assert row["source"].strip(), name
    assert sum(pictures[name]["kind"] == "photo" for name in used) >= 10


def test_pictures_are_there_and_can_be_read(pictures):
    assert {path.name for path in (FOLDER / "images").iterdir()} == pictures.keys()
    for name in pictures:
        with Image.open(FOLDER / "images" / name) as picture:
            picture.load()
            assert min(picture.size) >= 64 and max(picture.size) <= 2000


def test_all_of_it_is_small():
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 3_000_000
