"""Spreads what is known of words over the columns of their tokens."""

from collections.abc import Sequence

import numpy as np


# What entries of `linguistics` may be.
KINDS = {
    "nouns": (bool, int, np.bool_, np.integer),
    "heads": (int, np.integer),
    "sentiment": (int, float, np.number),
}


def linguistic_columns(
    linguistics: Sequence[dict | None], word_ids: Sequence[Sequence[int]]
) -> dict[str, list[np.ndarray]]:
    """Returns AoM's inputs for each post, a row of `word_ids` long.

    Every sub-token of a word has the word's noun flag and sentiment. Two columns have an edge where one's word is the
    head, or the head's head, of the other's; so there is none between the sub-tokens of one word, nor at special
    tokens and padding.

    Args:
        linguistics: for each post `{"nouns", "heads", "sentiment"}`, lists with one entry a word, or `None`.
        word_ids: word of each column, -1 at special tokens and padding. Words that were cut have none.

    Returns:
        `noun_mask` (S,) int64, `dependency_matrix` (S, S) float32 and `sentiment_value` (S,) float32 a post.
    """
    columns: dict[str, list] = {"noun_mask": [], "dependency_matrix": [], "sentiment_value": []}
    for row, ids in zip(linguistics, word_ids):
        row = row or {"nouns": [], "heads": [], "sentiment": []}
        # A last word that is none, to which -1 points.
        heads = np.array(row["heads"], dtype=np.int64)
        number = len(heads)
        edges = np.zeros((number + 1, number + 1), dtype=np.float32)
        for ancestors in (heads, heads[heads]):
            edges[np.arange(number), ancestors] = edges[ancestors, np.arange(number)] = 1
        np.fill_diagonal(edges, 0)
        ids = np.array(ids if number else [-1] * len(ids), dtype=np.int64)
        columns["noun_mask"].append(np.array([*row["nouns"], 0], dtype=np.int64)[ids])
        columns["dependency_matrix"].append(edges[ids[:, None], ids])
        columns["sentiment_value"].append(np.array([*row["sentiment"], 0], dtype=np.float32)[ids])
    return columns


def check_linguistics(linguistics: Sequence[dict | None], numbers: Sequence[int]) -> None:
    """Checks that there is one entry a word, and that heads are words.

    Args:
        numbers: how many words each post has.

    Raises:
        ValueError: names the post and what does not fit.
    """
    for index, (row, number) in enumerate(zip(linguistics, numbers)):
        if row is None:
            continue
        for name, kinds in KINDS.items():
            entries = row.get(name) if isinstance(row, dict) else None
            if not isinstance(entries, list | tuple | np.ndarray) or len(entries) != number:
                raise ValueError(
                    f"`linguistics` of post {index} needs {name!r} with one entry for each of its {number} words."
                )
            if not all(isinstance(entry, kinds) for entry in entries):
                raise ValueError(f"`linguistics` of post {index}: {name!r} are numbers.")
        if any(not 0 <= head < number for head in row["heads"]):
            raise ValueError(f"`linguistics` of post {index}: heads are words, 0 to {number - 1}.")
