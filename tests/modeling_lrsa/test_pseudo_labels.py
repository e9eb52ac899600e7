"""Pseudo-labels: what a majority of teachers finds."""

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from modeling_lrsa.predictor import predict_posts
from modeling_lrsa.pseudo_labels import label_posts, majority
from processing.posts import FEATURES


POLARITIES = ("negative", "neutral", "positive")


def aspect(start, end, polarity="neutral", score=0.5):
    return {"start": start, "end": end, "polarity": polarity, "score": score}


@st.composite
def an_answer(draw):
    edges = sorted(draw(st.sets(st.integers(0, 9), max_size=8)))
    pairs = zip(edges[::2], edges[1::2])
    scores = st.floats(0.01, 1)
    return [aspect(start, end, draw(st.sampled_from(POLARITIES)), draw(scores)) for start, end in pairs]


@given(st.lists(an_answer(), min_size=1, max_size=6))
def test_a_majority_has_what_more_than_half_have(answers):
    found = majority(answers)
    spans = [(one["start"], one["end"]) for one in found]
    everywhere = [(one["start"], one["end"]) for answer in answers for one in answer]
    assert spans == sorted(span for span in set(everywhere) if everywhere.count(span) * 2 > len(answers))
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))
    for one in found:
        said = [a for answer in answers for a in answer if (a["start"], a["end"]) == (one["start"], one["end"])]
        weight = {p: sum(a["score"] for a in said if a["polarity"] == p) for p in POLARITIES}
        assert weight[one["polarity"]] == pytest.approx(max(weight.values()))


def test_score_outweighs_number():
    answers = [[aspect(0, 2, "negative", 0.2)], [aspect(0, 2, "negative", 0.3)], [aspect(0, 2, "positive", 0.9)]]
    assert majority(answers) == [{"start": 0, "end": 2, "polarity": "positive"}]


def test_one_answer_is_taken_whole():
    words = aspect(5, 12) | {"word_start": 1, "word_end": 3}
    assert majority([[words]]) == [{"start": 1, "end": 3, "polarity": "neutral"}]
    assert majority([[]]) == []


def test_posts_are_labelled_with_what_teachers_find(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))
    models = {name: tiny.model(num_fusion_layers=1, seed=seed) for name, seed in (("one", 1), ("two", 2))}
    posts = Dataset.from_list(tiny.raw_posts(), features=FEATURES)

    def load(name):
        return models[name], tiny.processor(models[name])

    monkeypatch.setattr("modeling_lrsa.pseudo_labels.load_model", load)
    for teachers in (["one"], ["one", "two"]):
        labelled = label_posts(posts, teachers)
        answers = zip(*(predict_posts(*load(name), posts) for name in teachers))
        wanted = {post: found for post, answer in zip(posts["id"], answers) if (found := majority(answer))}
        assert dict(zip(labelled["id"], labelled["aspects"])) == wanted
        assert labelled.features == posts.features
        if len(teachers) == 1:
            assert wanted, "an untrained model that finds nothing shows nothing"


def test_a_teacher_labels_the_same_posts_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))
    models = [tiny.model(num_fusion_layers=1, seed=seed) for seed in (1, 1, 2)]
    asked = []
    for model in models:
        monkeypatch.setattr(
            model, "generate", lambda *args, to=model.generate, **options: asked.append(1) or to(*args, **options)
        )

    def label(model, rows):
        before = len(asked)
        posts = Dataset.from_list(rows, features=FEATURES)
        monkeypatch.setattr("modeling_lrsa.pseudo_labels.load_model", lambda name: (model, tiny.processor(model)))
        return label_posts(posts, ["it"]).to_list(), len(asked) - before

    rows = tiny.raw_posts()
    first, times = label(models[0], rows)
    assert first and times
    assert label(models[1], rows) == (first, 0), "another model of the same weights"
    assert label(models[2], rows)[1] == times, "other weights"
    models[1].generation_config.length_penalty = 0.5
    assert label(models[1], rows)[1] == times, "another way to generate"
    assert label(models[1], rows[:2])[1], "other posts"
