"""Mean and spread over seeds, and a paired test over posts."""

from collections.abc import Sequence
from statistics import mean, stdev

import numpy as np


DRAWS = 10_000


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean and the sample standard deviation (n - 1), which one value alone does not have."""
    return mean(values), stdev(values) if len(values) > 1 else None


def micro_f1(counts: np.ndarray) -> np.ndarray:
    """Returns the micro F1, in percent, of (..., 3) counts: right, predicted and gold aspects."""
    right, both = counts[..., 0], counts[..., 1] + counts[..., 2]
    return 200 * np.divide(right, both, out=np.zeros(right.shape), where=both > 0)


def approximate_randomization(
    first: np.ndarray, second: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Tests whether two systems differ in micro F1 (Noreen, 1989; Yeh, COLING 2000).

    Under the null hypothesis it does not matter which system a post's counts come from. Each draw swaps those of every
    post with probability 1/2.

    Args:
        first, second: (posts, 3) counts of right, predicted and gold aspects, of the same posts; those of several
            seeds are summed, so that a post is swapped with all of them.
        draws: number of random assignments.
        seed: of the generator.

    Returns:
        The difference of micro F1, in percentage points, and the two-sided p-value: the share of assignments, with
        the given one counted among them, whose difference is at least as large.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"Counts of {first.shape[0]} posts can't be paired with those of {second.shape[0]}.")
    generator = np.random.default_rng(seed)
    difference = float(micro_f1(first.sum(0)) - micro_f1(second.sum(0)))
    exchanged = second - first
    extreme = 0
    for start in range(0, draws, 1000):  # so that memory stays small
        swaps = generator.integers(0, 2, (min(1000, draws - start), len(first))).astype(np.float64)
        moved = swaps @ exchanged
        drawn = micro_f1(first.sum(0) + moved) - micro_f1(second.sum(0) - moved)
        extreme += int((np.abs(drawn) >= abs(difference) - 1e-9).sum())  # equal ones may differ by rounding
    return difference, (extreme + 1) / (draws + 1)
