"""The results of a suite as rows: the runs of one data set, baseline and arm."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from processing import PostError

from .result_file import DamagedResult, check_result, read_result
from .suite import Suite


TWITTER = {"twitter2015": "Twitter-2015", "twitter2017": "Twitter-2017"}


@dataclass(frozen=True)
class Row:
    """The runs of one data set, baseline and arm, by seed."""

    dataset: str
    baseline: str
    arm: str
    runs: dict[int, dict[str, Any]]


def read_rows(suite: Suite, results: Path) -> list[Row]:
    """Returns the rows of a suite that have a result, in its order.

    Raises:
        PostError: a result file is damaged, or of another run than that of the suite.
    """
    rows: dict[tuple[str, str, str], Row] = {}
    for cell in sorted(suite.cells(), key=lambda cell: cell.seed):
        row = rows.setdefault((cell.dataset, cell.baseline, cell.arm), Row(cell.dataset, cell.baseline, cell.arm, {}))
        path = results / f"{cell.place}.json"
        try:
            if (result := read_result(path)) is not None:
                check_result(suite, cell, path, result)
                row.runs[cell.seed] = result
        except DamagedResult as error:
            raise PostError(f"{error}; run its suite again.") from error
    return [row for row in rows.values() if row.runs]


def counts_of(run: dict[str, Any], part: str = "test") -> np.ndarray:
    """Returns the (posts, 3) counts of right, predicted and gold aspects of one run."""
    packed = run["predictions"][part]
    return np.array([packed["jmasa"], [len(row) for row in packed["aspects"]], packed["gold"]]).T


def with_names(text: str) -> str:
    """Returns a text with the names of known data sets in place of their folders."""
    for folder, name in TWITTER.items():
        text = text.replace(folder, name)
    return text
