"""`lrsa predict`: finds aspects and polarities in posts, however many."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from modeling_lrsa.chunk_predictor import (
    SCHEMA,
    TASKS,
    ChunkPredictor,
    PredictPosts,
    count,
    is_onnx_folder,
    load_predictor,
)
from processing.chunks import Chunk, ChunkReader, cut, shard_files
from processing.digests import digest_of_states, name_with_digest
from processing.indexing_lrsa import DEFAULT_LABELS
from processing.parts import Worker
from processing.posts import check_post, one_post
from processing.writing import dump_lines

from .commands import add_input_arguments, check_output
from .scale import CHUNK, add_scale_arguments, answer_all, check_chunk, check_scale_arguments, print_missing
from .terminal import show_progress


def predict(argv: list[str]) -> None:
    args = parse(argv)
    if args.text is not None:
        post = {"text": args.text, "image_rationale": args.image_rationale, "text_rationale": args.text_rationale}
        posts = list(one_post(check_post(post, "--text"), args.image))
        print(dump_lines([{"id": None, "aspects": predictor_of(args)(posts)[0]}]), end="")
        return
    files = shard_files(args.posts, args.split)
    chunks = cut(files, args.part_size or CHUNK)
    progress = show_progress()
    if args.output is None:
        print_predictions(args, chunks)
        return
    settings = {
        "command": "predict",
        "model": name_with_digest(args.model),
        "posts": f"{args.posts} ({len(files)} files, {digest_of_states(files)})",
        "part size": args.part_size or CHUNK,
        "task": args.task,
        "number of beams": args.num_beams,
        "lexicon": args.lexicon,
        "folder of pictures": args.images,
    }
    counts = answer_all(
        args,
        Path(args.output),
        chunks,
        partial(chunk_predictor, args),
        partial(check_chunk, reader_of(args)),
        settings,
        SCHEMA,
        count,
        progress,
    )
    print(f"{counts['aspects']:,} aspects in {counts['posts']:,} posts: {args.output}")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lrsa predict",
        description='Writes one line {"id", "aspects": [prediction, ...]} for each post, or answers '
        "for one post given by --text. What was answered is kept: after a crash, run the same command to go on.",
        epilog="docs/scaling.md tells more of many posts.",
    )
    add_input_arguments(parser, posts_optional=True)
    parser.add_argument("--split", help="split of a folder")
    parser.add_argument("--output", help="file: JSON Lines, or .parquet (default: standard output)")
    parser.add_argument("--task", choices=TASKS, default="mabsa", help="masc asks the polarity of the given spans")
    parser.add_argument("--text", help="one post in place of POSTS")
    parser.add_argument("--image", help="its picture: file or URL")
    parser.add_argument("--image-rationale", help="what the picture shows and conveys")
    parser.add_argument("--text-rationale", help="what the text means")
    add_scale_arguments(parser)
    args = parser.parse_args(argv)
    if (args.text is None) == (args.posts is None):
        parser.error("give either POSTS or --text")
    described = {name: getattr(args, name) for name in ("image", "image_rationale", "text_rationale")}
    if args.text is None and (given := [name for name, value in described.items() if value is not None]):
        parser.error(f"--{given[0].replace('_', '-')} goes with --text; posts hold their own")
    if args.text is not None and (args.output or args.split or args.task == "masc"):
        parser.error("--text is answered on standard output, with neither --output nor --split nor --task masc")
    if args.format == "parquet" and not args.part_size and Path(args.output or "").suffix != ".parquet":
        parser.error("--format is that of a folder of --part-size; a file has the form of its name: out.parquet")
    if is_onnx_folder(args.model) and args.num_beams > 1:
        parser.error("an ONNX model decodes greedily: leave out --num-beams")
    if (args.part_size or args.engine != "local") and args.output is None:
        parser.error("--part-size and --engine ray need --output")
    check_scale_arguments(parser, args)
    if not args.part_size:
        check_output(args.output, args.posts)
    return args


def print_predictions(args: argparse.Namespace, chunks: Sequence[Chunk]) -> None:
    if args.on_bad_post == "error":
        for chunk in chunks:
            check_chunk(reader_of(args), chunk)
    worker, missing = chunk_predictor(args), 0
    for chunk in chunks:
        answered = worker(chunk)
        missing += answered.counts["missing"]
        for row in answered.bad:
            print(f"lrsa predict: {row['problem']}", file=sys.stderr)
        print(dump_lines(answered.rows), end="")
    print_missing(missing, sys.stderr)


def reader_of(args: argparse.Namespace) -> ChunkReader:
    return ChunkReader(args.images, args.on_bad_image, args.on_bad_post, DEFAULT_LABELS)


def chunk_predictor(args: argparse.Namespace) -> Worker:
    return ChunkPredictor(reader_of(args), predictor_of(args))


def predictor_of(args: argparse.Namespace) -> PredictPosts:
    return load_predictor(args.model, args.task, args.batch_size, args.num_beams, args.lexicon)
