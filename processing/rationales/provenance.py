"""Where the rationales of posts came from, as `rationale_provenance` tells it. Imports no torch."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from ..post_files import PostError
from ..posts import iterate_posts
from .post_questions import RATIONALES


PROVENANCE = ("model", "prompt", "settings", "date", "finish_reason")


def provenance_of(row: dict[str, Any], where: str) -> dict[str, dict[str, str] | None]:
    """Where the rationales of a post came from, its settings as JSON."""
    given = row.get("rationale_provenance") or {}
    if not isinstance(given, dict) or not all(isinstance(given.get(name) or {}, dict) for name in RATIONALES):
        raise PostError(f"{where}: rationale_provenance: an object for each kind of rationale is expected.")
    found: dict[str, dict[str, str] | None] = {}
    for name in RATIONALES:
        source = given.get(name)
        texts = {
            key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for key, value in (source or {}).items()
            if key in PROVENANCE and value is not None
        }
        found[name] = None if source is None else {key: texts.get(key) for key in PROVENANCE}
    return found


def summarize(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Counts the rationales of a split by where they came from; those of which nothing is said have no `model`."""
    sources: dict[str, Counter] = {name: Counter() for name in RATIONALES}
    dates: dict[tuple, list[str]] = defaultdict(list)
    for where, row, post in iterate_posts(file, labels=None):
        provenance = provenance_of(row, where)
        for name in RATIONALES:
            if post[name]:
                source = provenance[name] or {}
                key = tuple(source.get(field) for field in ("model", "prompt", "settings"))
                sources[name][key] += 1
                if source.get("date"):
                    dates[name, key].append(source["date"][:10])
    return {
        name: [
            {
                **dict(zip(("model", "prompt", "settings"), key)),
                "rationales": count,
                "first": min(dates[name, key], default=None),
                "last": max(dates[name, key], default=None),
            }
            for key, count in found.most_common()
        ]
        for name, found in sources.items()
    }


HEAD = ("| split | kind | number | model | prompt | settings | dates |", "|---|---|---|---|---|---|---|")


def origins(sources: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Returns the lines of a Markdown table of what `summarize` returned for each split."""
    rows = [
        f"| {split} | {kind.replace('_', ' ')} | {one['rationales']:,} | {cell(one['model'] or 'not recorded')} | "
        f"{cell(one['prompt'])} | {cell(one['settings'])} | {span(one)} |"
        for split, kinds in sources.items()
        for kind, found in kinds.items()
        for one in found
    ]
    return [*HEAD, *rows] if rows else []


def cell(text: str | None) -> str:
    """Text as it may stand in a cell of a Markdown table."""
    return " ".join((text or "").replace("|", "\\|").replace("<", "&lt;").split())


def span(one: dict[str, Any]) -> str:
    return one["first"] or "" if one["first"] == one["last"] else f"{one['first']} to {one['last']}"
