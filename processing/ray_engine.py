"""Answers chunks of posts by workers on a Ray cluster: the same chunks, workers and parts as in one process."""

import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from tqdm.auto import tqdm

from .chunks import Chunk
from .parts import Parts, Worker
from .post_files import PostError


RETRIES = 4  # of a block of chunks whose worker dies
CHUNKS_A_BLOCK = 8  # neighbours, which are read on without opening their file again


class _Actor:
    """One worker of the cluster. A part that is there is left alone, so that a block may be given out twice."""

    def __init__(self, make_worker: Callable[[], Worker], parts: Parts, folder: str):
        os.chdir(folder)  # where relative paths begin
        self.parts, self.problem = parts, None
        try:
            self.worker = make_worker()
        except PostError as error:  # Ray would start it again and again
            self.problem = str(error)

    def __call__(self, block: pa.Table) -> pa.Table:
        if self.problem is not None:
            return pa.Table.from_pylist([{"size": 0, "counts": "{}", "error": self.problem}])
        told = []
        for row in block.to_pylist():
            chunk = Chunk(**row | {"file": Path(row["file"])})
            try:
                counts = self.parts.count(chunk) if self.parts.has(chunk) else self.parts.write(self.worker, chunk)
                told.append({"size": chunk.size, "counts": json.dumps(counts), "error": None})
            except PostError as error:  # nothing that is tried again would mend it
                told.append({"size": 0, "counts": "{}", "error": str(error)})
                break
        return pa.Table.from_pylist(told)


def answer_by_ray(
    chunks: Sequence[Chunk],
    make_worker: Callable[[], Worker],
    parts: Parts,
    workers: int | None = None,
    gpus: float | None = None,
    progress: bool = False,
) -> Iterator[Counter[str]]:
    """Answers the chunks that have no part yet, in any order, and yields the counts of each.

    The cluster is that of `RAY_ADDRESS`, or this machine. All its machines must see files and parts under one path.

    Args:
        make_worker: is called once in each worker; can be pickled.
        workers: by default one a GPU, or where there are none, or none is wanted, one a CPU.
        gpus: that a worker takes; by default one where there are any.

    Raises:
        PostError: Ray is not installed, the cluster is too small, a chunk can't be answered, or workers keep dying.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        import ray.data
    except ImportError as error:
        raise PostError(f"--engine ray needs Ray: pip install lrsa[ray] ({error})") from error
    left = [chunk for chunk in chunks if not parts.has(chunk)]
    if not left:
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    gpus, workers = _share_out(ray.cluster_resources(), gpus, workers)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    blocks = -(-len(left) // CHUNKS_A_BLOCK)
    rows = [asdict(chunk) | {"file": str(chunk.file)} for chunk in left]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray retries for ever by default
        answered = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(make_worker, parts, os.getcwd()),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(workers, blocks)),
            num_gpus=gpus,
            max_task_retries=RETRIES,
        )
    with tqdm(total=sum(chunk.size for chunk in left), unit="post", disable=not progress) as bar:
        try:
            for row in answered.iter_rows():
                if row["error"] is not None:
                    raise PostError(row["error"])
                bar.update(row["size"])
                yield Counter(json.loads(row["counts"]))
        except ray.exceptions.RayError as error:
            raise PostError(
                f"{parts.folder}: a worker failed ({_cause(error)}); what was answered is kept: mend that, or where "
                "memory ran out take fewer workers or smaller batches, and run again."
            ) from error


def _share_out(resources: dict[str, float], gpus: float | None, workers: int | None) -> tuple[float, int]:
    """Returns the GPUs that a worker takes, and the number of workers."""
    if gpus is None:
        gpus = 1.0 if resources.get("GPU") else 0.0
    most = int(resources.get("GPU", 0) / gpus) if gpus else int(resources.get("CPU", 1))
    if workers is not None and workers > most:
        raise PostError(f"--workers {workers}: the cluster has room for {most}.")
    return gpus, workers or most


def _cause(error: BaseException | None) -> str:
    """Returns the first line of what began it."""
    cause = ""
    while error is not None:
        cause = next(filter(str.strip, str(error).splitlines()), cause).strip()
        error = error.__cause__
    return cause[:200]
