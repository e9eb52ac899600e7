"""The leak test on posts whose leak is known."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing.rationales.audit.leaks import Posts, agreement, leak_tests


LABELS = ("positive", "neutral", "negative")
TELLING = {"positive": "lovely", "neutral": "today", "negative": "awful"}


def make(count: int, seed: int, in_text=0.4, in_rationale=0.0, write="{label}") -> Posts:
    """Posts whose text and rationale each tell the polarity in a share of cases, the text by a word of its own."""
    chance = random.Random(seed)
    texts, rationales, golds = [], [], []
    for _ in range(count):
        label = chance.choice(LABELS)
        filler = [chance.choice("the a hall plays band night show and of in".split()) for _ in range(16)]
        telling = TELLING[label] if chance.random() < in_text else ""
        told = write.format(label=label, code=f"x{LABELS.index(label)}") if chance.random() < in_rationale else "so"
        texts.append(" ".join([*filler[:8], telling]))
        rationales.append(" ".join([*filler[8:], told, "."]))
        golds.append(frozenset([label]))
    return Posts(texts, rationales, golds)


def test_rationales_that_know_nothing():
    tests = leak_tests({"train": make(300, 0), "test": make(200, 1)})
    assert tests["train"].from_train == {} and set(tests["test"].from_train) == {"text", "rationale", "masked"}
    assert set(tests["train"].ps) == {"more_than_text", "told"} and "only_here" in tests["test"].ps
    for test in tests.values():
        assert min(test.ps.values()) > 0.05
        # The text tells 40 % and 1 in 3 of the others; the rationale 1 in 3.
        assert test.within["text"][0] == pytest.approx(0.6, abs=0.1)
        assert test.within["rationale"][0] == pytest.approx(0.33, abs=0.1)
        assert test.within["rationale"] == test.within["masked"]
        assert all(low < share < high for share, low, high in test.within.values())


def test_rationales_that_tell_labels():
    told = {"in_rationale": 0.9, "write": "it is {label}"}
    tests = leak_tests({"train": make(300, 0, **told), "test": make(200, 1, **told)})
    for test in tests.values():
        accuracy = {name: share for name, (share, _, _) in (test.from_train or test.within).items()}
        assert accuracy["rationale"] > 0.85 > accuracy["text"] > accuracy["masked"]
        assert test.ps["told"] < 1e-6
        assert {label: words[0] for label, words in test.telling_words.items()} == {label: label for label in LABELS}
    assert tests["test"].ps["only_here"] > 0.05


def test_rationales_that_tell_more_in_words_of_their_own():
    tests = leak_tests({"train": make(300, 0, in_rationale=0.9, write="{code}")})
    assert tests["train"].ps["more_than_text"] < 1e-6 < 0.4 < tests["train"].ps["told"]
    assert [tests["train"].telling_words[label][0] for label in LABELS] == ["x0", "x1", "x2"]


def test_a_code_on_one_split_alone():
    splits = {
        "train": make(300, 0),
        "validation": make(200, 2),
        "test": make(200, 1, in_rationale=0.9, write="{code}"),
    }
    tests = leak_tests(splits)
    assert tests["test"].ps["only_here"] < 1e-6 < 0.05 < tests["validation"].ps["only_here"]


def test_what_a_reader_gets_right_is_no_leak():
    splits = {"train": make(300, 0, in_rationale=0.7, write="{label}")}
    assert leak_tests(splits)["train"].ps["told"] < 1e-3
    for reader, suspected in ((0.9, False), (0.6, True)):
        tests = leak_tests(splits, reader)
        assert (tests["train"].ps["told"] < 0.01) == suspected
        assert (agreement(splits, tests, reader).p < 0.01) is True  # each that is named is right
    assert agreement(splits, tests, 0.999).p > 0.5


def test_agreement_by_hand():
    rationales = ["It is positive.", "It is negative, not positive.", "A negative space.", "neutral", "so"]
    golds = [{"positive", "neutral"}, {"negative"}, {"positive"}, {"neutral"}, {"negative"}]
    splits = {"posts": Posts(["a"] * 5, rationales, golds)}
    assert leak_tests(splits) == {}
    told = agreement(splits, {})
    # The second names two polarities. Shares among the golds: positive 2/5, negative 2/5, neutral 2/5.
    assert (told.rationales, told.right, told.by_text) == (3, 2, None)
    assert told.by_chance == pytest.approx(1.2) and told.p == pytest.approx(3 * 0.4**2 * 0.6 + 0.4**3)
    outright = agreement(splits, {}, stated=True)
    assert (outright.rationales, outright.right) == (2, 2) and outright.p == pytest.approx(0.4**2)
    assert agreement({}, {}).rationales == 0


def test_agreement_beside_the_text():
    splits = {
        "train": make(300, 0, in_text=1.0, in_rationale=0.5),
        "test": make(100, 1, in_text=1.0, in_rationale=0.5),
    }
    told = agreement(splits, leak_tests(splits))
    assert told.right == told.rationales == told.by_text and told.p == 1
    splits = {name: make(200, seed, in_text=0.2, in_rationale=0.5) for seed, name in enumerate(("train", "test"))}
    told = agreement(splits, leak_tests(splits))
    assert told.right == told.rationales > 1.5 * told.by_text and told.p < 1e-9


@pytest.mark.parametrize(
    ("golds", "tested"),
    [
        ([{"positive"}] * 40, False),
        ([{"positive"}] * 19 + [{"negative"}] * 10, False),
        ([{"positive"}] * 31 + [{"negative"}] * 9, False),
        ([{"positive"}] * 20 + [{"negative"}] * 10, True),
        ([{"positive", "negative"}] * 60, False),
    ],
)
def test_few_posts_are_not_tested(golds, tested):
    posts = Posts(["a b"] * len(golds), ["c d"] * len(golds), golds)
    assert set(leak_tests({"test": posts})) == ({"test"} if tested else set())


@given(st.lists(st.text(max_size=8), min_size=40, max_size=40))
def test_any_characters(texts):
    golds = [{LABELS[i % 2]} for i in range(40)]
    rationales = ["positive" if i % 3 else texts[i] for i in range(40)]
    test = leak_tests({"posts": Posts(texts, rationales, golds)})["posts"]
    assert test.posts == len(test.predictions) == 40 and np.isfinite(list(test.ps.values())).all()
