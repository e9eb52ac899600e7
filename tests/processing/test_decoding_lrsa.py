from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from processing import LRSAProcessor, MABSABatch


TEXT = "the pizza in Rotterdam was great"


def softmax(row: list[float], chosen: int) -> float:
    values = np.exp(np.array(row, dtype=np.float64) - max(row))
    return float(values[chosen] / values.sum())


def make_scores(rng, steps: int, rows: int, width: int) -> list[np.ndarray]:
    scores = [rng.normal(size=(rows, width)).astype(np.float32) * 4 for _ in range(steps)]
    for score in scores:
        score[:, 0] = -np.inf  # as the grammar leaves it
    return scores


def test_scores_of_greedy_outputs(processor):
    batch = processor(text=[TEXT, "the coffee"], return_tensors="pt")
    offset, columns = processor.pointer_offset, [post.word_ids.index for post in batch.posts]
    first = [columns[0](1) + offset] * 2 + [2] + [columns[0](3) + offset] * 2 + [4]
    second = [columns[1](0) + offset, columns[1](1) + offset, 3]
    sequences = torch.tensor([[0, *first, 1], [0, *second, 1, 1, 1, 1]])
    width = offset + batch["input_ids"].shape[1]
    scores = make_scores(np.random.default_rng(0), 7, 2, width)
    outputs = SimpleNamespace(sequences=sequences, scores=tuple(map(torch.tensor, scores)))
    found = processor.post_process_mabsa(outputs, batch)

    def wanted(row: int, targets: list[int], begin: int) -> float:
        return float(np.prod([softmax(scores[begin + i][row].tolist(), t) for i, t in enumerate(targets)]))

    assert [aspect["aspect"] for aspect in found[0]] == ["pizza", "Rotterdam"]
    assert [aspect["polarity"] for aspect in found[0]] == ["positive", "negative"]
    assert found[0][0]["score"] == pytest.approx(wanted(0, first[:3], 0), rel=1e-5)
    assert found[0][1]["score"] == pytest.approx(wanted(0, first[3:], 3), rel=1e-5)
    assert [aspect["aspect"] for aspect in found[1]] == ["the coffee"]
    assert found[1][0]["score"] == pytest.approx(wanted(1, second, 0), rel=1e-5)
    # A bare tensor, and an output object without scores, have none.
    for plain in (sequences, SimpleNamespace(sequences=sequences, scores=None)):
        bare = processor.post_process_mabsa(plain, batch)
        assert [[{**a, "score": None} for a in row] for row in found] == bare


def test_scores_of_beam_outputs(tokenizers):
    """Two posts, two beams, two sequences a post, with a prefix of three targets."""
    processor = LRSAProcessor(None, tokenizers["wordpiece"], num_special_targets=3)
    batch = processor(text=[["a", "b"], ["c", "d"]], return_tensors="pt")
    offset = processor.pointer_offset
    rows = [[7, 8, 3, 1], [8, 8, 5, 1], [7, 7, 4, 1], [1, 1, 1, 1]]
    beams = [[0, 1, 0, 1], [1, 1, 0, 0], [2, 3, 3, 2], [3, -1, -1, -1]]
    # One score more than the beams have steps, as when the best sequences are shorter than the longest.
    scores = make_scores(np.random.default_rng(1), 5, 4, offset + 4)
    outputs = SimpleNamespace(
        sequences=torch.tensor([[0, 2, 2, *row] for row in rows]),
        scores=tuple(map(torch.tensor, scores)),
        beam_indices=torch.tensor(beams, dtype=torch.int32),
    )
    found = processor.post_process_mabsa(outputs, batch)
    assert [[aspect["aspect"] for aspect in row] for row in found] == [["a b"], ["b"], ["c"], []]
    assert [row[0]["polarity"] for row in found[:3]] == ["positive", "negative", "neutral"]
    for row, targets, indices in zip(found[:3], rows, beams):
        wanted = np.prod([softmax(scores[i][indices[i]].tolist(), targets[i]) for i in range(3)])
        assert row[0]["score"] == pytest.approx(float(wanted), rel=1e-5)
    assert [(row[0]["word_start"], row[0]["word_end"]) for row in found[:3]] == [(0, 2), (1, 2), (0, 1)]


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(0, 1e4))
def test_scores_are_probabilities(processor, seed, size):
    batch = processor(text=["a b c"], return_tensors="pt")
    rng = np.random.default_rng(seed)
    scores = tuple(torch.tensor(rng.normal(size=(1, 10)) * size) for _ in range(7))
    outputs = SimpleNamespace(sequences=torch.tensor([[0, 6, 7, 2, 8, 8, 4, 1]]), scores=scores)
    found = processor.post_process_mabsa(outputs, batch)[0]
    assert len(found) == 2 and all(0 <= aspect["score"] <= 1 for aspect in found)


def test_certain_steps_score_one(processor):
    batch = processor(text=["a b c"], return_tensors="pt")
    targets = [6, 7, 2, 1]
    scores = tuple(torch.full((1, 10), -torch.inf).index_fill(1, torch.tensor(t), 0.0) for t in targets)
    outputs = SimpleNamespace(sequences=torch.tensor([[0, *targets]]), scores=scores)
    assert processor.post_process_mabsa(outputs, batch)[0][0]["score"] == 1.0


def test_no_rows(processor):
    assert processor.post_process_mabsa(torch.zeros(0, 4, dtype=torch.long), MABSABatch({})) == []
    outputs = SimpleNamespace(sequences=torch.zeros(0, 2, dtype=torch.long), scores=(torch.zeros(0, 10),))
    assert processor.post_process_mabsa(outputs, MABSABatch({})) == []
    batch = processor(text=["", "a"], return_tensors="pt")
    assert processor.post_process_mabsa(torch.tensor([[0, 1], [0, 1]]), batch) == [[], []]
