"""`lrsa rationalize shorten`: makes the rationales of posts fit for training."""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from modeling_lrsa.pretrained_parts import resolve_part
from processing import PostError
from processing.posts import iterate_posts, split_files
from processing.rationales.output import is_file_name, json_row, parquet_row, write_rows
from processing.rationales.post_questions import RATIONALES
from processing.rationales.shortening import fit_for_training, polarity_words
from processing.writing import writable_folder

from .terminal import positive


def shorten(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="lrsa rationalize shorten",
        description="Writes posts with their rationales as running text without lists and Markdown, cut at the end of "
        "a sentence to a number of tokens. Of a folder, splits in Parquet stay so; others become JSON Lines.",
    )
    parser.add_argument("posts", help="file of posts, or folder of splits")
    parser.add_argument("out", help=".jsonl or .parquet file for a file, folder for a folder; may be the same")
    parser.add_argument("--tokenizer", required=True, help="folder or id of a model, that which is to be trained")
    parser.add_argument(
        "--max-tokens",
        type=positive,
        default=126,
        help="of a rationale, special ones apart (default: %(default)s)",
    )
    parser.add_argument(
        "--mask-polarity-words",
        nargs="?",
        const="",
        metavar="LEXICON",
        help="put ■ in place of the words that have a value in a lexicon (default: VADER's), and of polarities",
    )
    args = parser.parse_args(argv)
    out, posts = Path(args.out), Path(args.posts)
    is_file = is_file_name(out)
    if posts.is_dir() and (is_file or out.is_file()):
        raise PostError(f"{out}: {posts} is a folder; name a folder for its splits.")
    if posts.is_file() and (not is_file or out.is_dir()):
        raise PostError(f"{out}: {posts} is a file; name one in .jsonl or .parquet.")
    files = split_files(posts)
    writable_folder(out.parent if is_file else out)
    lexicon = args.mask_polarity_words
    masked = frozenset() if lexicon is None else polarity_words(lexicon or None)
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_part(args.tokenizer))
    except (OSError, ValueError) as error:
        raise PostError(f"{args.tokenizer}: no tokenizer: {' '.join(str(error).split())}") from error

    counts: Counter[str] = Counter()

    def shortened(file: Path, parquet: bool) -> Iterator[dict[str, Any]]:
        for _, row, post in iterate_posts(file, labels=None):
            fit = {
                kind: fit_for_training(post[kind], tokenizer, args.max_tokens, masked)
                for kind in RATIONALES
                if post[kind] is not None
            }
            counts.update(total=len(fit), changed=sum(fit[kind] != post[kind] for kind in fit))
            yield (parquet_row(row, post) if parquet else json_row(row, post, file)) | fit

    for name, file in files.items():
        target = out if is_file else out / f"{name}{'.parquet' if file.suffix == '.parquet' else '.jsonl'}"
        write_rows(target, shortened(file, target.suffix == ".parquet"))
    print(f"{counts['changed']:,} of {counts['total']:,} rationales changed: {out}")
    return 0
