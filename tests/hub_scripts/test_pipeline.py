"""`pipeline("mabsa")` on a model that `lrsa train` made."""

import base64

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import pipeline

import modeling_lrsa  # noqa: F401  registers the task
from processing import MABSAPipeline, load_posts


POSTS = [
    {"text": "Great gig at Riverbend Hall", "text_rationale": "It is about Riverbend Hall"},
    {"text": "Love Marta , hate Northline Rail"},
    {"words": ["Never", "again", "Northline", "Rail"], "text_rationale": "It is about Northline Rail"},
    {"text": ""},
]


@pytest.fixture(scope="module")
def pipe(run_folder):
    return pipeline("mabsa", model=str(run_folder / "model"), device="cpu")


class Near(float):
    """A score that equals those that differ by what another batch does to it."""

    def __eq__(self, other):
        return abs(self - other) < 1e-5


def rounded(results):
    return [[{**aspect, "score": Near(aspect["score"])} for aspect in aspects] for aspects in results]


def test_batches_lists_and_generators_agree(pipe):
    one_by_one = [pipe(post) for post in POSTS]
    assert one_by_one[3] == []
    assert rounded(pipe(POSTS)) == rounded(one_by_one)
    assert rounded(pipe(POSTS, batch_size=3)) == rounded(one_by_one)
    assert rounded(pipe(post for post in POSTS)) == rounded(one_by_one)
    assert pipe("Love Marta , hate Northline Rail") == one_by_one[1]


def test_tuples_data_sets_and_nothing(pipe, posts_folder):
    posts = load_posts(posts_folder, "test")
    wanted = rounded([pipe(post) for post in posts])
    for many in (posts, posts.to_iterable_dataset(), iter(posts), torch.utils.data.Subset(posts, range(len(posts)))):
        assert rounded(pipe(many)) == wanted
        if many is posts:
            assert rounded(pipe(many, batch_size=3)) == wanted
    assert isinstance(pipe(tuple(posts)), list) and rounded(pipe(tuple(posts))) == wanted
    assert pipe([]) == [] and list(pipe(post for post in [])) == [] and list(pipe(Dataset.from_list([]))) == []


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_stream_is_read_as_its_answers_are(pipe, batch_size):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield {"text": " ".join(["hate"] * len(read))}

    answers = iter(pipe(endless(), batch_size=batch_size))
    for number in range(1, 7):
        for aspect in next(answers):
            assert aspect["end"] <= len("hate " * number) - 1
        assert len(read) <= number + 2 * batch_size


def test_a_picture_in_every_form(picture_model, tmp_path):
    pipe = pipeline("mabsa", model=str(picture_model), device="cpu")
    path = tmp_path / "a.png"
    picture = Image.linear_gradient("L")
    picture.save(path)
    text = base64.b64encode(path.read_bytes()).decode()
    post = {"text": "awful phones at riverbend"}
    forms = [picture, str(path), path, path.read_bytes(), text, f"data:image/png;base64,{text}"]
    found = pipe([post | {"image": image} for image in forms], batch_size=4)
    assert found[0] and rounded(found) == rounded([found[0]] * len(forms)) and found[0] != pipe(post)
    for image in forms:
        if image not in (str(path), path):
            assert rounded([pipe(post | {"image": image}, trust_images=False)]) == rounded(found[:1])
    for image in (str(path), path, f"file://{path}", "https://127.0.0.1/a.png"):
        with pytest.raises(ValueError, match="^picture: "):
            pipe(post | {"image": image}, trust_images=False)


def test_explanations_come_with_the_predictions(picture_model):
    pipe = pipeline("mabsa", model=str(picture_model), device="cpu")
    posts = [{"text": "awful phones at riverbend", "text_rationale": "so great !"}, "i love the hall"]
    posts.append(posts[0] | {"image": Image.linear_gradient("L")})
    plain = rounded(pipe(posts))
    for batch_size in (1, 3):
        explained = pipe(posts, explain=True, batch_size=batch_size)
        given = [[aspect.pop("explanation") for aspect in aspects] for aspects in explained]
        assert rounded(explained) == plain and all(given)
        assert {word["word"] for word in given[0][0]["text_rationale"]} == {"so", "great", "!"}
        assert {explanation["text_rationale"] for explanation in given[1]} == {None}
        assert [explanation["patches"] is None for explanation in (given[0][0], given[1][0], given[2][0])] == [1, 1, 0]


def test_masc_gives_the_spans_asked_for(pipe):
    post = POSTS[1] | {"aspects": [{"start": 5, "end": 10}, {"start": 18, "end": 32}]}
    found = pipe(post, task="masc")
    assert [(aspect["start"], aspect["end"]) for aspect in found] == [(5, 10), (18, 32)]
    assert {aspect["polarity"] for aspect in found} <= {"positive", "neutral", "negative"}


def test_threshold_and_task(pipe):
    post = POSTS[1] | {"aspects": [{"start": 5, "end": 10}]}
    (sure,) = pipe(post, task="masc")
    assert pipe(post, task="masc", threshold=sure["score"] + 0.01) == []
    assert all("polarity" not in aspect for aspect in pipe(post, task="mate", num_beams=2))


def test_a_post_without_text_is_refused(pipe):
    for post in ({"image": "x.jpg"}, 7, None):
        with pytest.raises(ValueError, match="needs `text`"):
            pipe(post)


@pytest.mark.parametrize(
    ("task", "trust"), [("mabsa", None), ("mabsa", False), ("mabsa", True), (None, None), (None, True)]
)
def test_where_the_task_is_registered_no_code_of_the_folder_is_used(pipe, run_folder, task, trust):
    made = pipeline(task, model=str(run_folder / "model"), device="cpu", trust_remote_code=trust)
    assert type(made) is type(pipe) is MABSAPipeline
    assert made(POSTS[1]) == pipe(POSTS[1])


def test_saved_and_loaded_again(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert pipeline(model=str(tmp_path), device="cpu")(POSTS) == pipe(POSTS)
