"""The result of one run as a small JSON file: what it was made with, and what it found."""

import json
from collections.abc import Callable, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

from processing import PostError, compute_mabsa_metrics
from processing.indexing_lrsa import DEFAULT_LABELS
from processing.writing import write_whole

from .suite import Cell, Suite


VERSION = 1
KEYS = (
    "version suite cell seed dataset baseline arm arguments configuration data commit versions device seconds "
    "peak_memory_mb parameters best_step curve gates scores predictions"
).split()

# Where a run has learnt from more posts than those of its own data set, the SHA-256 of their files.
UNLABELLED = "unlabelled"
# Where it has learnt from other runs of its suite, their seeds and arguments.
LESSONS = "lessons"
# And the validation JMASA F1 of the models that taught it.
TEACHERS = "teachers"
OPTIONAL = (UNLABELLED, LESSONS, TEACHERS)
Aspects = list[list[dict[str, Any]]]


class DamagedResult(ValueError):
    """A result file is not whole."""


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Writes a result, an entry a line, and of the predictions an entry of each split a line."""
    if wrong := set(KEYS) ^ set(result) - {*OPTIONAL}:
        raise ValueError(f"{path}: {sorted(wrong)[0]} is missing or unknown.")
    lines = {key: _line(result[key]) for key in (*KEYS, *OPTIONAL) if key in result}
    lines["predictions"] = _mapping(
        {split: _mapping({key: _line(value) for key, value in packed.items()})
         for split, packed in result["predictions"].items()}
    )  # fmt: skip
    write_whole(path, _mapping(lines) + "\n")


def read_result(path: Path) -> dict[str, Any] | None:
    """Reads a result; `None` where there is none yet.

    Raises:
        DamagedResult: it is half-written or otherwise not whole.
        PostError: it was written by a newer version.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedResult(f"{path}: is no whole JSON file") from error
    if not isinstance(result, dict) or "version" not in result:
        raise DamagedResult(f"{path}: is no result")
    if result["version"] != VERSION:
        raise PostError(f"{path}: was written by another version of lrsa ({result['version']}, known is {VERSION}).")
    if missing := [key for key in KEYS if key not in result]:
        raise DamagedResult(f"{path}: lacks {missing[0]}")
    return result


def check_result(suite: Suite, cell: Cell, path: Path, result: dict[str, Any]) -> None:
    """Raises PostError where a result is of another run than that of the suite."""
    made = result["arguments"]
    for name in made.keys() | cell.arguments.keys():
        if made.get(name) != cell.arguments.get(name):
            raise PostError(f"{path}: was made with {name} {made.get(name)!r}, {suite.path} now says "
                            f"{cell.arguments.get(name)!r}; delete the file to run it again.")  # fmt: skip
    for split, expected in suite.datasets[cell.dataset].items():
        if result["data"][split] != expected:
            raise PostError(f"{path}: was made with other {split} posts than {suite.path} now expects; delete the "
                            "file to run it again.")  # fmt: skip
    if result.get(LESSONS, {}) != suite.lessons_of(cell):
        raise PostError(f"{path}: was made with other teachers than those of {suite.path} now; delete the file to run "
                        "it again.")  # fmt: skip
    others = {name: suite.datasets[name]["train"] for name in suite.unlabelled_sets(cell)}
    if result.get(UNLABELLED, {}) != others:
        raise PostError(f"{path}: was made with other unlabelled posts than {suite.path} now expects; delete the file "
                        "to run it again.")  # fmt: skip


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _mapping(lines: dict[str, str]) -> str:
    return "{\n" + ",\n".join(f'"{key}": {line}' for key, line in lines.items()) + "\n}"


def plain(aspects: Aspects) -> Aspects:
    """Returns aspects with `start` and `end` in words for posts given as words, and nothing but those of a result."""
    return [
        [
            {"start": a.get("word_start", a["start"]), "end": a.get("word_end", a["end"])}
            | {name: a[name] for name in ("polarity", "score") if name in a}
            for a in row
        ]
        for row in aspects
    ]


def pack_predictions(ids: Sequence[str], joint: Aspects, classified: Aspects, gold: Aspects) -> dict[str, Any]:
    """Packs what was found in the posts of a split, without a word of them.

    Args:
        joint: plain aspects of free decoding.
        classified: the same of the task `masc`.
        gold: plain gold aspects.

    Returns:
        `id_prefix` and the rest of each id in `ids`; `aspects`: for each post `[start, end, polarity, score]`, the
        polarity as an index of `labels`; `masc`: for each post the polarities of its gold spans, in their order,
        `None` where the text was cut in front of one; and what a paired test needs: for each post the number of
        `gold` aspects, and of those found that are right by span and polarity (`jmasa`) and by span (`mate`).
    """
    prefix = commonprefix(list(ids))
    number = DEFAULT_LABELS.index
    right = [count_right(found, given) for found, given in zip(joint, gold, strict=True)]
    return {
        "labels": list(DEFAULT_LABELS),
        "id_prefix": prefix,
        "ids": [name[len(prefix) :] for name in ids],
        "aspects": [[[a["start"], a["end"], number(a["polarity"]), round(a["score"], 3)] for a in r] for r in joint],
        "masc": [_polarities_of(row, given, number) for row, given in zip(classified, gold, strict=True)],
        "gold": [len(given) for given in gold],
        "jmasa": [both for both, _ in right],
        "mate": [spans for _, spans in right],
    }


def _polarities_of(found: list[dict], given: list[dict], number: Callable[[str], int]) -> list[int | None]:
    polarities = {(a["start"], a["end"]): number(a["polarity"]) for a in found}
    return [polarities.get((a["start"], a["end"])) for a in given]


def unpack_predictions(packed: dict[str, Any], gold: Aspects) -> tuple[Aspects, Aspects]:
    """Returns the plain aspects of free decoding and of the task `masc`, whose spans are those of `gold`."""
    labels, names = packed["labels"], ("start", "end", "polarity", "score")
    joint = [[dict(zip(names, [a, b, labels[p], score])) for a, b, p, score in row] for row in packed["aspects"]]
    classified = [
        [a | {"polarity": labels[p]} for a, p in zip(given, row, strict=True) if p is not None]
        for given, row in zip(gold, packed["masc"], strict=True)
    ]
    return joint, classified


def score(joint: Aspects, classified: Aspects, gold: Aspects) -> dict[str, float]:
    """Returns JMASA and MATE of free decoding and MASC of the gold spans, in percent, rounded to four decimals."""
    scores = compute_mabsa_metrics(joint, gold)
    masc = compute_mabsa_metrics(classified, gold)
    scores |= {name: value for name, value in masc.items() if name.startswith("masc_")}
    return {name: round(value, 4) for name, value in scores.items()}


def count_right(found: list[dict], given: list[dict]) -> tuple[int, int]:
    """Returns how many of the aspects found in a post are right by span and polarity, and by span."""
    found, given = ({(a["start"], a["end"]): a["polarity"] for a in row} for row in (found, given))
    shared = found.keys() & given.keys()
    return sum(found[span] == given[span] for span in shared), len(shared)
