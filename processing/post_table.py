"""Makes data sets of checked posts: beyond some number they lie in a file, and not in memory."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from datasets.arrow_writer import ArrowWriter

from .cache import cache_folder
from .post_files import PostError


FEATURES = Features(
    {
        "id": Value("string"),
        "text": Value("string"),
        "words": List(Value("string")),
        "image": Image(),
        "image_features": Value("string"),
        "aspects": List({"start": Value("int32"), "end": Value("int32"), "polarity": Value("string")}),
        "image_rationale": Value("string"),
        "text_rationale": Value("string"),
    }
)
IN_MEMORY = 20_000  # posts
BATCH = 100  # posts that are written at a time: with pictures they are large


def to_dataset(rows: Iterable[dict[str, Any]]) -> Dataset:
    """Makes a data set of checked rows; its fingerprint follows from their content, so that caches are found again.

    More than `IN_MEMORY` rows are written to an Arrow file in the cache as they come, and mapped into memory from it.

    Raises:
        PostError: the cache can't be written to, or a picture has gone.
    """
    digest = hashlib.sha256()
    rows = _digested(rows, digest)
    first = list(islice(rows, IN_MEMORY))
    following = next(rows, None)
    if following is None:
        dataset = Dataset.from_list(first, features=FEATURES)
    else:
        dataset = _on_disk(chain(first, [following], rows), digest)
    dataset._fingerprint = digest.hexdigest()[:32]
    return dataset


def _digested(rows: Iterable[dict[str, Any]], digest) -> Iterator[dict[str, Any]]:
    for row in rows:
        try:
            files = [Path(row[name]).stat() for name in ("image", "image_features") if isinstance(row[name], str)]
        except OSError as error:
            raise PostError(f"{error.filename}: can't be read ({error.strerror}).") from error
        content = [row, [(file.st_size, file.st_mtime_ns) for file in files]]
        text = json.dumps(content, sort_keys=True, default=lambda picture: hashlib.sha256(picture).hexdigest())
        digest.update(text.encode())
        yield row


def _on_disk(rows: Iterable[dict[str, Any]], digest) -> Dataset:
    folder = cache_folder()
    descriptor, fresh = tempfile.mkstemp(suffix=".arrow", prefix=".posts-", dir=folder)
    os.close(descriptor)
    try:
        with ArrowWriter(path=fresh, features=FEATURES, writer_batch_size=BATCH) as writer:
            for row in rows:
                writer.write(FEATURES.encode_example(row))
            writer.finalize()
        path = folder / f"posts-{digest.hexdigest()[:32]}.arrow"
        os.replace(fresh, path)
    except OSError as error:
        raise PostError(f"{folder}: posts can't be kept there ({error}); make room, or set LRSA_CACHE.") from error
    finally:
        Path(fresh).unlink(missing_ok=True)
    return Dataset.from_file(str(path))
