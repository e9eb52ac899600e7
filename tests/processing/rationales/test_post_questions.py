"""Questions made of posts, and posts written with the answers."""

import json

import datasets
import pytest

from processing import PostError, load_posts, save_posts
from processing.rationales import Answer, AnswerStore, Failure, GenerationSettings, ask, load_prompt
from processing.rationales.output import write_posts
from processing.rationales.post_questions import PostQuestions, read_evidence

from .stub_writer import StubWriter, text_of


KINDS = ("text_rationale", "image_rationale")
PROMPTS = {kind: load_prompt(kind) for kind in KINDS}
GOLD = [{"start": 4, "end": 9, "polarity": "GOLDEN"}]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path, picture):
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "there.png")
    return tmp_path


@pytest.fixture
def posts(folder):
    return write(
        folder / "posts.jsonl",
        {"id": "seen", "text": "the pizza was great", "image": "there.png", "aspects": GOLD, "likes": 3},
        {"id": "words", "words": ["the", "pizza", "again"], "image": "there.png"},
        {"id": "gone", "text": "the picture is lost", "image": "gone.png"},
        {"id": "bare", "text": "no picture at all"},
        {"id": "done", "text": "both are there", "text_rationale": "A text.", "image_rationale": "A picture."},
        {"text": "", "image": "there.png", "text_rationale": "", "image_rationale": None},
    )


def asked(questions):
    """By post and kind, the question's problem, `"picture"` or `"text"`."""
    found = []
    for chunk in questions.chunks.values():
        for row, _, of_post in questions.of_chunk(chunk):
            for kind, question in of_post.items():
                pictured = any(p["type"] == "image" for m in question.request.messages for p in m["content"])
                found.append((row.get("id"), kind[0], question.problem or ("picture" if pictured else "text")))
    return found


def test_a_question_for_each_rationale_that_a_post_lacks(posts):
    questions = PostQuestions(posts, PROMPTS, StubWriter())
    assert asked(questions) == [
        ("seen", "t", "text"),
        ("seen", "i", "picture"),
        ("words", "t", "text"),
        ("words", "i", "picture"),
        ("gone", "t", "text"),
        ("gone", "i", "the picture is not there"),
        ("bare", "t", "text"),
        ("bare", "i", "the post has no picture"),
        (None, "t", "text"),
        (None, "i", "picture"),
    ]
    assert (questions.posts, questions.total) == (6, 10)
    again, first = ([question.key for question in questions] for _ in range(2))
    assert again == first and len(set(first)) == 10
    assert PostQuestions(posts, PROMPTS, StubWriter(), overwrite=True).total == 12
    assert PostQuestions(posts, {KINDS[0]: PROMPTS[KINDS[0]]}, StubWriter()).total == 5


def test_a_picture_in_parquet_is_shown(folder):
    rows = write(folder / "test.jsonl", {"text": "great", "image": "there.png"}, {"id": "bare", "text": "none"})
    save_posts(load_posts(rows), folder / "saved" / "test.parquet")
    questions = PostQuestions(folder / "saved", PROMPTS, StubWriter())
    assert asked(questions) == [
        ("test-1", "t", "text"),
        ("test-1", "i", "picture"),
        ("bare", "t", "text"),
        ("bare", "i", "the post has no picture"),
    ]
    assert [question.key for question in questions] == [
        question.key for question in PostQuestions(rows, PROMPTS, StubWriter())
    ]
    with AnswerStore(folder / "answers.sqlite") as store:
        write_posts(questions, store, folder / "out")
    assert [row["image"] for row in read(folder / "out" / "test.jsonl")] == ["there.png", None]
    assert load_posts(folder / "out", "test", folder / "images")["id"] == ["test-1", "bare"]


def test_a_published_form_is_written_as_json_lines(folder):
    lines = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String\n1\t2\tthere.png\t$T$ was great\tthe pizza\n"
    (folder / "dev.tsv").write_text(lines)
    questions = PostQuestions(folder, PROMPTS, StubWriter())
    assert asked(questions) == [("dev-2", "t", "text"), ("dev-2", "i", "picture")]
    with AnswerStore(folder / "answers.sqlite") as store:
        write_posts(questions, store, folder / "out")
    (written,) = load_posts(folder / "out", "validation", folder / "images", labelled=True)
    (loaded,) = load_posts(folder, "validation")
    assert written.pop("image").tobytes() == loaded.pop("image").tobytes() and written == loaded


def test_evidence_stands_for_a_picture_that_cannot_be_shown(folder, posts):
    rows = [
        {"id": "seen", "caption": "a pizza"},
        {"id": "gone", "objects": ["dog", "ball"]},
        {"id": "bare", "similar_posts": ["a post alike"]},
        {"id": "words", "caption": " "},
    ]
    evidence = read_evidence(write(folder / "evidence.jsonl", *rows), list(PROMPTS.values()))
    images = {KINDS[1]: PROMPTS[KINDS[1]]}
    assert asked(PostQuestions(posts, images, StubWriter(), evidence=evidence)) == [
        ("seen", "i", "picture"),
        ("words", "i", "picture"),
        ("gone", "i", "text"),
        ("bare", "i", "the post has no picture"),
        (None, "i", "picture"),
    ]
    blind = "stub sees no pictures, and no evidence tells of this one"
    questions = PostQuestions(posts, images, StubWriter(sees_pictures=False), evidence=evidence)
    assert [problem for _, _, problem in asked(questions)] == ["text", blind, "text", "the post has no picture", blind]
    first = next(iter(questions))
    assert '"a pizza"' in text_of(first.request) and "the pizza was great" in text_of(first.request)


def test_gold_reaches_no_question_and_no_key(folder, posts):
    with_gold = list(PostQuestions(posts, PROMPTS, StubWriter()))
    assert "GOLDEN" not in json.dumps([question.request.messages for question in with_gold])
    rows = read(posts)
    rows[0].pop("aspects")
    without = list(PostQuestions(write(folder / "other.jsonl", *rows), PROMPTS, StubWriter()))
    assert [question.key for question in with_gold] == [question.key for question in without]


def test_a_picture_that_came_or_changed_is_a_new_question(folder, posts, picture):
    def key(number):
        return [q.key for q in PostQuestions(posts, PROMPTS, StubWriter())][number]

    seen, gone = key(1), key(5)
    picture.save(folder / "images" / "gone.png")
    assert key(5) != gone and key(1) == seen
    picture.resize((30, 30)).save(folder / "images" / "there.png")
    assert key(1) != seen


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "id: an object"),
        ({"caption": "a"}, "id: an object"),
        ({"id": "a", "captoin": "b"}, "captoin: no prompt has this slot; known are caption, objects, similar_posts"),
        ({"id": "a", "aspects": ["b"]}, "aspects: no prompt has this slot"),
        ({"id": "a", "caption": 3}, "caption: a string, a list of strings or null"),
        ({"id": "a", "caption": ["a", 3]}, "caption: a string, a list"),
        ({"id": "first"}, "id: 'first' has come before"),
    ],
)
def test_bad_evidence(tmp_path, row, message):
    path = write(tmp_path / "evidence.jsonl", {"id": "first", "caption": "a"}, row)
    with pytest.raises(PostError, match=f"^{path}:2: {message}"):
        read_evidence(path, list(PROMPTS.values()))


def test_bad_input_is_told_before_anything_is_asked(folder, posts):
    with pytest.raises(PostError, match="no post has an `id` of the evidence, such as 'nobody'"):
        PostQuestions(posts, PROMPTS, StubWriter(), evidence={"nobody": {"caption": "a"}})
    with pytest.raises(PostError, match="text-rationale@1: has 3 examples; 9 shots are asked for"):
        PostQuestions(posts, PROMPTS, StubWriter(), shots=9)
    with open(posts, "a") as file:
        file.write('{"bad": 1}\n')
    with pytest.raises(PostError, match="posts.jsonl:7: text: "):
        PostQuestions(posts, PROMPTS, StubWriter())
    with pytest.raises(PostError, match="no such file"):
        read_evidence(folder / "none.jsonl", [])


def test_posts_are_written_in_their_order_with_all_that_they_have(folder, posts):
    settings = GenerationSettings(max_new_tokens=77)
    writer = StubWriter(lambda request: Answer(f"A {request.kind}.", "length"), settings=settings)
    questions = PostQuestions(posts, PROMPTS, writer)
    with AnswerStore(folder / "answers.sqlite") as store:
        summary = ask(writer, store, questions)
        written = write_posts(questions, store, folder / "out" / "posts.jsonl")
    assert summary.failures == {"the picture is not there": 1, "the post has no picture": 1}
    assert written == {"text_rationale": 6, "image_rationale": 4}
    before, after = read(posts), read(folder / "out" / "posts.jsonl")
    for old, new in zip(before, after, strict=True):
        assert all(new[name] == old[name] for name in old if name not in KINDS)
    assert [row["text_rationale"] for row in after] == ["A text_rationale."] * 4 + ["A text.", "A text_rationale."]
    assert [row["image_rationale"] is not None for row in after] == [True, True, False, False, True, True]
    provenance = dict(after[0]["rationale_provenance"]["image_rationale"])
    date = provenance.pop("date")
    assert date.startswith("20") and date.endswith("Z")
    assert provenance == {
        "model": "stub",
        "prompt": "image-rationale@1",
        "settings": {"max_new_tokens": 77, "temperature": 0.0, "top_p": 1.0, "seed": None, "max_image_side": 768},
        "finish_reason": "length",
    }
    assert after[4]["rationale_provenance"] == {"text_rationale": None, "image_rationale": None}
    assert after[2]["rationale_provenance"]["image_rationale"] is None
    assert list((folder / "out").iterdir()) == [folder / "out" / "posts.jsonl"]

    # What is written can be gone on from, and keeps where its rationales came from.
    other = StubWriter(lambda request: Answer("other"), model="other")
    again = PostQuestions(folder / "out" / "posts.jsonl", PROMPTS, other, folder / "images")
    assert again.total == 2
    with AnswerStore(folder / "answers.sqlite") as store:
        write_posts(again, store, folder / "again.jsonl")
    assert read(folder / "again.jsonl") == after


def test_overwriting(folder, posts):
    writer = StubWriter(lambda request: Failure("no") if "both" in text_of(request) else Answer("new"))
    text_alone = {KINDS[0]: PROMPTS[KINDS[0]]}
    questions = PostQuestions(posts, text_alone, writer, overwrite=True)
    with AnswerStore(folder / "answers.sqlite") as store:
        ask(writer, store, questions)
        write_posts(questions, store, posts)  # in place
    assert [row["text_rationale"] for row in read(posts)] == ["new"] * 4 + ["A text.", "new"]


def test_a_folder_of_splits_loads_as_posts_and_as_a_data_set(folder, posts):
    data = folder / "data"
    data.mkdir()
    row = {"id": "a", "text": "the pizza", "aspects": [{"start": 4, "end": 9, "polarity": "positive"}]}
    for split, count in (("train", 3), ("test", 2)):
        write(data / f"{split}.jsonl", *[row | {"id": f"{split}-{number}"} for number in range(count)])
    writer = StubWriter()
    evidence = {f"{split}-0": {"caption": "a pizza"} for split in ("train", "test")}
    questions = PostQuestions(data, PROMPTS, writer, evidence=evidence)
    with AnswerStore(folder / "answers.sqlite") as store:
        ask(writer, store, questions)
        assert write_posts(questions, store, folder / "out") == {"text_rationale": 5, "image_rationale": 2}
    loaded = load_posts(folder / "out")
    assert {name: rows["id"] for name, rows in loaded.items()} == {
        "train": ["train-0", "train-1", "train-2"],
        "test": ["test-0", "test-1"],
    }
    assert all(loaded["train"]["text_rationale"])
    assert loaded["train"]["aspects"] == [row["aspects"]] * 3
    as_data_set = datasets.load_dataset(str(folder / "out"), cache_dir=str(folder / "cache"))
    assert as_data_set["train"]["text_rationale"] == loaded["train"]["text_rationale"]
    assert as_data_set["test"][0]["rationale_provenance"]["text_rationale"]["prompt"] == "text-rationale@1"


def test_an_output_that_cannot_be_written(folder, posts):
    writer = StubWriter()
    questions = PostQuestions(posts, PROMPTS, writer)
    (folder / "file").touch()
    with (
        AnswerStore(folder / "answers.sqlite") as store,
        pytest.raises(PostError, match="can't be written .*; what was there is kept"),
    ):
        write_posts(questions, store, folder / "file" / "out.jsonl")
