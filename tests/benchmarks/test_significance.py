"""Statistics of the benchmark, against exact enumeration and known values."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.significance import approximate_randomization, mean_and_deviation, micro_f1


def counts(seed: int, posts: int, accuracy: float) -> np.ndarray:
    """Random counts: up to three gold aspects a post, as many predicted, of which a share is right."""
    generator = np.random.default_rng(seed)
    gold = np.random.default_rng(0).integers(1, 4, posts)
    predicted = generator.integers(0, 4, posts)
    right = generator.binomial(np.minimum(gold, predicted), accuracy)
    return np.stack([right, predicted, gold], axis=1)


def exact_p(first: np.ndarray, second: np.ndarray) -> float:
    observed = abs(micro_f1(first.sum(0)) - micro_f1(second.sum(0)))
    extreme = 0
    for swaps in product([False, True], repeat=len(first)):
        mask = np.array(swaps)[:, None]
        a, b = np.where(mask, second, first).sum(0), np.where(mask, first, second).sum(0)
        extreme += abs(micro_f1(a) - micro_f1(b)) >= observed - 1e-9
    return extreme / 2 ** len(first)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10), st.floats(0, 1))
def test_p_value_is_that_of_all_assignments(seed, posts, accuracy):
    first, second = counts(seed, posts, accuracy), counts(seed + 1, posts, 0.5)
    _, p = approximate_randomization(first, second, seed=seed)
    exact = exact_p(first, second)
    assert abs(p - exact) < 5 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-3


def test_p_values_are_uniform_where_nothing_differs():
    found = [
        approximate_randomization(counts(2 * i, 80, 0.6), counts(2 * i + 1, 80, 0.6), draws=500, seed=i)[1]
        for i in range(600)
    ]
    for level in (0.01, 0.05, 0.1, 0.5):
        share = np.mean(np.array(found) <= level)
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / len(found)) + 1 / 501


def test_a_large_difference_has_the_least_p_value_and_its_sign():
    better, worse = counts(1, 300, 0.9), counts(2, 300, 0.3)
    difference, p = approximate_randomization(better, worse)
    assert difference == pytest.approx(micro_f1(better.sum(0)) - micro_f1(worse.sum(0))) and difference > 20
    assert p == 1 / 10_001
    assert approximate_randomization(worse, better)[0] == -difference


def test_equal_systems_do_not_differ():
    same = counts(1, 50, 0.7)
    assert approximate_randomization(same, same) == (0.0, 1.0)


def test_a_test_repeats():
    pair = counts(1, 100, 0.6), counts(2, 100, 0.5)
    assert approximate_randomization(*pair) == approximate_randomization(*pair)


def test_seeds_are_pooled_not_counted_as_posts_of_their_own():
    first, second = counts(3, 40, 0.8), counts(4, 40, 0.5)
    assert approximate_randomization(5 * first, 5 * second) == approximate_randomization(first, second)


def test_counts_of_other_posts_are_refused():
    with pytest.raises(ValueError, match="Counts of 3 posts can't be paired with those of 4"):
        approximate_randomization(counts(1, 3, 0.5), counts(1, 4, 0.5))


def test_micro_f1_of_nothing_is_zero():
    assert micro_f1(np.array([[0, 0, 0], [1, 2, 2]])).tolist() == [0.0, 50.0]


def test_mean_and_sample_deviation():
    assert mean_and_deviation([58.0, 60.0, 62.0]) == (60.0, 2.0)
    assert mean_and_deviation([58.0]) == (58.0, None)
