import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.result_file import DamagedResult, count_right, pack_predictions, read_result, score, unpack_predictions
from processing import PostError


POLARITIES = ("positive", "neutral", "negative")


def aspects_of(cuts, polarities):
    """Spans between every second pair of cuts, which so never overlap."""
    spans = zip(cuts[::2], cuts[1::2])
    return [{"start": a, "end": b, "polarity": p, "score": 0.5} for (a, b), p in zip(spans, polarities)]


POST = st.builds(
    aspects_of,
    st.lists(st.integers(0, 12), unique=True, max_size=8).map(sorted),
    st.lists(st.sampled_from(POLARITIES), min_size=4, max_size=4),
)


@settings(deadline=None)
@given(st.lists(st.tuples(POST, POST), max_size=6))
def test_predictions_survive_packing(pairs):
    """They come back as they were, and the counts a post give the scores."""
    gold, joint = ([list(row) for row in rows] for rows in (zip(*pairs) if pairs else ((), ())))
    packed = pack_predictions([f"post-{index}" for index in range(len(gold))], joint, gold, gold)
    assert unpack_predictions(packed, gold) == (joint, gold)
    scores = score(joint, gold, gold)
    for kind in ("jmasa", "mate"):
        found, right = sum(map(len, joint)) + sum(packed["gold"]), 2 * sum(packed[kind])
        assert scores[f"{kind}_f1"] == pytest.approx(100 * right / found if right else 0.0, abs=1e-4)
    assert [count_right(*pair) for pair in zip(joint, gold)] == list(zip(packed["jmasa"], packed["mate"]))


def test_gold_spans_that_were_cut_off_have_no_polarity():
    gold = [[{"start": 5, "end": 6, "polarity": "neutral"}, {"start": 0, "end": 1, "polarity": "positive"}], []]
    classified = [[{"start": 0, "end": 1, "polarity": "positive", "score": 1.0}], []]
    packed = pack_predictions(["a", "b"], [[], []], classified, gold)
    assert packed["masc"] == [[None, 0], []]
    assert unpack_predictions(packed, gold)[1] == [gold[0][1:], []]


@pytest.mark.parametrize("damage", ["", "null", "{}", '{"version": 1}', '{"version": 1, "suite": "small"'])
def test_damaged_results(tmp_path, damage):
    (tmp_path / "seed1.json").write_text(damage)
    with pytest.raises(DamagedResult):
        read_result(tmp_path / "seed1.json")


def test_result_of_a_newer_version(tmp_path):
    (tmp_path / "seed1.json").write_text('{"version": 99}')
    with pytest.raises(PostError, match="was written by another version of lrsa"):
        read_result(tmp_path / "seed1.json")
