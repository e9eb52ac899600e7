"""Makes the tables in the documents of the result files alone: `lrsa benchmark --tables`."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from processing import PostError
from processing.rationales.audit.rates import holm
from processing.writing import write_whole

from .errors import ERROR_TABLES, read_errors
from .rows import TWITTER, Row, counts_of, read_rows, with_names
from .significance import approximate_randomization, mean_and_deviation
from .suite import Suite, read_suite


SUITES = Path(__file__).parent / "suites"
DOCUMENTS = ("README.md", "docs/benchmark.md", "docs/errors.md")
NEGATIVE = re.compile(r"(?<![\w-])-(?=\d)")
MARKED = re.compile(r"(<!-- benchmark (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

LARGE_MODELS = "llm"

CAVEATS = (
    "*The rationales of {sets} come from other projects (GPT-4, BLIP-2, CATR, ChatGPT) and tell of entities and "
    "situation more than of sentiment: these figures are not comparable with the LRSA paper's. No leak of labels was "
    "found in them, which does not prove that there is none. 219 tweets of the two sets were examples in the prompt "
    "that text rationales were made with. Twitter-2017 repeats a few tweets across its splits. Kind and length of the "
    "image rationales differ between the sets.{pictures}*"
)
NO_PICTURES = " There are no pictures: all runs read text alone, or text with rationales."
WITH_CAVEATS = ("scores", "comparisons", "summary", "errors")


def scores_table(suite: Suite, rows: list[Row]) -> str:
    """Scores of each row: mean ± sample standard deviation over seeds, in percent."""
    columns = ["data set", "baseline", "arm", "seeds", "validation JMASA F1", "test JMASA F1", "MATE F1", "MASC acc."]
    lines = []
    for row in rows:
        for part in dict.fromkeys(part for run in row.runs.values() for part in run["scores"] if part != "validation"):
            runs = [run for run in row.runs.values() if part in run["scores"]]
            cells = [row.dataset, row.baseline, row.arm + part.removeprefix("test")]
            cells.append(_seeds(len(runs), suite))
            cells.append(_spread(run["scores"]["validation"]["jmasa_f1"] for run in runs) if part == "test" else "")
            cells += [
                _spread(run["scores"][part][name] for run in runs)
                for name in ("jmasa_f1", "mate_f1", "masc_accuracy", "masc_macro_f1")
            ]
            lines.append(cells)
    return _table([*columns, "MASC macro F1"], lines)


def comparisons_table(suite: Suite, rows: list[Row], place: tuple[str, str] | None = None) -> str:
    """Differences of test JMASA F1 between arms, pooled over the seeds that both have, with a paired test.

    Args:
        place: data set and baseline, where those of all others are left out; p-values are corrected for all.
    """
    found = compare(suite, rows)
    corrected = holm([p for *_, p in found])
    lines = [
        [
            a.dataset,
            a.baseline,
            f"{a.arm} − {b.arm}",
            _seeds(len(seeds), suite),
            f"{difference:+.2f}",
            f"{p:.4f}",
            f"{q:.4f}",
        ]
        for (a, b, seeds, difference, p), q in zip(found, corrected)
        if place in (None, (a.dataset, a.baseline))
    ]
    if not lines:
        return "No two arms that are compared have runs of one seed yet.\n"
    return _table(["data set", "baseline", "arms", "seeds", "difference of test JMASA F1", "p", "p (Holm)"], lines)


def compare(suite: Suite, rows: list[Row]) -> list[tuple[Row, Row, list[int], float, float]]:
    """Returns, for each pair of arms to compare in each data set and baseline, the seeds, difference and p-value."""
    place = {(row.dataset, row.baseline, row.arm): row for row in rows}
    found = []
    for dataset, baseline in dict.fromkeys((row.dataset, row.baseline) for row in rows):
        for pair in suite.compare:
            first, second = (place.get((dataset, baseline, arm)) for arm in pair)
            if first is None or second is None or not (seeds := sorted(first.runs.keys() & second.runs.keys())):
                continue
            counts = [sum(counts_of(row.runs[seed]) for seed in seeds) for row in (first, second)]
            found.append((first, second, seeds, *approximate_randomization(*counts)))
    return found


def cost_table(suite: Suite, rows: list[Row]) -> str:
    """What a run costs, as medians over seeds: processor time, which other work on the machine lengthens, too."""
    lines = []
    for row in rows:
        runs = list(row.runs.values())
        posts = len(runs[0]["predictions"]["test"]["ids"])
        epochs = np.mean([run["curve"][-1]["epoch"] for run in runs])
        lines.append(
            [
                row.dataset,
                row.baseline,
                row.arm,
                f"{runs[0]['parameters']['trainable'] / 1e6:.1f} of {runs[0]['parameters']['total'] / 1e6:.1f}",
                f"{np.median([run['seconds']['train']['processor'] for run in runs]) / 60 / epochs:.1f}",
                f"{1000 * np.median([run['seconds']['test']['processor'] for run in runs]) / posts:.0f}",
                f"{np.median([run['peak_memory_mb']['process'] for run in runs]) / 1000:.1f}",
                "; ".join(sorted({run["device"]["name"] for run in runs})),
            ]
        )
    columns = ["data set", "baseline", "arm", "M parameters trained", "processor minutes an epoch"]
    columns += ["processor ms a test post, both tasks", "peak memory, GB", "device"]
    return _table(columns, lines)


def summary_table(suite: Suite, rows: list[Row]) -> str:
    """Test JMASA F1 of all arms side by side, and their first comparison, its p-values corrected for all."""
    differences, found = {}, compare(suite, rows)
    for (first, second, _, difference, _), q in zip(found, holm([p for *_, p in found])):
        if [first.arm, second.arm] == suite.compare[0]:
            differences[first.dataset, first.baseline] = f"{difference:+.2f} ({q:.4f})"
    scores = {}
    for row in rows:
        values = [run["scores"]["test"]["jmasa_f1"] for run in row.runs.values()]
        scores[row.dataset, row.baseline, row.arm] = f"{_spread(values)} ({_seeds(len(values), suite)})"
    arms = [arm for arm in suite.arms if any(row.arm == arm for row in rows)]
    lines = []
    for place in dict.fromkeys((row.dataset, row.baseline) for row in rows):
        cells = [scores.get((*place, arm), "–") for arm in arms]
        lines.append([place[0], place[1], *cells, differences.get(place, "–")])
    difference = f"{' − '.join(suite.compare[0])} (p, Holm)" if suite.compare else "difference"
    return _table(["test JMASA F1 (seeds)", "baseline", *arms, difference], lines)


def large_models_table(folder: Path) -> str:
    """Scores of large models by themselves, in percent, of what `lrsa evaluate --llm --output` wrote.

    Args:
        folder: has a file for each data set, of its name.

    Raises:
        PostError: a file is damaged.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        return "No large model has been asked yet.\n"
    columns = ["data set", "model", "shots", "test JMASA P", "R", "F1", "MATE F1", "MASC acc. of found"]
    columns += ["posts without valid answer", "invalid aspects"]
    return _table(columns, [_large_model(path) for path in paths])


def _large_model(path: Path) -> list[str]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return [
            path.stem,
            result["model"],
            str(result["shots"]),
            *(f"{result[name]:.2f}" for name in ("jmasa_precision", "jmasa_recall", "jmasa_f1", "mate_f1")),
            f"{result['masc_accuracy']:.2f}",
            f"{result['invalid_answers'] + result['unanswered']} of {result['posts']}",
            f"{result['invalid_items']} of {result['invalid_items'] + result['predicted_aspects']}",
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise PostError(f"{path}: not what `lrsa evaluate --llm --output` writes ({error!r}); restore it.") from error


TABLES: dict[str, Callable[[Suite, list[Row]], str]] = {
    "scores": scores_table,
    "comparisons": comparisons_table,
    "cost": cost_table,
    "summary": summary_table,
}


def caveats(datasets: Iterable[str], pictures: bool = False) -> str | None:
    """Returns what is to be said wherever figures of these data sets stand, and whether `pictures` were there."""
    sets = [TWITTER[dataset] for dataset in dict.fromkeys(datasets) if dataset in TWITTER]
    return CAVEATS.format(sets=" and ".join(sets), pictures="" if pictures else NO_PICTURES) if sets else None


def render(text: str, where: str, suites: Path, results: Path) -> str:
    """Returns a document with what stands between its markers made anew.

    Markers are `<!-- benchmark SUITE TABLE -->`, or `llm` in place of a suite, and `<!-- end -->`.

    Raises:
        PostError: a marker names a suite or table that there is not, or a result file is damaged.
    """

    def fill(match: re.Match) -> str:
        opening, name, table, closing = match.groups()
        if name == LARGE_MODELS:
            return f"{opening}\n{large_models_table(results / name)}\n{closing}"
        if table not in TABLES | ERROR_TABLES:
            raise PostError(f"{where}: there is no table {table!r}; known are {', '.join(TABLES | ERROR_TABLES)}.")
        suite = read_suite(suites / f"{name}.yaml")
        rows = read_rows(suite, results)
        if not rows:
            return f"{opening}\nNo run of this suite has a result yet.\n\n{closing}"
        if table in ERROR_TABLES:
            made = _table(*ERROR_TABLES[table](read_errors(results, suite)))
        else:
            made = TABLES[table](suite, rows)
        said = None
        if table in WITH_CAVEATS and made.startswith("|"):
            said = caveats(row.dataset for row in rows)
        return f"{opening}\n{made}" + (f"\n{said}\n" if said else "") + f"\n{closing}"

    return MARKED.sub(fill, text)


def write_tables(root: Path, results: Path, suites: Path = SUITES) -> list[Path]:
    """Makes the tables in the documents of a checkout anew. Returns the documents that changed."""
    changed = []
    for name in DOCUMENTS:
        path = root / name
        if not path.is_file():
            raise PostError(f"{path}: no such file; tables are made in a checkout of the package.")
        text = path.read_text(encoding="utf-8")
        if (made := render(text, str(path), suites, results)) != text:
            write_whole(path, made)
            changed.append(path)
    return changed


def _table(columns: list[str], lines: list[list[str]]) -> str:
    rows = [columns, ["---"] * len(columns), *lines]
    table = with_names("".join(f"| {' | '.join(row)} |\n" for row in rows))
    return NEGATIVE.sub("−", table)


def _spread(values: Iterable[float]) -> str:
    mean, deviation = mean_and_deviation(list(values))
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def _seeds(number: int, suite: Suite) -> str:
    return str(number) if number == len(suite.seeds) else f"{number} of {len(suite.seeds)}"
