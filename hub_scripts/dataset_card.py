"""The card of a data set with rationales: what it holds, and where its rationales came from. Imports no torch."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from processing import PostError
from processing.posts import iterate_posts


RATIONALES = ("text_rationale", "image_rationale")
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


def dataset_card(repo: str, license: str | None, counts: dict[str, Counter], provenance: dict, source: str) -> str:
    data = DatasetCardData(
        license=license.split(", ") if license and ", " in license else license,
        task_categories=["token-classification"],
        tags=["lrsa", "aspect-based-sentiment-analysis", "multimodal", "rationales"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in counts],
            }
        ],
    )
    splits = [
        f"| {split} | {n['posts']:,} | {n['image']:,} | {n['aspects']:,} | {n['text_rationale']:,} | "
        f"{n['image_rationale']:,} |"
        for split, n in counts.items()
    ]
    origins = [
        f"| {split} | {kind.replace('_', ' ')} | {one['rationales']:,} | {cell(one['model'] or 'not recorded')} | "
        f"{cell(one['prompt'])} | {cell(one['settings'])} | {span(one)} |"
        for split, kinds in provenance.items()
        for kind, found in kinds.items()
        for one in found
    ]
    lines = [
        *(f"# {repo.rpartition('/')[2]}", ""),
        "Posts for multimodal aspect-based sentiment analysis, with rationales: what the text means, and what the "
        "picture shows and conveys.",
        *("", "```python", "from datasets import load_dataset", "", f'posts = load_dataset("{repo}")', "```", ""),
        *("| split | posts | pictures | aspects | text rationales | image rationales |", "|---|---|---|---|---|---|"),
        *splits,
        "",
        "`aspects` count in characters of `text`, or in words of `words`; `end` is exclusive.",
        *("", "## Where the rationales came from", ""),
        *("| split | kind | number | model | prompt | settings | dates |", "|---|---|---|---|---|---|---|"),
        *origins,
        "",
        "The column `rationale_provenance` says it for each one; `settings` are JSON. Rationales made by a large "
        "language model can be wrong, can carry its prejudices over, and can give the label away: audit them before "
        "you compare models that read them.",
        *(("", "## The posts", "", source) if source else ()),
    ]
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"))


def cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def span(one: dict[str, Any]) -> str:
    return one["first"] or "" if one["first"] == one["last"] else f"{one['first']} to {one['last']}"
