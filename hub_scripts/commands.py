"""The commands of `lrsa`: each parses its arguments, calls, and prints."""

import argparse
import json
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from modeling_lrsa.arguments import argument_parser, wrong_argument
from modeling_lrsa.converted_folder import DEFAULT_TOKENIZER, convert_to_folder
from modeling_lrsa.loading import load_model
from modeling_lrsa.pretrained_parts import PartError
from modeling_lrsa.trainer import LRSATrainingArguments
from modeling_lrsa.training import evaluate as score
from modeling_lrsa.training import train as run
from processing import PostError, load_posts
from processing.chunks import named_files
from processing.mapping_file import read_mapping
from processing.writing import writable_folder, write_whole

from .publishing import Target, full_id, publish
from .push import report
from .push_model import find_folder, model_publication
from .terminal import positive, print_scores, show_progress


def train(argv: list[str]) -> None:
    parser = argument_parser(
        prog="lrsa train",
        usage="lrsa train [RECIPE.yaml] [--argument value ...]",
        description="Trains on the train split, selects on the validation split. A recipe comes first; flags win.",
    )
    parser.set_defaults(output_dir="runs/train")
    if argv and not argv[0].startswith("-"):
        recipe = read_mapping(argv[0], "recipe", "argument names to values")
        for name, value in recipe.items():
            if problem := wrong_argument(parser, name, value):
                raise PostError(f"{argv[0]}:{recipe.lines[name]}: {problem}.")
        parser.set_defaults(**recipe)
        argv = argv[1:]
    parser.set_defaults(disable_tqdm=not show_progress(), log_level_replica="error")
    try:
        model_arguments, data_arguments, training_arguments = parser.parse_args_into_dataclasses(argv)
        results = run(model_arguments, data_arguments, training_arguments)
    except (PartError, TypeError, ValueError, OSError, StrictDataclassError) as error:
        raise PostError(" ".join(str(error).split())) from error
    if training_arguments.process_index > 0:
        return
    print(f"\nValidation split, step {results['best_step']}, seed {results['seed']}:")
    print_scores(results["validation"])
    print(f"Model: {training_arguments.output_dir}/model; scores: {training_arguments.output_dir}/results.json")
    if model_arguments.lora:
        print(f"Adapter: {training_arguments.output_dir}/adapter")
    if training_arguments.push_to_hub:
        push_trained(training_arguments)


def push_trained(args: LRSATrainingArguments) -> None:
    """Publishes what `lrsa push` would, over what was pushed during training."""
    folder = find_folder(args.output_dir)
    repo = full_id(args.hub_model_id or Path(args.output_dir).absolute().name, args.hub_token)
    target = Target(private=bool(args.hub_private_repo), revision=args.hub_revision, token=args.hub_token)
    report(publish((model_publication(folder, repo), target)))


def evaluate(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lrsa evaluate",
        description="Prints JMASA and MATE of free decoding, and MASC of the gold spans, in percent.",
    )
    add_input_arguments(parser)
    parser.add_argument("--split", default="test", help="split of a folder (default: %(default)s)")
    parser.add_argument("--output", help="JSON file for the scores")
    parser.add_argument(
        "--llm",
        metavar="URL|MODEL",
        help="ask a large model in place of MODEL; `lrsa evaluate --llm MODEL --help` tells more",
    )
    args = parser.parse_args(argv)
    check_output(args.output, args.posts)
    posts = load_posts(args.posts, args.split, args.images, args.on_bad_image, labelled=True)
    progress = show_progress()
    model, processor = load_model(args.model)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    scores = score(model, processor, posts, args.batch_size, args.num_beams, progress, args.lexicon)
    print_scores(scores)
    if args.output:
        write_whole(Path(args.output), json.dumps(scores, indent=2) + "\n")
        print(f"Scores of {len(posts)} posts: {args.output}")


def convert(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lrsa convert",
        description="Makes a model folder, with its processor, of a fine-tuned VLP-MABSA or AoM checkpoint, "
        "or of a plain text model.",
        epilog="Nothing in a checkpoint is run: a module saved whole is refused, with a word on how to save its "
        "weights. docs/conversion.md tells more.",
    )
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="KIND",
        help="vlp-mabsa, aom, or the kind of a text model that transformers knows: bart, bert, roberta ...",
    )
    parser.add_argument(
        "checkpoint",
        help="state dict (.bin, .pt or .safetensors) or a folder that holds model.safetensors or pytorch_model.bin; "
        "of a text model, its folder or id",
    )
    parser.add_argument("out", help="new folder; an LRSA model that lies there is replaced")
    parser.add_argument(
        "--num-heads",
        type=positive,
        help="attention heads of vlp-mabsa or aom (default: what config.json beside the checkpoint says, else one for "
        "each 64 of its width)",
    )
    parser.add_argument(
        "--tokenizer",
        help="folder or id of the tokenizer that vlp-mabsa or aom was trained with, without the tokens that it added "
        f"(default: {DEFAULT_TOKENIZER}; where that is out of reach no processor is saved)",
    )
    parser.add_argument(
        "--vision",
        help="folder or id of a vision model for pictures (default: vlp-mabsa and aom take image_features, a text "
        "model sees no pictures)",
    )
    args = parser.parse_args(argv)
    show_progress()
    try:
        said = convert_to_folder(args.source, args.checkpoint, args.out, args.num_heads, args.tokenizer, args.vision)
    except (OSError, RuntimeError, SafetensorError, StrictDataclassError, ValueError) as error:
        raise PostError(" ".join(str(error).split())) from error
    print("\n".join(said))


def check_output(output: str | None, posts: str | None) -> None:
    """Says before any work is done that a file can't be written, or holds the posts."""
    if output is not None:
        writable_folder(Path(output).parent)
        if Path(output).is_dir():
            raise PostError(f"{output}: is a folder; name a file.")
        files = () if posts is None or not Path(output).exists() else named_files(posts).values()
        if any(file.samefile(output) for file in files):
            raise PostError(f"{output}: holds the posts; name another file.")


def add_input_arguments(parser: argparse.ArgumentParser, posts_optional: bool = False) -> None:
    parser.add_argument("model", help="folder or id of an LRSA model")
    parser.add_argument("posts", nargs="?" if posts_optional else None, help="file of posts, or folder of splits")
    parser.add_argument(
        "--images",
        help="folder of the pictures, or of their features (.npy, .npz) for a model without vision model "
        "(default: images/ beside the posts)",
    )
    parser.add_argument(
        "--on-bad-image",
        choices=("error", "skip"),
        default="error",
        help="a picture that can't be read (default: error)",
    )
    parser.add_argument("--batch-size", type=positive, default=32, help="posts at a time (default: %(default)s)")
    parser.add_argument("--lexicon", help="sentiment of words for a model with AoM's modules (default: VADER's)")
    parser.add_argument("--num-beams", type=positive, default=1, help="beams of the search (default: %(default)s)")
