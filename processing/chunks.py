"""Cuts files of posts into chunks, which are read one by one: their number does not matter."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from .parquet_posts import count_rows, read_parquet
from .post_files import PostError, decode_line, parse_line
from .posts import OTHER_FORMS, SPLITS, checked, find_picture, picture_folder, read_rows, split_files


ENDINGS = (".parquet", ".jsonl")  # of the shards of a folder


@dataclass(frozen=True)
class Chunk:
    """A run of rows of one file.

    Args:
        number: of all chunks of a run, from zero.
        file: that it lies in.
        first: rows before it; of JSON Lines, lines.
        size: rows of it; of JSON Lines, lines, empty ones among them.
        offset: of JSON Lines, bytes before it.
    """

    number: int
    file: Path
    first: int
    size: int
    offset: int = 0


def whole(file: Path) -> Chunk:
    """Returns a file as one chunk."""
    return Chunk(0, file, 0, sys.maxsize)


@dataclass
class Read:
    """What a chunk holds.

    Attributes:
        posts: with the columns of `FEATURES`, checked.
        rows: the same as they stand in the file, or would stand in JSON Lines.
        bad: what is no post, `{"place", "problem"}` each.
        missing: how many pictures have a name and are not there.
    """

    posts: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    bad: list[dict[str, str]]
    missing: int


def shard_files(path: str | Path, split: str | None = None) -> list[Path]:
    """Returns the files that posts lie in: a file itself, a split of a folder, or all shards of a folder.

    Shards are all `.parquet` files of a folder, or else all `.jsonl` files, in the order of their names; those of a
    split are named as the Hub does, `train-00000-of-00002.parquet`.

    Raises:
        PostError: there is none, or a folder of splits is given without a split.
    """
    path = Path(path)
    if path.is_dir():
        files = _shards(path, split) or list(split_files(path, split).values())
        if split is None and not _shards(path, None):
            raise PostError(f"{path}: is a folder; name one of its splits by --split.")
        return files
    return list(split_files(path).values())


def named_files(path: str | Path) -> dict[str, Path]:
    """Returns the files of all splits of a folder, or all its shards, or a file itself, by their names.

    Raises:
        PostError: there is none.
    """
    return {file.stem: file for file in _shards(Path(path), None)} or split_files(path)


def _shards(folder: Path, split: str | None) -> list[Path]:
    if split is None:
        names = [
            f"{stem}{ending}" for stems in SPLITS.values() for stem in stems for ending in (".jsonl", *OTHER_FORMS)
        ]
        if any((folder / name).is_file() for name in names):
            return []
    pattern = ".*" if split is None else rf"({'|'.join(SPLITS.get(split, (split,)))})-\d+-of-\d+"
    for ending in ENDINGS:
        files = sorted(file for file in folder.glob(f"[!.]*{ending}") if re.fullmatch(pattern, file.stem))
        if files:
            return files
    return []


def cut(files: Sequence[Path], size: int) -> list[Chunk]:
    """Cuts files into chunks of at most `size` rows, none of which lies in two files.

    Raises:
        PostError: a file is no Parquet, has no column of posts, or can't be read; or there is no post.
    """
    chunks: list[Chunk] = []
    for file in files:
        for first, rows, offset in _extents(file, size):
            chunks.append(Chunk(len(chunks), file, first, rows, offset))
    if not chunks:
        raise PostError(f"{files[0]}: the file is empty; it holds no post.")
    return chunks


def _extents(file: Path, size: int) -> Iterator[tuple[int, int, int]]:
    """Yields the rows before each chunk of a file, those of it, and the bytes before it."""
    if file.suffix in OTHER_FORMS:
        rows = count_rows(file) if file.suffix == ".parquet" else sum(1 for _ in read_rows(file))
        yield from ((first, min(size, rows - first), 0) for first in range(0, rows, size))
        return
    first = offset = 0
    with open(file, "rb") as lines:
        while group := [(len(raw), not raw.isspace()) for raw in islice(lines, size)]:
            if any(full for _, full in group):
                yield first, len(group), offset
            first, offset = first + len(group), offset + sum(length for length, _ in group)


class ChunkReader:
    """Reads chunks. Where one follows on the last, its file is read on.

    Args:
        images: folder of the pictures. Defaults to `images/` beside a file.
        on_bad_image: `"error"`, or `"skip"` for a warning and a post without.
        on_bad_post: `"error"`, or `"skip"`: it is told in `Read.bad`, and the others are read.
        labels: polarities that may occur; `None` for any.
    """

    def __init__(
        self,
        images: str | Path | None = None,
        on_bad_image: str = "error",
        on_bad_post: str = "error",
        labels: Sequence[str] | None = None,
    ):
        self.images, self.labels = images, labels
        self.on_bad_image, self.on_bad_post = on_bad_image, on_bad_post
        self._next: tuple[Path, int] | None = None
        self._rows: Iterator[tuple[str, int, Any]] = iter(())

    def read(self, chunk: Chunk) -> Read:
        """Returns the posts of a chunk, each with its picture and its features looked for, as `load_posts` does.

        Raises:
            PostError: names file, line and field.
        """
        read = Read([], [], [], 0)
        for where, row, post in self.checked(chunk, read.bad):
            read.missing += find_picture(post, where, picture_folder(chunk.file, self.images), self.on_bad_image)
            read.posts.append(post)
            read.rows.append(row)
        return read

    def checked(self, chunk: Chunk, bad: list[dict[str, str]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yields what `iterate_posts` does; what is no post goes to `bad`, where it is to be skipped."""
        for where, number, row in self._rows_of(chunk):
            try:
                if isinstance(row, PostError):
                    raise row
                yield where, *checked(row, where, number, chunk.file, self.images, self.labels)
            except PostError as error:
                if self.on_bad_post != "skip":
                    raise
                bad.append({"place": where, "problem": str(error)})

    def _rows_of(self, chunk: Chunk) -> Iterator[tuple[str, int, Any]]:
        if chunk.file.suffix not in OTHER_FORMS:
            yield from read_lines_of(chunk)
            return
        if self._next != (chunk.file, chunk.first):
            if chunk.file.suffix == ".parquet":
                self._rows = read_parquet(chunk.file, chunk.first)
            else:
                self._rows = islice(read_rows(chunk.file), chunk.first, None)
        self._next = None  # until the chunk was read to its end
        yield from islice(self._rows, chunk.size)
        self._next = chunk.file, chunk.first + chunk.size


def read_lines_of(chunk: Chunk) -> Iterator[tuple[str, int, Any]]:
    """Yields the place of each row of a chunk of JSON Lines, its number, and the row or what is wrong with it."""
    with open(chunk.file, "rb") as file:
        if chunk.offset:
            file.seek(chunk.offset)
        for number, raw in enumerate(islice(file, chunk.size), chunk.first + 1):
            try:
                if line := decode_line(chunk.file, number, raw).strip():
                    yield f"{chunk.file}:{number}", number, parse_line(chunk.file, number, line)
            except PostError as error:
                yield f"{chunk.file}:{number}", number, error
