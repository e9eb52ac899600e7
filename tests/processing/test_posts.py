import json
import logging
import os
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from processing import PostError, load_posts
from processing.posts import FEATURES, check_post, one_post


SAMPLES = Path(__file__).parents[2] / "examples" / "posts"
TEXT = "the pizza in Rotterdam was great"
PIZZA = {"start": 4, "end": 9, "polarity": "positive"}
ROTTERDAM = {"start": 13, "end": 22, "polarity": "neutral"}


def write(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path, picture) -> Path:
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "there.png")
    return tmp_path


# --- good input


def test_a_file_of_all_kinds_of_posts(folder):
    path = write(
        folder / "posts.jsonl",
        {"id": "one", "text": TEXT, "aspects": [ROTTERDAM, PIZZA], "image": "there.png", "image_rationale": "a pizza"},
        {"words": TEXT.split(), "aspects": [{"start": 1, "end": 2}], "text_rationale": "great"},
        {"text": ""},
        {"words": [], "aspects": [], "case": "what else is there is passed over"},
    )
    posts = load_posts(path)
    assert isinstance(posts, Dataset) and posts.features == FEATURES
    assert posts["id"] == ["one", "posts-2", "posts-3", "posts-4"]
    assert posts["text"] == [TEXT, None, "", None] and posts["words"] == [None, TEXT.split(), None, []]
    assert posts["aspects"] == [[PIZZA, ROTTERDAM], [{"start": 1, "end": 2, "polarity": None}], None, []]
    assert posts["image_rationale"] == ["a pizza", None, None, None]
    assert posts["text_rationale"] == [None, "great", None, None]
    assert posts[0]["image"].size == (20, 16) and posts["image"][1:] == [None] * 3


def test_line_ends_byte_order_mark_and_empty_lines(folder):
    path = folder / "posts.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '\r\n\n{"text": "één"}\r\n   \n{"text": "b"}'.encode())
    posts = load_posts(path)
    assert posts["text"] == ["één", "b"] and posts["id"] == ["posts-3", "posts-5"]


def test_a_folder(folder):
    for name, count in (("train", 3), ("test", 1)):
        write(folder / f"{name}.jsonl", *[{"text": "a"}] * count)
    write(folder / "other.jsonl", {"no": "post"})
    posts = load_posts(folder)
    assert isinstance(posts, DatasetDict) and {name: len(rows) for name, rows in posts.items()} == {
        "train": 3,
        "test": 1,
    }
    assert len(load_posts(str(folder), split="train")) == 3
    with pytest.raises(PostError) as error:
        load_posts(folder, split="validation")
    assert str(error.value).startswith(f"{folder}: ") and "validation.jsonl; found train, test" in str(error.value)


def test_one_split_of_a_folder_reads_no_other(folder):
    write(folder / "train.jsonl", {"text": "a"})
    write(folder / "test.jsonl", {"bad": True})
    assert len(load_posts(folder, split="train")) == 1
    with pytest.raises(PostError, match="test.jsonl:1: text: "):
        load_posts(folder)


@pytest.mark.parametrize("name", ["none", "empty"])
def test_nothing_there(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PostError) as error:
        load_posts(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")


def test_other_labels(folder):
    path = write(folder / "posts.jsonl", {"text": TEXT, "aspects": [{**PIZZA, "polarity": "joy"}]})
    assert load_posts(path, labels=["joy", "anger"])[0]["aspects"][0]["polarity"] == "joy"
    with pytest.raises(PostError, match="'joy' is unknown; one of positive, neutral, negative"):
        load_posts(path)


# --- bad input: one error, that begins with file and line and names the field

GOOD = {"text": TEXT, "aspects": [PIZZA]}
LONG = "a" * 100_000


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ({}, "text", "none is here"),
        ({"aspects": [PIZZA]}, "text", "none is here"),
        ({"text": None, "words": None}, "text", "none is here"),
        ({"text": "a", "words": ["a"]}, "text", "not both"),
        ({"text": 3}, "text", "a string is expected"),
        ({"text": ["a"]}, "text", "a string is expected"),
        ({"text": "half \ud800"}, "text", "surrogate"),
        ({"text": LONG}, "text", "100,000 characters; a post has at most 10,000"),
        ({"text": "a " * 50_000, "aspects": [{"start": 0, "end": 1}]}, "text", "100,000 characters"),
        ({"words": [LONG]}, "words", "100,001 characters; a post has at most 10,000"),
        ({"words": "a b"}, "words", "a list of strings is expected"),
        ({"words": ["a", "b c"]}, r"words\[1\]", "'b c' is no word"),
        ({"words": ["a", ""]}, r"words\[1\]", "is no word"),
        ({"words": ["a b " * 2_000]}, r"words\[0\]", "is no word"),
        ({"words": [None]}, r"words\[0\]", "is no word"),
        ({"words": ["half\udfff"]}, r"words\[0\]", "surrogate"),
        ({**GOOD, "id": 3}, "id", "a string or null is expected"),
        ({**GOOD, "id": "\ud800"}, "id", "surrogate"),
        ({**GOOD, "image": ["there.png"]}, "image", "a string or null is expected"),
        ({**GOOD, "image": "\ud800.png"}, "image", "surrogate"),
        ({**GOOD, "image_rationale": 1.5}, "image_rationale", "a string or null is expected"),
        ({**GOOD, "image_rationale": "so \udc00"}, "image_rationale", "surrogate"),
        ({**GOOD, "text_rationale": {}}, "text_rationale", "a string or null is expected"),
        ({**GOOD, "text_rationale": "so \udc00"}, "text_rationale", "surrogate"),
        ({**GOOD, "aspects": PIZZA}, "aspects", "a list is expected"),
        ({**GOOD, "aspects": [[4, 9, "positive"]]}, r"aspects\[0\]", "an object"),
        ({**GOOD, "aspects": [PIZZA, {"end": 22}]}, r"aspects\[1\]\.start", "is missing"),
        ({**GOOD, "aspects": [{"start": 4}]}, r"aspects\[0\]\.end", "is missing"),
        ({**GOOD, "aspects": [{**PIZZA, "start": True}]}, r"aspects\[0\]\.start", "True is no whole number"),
        ({**GOOD, "aspects": [{**PIZZA, "end": False}]}, r"aspects\[0\]\.end", "False is no whole number"),
        ({**GOOD, "aspects": [{**PIZZA, "start": "4"}]}, r"aspects\[0\]\.start", "'4' is no whole number"),
        ({**GOOD, "aspects": [{**PIZZA, "end": 9.0}]}, r"aspects\[0\]\.end", "9.0 is no whole number"),
        ({**GOOD, "aspects": [{**PIZZA, "end": None}]}, r"aspects\[0\]\.end", "None is no whole number"),
        ({**GOOD, "aspects": [{**PIZZA, "end": 33}]}, r"aspects\[0\]", "4–33 lies outside the text of 32 characters"),
        ({**GOOD, "aspects": [{**PIZZA, "start": -1}]}, r"aspects\[0\]", "outside"),
        ({**GOOD, "aspects": [{**PIZZA, "start": 9}]}, r"aspects\[0\]", "outside"),
        ({**GOOD, "aspects": [{**PIZZA, "end": 10**30}]}, r"aspects\[0\]", "outside"),
        ({"words": ["a"], "aspects": [{"start": 0, "end": 2}]}, r"aspects\[0\]", "outside the text of 1 words"),
        ({**GOOD, "aspects": [{**PIZZA, "start": 5}]}, r"aspects\[0\]", "'izza' cuts a word"),
        ({**GOOD, "aspects": [{**PIZZA, "end": 10}]}, r"aspects\[0\]", "'pizza ' cuts a word or holds white space"),
        ({"text": "a " * 5_000, "aspects": [{"start": 0, "end": 9_998}]}, r"aspects\[0\]", "cuts a word"),
        ({**GOOD, "aspects": [PIZZA, PIZZA]}, "aspects", "4–9 and 4–9 overlap"),
        ({**GOOD, "aspects": [ROTTERDAM, {**PIZZA, "end": 22}]}, "aspects", "4–22 and 13–22 overlap"),
        ({**GOOD, "aspects": [{**PIZZA, "polarity": "angry"}]}, r"aspects\[0\]\.polarity", "'angry' is unknown"),
        ({**GOOD, "aspects": [{**PIZZA, "polarity": ["positive"]}]}, r"aspects\[0\]\.polarity", "is unknown"),
        ("a", "row", "a JSON object is expected"),
        ([GOOD], "row", "a JSON object is expected"),
        (None, "row", "a JSON object is expected"),
        (3, "row", "a JSON object is expected"),
    ],
)
def test_bad_rows(folder, row, field, problem):
    path = write(folder / "posts.jsonl", GOOD, row, {"bad": "too"})
    with pytest.raises(PostError, match=rf"^{path}:2: {field}: .*{problem}") as error:
        load_posts(path)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    # What is wrong can be shown: no half characters, no text of thousands.
    assert len(message.encode()) < 400


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "no JSON"),
        (b'{"text": "a"} {}', "no JSON"),
        (b"{'text': 'a'}", "no JSON"),
        (b"text", "no JSON"),
        (b"\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"text": "a", "aspects": [{"start": ' + b"1" * 5000 + b', "end": 2}]}', "no JSON"),
        (b'{"text": "caf\xe9"}', "byte 13 is no UTF-8"),
        ('{"text": "a"}'.encode("utf-16"), "byte 0 is no UTF-8"),
    ],
)
def test_bad_lines(folder, line, problem):
    path = folder / "posts.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + line + b"\n")
    with pytest.raises(PostError, match=rf"^{path}:2: .*{problem}"):
        load_posts(path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  \r\n", b"\xef\xbb\xbf"])
def test_empty_files(folder, content):
    path = folder / "posts.jsonl"
    path.write_bytes(content)
    with pytest.raises(PostError, match=rf"^{path}: the file is empty"):
        load_posts(path)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@given(
    row=st.fixed_dictionaries(
        {},
        optional={
            "text": st.one_of(st.just(TEXT), JSON),
            "words": st.one_of(st.just(TEXT.split()), JSON),
            "aspects": st.one_of(
                JSON,
                st.lists(
                    st.fixed_dictionaries({}, optional={"start": JSON, "end": JSON, "polarity": JSON}), max_size=2
                ),
            ),
            "image_rationale": JSON,
            "id": JSON,
        },
    )
)
def test_any_row_is_a_post_or_a_post_error(row):
    try:
        post = check_post(row, "posts.jsonl:7")
    except PostError as error:
        assert str(error).startswith("posts.jsonl:7: ")
    else:
        assert list(post) == list(FEATURES)
        Dataset.from_list([post], features=FEATURES)  # what is accepted can be stored


# --- pictures


def test_missing_pictures_give_one_warning_with_counts(folder, caplog):
    names = ["there.png", "gone.png", None, "", "x" * 300 + ".png", "nul\x00.png"]
    path = write(folder / "posts.jsonl", *[{"text": "a", "image": name} for name in names])
    with caplog.at_level(logging.WARNING, "processing.posts"):
        posts = load_posts(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 4 of 6 pictures are not in {folder / 'images'}; these posts count as without."
    ]
    assert [row["image"] is not None for row in posts] == [True] + [False] * 5
    caplog.clear()
    assert load_posts(write(path, {"text": "a"}))["image"] == [None] and not caplog.records


def test_pictures_from_another_folder(folder, picture):
    other = folder / "elsewhere"
    other.mkdir()
    picture.save(other / "mine.png")
    path = write(folder / "posts.jsonl", {"text": "a", "image": "mine.png"})
    assert load_posts(path, images=other)[0]["image"].size == picture.size
    assert load_posts(path)[0]["image"] is None


@pytest.mark.parametrize("bad", ["truncated.jpg", "empty.png", "text.png", "one.png", "huge.png"])
def test_pictures_that_cannot_be_read(folder, picture, blank_png, caplog, bad):
    images = folder / "images"
    picture.resize((64, 64)).save(images / "truncated.jpg")
    os.truncate(images / "truncated.jpg", 500)
    (images / "empty.png").write_bytes(b"")
    (images / "text.png").write_text("no picture")
    (images / "one.png").write_bytes(blank_png(1, 1))
    (images / "huge.png").write_bytes(blank_png(20_000, 20_000))
    path = write(folder / "posts.jsonl", {"text": "a", "image": "there.png"}, {"text": "b", "image": bad})
    with pytest.raises(PostError, match=rf"^{path}:2: image: picture .*{bad} can't be read: .+") as error:
        load_posts(path)
    assert len(str(error.value).splitlines()) == 1
    with caplog.at_level(logging.WARNING, "processing.posts"):
        posts = load_posts(path, on_bad_image="skip")
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith(f"{path}:2: image: picture ")
    assert posts["text"] == ["a", "b"] and posts[0]["image"] is not None and posts[1]["image"] is None


def test_one_post(folder, picture):
    post = check_post(GOOD, "--text")
    assert one_post(post)[0] == {**post, "id": None}
    shown = one_post(post, str(folder / "images" / "there.png"))[0]
    assert shown["image"].size == picture.size and shown["text"] == TEXT
    with pytest.raises(PostError, match="^--image: picture .*gone.png can't be read"):
        one_post(post, str(folder / "gone.png"))


# --- fingerprints


def test_equal_content_has_an_equal_fingerprint(folder, picture):
    row = {"text": TEXT, "aspects": [PIZZA], "image": "there.png", "image_rationale": "a pizza"}
    path = write(folder / "posts.jsonl", row)
    first = load_posts(path)._fingerprint
    assert load_posts(path)._fingerprint == first
    spaced = json.dumps(dict(reversed(row.items())), indent=None, separators=(" ,", " : "))
    path.write_text(spaced + "\n\n", encoding="utf-8")
    assert load_posts(path)._fingerprint == first

    seen = {first}
    for change in (
        {"text": TEXT + "!"},
        {"aspects": [{**PIZZA, "polarity": "negative"}]},
        {"aspects": []},
        {"aspects": None},
        {"image": None},
        {"image_rationale": "a pie"},
        {"id": "named"},
    ):
        found = load_posts(write(path, {**row, **change}))._fingerprint
        assert found not in seen, change
        seen.add(found)
    write(path, row)
    picture.resize((30, 30)).save(folder / "images" / "there.png")
    assert load_posts(path)._fingerprint not in seen


# --- the sample posts


def test_the_sample_posts_load_without_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        posts = load_posts(SAMPLES)
    assert not caplog.records
    assert list(posts) == ["train", "validation", "test"]
    for name, rows in posts.items():
        lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert rows["text"] == [json.loads(line)["text"] for line in lines]
        pictures = [row for row in rows.select_columns("image") if row["image"] is not None]
        assert len(pictures) == sum(bool(json.loads(line)["image"]) for line in lines)
        assert all(isinstance(row["image"], Image.Image) for row in pictures)
