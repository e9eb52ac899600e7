"""What the results of the benchmark tell of one model, for its card."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .rows import read_rows
from .suite import Cell, Suite, read_suite
from .tables import SUITES, caveats, comparisons_table, scores_table


RESULTS = Path(__file__).parent / "results"


@dataclass
class Found:
    """What a benchmark tells of a model: tables and caveats as Markdown, and the test scores of this very run."""

    tables: str | None = None
    caveats: str | None = None
    test: dict[str, Any] = field(default_factory=dict)


def benchmark_of(record: Mapping[str, Any], results: Path = RESULTS, suites: Path = SUITES) -> Found:
    """Looks for runs with the settings of a model on the posts that it was trained on.

    Args:
        record: its `results.json`.
        results, suites: folders of the benchmark.

    Raises:
        PostError: a result file is damaged, or of another run than that of its suite.
    """
    found, data = Found(), record.get("data")
    if data is None:
        return found
    for suite in map(read_suite, sorted(suites.glob("*.yaml"))):
        for dataset, hashes in suite.datasets.items():
            if all(hashes[split] == data[split]["sha256"] for split in ("train", "validation")):
                found.caveats = caveats([dataset], pictures=data["train"]["images"] > 0)
                if cell := cell_of(suite, dataset, record):
                    found.tables, found.test = tables_of(suite, cell, record, results)
                if found.tables:
                    return found
    return found


def cell_of(suite: Suite, dataset: str, record: Mapping[str, Any]) -> Cell | None:
    """Returns a run of a suite with the arguments of a model, whatever its seed."""
    for cell in suite.cells(f"{dataset}-*/seed{suite.seeds[0]}"):
        if suite.has_made(cell, record):
            return cell
    return None


def tables_of(suite: Suite, cell: Cell, record: Mapping[str, Any], results: Path) -> tuple[str | None, dict[str, Any]]:
    """Returns the tables of a run's data set and baseline, and its test scores if the model is one of its seeds'."""
    rows = read_rows(suite, results)
    near = [row for row in rows if (row.dataset, row.baseline) == (cell.dataset, cell.baseline)]
    runs = next((row.runs for row in near if row.arm == cell.arm), None)
    if runs is None:
        return None, {}
    tables = [
        f"The suite *{suite.name}* asks: {suite.about} Its arm *{cell.arm}* over *{cell.baseline}* has the settings "
        "of this model and the posts that it was trained on.",
        scores_table(suite, near),
        comparisons_table(suite, rows, (cell.dataset, cell.baseline)),
        "Mean ± sample standard deviation over seeds. Differences: paired approximate randomisation over posts, "
        "10,000 draws; p is two-sided, and corrected for the number of comparisons of the suite (Holm).",
    ]
    own = runs.get(record["seed"], {}).get("scores", {})
    same = own and all(
        abs(value - record["validation"].get(name, -1)) < 1e-3 for name, value in own["validation"].items()
    )
    return "\n\n".join(table.strip() for table in tables), {"test": own["test"]} if same else {}
