"""`pipeline("mabsa")` on a model that `lrsa train` made."""

import pytest
from transformers import pipeline

import modeling_lrsa  # noqa: F401  registers the task
from processing import MABSAPipeline


POSTS = [
    {"text": "Great gig at Riverbend Hall", "text_rationale": "It is about Riverbend Hall"},
    {"text": "Love Marta , hate Northline Rail"},
    {"words": ["Never", "again", "Northline", "Rail"], "text_rationale": "It is about Northline Rail"},
    {"text": ""},
]


@pytest.fixture(scope="module")
def pipe(run_folder):
    return pipeline("mabsa", model=str(run_folder / "model"), device="cpu")


def rounded(results):
    return [[{**aspect, "score": round(aspect["score"], 4)} for aspect in aspects] for aspects in results]


def test_batches_lists_and_generators_agree(pipe):
    one_by_one = [pipe(post) for post in POSTS]
    assert one_by_one[3] == []
    assert rounded(pipe(POSTS)) == rounded(one_by_one)
    assert rounded(pipe(POSTS, batch_size=3)) == rounded(one_by_one)
    assert rounded(pipe(post for post in POSTS)) == rounded(one_by_one)
    assert pipe("Love Marta , hate Northline Rail") == one_by_one[1]


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
    with pytest.raises(ValueError, match="needs `text`"):
        pipe({"image": "x.jpg"})


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
