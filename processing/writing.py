"""Writes folders and files that appear whole."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from .post_files import PostError


def writable_folder(folder: Path) -> None:
    """Makes a folder, or says before any work is done that nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PostError(f"{folder}: can't be written to ({error.strerror}); choose another place.") from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to fill that then appears whole, in place of a former one.

    Should the process be killed between the two renames, both lie beside it, under names that begin with a dot.
    """
    fresh, former = (folder.with_name(f".{folder.name}.{os.getpid()}.{name}") for name in ("new", "former"))
    try:
        yield fresh
        if os.path.lexists(folder):
            folder.rename(former)
        fresh.rename(folder)
    finally:
        if os.path.lexists(former) and not os.path.lexists(folder):
            former.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        if former.is_symlink():
            former.unlink()
        shutil.rmtree(former, ignore_errors=True)


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Gives a path to write a file to that then appears whole, in place of a former one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield fresh
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())  # or a power failure leaves the name with nothing behind it
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Gives a file to write to that then appears whole, in place of a former one."""
    with whole_path(path) as fresh, open(fresh, "w", encoding="utf-8") as file:
        yield file


def write_whole(path: Path, text: str) -> None:
    """Writes a file that appears whole, in place of a former one."""
    with whole_file(path) as file:
        file.write(text)


def dump_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(dump_line(row) for row in rows)


def dump_line(row: dict[str, Any]) -> str:
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, in a field that nobody reads
        line = json.dumps(row)
    return line + "\n"
