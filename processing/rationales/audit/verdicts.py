"""Says in plain words what the figures of an audit mean."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


LEVEL = 0.01
LEAK, LOOK, UNCHECKED, FINE = "leak suspected", "look", "not checked", "fine"

# What is counted per rationale and compared over the splits, in words that follow "N % of the rationales".
SIGNS = {
    "polarity_word": "hold a polarity word",
    "polarity_stem": "hold a polarity word or one derived from it",
    "gold_polarity": "name a gold polarity of their post and no other",
    "label_statement": "state a label outright",
    "gold_aspects": "name all gold aspects of their post",
    "gold_aspects_listed": "name all gold aspects of their post in the list before their reasoning",
}
_FAULTS = {
    "empty": "are empty",
    "refusals": "hold a refusal",
    "truncated": "are cut off",
    "duplicated": "stand at posts with different texts",
    "like_an_example": "repeat an example of the prompt",
}


def verdicts(kind: str, figures: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Sums up one kind of rationale.

    Args:
        figures: of this kind, as `audit_rationales` returns them.
        tests: of this kind, with `p_holm`.

    Returns:
        Sentences as `{"level", "kind", "text"}`, suspicions first.
    """
    if not any(split["rationales"] for split in figures["splits"].values()):
        found = [(LOOK, "no post has one.")]
    else:
        found = [
            *_jumps(figures["splits"], tests),
            *_agreement(figures, tests),
            *_leak_test(figures["leak_test"], tests),
            *_faults(figures["splits"]),
        ]
    order = (LEAK, LOOK, UNCHECKED, FINE)
    found.sort(key=lambda verdict: order.index(verdict[0]))
    return [{"level": level, "kind": kind, "text": text} for level, text in found]


def _jumps(splits: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    tests = [test for test in tests if test["test"] == "jump"]
    if not tests:
        yield UNCHECKED, "whether a rate jumps on one split: there are no splits to compare."
        return
    suspected = [test for test in tests if test["p_holm"] < LEVEL]
    for split in splits:
        parts = []
        for test in sorted((t for t in suspected if t["split"] == split), key=lambda t: t["p"]):
            sign = test["sign"]
            rates = {name: figures["rates"][sign] for name, figures in splits.items()}
            others = [rate for name, rate in rates.items() if name != split]
            elsewhere = sum(rate["count"] for rate in others) / sum(rate["of"] for rate in others)
            parts.append(
                f"{_percent(rates[split]['rate'])} {SIGNS[sign]}, {_percent(elsewhere)} in the other splits "
                f"({_p(test['p_holm'])})"
            )
        if parts:
            yield LEAK, f"a rate jumps on {split}: {'; '.join(parts)}."
    if not suspected:
        yield FINE, "no sign of a rate that jumps on one split."


def _agreement(figures: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    if not figures["agreement"]:
        yield UNCHECKED, "whether rationales know the gold polarities: no post with a rationale has any."
        return
    if not any(told["rationales"] for told in figures["agreement"].values()):
        yield FINE, "no sign that they know gold polarities: none holds a polarity word."
        return
    tested = {test["test"]: test for test in tests if test["test"] in ("stated", "agreement")}
    if not tested:
        yield UNCHECKED, "whether the polarities they name are more than a reader's: too few posts to learn from."
    for name, test in tested.items():
        told = figures[name][test["split"]]
        what = "state one label outright" if name == "stated" else "name one polarity"
        counts = (
            f"({test['split']}): {told['right']} of {told['rationales']} rationales that {what} name a gold one; "
            f"{told['by_chance']:.0f} would by chance, {told['by_text']} are predicted from the text"
        )
        if test["p_holm"] < LEVEL:
            yield LEAK, f"they know gold polarities {counts} ({_p(test['p_holm'])})."
        elif name == "agreement":
            yield FINE, f"no sign that they know gold polarities {counts}."


def _leak_test(leaks: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    if not leaks:
        yield UNCHECKED, "a bag of words: too few posts of one polarity and with a rationale to learn from."
        return
    ps = {(test["split"], test["test"]): test["p_holm"] for test in tests}
    quiet = True
    for split, leak in leaks.items():
        shown, within = leak["from_train"] or leak["within"], leak["within"]
        accuracy = {name: _percent(shown[name][0]) for name in shown}
        words = "; ".join(f"{label}: {', '.join(words[:5])}" for label, words in leak["telling_words"].items())
        words = f"Those that tell most: {words}."
        finds = (
            f"a bag of words finds the polarity of {accuracy['rationale']} of {leak['posts']} posts on {split} from "
        )
        finds += f"the rationale, of {accuracy['text']} from the text"
        if ps[split, "told"] < LEVEL:
            p = _p(ps[split, "told"])
            yield LEAK, f"{finds}, of {accuracy['masked']} from the rationale without its polarity words ({p})."
        elif ps[split, "more_than_text"] < LEVEL:
            yield LOOK, f"{finds}; not by polarity words. Good rationales do that, so do leaks in other words. {words}"
        p = ps.get((split, "only_here"), 1)
        if p < LEVEL:
            own, foreign = _percent(within["rationale"][0]), accuracy["rationale"]
            finds = (
                f"a bag of words that learns within {split} finds the polarity of {own}, one from train of {foreign}"
            )
            yield LEAK, f"{split} tells polarities in words of its own: {finds} ({_p(p)}). {words}"
        quiet &= min(ps[split, name] for name in leak["ps"]) >= LEVEL
    if quiet:
        each = ", ".join(
            f"{split} {_percent(shown['rationale'][0])} and {_percent(shown['text'][0])}"
            for split, leak in leaks.items()
            for shown in [leak["from_train"] or leak["within"]]
        )
        yield FINE, f"no sign of a leak in a bag of words, from the rationale and from the text: {each}."


def _faults(splits: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    posts, rationales = (sum(split[name] for split in splits.values()) for name in ("posts", "rationales"))
    if rationales < posts:
        yield LOOK, f"{posts - rationales} of {posts} posts have none."
    counts = {text: sum(split[fault] for split in splits.values()) for fault, text in _FAULTS.items()}
    counts[SIGNS["label_statement"]] = sum(split["rates"]["label_statement"]["count"] for split in splits.values())
    for text, count in counts.items():
        if count:
            yield LOOK, f"{count} of {rationales} {text}."
    languages = sum((Counter(split["languages"]) for split in splits.values()), Counter())
    languages.pop("unknown", None)
    for language, count in languages.most_common()[1:]:
        yield LOOK, f"{count} of {rationales} seem to be {language}, most are {languages.most_common()[0][0]}."
    if not any(counts.values()) and rationales == posts and len(languages) < 2:
        yield FINE, "every post has one; none is a refusal, cut off, given twice, or in another language."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
