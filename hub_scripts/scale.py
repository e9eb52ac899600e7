"""What `lrsa predict` and `lrsa rationalize` share for many posts: parts, shards, engines. Imports no torch."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from processing.chunks import Chunk, ChunkReader
from processing.parts import RUN, Counts, Parts, Worker, answer

from .terminal import positive


CHUNK = 1000  # posts that are read, sorted by length and answered at a time


def add_scale_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("many posts")
    group.add_argument(
        "--on-bad-post",
        choices=("error", "skip"),
        default="error",
        help="a row that is no post: all are checked first, or it is listed beside the output (default: error)",
    )
    group.add_argument("--part-size", type=positive, metavar="N", help="make the output a folder of parts of N posts")
    group.add_argument(
        "--format", choices=("jsonl", "parquet"), default="jsonl", help="of the files of a folder (default: jsonl)"
    )
    group.add_argument("--shard", type=shard, metavar="K/N", help="answer the K-th of N shares of the parts alone")
    group.add_argument("--engine", choices=("local", "ray"), default="local", help="(default: local)")
    group.add_argument("--workers", type=positive, help="of Ray (default: one a GPU, or else one a CPU)")


def ending_of(args: argparse.Namespace, output: Path) -> str:
    """Returns the ending of the files that posts are answered into."""
    if args.part_size:
        return f".{args.format}"
    return ".parquet" if output.suffix == ".parquet" else ".jsonl"


def check_scale_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.shard and not args.part_size:
        parser.error("--shard needs --part-size: several runs share a folder of parts")
    if args.workers and args.engine != "ray":
        parser.error("--workers is for --engine ray")


def shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text} is no share; 1/4 to 4/4 are those of four")
    return int(number), int(of)


def answer_all(
    args: argparse.Namespace,
    output: Path,
    chunks: Sequence[Chunk],
    make_worker: Callable[[], Worker],
    check: Callable[[Chunk], None],
    settings: dict[str, Any],
    schema: pa.Schema,
    count: Counts,
    progress: bool,
    gpus: float | None = None,
    is_stale: Callable[[Counter[str]], bool] | None = None,
) -> Counter[str]:
    """Answers chunks into `output`, goes on where a run before was stopped, and prints what of it was remarkable.

    Args:
        check: raises `PostError` where a chunk holds what is no post; called first, where that is an error.
        settings: all that the answers depend on.
        schema: of Parquet.
        count: counts the rows of a part.
        gpus: that a worker of Ray takes; by default one, where there are any.
        is_stale: asked of each part that is there, by its counts: whether it is to be answered again.

    Returns:
        The counts of what was answered in this run.
    """
    folder = output if args.part_size else output.with_name(f"{output.name}.parts")
    parts = Parts(folder, ending_of(args, output), schema, settings, count)
    number, of = args.shard or (1, 1)
    mine = chunks[number - 1 :: of]
    for chunk in mine if is_stale else ():
        if parts.has(chunk) and is_stale(parts.count(chunk)):
            parts.path(chunk).unlink()
    before = sum(parts.has(chunk) for chunk in mine)
    if before:
        print(f"{before:,} of {len(mine):,} parts were answered before.")
    counts: Counter[str] = Counter()
    try:
        if args.on_bad_post == "error" and args.engine == "local":
            for chunk in mine:
                if not parts.has(chunk):
                    check(chunk)
        if args.engine == "ray":
            from processing.ray_engine import answer_by_ray

            answers = answer_by_ray(mine, make_worker, parts, args.workers, gpus, progress)
        else:
            answers = answer(mine, make_worker, parts, progress)
        for counted in answers:
            counts.update(counted)
    except BaseException:
        if args.engine == "local" and args.shard is None:  # or others may be at work in the folder
            parts.discard()
        raise
    print_missing(counts["missing"])
    if bad := list(parts.bad(mine)):
        print_bad(bad, parts.folder / RUN if args.part_size else output.with_suffix(".bad.jsonl"))
    if not args.part_size:
        parts.merge(chunks, output)
    elif all(map(parts.has, chunks)):
        parts.sweep()
    else:
        print(f"{sum(not parts.has(chunk) for chunk in chunks):,} of {len(chunks):,} parts are left to other shares.")
    return counts


def check_chunk(reader: ChunkReader, chunk: Chunk) -> None:
    for _ in reader.checked(chunk, []):
        pass


def print_missing(pictures: int, out=None) -> None:
    if pictures:
        print(f"{pictures:,} pictures are not there; their posts count as without.", file=out)


def print_bad(bad: list[dict[str, str]], place: Path) -> None:
    print(f"{len(bad):,} rows are no posts and listed in {place}, such as {bad[0]['problem']}")
