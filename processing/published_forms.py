"""Reads the forms in which Twitter-2015 and Twitter-2017 are published, one row a tweet.

- `.tsv`, of TomBERT (Yu & Jiang, IJCAI 2019): a header, then one row an aspect: index, label (0 negative, 1 neutral,
  2 positive), file of the picture, sentence with `$T$` in place of the aspect, aspect.
- `.txt`, of ESAFN (Yu et al., TASLP 2020) and TomBERT: the same in four lines: sentence, aspect, label (-1, 0, 1),
  file of the picture.
- `.json`, of VLP-MABSA (Ling et al., ACL 2022) and AoM (Zhou et al., Findings of ACL 2023): a list of
  `{"words", "image_id", "aspects": [{"from", "to" (exclusive, words), "polarity": POS, NEU or NEG, "term"}]}`; what
  else an object has, such as `opinions` and `noun`, is passed over.

Each reader yields the place of a tweet, such as `train.tsv:2`, its number (of its first line, or in the list), and a
row as JSON Lines have it: `words`, `image`, `aspects`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from .post_files import PostError, read_lines


TARGET = "$T$"
TSV_LABELS = {"0": "negative", "1": "neutral", "2": "positive"}
TXT_LABELS = {"-1": "negative", "0": "neutral", "1": "positive"}
JSON_LABELS = {"NEG": "negative", "NEU": "neutral", "POS": "positive"}

Row = tuple[str, int, dict[str, Any]]


@dataclass
class AspectRow:
    """One aspect of a tweet: the number of its line, the words of the tweet, and which of them are the aspect."""

    line: int
    words: list[str]
    start: int
    end: int
    polarity: str
    image: str


def read_tsv(path: Path) -> Iterator[Row]:
    """Reads TomBERT's `.tsv`.

    Raises:
        PostError: names file, line and column.
    """

    def rows() -> Iterator[AspectRow]:
        for number, line in read_lines(path):
            columns, where = line.rstrip("\r\n").split("\t"), f"{path}:{number}"
            if number == 1:
                if len(columns) != 5 or columns[0] != "index":
                    names = "index, #1 Label, #2 ImageID, #3 String, #3 String"
                    raise PostError(f"{where}: the header is expected, five columns split by tabs: {names}.")
            elif line.strip():
                if len(columns) != 5:
                    raise PostError(f"{where}: five columns split by tabs are expected, here are {len(columns)}.")
                _, label, image, sentence, aspect = columns
                words, start, end = restore(sentence, aspect, where, where)
                polarity = polarity_of(label.strip(), TSV_LABELS, f"{where}: label")
                yield AspectRow(number, words, start, end, polarity, image_name(image, where))

    return join(rows(), path)


def read_txt(path: Path) -> Iterator[Row]:
    """Reads the `.txt` with four lines an aspect.

    Raises:
        PostError: names file and line.
    """

    def rows() -> Iterator[AspectRow]:
        lines = [line for _, line in read_lines(path)]
        while lines and not lines[-1].strip():
            lines.pop()
        for index in range(0, len(lines), 4):
            group, places = lines[index : index + 4], [f"{path}:{index + i}" for i in range(1, 5)]
            if len(group) < 4:
                raise PostError(
                    f"{places[0]}: the last {len(group)} of {len(lines)} lines are no four; each aspect has four: "
                    f"sentence with {TARGET}, aspect, label, picture. Put in what is missing."
                )
            sentence, aspect, label, image = group
            words, start, end = restore(sentence, aspect, places[0], places[1])
            polarity = polarity_of(label.strip(), TXT_LABELS, f"{places[2]}: label")
            yield AspectRow(index + 1, words, start, end, polarity, image_name(image, places[3]))

    return join(rows(), path)


def restore(sentence: str, aspect: str, where: str, where_aspect: str) -> tuple[list[str], int, int]:
    """Puts the aspect back in the place of `$T$`. Returns the words, and those of the aspect (end exclusive)."""
    words, term = sentence.split(), aspect.split()
    if not term:
        raise PostError(f"{where_aspect}: aspect: is empty; put the words that {TARGET} stands for.")
    places = [index for index, word in enumerate(words) if word == TARGET]
    if len(places) > 1:
        problem = f"holds {TARGET} {len(places)} times; mark one aspect a row, and write the others out"
    elif not places and (around := [word for word in words if TARGET in word]):
        problem = f"{TARGET} is a part of {shortened(around[0])}; an aspect is whole words, put spaces around it"
    elif not places:
        problem = f"holds no {TARGET}; put it in place of the aspect"
    else:
        (start,) = places
        return words[:start] + term + words[start + 1 :], start, start + len(term)
    raise PostError(f"{where}: sentence: {problem}.")


def polarity_of(label: Any, labels: dict[str, str], where: str) -> str:
    if not isinstance(label, str) or label not in labels:
        known = ", ".join(f"{name} ({polarity})" for name, polarity in labels.items())
        raise PostError(f"{where}: {shortened(label)} is unknown; one of {known} is expected.")
    return labels[label]


def image_name(image: str, where: str) -> str:
    if not image.strip():
        raise PostError(f"{where}: image: is empty; name the tweet's picture.")
    return image.strip()


def join(rows: Iterable[AspectRow], path: Path) -> Iterator[Row]:
    """Joins the aspects of each tweet: rows of one picture and one sentence, in the order of their first ones.

    A tweet that was taken up twice, as one in Twitter-2017 was, is told from one whose rows lie apart by its aspects:
    they come again.

    Raises:
        PostError: neighbouring rows give one aspect twice.
    """
    tweets: list[list[AspectRow]] = []
    latest: dict[tuple[str, ...], list[AspectRow]] = {}
    former = None
    for row in rows:
        key = (row.image, *row.words)
        tweet = latest.get(key)
        twin = next((other for other in tweet or () if (other.start, other.end) == (row.start, row.end)), None)
        if twin is not None and tweet is former:
            aspect = shortened(" ".join(row.words[row.start : row.end]))
            raise PostError(
                f"{path}:{row.line}: aspect: {aspect} at words {row.start}–{row.end} has come in line {twin.line}; "
                "keep one of them."
            )
        if tweet is None or twin is not None:
            tweet = latest[key] = []
            tweets.append(tweet)
        tweet.append(row)
        former = tweet
    for tweet in tweets:
        first = tweet[0]
        yield (
            f"{path}:{first.line}",
            first.line,
            {
                "words": first.words,
                "image": first.image,
                "aspects": [{"start": row.start, "end": row.end, "polarity": row.polarity} for row in tweet],
            },
        )


def read_json(path: Path) -> Iterator[Row]:
    """Reads the `.json` of VLP-MABSA and AoM. A place tells the number of the object, too: it may be all one line.

    Raises:
        PostError: names file, line, object and field.
    """
    for number, (line, found) in enumerate(read_objects(path), 1):
        where = f"{path}:{line}: post {number}"
        if not isinstance(found, dict) or not isinstance(found.get("words"), list):
            raise PostError(f'{where}: an object {{"words": [...], "image_id", "aspects"}} is expected.')
        aspects = found.get("aspects")
        if not isinstance(aspects, list):
            raise PostError(f"{where}: aspects: a list is expected.")
        yield (
            where,
            number,
            {
                "words": found["words"],
                "image": found.get("image_id"),
                "aspects": [
                    json_aspect(aspect, found["words"], f"{where}: aspects[{index}]")
                    for index, aspect in enumerate(aspects)
                ],
            },
        )


def json_aspect(aspect: Any, words: list, where: str) -> dict[str, Any]:
    if not isinstance(aspect, dict):
        raise PostError(f'{where}: an object {{"from", "to", "polarity"}} is expected.')
    for name in ("from", "to"):
        if not isinstance(aspect.get(name), int) or isinstance(aspect[name], bool):
            raise PostError(f"{where}.{name}: {shortened(aspect.get(name))} is no whole number.")
    start, end, term = aspect["from"], aspect["to"], aspect.get("term")
    if 0 <= start < end <= len(words) and term is not None and term != words[start:end]:
        raise PostError(
            f"{where}.term: is {shortened(term)}, but the words {start}–{end} are {shortened(words[start:end])} "
            "(`to` is exclusive)."
        )
    return {
        "start": start,
        "end": end,
        "polarity": polarity_of(aspect.get("polarity"), JSON_LABELS, f"{where}.polarity"),
    }


def read_objects(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (line number, value) of what a JSON list holds; nothing for an empty file."""
    text = "".join(line for _, line in read_lines(path))
    if not text.strip():
        return
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PostError(f"{path}:{getattr(error, 'lineno', 1)}: no JSON ({error}).") from error
    if not isinstance(values, list):
        raise PostError(f"{path}:1: a list [{{...}}, ...] is expected; a file with one object a line ends in .jsonl.")
    decoder, between = json.JSONDecoder(), re.compile(r"[\s,]*")
    line, counted, end = 1, 0, text.index("[") + 1
    for value in values:
        start = between.match(text, end).end()
        line, counted = line + text.count("\n", counted, start), start
        end = decoder.raw_decode(text, start)[1]
        yield line, value
