"""Answers chunks of posts one by one, each in a file that appears whole: a run that was killed goes on behind them."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from .chunks import Chunk
from .post_files import PostError, read_json_lines
from .writing import dump_lines, whole_path, writable_folder, write_whole


RUN = ".run"  # folder of what is no part, which readers of data sets pass over
SETTINGS = f"{RUN}/settings.json"


@dataclass
class Answered:
    """What became of a chunk.

    Attributes:
        rows: one a post, in order.
        bad: what was no post, `{"place", "problem"}` each.
        counts: of what the rows do not tell, to be summed over the chunks of a run.
    """

    rows: list[dict[str, Any]]
    bad: list[dict[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


Worker = Callable[[Chunk], Answered]
Counts = Callable[[list[dict[str, Any]]], Counter[str]]


class Parts:
    """A folder with one file for each chunk that is answered, `part-000000.jsonl` or `.parquet`.

    In its folder `.run` lie the settings that the answers depend on, and what was no post, `bad-000000.jsonl`.

    Args:
        folder: made if it is not there.
        ending: `".jsonl"` or `".parquet"`.
        schema: of Parquet.
        settings: JSON.
        counts: of the rows of a part.

    Raises:
        PostError: the folder can't be written to, or holds something else, or parts of a run with other settings.
    """

    def __init__(self, folder: Path, ending: str, schema: pa.Schema, settings: dict[str, Any], counts: Counts):
        self.folder, self.ending, self.schema, self.counts = folder, ending, schema, counts
        settings = json.loads(json.dumps(settings | {"form": ending}))
        writable_folder(folder)
        if (folder / SETTINGS).is_file():
            self._check(settings)
        elif any(folder.glob("[!.]*")):
            raise PostError(f"{folder}: holds files of something else; name another folder.")
        else:
            with told(folder):
                write_whole(folder / SETTINGS, dump_lines([settings]))

    def _check(self, settings: dict[str, Any]) -> None:
        try:
            former = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
            names = [name for name in former.keys() | settings.keys() if former.get(name) != settings.get(name)]
        except (AttributeError, OSError, ValueError) as error:
            raise PostError(f"{self.folder / SETTINGS}: can't be read ({error}); name another folder.") from error
        if names:
            name = min(names)
            was, now = (json.dumps(which.get(name), ensure_ascii=False)[:60] for which in (former, settings))
            raise PostError(
                f"{self.folder}: holds parts of a run with another {name} ({was}, now {now}); go on with that, or "
                "delete the folder, or name another one."
            )

    def path(self, chunk: Chunk) -> Path:
        return self.folder / f"part-{chunk.number:06d}{self.ending}"

    def bad_path(self, chunk: Chunk) -> Path:
        return self.folder / RUN / f"bad-{chunk.number:06d}.jsonl"

    def has(self, chunk: Chunk) -> bool:
        return self.path(chunk).is_file()

    def write(self, worker: Worker, chunk: Chunk) -> Counter[str]:
        """Has a worker answer a chunk, writes the part, and returns all counts."""
        answered = worker(chunk)
        with told(self.folder):
            if answered.bad:
                write_whole(self.bad_path(chunk), dump_lines(answered.bad))
            with whole_path(self.path(chunk)) as fresh:
                if self.ending == ".parquet":
                    pq.write_table(pa.Table.from_pylist(answered.rows, self.schema), fresh)
                else:
                    fresh.write_text(dump_lines(answered.rows), encoding="utf-8")
        return self.counts(answered.rows) + answered.counts

    def count(self, chunk: Chunk) -> Counter[str]:
        """Returns the counts of a part that is there."""
        if self.ending == ".parquet":
            return self.counts(pq.read_table(self.path(chunk), schema=self.schema).to_pylist())
        return self.counts([row for _, row in read_json_lines(self.path(chunk))])

    def bad(self, chunks: Iterable[Chunk]) -> Iterator[dict[str, str]]:
        """Yields what was no post."""
        for chunk in chunks:
            if (path := self.bad_path(chunk)).is_file():
                yield from (row for _, row in read_json_lines(path))

    def merge(self, chunks: Sequence[Chunk], target: Path) -> None:
        """Puts the parts together to one file that appears whole, with what was no post beside it."""
        with told(self.folder):
            listed = target.with_name(f"{target.stem}.bad.jsonl")
            listed.unlink(missing_ok=True)
            if any(self.bad_path(chunk).is_file() for chunk in chunks):
                write_whole(listed, dump_lines(self.bad(chunks)))
            with whole_path(target) as fresh:
                if self.ending == ".parquet":
                    with pq.ParquetWriter(fresh, self.schema) as writer:
                        for chunk in chunks:
                            writer.write_table(pq.read_table(self.path(chunk), schema=self.schema))
                else:
                    with open(fresh, "wb") as file:
                        for chunk in chunks:
                            with open(self.path(chunk), "rb") as part:
                                shutil.copyfileobj(part, file)
            done = self.folder.with_name(f".{self.folder.name}.done")
            shutil.rmtree(done, ignore_errors=True)  # of a run that was killed here
            self.folder.rename(done)  # at once: a folder that lacks some of its parts is one to go on with
            shutil.rmtree(done)

    def discard(self) -> None:
        """Removes the folder again if nothing is answered, so that a run may begin in another way."""
        if not any(self.folder.glob("part-*")):
            shutil.rmtree(self.folder / RUN, ignore_errors=True)
            with suppress(OSError):
                self.folder.rmdir()

    def sweep(self) -> None:
        """Removes what killed processes have left half-written; for when nobody writes any more."""
        for path in self.folder.glob(".part-*"):
            path.unlink(missing_ok=True)


@contextmanager
def told(place: Path) -> Iterator[None]:
    """Turns what the file system says into one line with the mend."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        problem = os.strerror(error.errno) if getattr(error, "errno", None) else " ".join(str(error).split())
        raise PostError(
            f"{place}: can't be written ({problem}); what was answered before is kept: mend that and run again."
        ) from error


def answer(
    chunks: Sequence[Chunk], make_worker: Callable[[], Worker], parts: Parts, progress: bool = False
) -> Iterator[Counter[str]]:
    """Answers the chunks that have no part yet, in order, and yields the counts of each."""
    left = [chunk for chunk in chunks if not parts.has(chunk)]
    worker = make_worker() if left else None
    with tqdm(total=sum(chunk.size for chunk in left), unit="post", disable=not progress) as bar:
        for chunk in left:
            counts = parts.write(worker, chunk)
            bar.update(chunk.size)
            yield counts
