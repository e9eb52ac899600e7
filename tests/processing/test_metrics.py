import json
from pathlib import Path

import evaluate
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_lrsa.configuration_lrsa import LRSAConfig
from modeling_lrsa.grammar_lrsa import is_valid
from processing import IndexFormat, compute_mabsa_metrics


ROOT = Path(__file__).parents[2]
CASES = ROOT.parent / "shared" / "fixtures" / "metrics" / "cases.json"
LABELS = ("positive", "neutral", "negative")


def spans(*triples) -> list[dict]:
    return [{"start": start, "end": end, "polarity": polarity} for start, end, polarity in triples]


# --- against the counts of the reference implementations

WORD_IDS = [-1, *range(38), -1]  # one sub-token a word


def posts_of(sequences: list[list[int]], prefix: int = 0) -> list[list[dict]]:
    """Decodes sequences with the prefix 0 2 2."""
    index_format = IndexFormat(num_special_targets=3)
    assert index_format.pointer_offset == 6
    return [spans(*(t[:3] for t in index_format.decode(targets, WORD_IDS))) for targets in sequences]


def of_the_grammar(sequences: list[list[int]]) -> bool:
    config = LRSAConfig(num_special_targets=3)
    return all(is_valid(torch.tensor([row[3:]]), torch.tensor([WORD_IDS]), config).item() for row in sequences)


def percent(tp: int, fp: int, fn: int) -> dict[str, float]:
    precision, recall = 100 * tp / (tp + fp or 1), 100 * tp / (tp + fn or 1)
    f1 = 100 * 2 * tp / (2 * tp + fp + fn or 1)
    return {"precision": precision, "recall": recall, "f1": f1}


def test_counts_of_the_reference_implementation():
    if not CASES.is_file():
        pytest.skip(f"{CASES} is not here: the counts of the reference implementations are no part of the repository")
    seen = set()
    for case in json.loads(CASES.read_text())["aesc"]:
        if not (of_the_grammar(case["pred"]) and of_the_grammar(case["labels"])):
            continue
        seen.add(case["name"])
        gold = posts_of(case["labels"])
        assert [len(row) for row in gold] == [len(row) for row in case["target_spans"]]
        found = compute_mabsa_metrics(posts_of(case["pred"]), gold)
        counts, reference = case["counts_tp_fp_fn"], case["result"]
        for name, theirs in (("jmasa", "aesc"), ("mate", "ae")):
            wanted = percent(*counts[theirs])
            assert {key: found[f"{name}_{key}"] for key in wanted} == pytest.approx(wanted), case["name"]
            for key, their_key in (("precision", "pre"), ("recall", "rec"), ("f1", "f")):
                assert round(found[f"{name}_{key}"], 2) == reference[f"{theirs}_{their_key}"]
        assert round(found["masc_accuracy"], 2) == reference["sc_acc"]
    assert seen == {
        "exact",
        "wrong_sentiment",
        "wrong_span",
        "immediate_eos",
        "immediate_eos_double",
        "empty_target",
        "order_irrelevant",
    }


# --- by hand


def test_hand_computed_scores():
    gold = [
        spans((0, 1, "positive"), (2, 4, "negative")),
        spans((1, 2, "positive"), (5, 6, "neutral")),
        spans((0, 3, "negative"), (7, 8, "positive")),
        [],
    ]
    found = [
        spans((0, 1, "positive"), (2, 4, "positive")),
        spans((1, 2, "positive"), (5, 7, "neutral")),
        spans((0, 3, "negative"), (7, 8, "negative"), (9, 10, "neutral")),
        spans((0, 1, "neutral")),
    ]
    # 8 found, 6 given, 5 spans in both, 3 of them with the right polarity.
    # positive: 3 given, 3 said, 2 right. negative: 2 given, 2 said, 1 right.
    f1_positive, f1_negative = 2 / 3, 1 / 2
    assert compute_mabsa_metrics(found, gold) == pytest.approx(
        {
            "jmasa_precision": 100 * 3 / 8,
            "jmasa_recall": 100 * 3 / 6,
            "jmasa_f1": 100 * 2 * 3 / 14,
            "mate_precision": 100 * 5 / 8,
            "mate_recall": 100 * 5 / 6,
            "mate_f1": 100 * 2 * 5 / 14,
            "masc_accuracy": 100 * 3 / 5,
            "masc_macro_f1": 100 * (f1_positive + f1_negative) / 2,
            "masc_weighted_f1": 100 * (3 * f1_positive + 2 * f1_negative) / 5,
            "masc_matched": 100 * 5 / 6,
        }
    )


def test_words_are_compared_where_they_are_given():
    gold = [[{"start": 1, "end": 2, "word_start": 1, "word_end": 2, "polarity": "positive"}]]
    found = [[{"start": 40, "end": 45, "word_start": 1, "word_end": 2, "polarity": "positive", "score": 0.5}]]
    assert compute_mabsa_metrics(found, gold)["jmasa_f1"] == 100
    found[0][0]["word_end"] = 3
    assert compute_mabsa_metrics(found, gold)["mate_f1"] == 0


def test_nothing_found_and_nothing_given():
    nothing = dict.fromkeys(compute_mabsa_metrics([], []), 0.0)
    gold = [spans((0, 1, "neutral"))]
    for found, given_ in (([], []), ([[]], gold), (gold, [[]]), ([[]], [[]])):
        assert compute_mabsa_metrics(found, given_) == nothing
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        compute_mabsa_metrics([[]], [[], []])


def test_mate_predictions_have_no_polarity():
    found = compute_mabsa_metrics([[{"start": 0, "end": 1}]], [spans((0, 1, "neutral"))])
    assert (found["mate_f1"], found["jmasa_f1"], found["masc_accuracy"]) == (100, 0, 0)


# --- bounds

POST = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 2), st.sampled_from(LABELS)), max_size=4, unique_by=lambda t: t[:2]
).map(lambda triples: spans(*((start, start + length, polarity) for start, length, polarity in triples)))
PAIRS = st.lists(st.tuples(POST, POST), max_size=5)


def plain_f1(pairs: list[tuple[str, str]], label: str) -> float:
    right = sum(gold == found == label for found, gold in pairs)
    return 2 * right / (sum((gold == label) + (found == label) for found, gold in pairs) or 1)


@given(pairs=PAIRS)
def test_scores_are_percents_and_plain_arithmetic(pairs):
    found, gold = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scores = compute_mabsa_metrics(found, gold)
    assert all(0 <= score <= 100 + 1e-9 for score in scores.values())
    assert scores["jmasa_f1"] <= scores["mate_f1"] + 1e-9

    matched = [
        (a["polarity"], b["polarity"])
        for row, given_ in pairs
        for a in row
        for b in given_
        if (a["start"], a["end"]) == (b["start"], b["end"])
    ]
    right = sum(a == b for a, b in matched)
    said, wanted = sum(map(len, found)), sum(map(len, gold))
    assert scores["jmasa_f1"] == pytest.approx(100 * 2 * right / (said + wanted or 1))
    assert scores["mate_f1"] == pytest.approx(100 * 2 * len(matched) / (said + wanted or 1))
    assert scores["masc_matched"] == pytest.approx(100 * len(matched) / (wanted or 1))
    assert scores["masc_accuracy"] == pytest.approx(100 * right / (len(matched) or 1))
    given_labels = [b for _, b in matched]
    each = {label: plain_f1(matched, label) for label in set(given_labels)}
    assert scores["masc_macro_f1"] == pytest.approx(100 * sum(each.values()) / (len(each) or 1))
    weighted = sum(each[label] for label in given_labels) / (len(given_labels) or 1)
    assert scores["masc_weighted_f1"] == pytest.approx(100 * weighted)
    # The order of posts and of aspects does not matter, and turning it round swaps precision and recall.
    assert compute_mabsa_metrics([r[::-1] for r in found[::-1]], gold[::-1]) == pytest.approx(scores)
    swapped = compute_mabsa_metrics(gold, found)
    assert swapped["mate_precision"] == scores["mate_recall"] and swapped["jmasa_f1"] == scores["jmasa_f1"]


@given(gold=st.lists(POST, min_size=1, max_size=5).filter(any))
def test_a_perfect_prediction_scores_a_hundred(gold):
    assert set(compute_mabsa_metrics(gold, gold).values()) == {100.0}


# --- evaluate


@pytest.mark.parametrize("name", ["jmasa", "mate", "masc"])
def test_the_evaluate_modules(name, tmp_path):
    metric = evaluate.load(str(ROOT / "processing" / "mabsa_metric"), name, cache_dir=str(tmp_path))
    gold = [spans((0, 1, "positive"), (2, 4, "negative")), spans((1, 2, "neutral")), []]
    found = [spans((0, 1, "positive"), (2, 4, "neutral")), spans((1, 3, "neutral")), spans((0, 1, "neutral"))]
    wanted = {key: value for key, value in compute_mabsa_metrics(found, gold).items() if key.startswith(name)}
    assert len(wanted) in (3, 4)
    assert metric.compute(predictions=found, references=gold) == pytest.approx(wanted)
    for one, other in zip(found, gold):
        metric.add(prediction=one, reference=other)
    assert metric.compute() == pytest.approx(wanted)


def test_the_evaluate_modules_take_what_the_processor_gives(processor, tmp_path):
    metric = evaluate.load(str(ROOT / "processing" / "mabsa_metric"), "jmasa", cache_dir=str(tmp_path))
    offset = processor.pointer_offset
    for text, reference in (("a b c", spans((2, 5, "positive"))), (["a", "b", "c"], spans((1, 3, "positive")))):
        batch = processor(text=[text], return_tensors="pt")
        found = processor.post_process_mabsa(torch.tensor([[0, offset + 2, offset + 3, 2, 1]]), batch)
        metric.add(prediction=found[0], reference=reference)
        assert metric.compute()["jmasa_f1"] == 100
        reference = [reference]
        assert metric.compute(predictions=found, references=reference)["jmasa_f1"] == 100


def test_an_unknown_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match='The configurations are "jmasa", "mate" and "masc"'):
        evaluate.load(str(ROOT / "processing" / "mabsa_metric"), "other", cache_dir=str(tmp_path))
