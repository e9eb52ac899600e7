"""Audits rationales: what is there, what is wrong with it, and whether gold labels leaked into it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from .leaks import Posts, agreement, leak_tests
from .posts import KINDS
from .rates import holm, jumps, rate
from .signs import (
    Examples,
    entity_list,
    guess_language,
    has_polarity_stem,
    is_refusal,
    is_unfinished,
    named_polarities,
    names,
    states_label,
)
from .verdicts import LEVEL, SIGNS, verdicts


BUDGET = 100
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FAULTS = ("refusals", "truncated", "duplicated", "like_an_example")
_COLUMNS = "text rationale polarities words language aspects aspects_named list".split() + list(FAULTS) + list(SIGNS)


def audit_rationales(
    splits: Mapping[str, pd.DataFrame],
    examples: Iterable[str] = (),
    budget: int = BUDGET,
    reader_accuracy: float | None = None,
) -> dict[str, Any]:
    """Audits the rationales of one file or of the splits of a folder.

    The tests of one kind of rationale together raise a false alarm in at most 1 of 100 audits (Holm, level 0.01).

    Args:
        splits: from `read_rationales`.
        examples: answers of few-shot examples, which no rationale should repeat.
        budget: words that a rationale should have at most.
        reader_accuracy: see `leak_tests`.

    Returns:
        What JSON can hold: `posts` by split; `kinds`, the figures by kind and split; and `verdicts`, each with `level`
        (`"leak suspected"`, `"look"`, `"not checked"` or `"fine"`), `kind` and `text`.
    """
    kinds, tests, found, known_examples = {}, [], [], Examples(tuple(examples))
    for kind in KINDS:
        kinds[kind], of_kind = _audit_kind(kind, splits, known_examples, budget, reader_accuracy)
        for test, p in zip(of_kind, holm([test["p"] for test in of_kind])):
            test["p_holm"] = p
        found += verdicts(kind, kinds[kind], of_kind)
        tests += of_kind
    return {
        "posts": {split: len(posts) for split, posts in splits.items()},
        "budget": budget,
        "reader_accuracy": reader_accuracy,
        "level": LEVEL,
        "kinds": kinds,
        "tests": tests,
        "verdicts": found,
    }


def _audit_kind(kind: str, splits: Mapping[str, pd.DataFrame], examples: Examples, budget: int, reader: float | None):
    authors: dict[str, set[str]] = {}
    for posts in splits.values():
        for text, rationale in zip(posts["text"], posts[kind]):
            authors.setdefault(_plain(rationale), set()).add(_plain(text))
    repeated = {rationale for rationale, texts in authors.items() if rationale and len(texts) > 1}
    signs = {split: _signs(posts, kind, examples, repeated) for split, posts in splits.items()}
    figures = {split: _figures(splits[split], kind, rows, budget) for split, rows in signs.items()}
    if not any(rows["list"].mean() > 0.5 for rows in signs.values() if len(rows)):
        for split in figures.values():
            split["rates"]["gold_aspects_listed"] = rate(0, 0)

    tests: list[dict[str, Any]] = []
    has_gold = any(split["rates"]["gold_polarity"]["of"] for split in figures.values())
    for sign in ("gold_polarity" if has_gold else "polarity_word", "label_statement", "gold_aspects"):
        counts = {split: tuple(figures[split]["rates"][sign][n] for n in ("count", "of")) for split in splits}
        for split, p in jumps(counts).items():
            tests.append({"kind": kind, "test": "jump", "sign": sign, "split": split, "p": p})

    labelled = {}
    for split, rows in signs.items():
        gold = rows[rows["polarities"].map(bool)]
        if len(gold):
            labelled[split] = Posts(gold["text"].tolist(), gold["rationale"].tolist(), gold["polarities"].tolist())
    leaks = leak_tests(labelled, reader)
    parts = {split: {split: posts} for split, posts in labelled.items()}
    whole = next(iter(leaks), None)
    if len(leaks) > 1:
        whole = "all splits"
        parts[whole] = {split: labelled[split] for split in leaks}
    agreements: dict[str, dict[str, Any]] = {}
    for test, stated in (("agreement", False), ("stated", True)):
        found = {name: agreement(part, leaks, reader, stated) for name, part in parts.items()}
        agreements[test] = {name: told.__dict__ for name, told in found.items()}
        if whole and found[whole].rationales:
            tests.append({"kind": kind, "test": test, "split": whole, "p": found[whole].p})
    for split, leak in leaks.items():
        tests += [{"kind": kind, "test": name, "split": split, "p": p} for name, p in leak.ps.items()]
    return {
        "splits": figures,
        **agreements,
        "leak_test": {split: leak.figures() for split, leak in leaks.items()},
    }, tests


def _plain(text: str | None) -> str:
    return " ".join((text or "").casefold().split())


def _signs(posts: pd.DataFrame, kind: str, examples: Examples, repeated: set[str]) -> pd.DataFrame:
    """One row a rationale that is not empty."""
    rows = []
    for _, post in posts[posts[kind].map(lambda text: bool(_plain(text)))].iterrows():
        rationale, aspects, named = post[kind], post["aspects"] or [], named_polarities(post[kind])
        listed, finish = entity_list(rationale), post[f"{kind}_finish"]
        hits = [names(rationale, aspect) for aspect in aspects]
        rows.append(
            {
                "text": post["text"],
                "rationale": rationale,
                "polarities": post["polarities"],
                "words": len(rationale.split()),
                "language": guess_language(rationale),
                "refusals": is_refusal(rationale),
                "truncated": is_unfinished(rationale) if finish is None else finish == "length",
                "duplicated": _plain(rationale) in repeated,
                "like_an_example": examples.repeats(rationale),
                "aspects": len(aspects),
                "aspects_named": sum(hits),
                "list": bool(listed),
                "polarity_word": bool(named),
                "polarity_stem": has_polarity_stem(rationale),
                "gold_polarity": len(named) == 1 and named <= post["polarities"],
                "label_statement": states_label(rationale),
                "gold_aspects": all(hits),
                "gold_aspects_listed": all(names(listed, aspect) for aspect in aspects),
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


def _figures(posts: pd.DataFrame, kind: str, rows: pd.DataFrame, budget: int) -> dict[str, Any]:
    gold, words = rows[rows["aspects"] > 0], rows["words"]
    needed = {
        "gold_polarity": rows[rows["polarities"].map(bool).astype(bool)],
        "gold_aspects": gold,
        "gold_aspects_listed": gold,
    }
    counts = {sign: needed.get(sign, rows)[sign] for sign in SIGNS}
    return {
        "posts": len(posts),
        "rationales": len(rows),
        "coverage": len(rows) / len(posts),
        "empty": int(posts[kind].notna().sum()) - len(rows),
        "words": {
            "mean": float(words.mean()),
            "quantiles": {str(share): float(words.quantile(share)) for share in QUANTILES},
        }
        if len(rows)
        else None,
        "beyond_budget": rate(int((words > budget).sum()), len(rows)),
        **{fault: int(rows[fault].sum()) for fault in FAULTS},
        "languages": dict(Counter(rows["language"]).most_common()),
        "aspects": rate(int(gold["aspects_named"].sum()), int(gold["aspects"].sum())),
        "rates": {sign: rate(int(column.sum()), len(column)) for sign, column in counts.items()},
    }
