"""Reads the lines of files, and the rows of JSON Lines, with their places."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class PostError(ValueError):
    """Bad input: the message names the file, the line, what is wrong and the mend."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, line with its end) of a UTF-8 file; a byte order mark is passed over.

    Raises:
        PostError: a line is no UTF-8.
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            yield number, decode_line(path, number, raw)


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (line number, object) of a JSON Lines file; empty lines are passed over.

    Raises:
        PostError: a line is no UTF-8 or no JSON.
    """
    for number, line in read_lines(path):
        if line := line.strip():
            yield number, parse_line(path, number, line)


def decode_line(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise PostError(
            f"{path}:{number}: byte {error.start} is no UTF-8 ({error.reason}); save the file as UTF-8."
        ) from error


def parse_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PostError(f"{path}:{number}: no JSON ({error}); one object a line is expected.") from error
