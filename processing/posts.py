"""Reads posts into a `datasets.Dataset`, checked one by one."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from datasets import Dataset, DatasetDict
from transformers.utils import logging

from .images_lrsa import open_image
from .indexing_lrsa import DEFAULT_LABELS
from .parquet_posts import read_parquet
from .post_files import PostError, read_json_lines
from .post_table import FEATURES, to_dataset
from .published_forms import read_json, read_tsv, read_txt
from .region_features import find_features
from .words_lrsa import split_words


logger = logging.get_logger(__name__)

SPLITS = {"train": ("train",), "validation": ("validation", "dev", "val"), "test": ("test",)}  # names of their files
OTHER_FORMS = {".parquet": read_parquet, ".tsv": read_tsv, ".txt": read_txt, ".json": read_json}
MAX_CHARACTERS = 10_000

KEPT = (*FEATURES, "rationale_provenance")  # of the columns of a Parquet file


def load_posts(
    path: str | Path,
    split: str | None = None,
    images: str | Path | None = None,
    on_bad_image: str = "error",
    labels: Sequence[str] = DEFAULT_LABELS,
    labelled: bool = False,
) -> Dataset | DatasetDict:
    """Reads posts.

    Args:
        path: a file, or a folder with files named `train`, `validation` (or `dev`, `val`) and `test`, any of them. The
            ending tells the form: `.jsonl`, `.parquet` (of `save_posts`), or one of `published_forms`. Of a folder
            that has several forms, one is read, the first of `.jsonl`, `.parquet`, `.tsv`, `.txt`, `.json`.
        split: for a folder, the one split to read; otherwise all that are there are read.
        images: folder of the pictures that `image` names, or of their features (see `find_features`), for models
            without vision model. Defaults to `images/` beside the file. A picture that is not there counts as none,
            with one warning for all.
        on_bad_image: a picture that is there and can't be read: `"error"`, or `"skip"` for a warning and a post
            without.
        labels: polarities that may occur.
        labelled: whether every post must have `aspects` with polarities, to learn from or to score against.

    Returns:
        A data set with the columns of `FEATURES`, or for a folder without `split` a dictionary of them. Many posts lie
        in a file of the cache, and not in memory.

    Raises:
        PostError: names file, line and field.
    """
    files = split_files(path, split)
    if split is None and Path(path).is_dir():
        return DatasetDict(
            {name: load_posts(file, None, images, on_bad_image, labels, labelled) for name, file in files.items()}
        )
    (path,) = files.values()
    folder, missing = picture_folder(path, images), 0

    def found() -> Iterator[dict[str, Any]]:
        nonlocal missing
        for where, _, post in iterate_posts(path, images, labels, labelled):
            missing += find_picture(post, where, folder, on_bad_image)
            yield post

    dataset = to_dataset(found())
    warn_of_missing(path, missing, len(dataset), folder)
    return dataset


def split_files(path: str | Path, split: str | None = None) -> dict[str, Path]:
    """Returns the files of the splits of a folder, or of one of them; a file is one split, under its stem.

    Raises:
        PostError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        for ending in (".jsonl", *OTHER_FORMS):
            files = {name: [path / f"{stem}{ending}" for stem in stems] for name, stems in SPLITS.items()}
            found = {
                name: file for name, places in files.items() if (file := next(filter(Path.is_file, places), None))
            }
            if found:
                break
        else:
            raise PostError(
                f"{path}: holds none of {', '.join(f'{name}.jsonl' for name in SPLITS)}, and no other form of them "
                f"({', '.join(OTHER_FORMS)})."
            )
        if split is not None and split not in found:
            raise PostError(f"{path}: there is no {split}{ending}; found {', '.join(found)}.")
        return found if split is None else {split: found[split]}
    if not path.is_file():
        raise PostError(f"{path}: no such file or folder.")
    return {path.stem: path}


def picture_folder(path: Path, images: str | Path | None) -> Path:
    return Path(images) if images is not None else path.parent / "images"


def iterate_posts(
    path: str | Path,
    images: str | Path | None = None,
    labels: Sequence[str] | None = DEFAULT_LABELS,
    labelled: bool = False,
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Reads the posts of one file, one by one, so that their number does not matter.

    Args:
        path: a file of any form that `load_posts` reads.
        images, labels, labelled: as of `load_posts`; with `labels=None` any polarity may occur.

    Yields:
        The place, such as `posts.jsonl:3`; the row as it stands there, or would stand in JSON Lines; and the checked
        post with the columns of `FEATURES`, its `id` filled in. Its `image` is the path of a picture that is neither
        looked for nor opened, or as Parquet holds it `{"bytes": ..., "path": its name or None}`.

    Raises:
        PostError: names file, line and field.
    """
    path, empty = Path(path), True
    for where, number, row in read_rows(path):
        empty = False
        yield where, *checked(row, where, number, path, images, labels, labelled)
    if empty:
        raise PostError(f"{path}: the file is empty; it holds no post.")


def checked(
    row: Any,
    where: str,
    number: int,
    path: Path,
    images: str | Path | None = None,
    labels: Sequence[str] | None = DEFAULT_LABELS,
    labelled: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a row of a file and the post in it, as `iterate_posts` gives them."""
    post = check_post(row, where, labels)
    if labelled and post["aspects"] is None:
        raise PostError(f"{where}: aspects: is missing; give a list, an empty one where there are none.")
    if labelled and (bare := [i for i, a in enumerate(post["aspects"]) if a["polarity"] is None]):
        raise PostError(f"{where}: aspects[{bare[0]}].polarity: is missing.")
    post["id"] = post["id"] or f"{path.stem}-{number}"
    embedded = isinstance(post["image"], dict)
    if path.suffix in OTHER_FORMS:
        row = {name: value for name, value in row.items() if name in KEPT} | {"id": post["id"]}
        row["image"] = post["image"]["path"] if embedded else post["image"]
    if post["image"] is not None and not embedded:
        post["image"] = str(picture_folder(path, images) / post["image"])
    return row, post


def find_picture(post: dict[str, Any], where: str, folder: Path, on_bad_image: str) -> bool:
    """Looks for the picture of a post from `iterate_posts`, and for its features.

    Returns:
        Whether it has a name, and neither is there.

    Raises:
        PostError: it is there and can't be read, and is not to be skipped.
    """
    image = post["image"]
    if isinstance(image, dict):
        post["image_features"] = find_features(folder / image["path"]) if image["path"] else None
        post["image"] = check_picture(image, f"{where}: image", on_bad_image)
    elif image is not None:
        post["image_features"] = find_features(Path(image))
        if not os.path.isfile(image):  # true, too, for what can be no file's name
            post["image"] = None
            return post["image_features"] is None
        post["image"] = check_picture(image, f"{where}: image", on_bad_image)
    return False


def warn_of_missing(path: str | Path, missing: int, posts: int, folder: Path) -> None:
    if missing:
        logger.warning(f"{path}: {missing} of {posts} pictures are not in {folder}; these posts count as without.")


def one_post(post: dict[str, Any], image: str | None = None) -> Dataset:
    """Makes a data set of one post (from `check_post`), with its picture given as a file or URL."""
    if image is not None:
        try:
            buffer = BytesIO()
            open_image(image).save(buffer, format="PNG")
        except ValueError as error:
            raise PostError(f"--image: {error}") from error
        post = {**post, "image": {"bytes": buffer.getvalue(), "path": None}}
    dataset = Dataset.from_list([post], features=FEATURES)
    dataset._fingerprint = hashlib.sha256(repr(post).encode()).hexdigest()[:32]
    return dataset


def gold_aspects(posts: Dataset) -> list[list[dict]]:
    """Returns the gold aspects of posts in the units of the predictions: words for posts given as words."""
    gold = []
    for words, aspects in zip(posts["words"], posts["aspects"]):
        if words is not None:
            aspects = [{**a, "word_start": a["start"], "word_end": a["end"]} for a in aspects or []]
        gold.append(aspects or [])
    return gold


def read_rows(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Yields the place of each row of a file, such as `posts.jsonl:3`, its number, and the row."""
    if path.suffix in OTHER_FORMS:
        yield from OTHER_FORMS[path.suffix](path)
    else:
        for line, row in read_json_lines(path):
            yield f"{path}:{line}", line, row


def check_post(row: Any, where: str, labels: Sequence[str] | None = DEFAULT_LABELS) -> dict[str, Any]:
    """Returns the post with exactly the columns of `FEATURES`, or says what is wrong with it.

    Args:
        where: the place that messages begin with, such as `posts.jsonl:3`.
        labels: polarities that may occur; `None` for any string.
    """

    def fail(field: str, problem: str):
        raise PostError(f"{where}: {field}: {problem}")

    def check_characters(field: str, value: str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            fail(field, "holds half of a surrogate pair, which is no character; repair the export.")

    if not isinstance(row, dict):
        fail("row", f"a JSON object is expected, this is {json.dumps(row)[:40]}.")
    has_text, has_words = row.get("text") is not None, row.get("words") is not None
    if has_text == has_words:
        fail(
            "text",
            "give `text` (a string) or `words` (a list of words), " + ("not both." if has_text else "none is here."),
        )
    if has_text:
        text = row["text"]
        if not isinstance(text, str):
            fail("text", "a string is expected.")
        check_characters("text", text)
        characters, units = len(text), "characters"
        boundaries = split_words(text) if len(text) <= MAX_CHARACTERS else []
    else:
        words = row["words"]
        if not isinstance(words, list):
            fail("words", "a list of strings is expected.")
        for index, word in enumerate(words):
            if not isinstance(word, str) or word.split() != [word]:
                problem = f"{shortened(word)} is no word: non-empty strings without white space are expected."
                fail(f"words[{index}]", problem)
            check_characters(f"words[{index}]", word)
        characters, units = sum(map(len, words)) + len(words), "words"
    if characters > MAX_CHARACTERS:
        fail(
            "text" if has_text else "words",
            f"{characters:,} characters; a post has at most {MAX_CHARACTERS:,}. Split it.",
        )

    for field in ("id", "image", "image_rationale", "text_rationale"):
        if row.get(field) is not None and not (field == "image" and is_embedded(row[field])):
            if not isinstance(row[field], str):
                fail(field, "a string or null is expected.")
            check_characters(field, row[field])

    aspects = row.get("aspects")
    if aspects is not None and not isinstance(aspects, list):
        fail("aspects", "a list is expected.")
    length = len(row["text"]) if has_text else len(row["words"])
    checked = []
    for index, aspect in enumerate(aspects or []):
        field = f"aspects[{index}]"
        if not isinstance(aspect, dict):
            fail(field, 'an object {"start", "end", "polarity"} is expected.')
        for name in ("start", "end"):
            if name not in aspect:
                fail(f"{field}.{name}", "is missing.")
            if not isinstance(aspect[name], int) or isinstance(aspect[name], bool):
                fail(f"{field}.{name}", f"{shortened(aspect[name])} is no whole number.")
        start, end, polarity = aspect["start"], aspect["end"], aspect.get("polarity")
        if not 0 <= start < end <= length:
            fail(
                field,
                f"{shortened(start)}–{shortened(end)} lies outside the text of {length} {units} (`end` is exclusive).",
            )
        if has_text and (start not in {a for a, _ in boundaries} or end not in {b for _, b in boundaries}):
            problem = f"{shortened(row['text'][start:end])} cuts a word or holds white space at its edge"
            fail(field, f"{problem}; move it to word borders.")
        if labels is None and not isinstance(polarity, str | None):
            fail(f"{field}.polarity", "a string or null is expected.")
        if labels is not None and polarity is not None and polarity not in labels:
            fail(f"{field}.polarity", f"{shortened(polarity)} is unknown; one of {', '.join(labels)} is expected.")
        checked.append({"start": start, "end": end, "polarity": polarity})
    checked.sort(key=lambda aspect: aspect["start"])
    for former, aspect in zip(checked, checked[1:]):
        if aspect["start"] < former["end"]:
            spans = [f"{a['start']}–{a['end']}" for a in (former, aspect)]
            fail("aspects", f"{spans[0]} and {spans[1]} overlap; keep one of them.")
    post = {name: row.get(name) for name in FEATURES} | {"image_features": None}
    post["aspects"] = None if aspects is None else checked
    return post


def is_embedded(image: Any) -> bool:
    """Tells whether a picture is given as `Image` stores it with its bytes, which JSON can't hold."""
    return isinstance(image, dict) and isinstance(image.get("bytes"), bytes)


def stored_picture(image: Any) -> Any:
    """Returns the bytes of a picture that is given as `Image` stores it; any other as it is."""
    return image["bytes"] if is_embedded(image) else image


def check_picture(image: str | dict, where: str, on_bad_image: str) -> str | dict | None:
    """Returns a picture, a path or embedded, that can be read; `None` with a warning where it can't and is skipped."""
    try:
        open_image(image["bytes"] if isinstance(image, dict) else image)
        return image
    except ValueError as error:
        if on_bad_image != "skip":
            raise PostError(f"{where}: {error}. Repair it, or pass --on-bad-image skip.") from error
        logger.warning(f"{where}: {error}; the post counts as without picture.")
        return None
