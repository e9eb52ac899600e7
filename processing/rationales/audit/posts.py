"""Reads posts for the audit: their rationales and gold aspects, without their pictures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import DatasetDict, load_from_disk

from ...posts import PostError, check_post, read_rows, split_files


KINDS = ("image_rationale", "text_rationale")


def read_rationales(path: str | Path) -> dict[str, pd.DataFrame]:
    """Reads posts with their rationales.

    Args:
        path: a file or a folder, as `load_posts` takes it, or a folder that `datasets` saved. Pictures are not opened.

    Returns:
        By split (a file alone has its own name) one row a post: `text`, `aspects` (gold aspects as written, `None`
        where the post has no labels), `polarities` (set of the gold ones), and for each kind the rationale, `None`
        where there is none, and under `KIND_finish` its `finish_reason`, where `rationale_provenance` tells it.

    Raises:
        PostError: names file, line and field.
    """
    path = Path(path)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_saved(path)
    return {
        split: _frame(((where, row) for where, _, row in read_rows(file)), file)
        for split, file in split_files(path).items()
    }


def _read_saved(path: Path) -> dict[str, pd.DataFrame]:
    try:
        saved = load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise PostError(f"{path}: can't be read as a data set ({' '.join(str(error).split())}).") from error
    splits = saved if isinstance(saved, DatasetDict) else {path.name: saved}
    frames = {}
    for split, rows in splits.items():
        if "image" in rows.column_names:
            rows = rows.remove_columns("image")
        frames[split] = _frame(((f"{path}, {split}, row {i}", row) for i, row in enumerate(rows)), path)
    return frames


def _frame(rows: Iterable[tuple[str, Any]], source: Path) -> pd.DataFrame:
    posts = []
    for where, row in rows:
        post = check_post(row, where)
        units, glue = (post["text"], "") if post["text"] is not None else (post["words"], " ")
        gold = post["aspects"]
        provenance = row.get("rationale_provenance")
        read = {
            "text": glue.join(units),
            "aspects": None if gold is None else [glue.join(units[a["start"] : a["end"]]) for a in gold],
            "polarities": frozenset(a["polarity"] for a in gold or [] if a["polarity"] is not None),
        }
        for kind in KINDS:
            told = provenance.get(kind) if isinstance(provenance, dict) else None
            read |= {kind: post[kind], f"{kind}_finish": told.get("finish_reason") if isinstance(told, dict) else None}
        posts.append(read)
    if not posts:
        raise PostError(f"{source}: holds no posts.")
    return pd.DataFrame(posts, dtype=object)
