"""Counts what models get wrong, and what fusion changes, from the results of a suite and its posts."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from processing import PostError, load_posts
from processing.posts import gold_aspects
from processing.writing import write_whole

from .result_file import plain, unpack_predictions
from .rows import Row
from .suite import Suite


KINDS = ("right", "polarity", "boundary", "spurious", "missed")
BINS = 10
# Signs that a post may not mean what it says; irony itself needs a reader.
HUMOUR = re.compile("lol|lmao|lmfao|rofl|ha(ha)+h?|hehe|sarcasm|irony|ironic|jk|not|smh|[😂🤣😜😏🙃😉]+")

Source = str | list[str]
Posts = list[tuple[str, Source, list[dict]]]  # id, text or words, plain gold aspects


def words_of(source: Source, start: int = 0, end: int | None = None) -> list[str]:
    """Returns the words of a post, or of a part of it in the units of its aspects."""
    part = source[start:end]
    return part.split() if isinstance(part, str) else part


def length_of(source: Source, aspect: dict) -> str:
    number = len(words_of(source, aspect["start"], aspect["end"]))
    return "1 word" if number == 1 else "2 words" if number == 2 else "3 words or more"


def has_hashtag(source: Source, aspect: dict) -> bool:
    inside = words_of(source, aspect["start"], aspect["end"])
    return any("#" in word for word in [*words_of(source, 0, aspect["start"])[-1:], *inside])


def has_humour(words: list[str]) -> bool:
    """Whether a post has a word of laughter, a hashtag such as #irony, or a laughing face."""
    for word, former in zip(words, ["", *words]):
        bare = word.lower().lstrip("#")
        if HUMOUR.fullmatch(bare) and (bare != "not" or "#" in (word[0], former)):
            return True
    return False


SLICES: dict[str, Callable[[Source, dict], str | None]] = {
    "length": length_of,
    "polarity": lambda source, aspect: aspect["polarity"],
    "hashtag": lambda source, aspect: "in a hashtag or behind #" if has_hashtag(source, aspect) else None,
    "humour": lambda source, aspect: "in a post with laughter or #irony" if has_humour(words_of(source)) else None,
    "long": lambda source, aspect: "in a post of 20 words or more" if len(words_of(source)) >= 20 else None,
}


def slices_of(source: Source, aspect: dict) -> list[str]:
    return [name for of in SLICES.values() if (name := of(source, aspect)) is not None]


def kinds_of(found: list[dict], gold: list[dict]) -> Iterator[tuple[str, dict]]:
    """Yields the kind of each aspect found, and `missed` for each gold one that no aspect found touches.

    `right`: span and polarity; `polarity`: the span alone; `boundary`: it overlaps a gold span; `spurious`: none.
    """
    given = {(a["start"], a["end"]): a["polarity"] for a in gold}

    def overlap(one: dict, other: dict) -> bool:
        return one["start"] < other["end"] and other["start"] < one["end"]

    for aspect in found:
        polarity = given.get((aspect["start"], aspect["end"]))
        if polarity is not None:
            yield ("right" if polarity == aspect["polarity"] else "polarity"), aspect
        else:
            yield ("boundary" if any(overlap(aspect, other) for other in gold) else "spurious"), aspect
    for aspect in gold:
        if not any(overlap(aspect, other) for other in found):
            yield "missed", aspect


def count_row(row: Row, posts: Posts) -> dict[str, Any]:
    """Counts over all seeds of one arm.

    Args:
        posts: those of the test split, in the order of the results.

    Returns:
        `seeds`; `kinds`: number of each of `KINDS`; `slices`: by name, for each seed, `[right, found, gold]` aspects;
        `confusion`: by gold polarity the number of each polarity found on the exact span, and `-` where it was not;
        `bins`: for each tenth of `score` `[aspects, sum of scores, right]`.
    """
    seeds = sorted(row.runs)
    kinds, slices = Counter(), defaultdict(lambda: [[0, 0, 0] for _ in seeds])
    confusion = defaultdict(Counter)
    bins = [[0, 0.0, 0] for _ in range(BINS)]
    for index, seed in enumerate(seeds):
        joint, _ = unpack_predictions(row.runs[seed]["predictions"]["test"], [gold for *_, gold in posts])
        for (_, source, gold), found in zip(posts, joint, strict=True):
            for kind, aspect in kinds_of(found, gold):
                kinds[kind] += 1
                if kind == "missed":
                    continue
                place = bins[min(BINS - 1, int(aspect["score"] * BINS))]
                place[0] += 1
                place[1] += aspect["score"]
                place[2] += kind == "right"
                for name in slices_of(source, aspect):
                    slices[name][index][0] += kind == "right"
                    slices[name][index][1] += 1
            at = {(a["start"], a["end"]): a["polarity"] for a in found}
            for aspect in gold:
                confusion[aspect["polarity"]][at.get((aspect["start"], aspect["end"]), "-")] += 1
                for name in slices_of(source, aspect):
                    slices[name][index][2] += 1
    return {
        "seeds": seeds,
        "kinds": {kind: kinds[kind] for kind in KINDS},
        "slices": dict(sorted(slices.items())),
        "confusion": {gold: dict(sorted(found.items())) for gold, found in sorted(confusion.items())},
        "bins": [[number, round(total, 3), right] for number, total, right in bins],
    }


def count_changes(first: Row, second: Row, posts: Posts) -> dict[str, Any]:
    """Counts, over the seeds that both have, which gold aspects one arm gets right and the other does not.

    Returns:
        `seeds`; `gained` and `lost`: gold aspects that `first` alone, or `second` alone, has right, by slice and in
        `all`; `posts`: ids of posts in which `first` has more aspects right with every seed (`better`), or fewer
        (`worse`).
    """
    seeds = sorted(first.runs.keys() & second.runs.keys())
    gained, lost = Counter(), Counter()
    signs: dict[str, list[int]] = defaultdict(list)
    golds = [gold for *_, gold in posts]
    for seed in seeds:
        one, other = (unpack_predictions(row.runs[seed]["predictions"]["test"], golds)[0] for row in (first, second))
        for (post, source, gold), mine, theirs in zip(posts, one, other, strict=True):
            difference = 0
            for aspect in gold:
                wanted = aspect["start"], aspect["end"], aspect["polarity"]
                has, had = (any((a["start"], a["end"], a["polarity"]) == wanted for a in x) for x in (mine, theirs))
                difference += has - had
                if has != had:
                    (gained if has else lost).update(["all", *slices_of(source, aspect)])
            signs[post].append((difference > 0) - (difference < 0))
    return {
        "seeds": seeds,
        "gained": dict(sorted(gained.items())),
        "lost": dict(sorted(lost.items())),
        "posts": {
            name: [post for post, found in signs.items() if len(found) == len(seeds) and set(found) == {sign}]
            for name, sign in (("better", 1), ("worse", -1))
        },
    }


def count_errors(suite: Suite, rows: list[Row], data_root: Path) -> dict[str, Any]:
    """Counts the errors of each row on the test split, and what the first pair of arms to compare changes.

    Returns:
        `rows`: by `DATASET-BASELINE-ARM` what `count_row` gives; `changes`: by `DATASET-BASELINE` what `count_changes`
        gives.
    """
    posts = {}
    for dataset in dict.fromkeys(row.dataset for row in rows):
        suite.check_split(data_root, dataset, "test")
        loaded = load_posts(data_root / dataset, "test")
        sources = [text if words is None else words for words, text in zip(loaded["words"], loaded["text"])]
        posts[dataset] = list(zip(loaded["id"], sources, plain(gold_aspects(loaded))))
    found = {f"{row.dataset}-{row.baseline}-{row.arm}": count_row(row, posts[row.dataset]) for row in rows}
    changes = {}
    compared = suite.compare[:1]
    for first in rows:
        for second in rows:
            place = first.dataset, first.baseline
            if place == (second.dataset, second.baseline) and [first.arm, second.arm] in compared:
                changes["-".join(place)] = count_changes(first, second, posts[first.dataset])
    return {"rows": found, "changes": changes}


def errors_path(results: Path, suite: Suite) -> Path:
    return results / suite.name / "errors.json"


def write_errors(results: Path, suite: Suite, errors: dict[str, Any]) -> Path:
    """Writes what `count_errors` returns beside the results of the suite, an entry a line. Returns the path."""
    parts = []
    for part, entries in errors.items():
        lines = [f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in entries.items()]
        parts.append(f"{json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n}")
    write_whole(errors_path(results, suite), "{\n" + ",\n".join(parts) + "\n}\n")
    return errors_path(results, suite)


def read_errors(results: Path, suite: Suite) -> dict[str, Any]:
    path = errors_path(results, suite)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PostError(f"{path}: can't be read ({error}); run `lrsa benchmark {suite.path} --errors`.") from error


Lines = tuple[list[str], list[list[str]]]


def kinds_table(errors: dict[str, Any]) -> Lines:
    """What a model finds and misses, a seed, by kind."""
    lines = []
    for name, row in errors["rows"].items():
        counts = (f"{row['kinds'][kind] / len(row['seeds']):.1f}" for kind in KINDS)
        lines.append([*name.split("-"), str(len(row["seeds"])), *counts])
    return ["data set", "baseline", "arm", "seeds", *KINDS], lines


def changes_table(errors: dict[str, Any]) -> Lines:
    """Gold aspects that fusion gets right and its baseline does not, and the other way round, a seed, by slice."""
    places = errors["changes"]
    names = sorted({name for change in places.values() for side in ("gained", "lost") for name in change[side]})
    lines = []
    for name in names:
        cells = []
        for change in places.values():
            gained, lost = (change[side].get(name, 0) / len(change["seeds"]) for side in ("gained", "lost"))
            cells.append(f"+{gained:.1f} −{lost:.1f} = {gained - lost:+.1f}")
        lines.append([name, *cells])
    return ["gold aspects", *(place.replace("-", ", ") for place in places)], lines


def posts_table(errors: dict[str, Any]) -> Lines:
    """How many posts fusion makes better, or worse, with every seed, and the first of them by id."""
    lines = []
    for place, change in errors["changes"].items():
        for side in ("better", "worse"):
            posts = change["posts"][side]
            lines.append(
                [*place.split("-"), side, str(len(posts)), ", ".join(p.rpartition("-")[2] for p in posts[:12])]
            )
    return ["data set", "baseline", "with every seed", "posts", "the first, by the end of their id"], lines


ERROR_TABLES: dict[str, Callable[[dict[str, Any]], Lines]] = {
    "errors": kinds_table,
    "changes": changes_table,
    "posts": posts_table,
}
