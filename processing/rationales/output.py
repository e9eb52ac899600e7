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

from ..chunks import Chunk
from ..parquet_posts import BATCH
from ..posts import FEATURES, PostError
from ..writing import dump_lines, whole_file, whole_path
from .asking import Question
from .post_questions import RATIONALES, PostQuestions
from .store import AnswerStore


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
        try:
            with row_writer(target) as write:
                every = rows_of(questions, chunk, store, target.suffix == ".parquet")
                while rows := list(islice(every, BATCH)):
                    written += count_rationales(rows)
                    write(rows)
        except (OSError, pa.ArrowException) as error:
            problem = getattr(error, "strerror", None) or error
            raise PostError(f"{target}: can't be written ({problem}); the answers are kept.") from error
    return written


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
        if parquet:
            image, name = post["image"], row.get("image")
            if isinstance(image, str):
                image = {"bytes": Path(image).read_bytes(), "path": name} if Path(image).is_file() else None
            features = {"image_features": row.get("image_features")}
            row = post | features | {"rationale_provenance": row.get("rationale_provenance")}
            row["image"] = image or (name and {"bytes": None, "path": name})
        yield with_rationales(row, asked, store)


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
