"""Writes posts together with their rationales and where these came from."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Value
from transformers.utils import logging

from ..chunks import Chunk
from ..parquet_posts import BATCH
from ..posts import FEATURES, PostError, is_embedded
from ..writing import dump_lines, whole_file, whole_path
from .asking import Question
from .post_questions import RATIONALES, PostQuestions
from .store import AnswerStore


logger = logging.get_logger(__name__)

_SETTINGS = {"max_new_tokens": Value("int32"), "temperature": Value("float64"), "top_p": Value("float64")}
_SETTINGS |= {"seed": Value("int64"), "max_image_side": Value("int32")}
_PROVENANCE = {name: Value("string") for name in ("model", "prompt", "date", "finish_reason")} | {
    "settings": _SETTINGS
}
SCHEMA = Features({**FEATURES, "rationale_provenance": dict.fromkeys(RATIONALES, _PROVENANCE)}).arrow_schema


def write_posts(questions: PostQuestions, store: AnswerStore, out: str | Path, ending: str = ".jsonl") -> Counter[str]:
    """Writes the posts in their order, with all their fields, as JSON Lines; or as Parquet, with those of `FEATURES`.

    `text_rationale` and `image_rationale` are the answers in the store, those that the posts had already, or null;
    `rationale_provenance` holds for each of the two `model`, `prompt` (`id@version`), `settings`, `date` and
    `finish_reason`, or null where the rationale was there before.

    Args:
        out: a `.jsonl` or `.parquet` file, or for the files of a folder a folder, which `datasets.load_dataset` reads,
            too. Each file appears whole.
        ending: of the files of a folder.

    Returns:
        How many posts have a rationale, by its kind.

    Raises:
        PostError: a file can't be written.
    """
    out, written = Path(out), Counter()
    for name, chunk in questions.chunks.items():
        target = out if is_file_name(out) else out / f"{name}{ending}"
        rows = rows_of(questions, chunk, store, target.suffix == ".parquet")
        write_rows(target, counted(rows, written))
    return written


def counted(rows: Iterable[dict[str, Any]], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        counts.update(count_rationales([row]))
        yield row


def write_rows(target: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Writes rows to a `.jsonl` or `.parquet` file that then appears whole.

    Raises:
        PostError: it can't be written.
    """
    try:
        with row_writer(target) as write:
            while batch := list(islice(rows, BATCH)):
                write(batch)
    except (OSError, pa.ArrowException) as error:
        problem = getattr(error, "strerror", None) or error
        raise PostError(f"{target}: can't be written ({problem}); what was there is kept.") from error


@contextmanager
def row_writer(target: Path) -> Iterator[Callable[[Sequence[dict[str, Any]]], None]]:
    """Gives what appends rows to a file that then appears whole."""
    if target.suffix == ".parquet":
        with whole_path(target) as fresh, pq.ParquetWriter(fresh, SCHEMA) as writer:
            yield lambda rows: writer.write_table(pa.Table.from_pylist(list(rows), SCHEMA))
    else:
        with whole_file(target) as lines:
            yield lambda rows: lines.write(dump_lines(rows))


def rows_of(
    questions: PostQuestions, chunk: Chunk, store: AnswerStore, parquet: bool = False
) -> Iterator[dict[str, Any]]:
    """Yields the posts of a chunk with their rationales, as rows of JSON Lines or of Parquet, pictures in them."""
    for row, post, asked in questions.of_chunk(chunk):
        yield with_rationales(parquet_row(row, post) if parquet else json_row(row, post, chunk.file), asked, store)


def parquet_row(row: dict[str, Any], post: dict[str, Any]) -> dict[str, Any]:
    """Returns a post (from `iterate_posts`) as a row of `SCHEMA`, its picture in it."""
    image, name = post["image"], row.get("image")
    if isinstance(image, str):
        image = {"bytes": Path(image).read_bytes(), "path": name} if Path(image).is_file() else None
    features = {"image_features": row.get("image_features")}
    row = post | features | {"rationale_provenance": row.get("rationale_provenance")}
    return row | {"image": image or (name and {"bytes": None, "path": name})}


def json_row(row: dict[str, Any], post: dict[str, Any], file: Path) -> dict[str, Any]:
    """Returns a post as a row of JSON Lines, and says once of a file that its pictures stay behind."""
    if is_embedded(post["image"]):
        logger.warning_once(f"{file}: JSON Lines can't hold the pictures that are in it; write Parquet to keep them.")
    return row


def count_rationales(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    return Counter(kind for row in rows for kind in RATIONALES if row[kind])


def is_file_name(out: Path) -> bool:
    return out.suffix in (".jsonl", ".parquet")


def with_rationales(row: dict[str, Any], asked: dict[str, Question], store: AnswerStore) -> dict[str, Any]:
    former = row.get("rationale_provenance")
    former = former if isinstance(former, dict) else {}
    texts, provenance = {}, {}
    for kind in RATIONALES:
        texts[kind], provenance[kind] = row.get(kind) or None, former.get(kind)
        if kind in asked and (found := store.get(asked[kind].key)):
            answer, source = found
            texts[kind] = answer.text
            provenance[kind] = {
                "model": source.model,
                "prompt": source.prompt,
                "settings": asdict(source.settings),
                "date": source.date,
                "finish_reason": answer.finish_reason,
            }
    return {**row, **texts, "rationale_provenance": provenance}
