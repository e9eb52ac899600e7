"""The baseline without a small model: reads the aspects off a large model's answers, and scores them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import regex
from datasets import Dataset

from ..indexing_lrsa import DEFAULT_LABELS
from ..metrics import compute_mabsa_metrics
from ..posts import gold_aspects
from ..words_lrsa import split_words


# Valid for "structured outputs" in strict mode: an object on top, every property required, no further ones.
ANSWER_SCHEMA = {
    "type": "object",
    "properties": {
        "aspects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "aspect": {"type": "string"},
                    "polarity": {"type": "string", "enum": list(DEFAULT_LABELS)},
                },
                "required": ["aspect", "polarity"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["aspects"],
    "additionalProperties": False,
}
INVALID_ITEMS = ("malformed", "unknown_polarity", "not_in_text", "overlap")

_FENCED = regex.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", regex.DOTALL | regex.IGNORECASE)


@dataclass(frozen=True)
class ReadAnswer:
    """What `read_aspects` found.

    Args:
        aspects: `{"aspect", "polarity", "score": None, "start", "end"}`, sorted by start, none overlapping; offsets in
            characters, end exclusive; for words with `"word_start"` and `"word_end"` besides, as
            `LRSAProcessor.post_process_mabsa` gives them.
        valid: whether the answer is JSON of the form that was asked for; its items may be invalid even so.
        invalid_items: how many items count for nothing, by reason: one of `INVALID_ITEMS`.
    """

    aspects: list[dict] = field(default_factory=list)
    valid: bool = True
    invalid_items: Counter = field(default_factory=Counter)


def read_aspects(answer: str, text: str | Sequence[str], labels: Sequence[str] = DEFAULT_LABELS) -> ReadAnswer:
    """Reads a large model's answer to the prompt `aspects`: JSON by `ANSWER_SCHEMA`, at most inside a fence.

    An aspect is found where the text says this, from the start of a word to the end of one. White space, which posts
    that come as words have between all of them ("@ name"), tells places apart only where there are several: those with
    the same come first. Of several places it takes the first that is still free, longer aspects first: "Apple" beside
    "Apple Watch" is another mention, and the n-th "Apple" in the answer is the n-th free one in the text. Items that
    find none count as `not_in_text`, or as `overlap` where all places are taken.

    Args:
        text: the post, or its words.
        labels: polarities that there are.
    """
    items = _parse(answer)
    if items is None:
        return ReadAnswer(valid=False)
    post, offsets = (text, split_words(text)) if isinstance(text, str) else _join(text)
    invalid: Counter[str] = Counter()
    sound = []
    for item in items:
        if not isinstance(item, dict) or item.keys() != {"aspect", "polarity"} or not isinstance(item["aspect"], str):
            invalid["malformed"] += 1
        elif item["polarity"] not in labels:
            invalid["unknown_polarity"] += 1
        else:
            sound.append(item)

    taken: set[int] = set()
    found = []
    for item in sorted(sound, key=lambda item: len(item["aspect"]), reverse=True):
        places = _places(post, offsets, item["aspect"])
        free = (place for place in places if taken.isdisjoint(range(*place)))
        span = next(free, None)
        if span is None:
            invalid["overlap" if places else "not_in_text"] += 1
            continue
        first, last = span
        taken.update(range(first, last))
        start, end = offsets[first][0], offsets[last - 1][1]
        prediction = {
            "aspect": post[start:end],
            "polarity": item["polarity"],
            "score": None,
            "start": start,
            "end": end,
        }
        if not isinstance(text, str):
            prediction |= {"word_start": first, "word_end": last}
        found.append(prediction)
    return ReadAnswer(sorted(found, key=lambda prediction: prediction["start"]), True, invalid)


def _join(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    ends = list(accumulate(words, lambda end, word: end + 1 + len(word), initial=-1))[1:]
    return " ".join(words), [(end - len(word), end) for end, word in zip(ends, words)]


def _places(post: str, offsets: list[tuple[int, int]], aspect: str) -> list[tuple[int, int]]:
    """Where a post says an aspect: (first word, last word exclusive); those with the same white space first."""
    sought = _without_space(aspect)
    places = []
    for first, (start, _) in enumerate(offsets):
        for last, (_, end) in enumerate(offsets[first:], first + 1):
            said = _without_space(post[start:end])
            if said == sought != "":
                places.append((post[start:end] != aspect, first, last))
            if not sought.startswith(said) or said == sought:
                break
    return [(first, last) for _, first, last in sorted(places)]


def _without_space(text: str) -> str:
    return "".join(text.split())


def _parse(answer: str) -> list | None:
    """Returns the items of an answer, `None` where it is not of the form that was asked for."""
    fenced = _FENCED.fullmatch(answer.strip())
    try:
        parsed = json.loads(fenced[1] if fenced else answer, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or parsed.keys() != {"aspects"} or not isinstance(parsed["aspects"], list):
        return None
    return parsed["aspects"]


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def read_answers(
    posts: Dataset, answers: Sequence[str | None], labels: Sequence[str] = DEFAULT_LABELS
) -> list[ReadAnswer | None]:
    """Reads the answer of each post (from `load_posts`); `None` where there is none.

    Raises:
        ValueError: the numbers of posts and answers differ.
    """
    texts = [text if words is None else words for text, words in zip(posts["text"], posts["words"])]
    if len(texts) != len(answers):
        raise ValueError(f"{len(answers)} answers for {len(texts)} posts.")
    return [None if answer is None else read_aspects(answer, text, labels) for answer, text in zip(answers, texts)]


def score_answers(posts: Dataset, answers: Sequence[ReadAnswer | None]) -> dict[str, float]:
    """Scores answers to the prompt `aspects` as a model's predictions are scored.

    Args:
        posts: labelled ones, from `load_posts`.
        answers: what `read_answers` gives. Posts without one and those with an invalid one count as posts in which
            nothing was found.

    Returns:
        What `compute_mabsa_metrics` gives, in percent, and counts: `posts`, `unanswered`, `invalid_answers`,
        `predicted_aspects`, `invalid_items`, and `invalid_items_REASON` for each of `INVALID_ITEMS`.
    """
    read = [ReadAnswer() if answer is None else answer for answer in answers]
    invalid = sum((found.invalid_items for found in read), Counter())
    scores = compute_mabsa_metrics([found.aspects for found in read], gold_aspects(posts))
    return scores | {
        "posts": len(read),
        "unanswered": sum(answer is None for answer in answers),
        "invalid_answers": sum(not found.valid for found in read),
        "predicted_aspects": sum(len(found.aspects) for found in read),
        "invalid_items": invalid.total(),
        **{f"invalid_items_{reason}": invalid[reason] for reason in INVALID_ITEMS},
    }
