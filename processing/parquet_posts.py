"""Saves posts as Parquet, with their pictures, and reads them back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from datasets.table import embed_table_storage

from .post_files import PostError
from .writing import whole_path, writable_folder


BATCH = 100  # rows: what is held at a time of a file with pictures


def save_posts(posts: Dataset | DatasetDict, path: str | Path) -> None:
    """Saves posts (from `load_posts`) as Parquet, which `load_posts` and `datasets.load_dataset` read.

    Pictures are embedded. Features of pictures are not: their file names are kept, without folder.

    Args:
        path: a `.parquet` file, or for several splits a folder, which gets one file a split. Each appears whole.

    Raises:
        PostError: a file can't be written, or a picture is no longer there.
    """
    path = Path(path)
    if isinstance(posts, DatasetDict):
        for split, rows in posts.items():
            save_posts(rows, path / f"{split}.parquet")
        return
    if path.suffix != ".parquet":
        raise PostError(f"{path}: name a file in .parquet.")
    writable_folder(path.parent)
    try:
        with whole_path(path) as fresh:
            posts.with_format("arrow").map(embed, batched=True, batch_size=BATCH).to_parquet(fresh, batch_size=BATCH)
    except OSError as error:
        raise PostError(f"{path}: can't be written ({error}).") from error


def embed(table: pa.Table) -> pa.Table:
    """Takes the bytes of the pictures into a table of posts, and the folders out."""
    table = embed_table_storage(table)
    features = [name and Path(name).name for name in table["image_features"].to_pylist()]
    column = table.schema.get_field_index("image_features")
    return table.set_column(column, "image_features", pa.array(features, pa.string()))


def read_parquet(path: Path, first: int = 0) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields the place of each row, such as `train.parquet, row 3`, its number from one, and the row.

    `image` is `{"bytes", "path"}` for an embedded picture, and otherwise the name of its file; where features alone
    are known, theirs without ending.

    Args:
        first: rows that are passed over; row groups of theirs alone are not read.

    Raises:
        PostError: the file is no Parquet.
    """
    with opened(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        group = number = 0
        while group < len(sizes) and number + sizes[group] <= first:
            number, group = number + sizes[group], group + 1
        for batch in file.iter_batches(BATCH, range(group, len(sizes))):
            passed = min(max(first - number, 0), len(batch))
            for index, row in enumerate(batch.slice(passed).to_pylist(), number + passed + 1):
                image = row.get("image")
                if isinstance(image, dict) and image.get("bytes") is None:
                    image = image.get("path")
                if image is None and row.get("image_features"):
                    image = Path(row["image_features"]).stem
                yield f"{path}, row {index}", index, row | {"image": image}
            number += len(batch)


def count_rows(path: Path) -> int:
    """Returns how many posts a Parquet file holds, from its end alone.

    Raises:
        PostError: the file is no Parquet, or has no column of posts.
    """
    with opened(path) as file:
        names = file.schema_arrow.names
        if not {"text", "words"} & set(names):
            raise PostError(f"{path}: has no column `text` or `words`, but {', '.join(names) or 'none at all'}.")
        return file.metadata.num_rows


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise PostError(
            f"{path}: can't be read as Parquet ({' '.join(str(error).split())}); save it again."
        ) from error
