"""Kinds of errors, slices and changes, on posts whose errors are known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.errors import (
    changes_table,
    count_changes,
    count_errors,
    count_row,
    has_humour,
    kinds_of,
    kinds_table,
    posts_table,
    read_errors,
    slices_of,
    write_errors,
)
from benchmarks.rows import Row, read_rows
from benchmarks.suite import read_suite
from processing import PostError


def aspect(start, end, polarity="positive", score=0.55):
    return {"start": start, "end": end, "polarity": polarity, "score": score}


GOLD = [aspect(0, 1), aspect(2, 4, "negative"), aspect(6, 7, "neutral")]
WORDS = "Oslo is Blue Kettle # of Bergen lol".split()
POSTS = [("t-1", WORDS, GOLD), ("t-2", "Riverbend Hall", [aspect(0, 14)])]


def run(*posts):
    """A result in which these aspects were found."""
    labels = ["positive", "neutral", "negative"]
    packed = [[[a["start"], a["end"], labels.index(a["polarity"]), a["score"]] for a in post] for post in posts]
    masc = [[0] * len(gold) for *_, gold in POSTS]
    return {"predictions": {"test": {"labels": labels, "aspects": packed, "masc": masc}}}


RIGHT = run(GOLD, [aspect(0, 14, score=1.0)])
WRONG = run([aspect(0, 1, "neutral", 0.95), aspect(3, 4), aspect(4, 5)], [])


def row(*runs):
    return Row("tiny", "vlp", "off", dict(enumerate(runs, 1)))


def test_each_kind_of_error():
    found = [aspect(0, 1), aspect(2, 4), aspect(5, 7, "neutral"), aspect(4, 5)]
    kinds = [kind for kind, _ in kinds_of(found, [*GOLD, aspect(7, 8)])]
    assert kinds == ["right", "polarity", "boundary", "spurious", "missed"]
    assert [kind for kind, _ in kinds_of([], GOLD)] == ["missed"] * 3
    assert list(kinds_of([], [])) == []


def test_slices_are_those_of_words_and_of_characters_alike():
    assert slices_of(WORDS, GOLD[1]) == ["2 words", "negative", "in a post with laughter or #irony"]
    assert slices_of("# Oslo Fjord Line rain", aspect(2, 17)) == [
        "3 words or more",
        "positive",
        "in a hashtag or behind #",
    ]
    assert slices_of(["w"] * 20, aspect(0, 1)) == ["1 word", "positive", "in a post of 20 words or more"]


@pytest.mark.parametrize(
    ("text", "humour"),
    [("this is not it", False), ("great #not", True), ("great # not", True), ("hahaha ok", True), ("yes 😂😂", True),
     ("notable lolly", False)],
)  # fmt: skip
def test_humour(text, humour):
    assert has_humour(text.split()) is humour


def test_counts_of_a_row_add_up_over_seeds():
    counts = count_row(row(RIGHT, WRONG), POSTS)
    assert counts["seeds"] == [1, 2]
    assert counts["kinds"] == {"right": 4, "polarity": 1, "boundary": 1, "spurious": 1, "missed": 2}
    assert counts["confusion"]["positive"] == {"-": 1, "neutral": 1, "positive": 2}
    assert counts["confusion"]["negative"] == {"-": 1, "negative": 1}
    # A slice counts what is found by what was found there, and gold by what is there.
    slices = {name: np.sum(counts["slices"][name], axis=0).tolist() for name in ("1 word", "2 words")}
    assert slices == {"1 word": [2, 5, 4], "2 words": [2, 2, 4]}
    assert [len(seeds) for seeds in counts["slices"].values()] == [2] * len(counts["slices"])
    assert counts["slices"]["2 words"][0][0] == 2, "the first seed has all right"
    assert counts["bins"][5] == [5, 2.75, 3]
    assert counts["bins"][9] == [2, 1.95, 1]  # 0.95 and 1.0
    assert sum(number for number, *_ in counts["bins"]) == 7


def test_changes_are_of_gold_aspects_and_of_posts_with_every_seed():
    first, second = row(RIGHT, RIGHT), row(WRONG, run(GOLD, []))
    changes = count_changes(first, second, POSTS)
    assert changes["gained"]["all"] == 5 and changes["lost"] == {}
    assert changes["gained"]["negative"] == 1 and changes["gained"]["2 words"] == 3
    assert changes["posts"] == {"better": ["t-2"], "worse": []}
    assert count_changes(second, first, POSTS)["posts"] == {"better": [], "worse": ["t-2"]}
    assert count_changes(row(RIGHT), row(RIGHT, RIGHT), POSTS)["seeds"] == [1]


def test_errors_of_a_suite_are_written_and_read(finished, data_root, tmp_path):
    path, results = finished
    suite = read_suite(path)
    errors = count_errors(suite, read_rows(suite, results), data_root)
    assert list(errors["rows"]) == ["tiny-vlp-off", "tiny-vlp-lrsa"] and list(errors["changes"]) == ["tiny-vlp"]
    for name, counts in errors["rows"].items():
        result = json.loads((results / "small" / name / "seed1.json").read_text())
        packed = result["predictions"]["test"]
        kinds = counts["kinds"]
        assert kinds["right"] == sum(packed["jmasa"]) and kinds["right"] + kinds["polarity"] == sum(packed["mate"])
        found = sum(kinds.values()) - kinds["missed"]
        assert found == sum(len(post) for post in packed["aspects"])
    assert count_errors(replace(suite, compare=[]), read_rows(suite, results), data_root)["changes"] == {}
    write_errors(tmp_path, suite, errors)
    assert read_errors(tmp_path, suite) == errors
    (tmp_path / "small" / "errors.json").write_text("{")
    with pytest.raises(PostError, match="run `lrsa benchmark .*--errors`"):
        read_errors(tmp_path, suite)


def test_tables_are_figures_a_seed():
    errors = {
        "rows": {"tiny-vlp-off": count_row(row(RIGHT, WRONG), POSTS)},
        "changes": {"tiny-vlp": count_changes(row(RIGHT, RIGHT), row(WRONG, run(GOLD, [])), POSTS)},
    }
    assert kinds_table(errors)[1] == [["tiny", "vlp", "off", "2", "2.0", "0.5", "0.5", "0.5", "1.0"]]
    columns, lines = changes_table(errors)
    assert columns == ["gold aspects", "tiny, vlp"] and ["negative", "+0.5 −0.0 = +0.5"] in lines
    assert posts_table(errors)[1] == [["tiny", "vlp", "better", "1", "2"], ["tiny", "vlp", "worse", "0", ""]]
