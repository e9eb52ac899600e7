"""Shares of posts with their intervals, compared over splits."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest, fisher_exact


def interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's interval of 95 % of a share."""
    low, high = binomtest(count, total).proportion_ci(method="wilson")
    return float(low), float(high)


def rate(count: int, total: int) -> dict[str, float | int | None]:
    """Returns `count`, `of`, and of their share `rate`, `low` and `high` (95 %), `None` where `of` is 0."""
    low, high = interval(count, total) if total else (None, None)
    return {"count": count, "of": total, "rate": count / total if total else None, "low": low, "high": high}


def jumps(counts: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Tests by split whether its share is higher than that of all other splits together.

    Args:
        counts: by split, how many of how many.

    Returns:
        p of Fisher's exact test, one-sided, of each split with posts, where others have some too.
    """
    totals = np.sum(list(counts.values()), axis=0)
    ps = {}
    for split, (count, total) in counts.items():
        others = totals - (count, total)
        if total and others[1]:
            table = [[count, total - count], [others[0], others[1] - others[0]]]
            ps[split] = float(fisher_exact(table, "greater").pvalue)
    return ps


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusts p-values of tests that are looked at together (Holm, 1979): below a level there, the chance that any of
    the true hypotheses is rejected is below it."""
    order = np.argsort(ps)
    raised = np.array(ps)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1) if len(ps) else raised
    return adjusted.tolist()
