"""`lrsa push`: publishes models, Spaces that try them, data sets and the metric to the Hub."""

import argparse
from pathlib import Path

from huggingface_hub.utils import logging

from processing import PostError

from .publishing import Publication, Published, Target, full_id, publish
from .terminal import show_progress


def push(argv: list[str]) -> int:
    args = parse(argv)
    show_progress()
    logging.set_verbosity_error()  # huggingface_hub tells of each try
    try:
        return push_metric(args) if args.metric else push_dataset(args) if args.dataset else push_model(args)
    except KeyboardInterrupt:
        print("Stopped: it was interrupted. Nothing is published but whole; run again to go on.")
        return 1


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lrsa push",
        usage="lrsa push FOLDER REPO [--space REPO] [--onnx FOLDER] [--base REPO] [options]\n"
        "       lrsa push --dataset FOLDER REPO [--images FOLDER] [--redistribute] [options]\n"
        "       lrsa push --metric REPO [options]",
        description="Publishes to the Hub in one commit, and says where it stands; what is there already is not "
        "published again. Needs a token with the role write: `hf auth login`, or HF_TOKEN.",
        epilog="docs/hub.md tells more.",
    )
    parser.add_argument(
        "folder", nargs="?", help="what `lrsa train` or `lrsa convert` wrote; of a data set, its posts"
    )
    parser.add_argument("repo", help="name of the repository: NAMESPACE/NAME, or NAME for one of your own")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dataset", action="store_true", help="FOLDER holds posts with rationales")
    what.add_argument("--metric", action="store_true", help="the `evaluate` metric, as a Space")
    parser.add_argument("--private", action="store_true", help="for your eyes only, where the repository is new")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--revision", help="branch, made where it is missing (default: main)")
    where.add_argument("--create-pr", action="store_true", help="as a pull request")
    parser.add_argument("--license", help="as the Hub writes it, such as apache-2.0 or cc-by-4.0")
    parser.add_argument("--dry-run", action="store_true", help="list files and sizes; contact nobody")

    model = parser.add_argument_group("a model")
    model.add_argument("--onnx", metavar="FOLDER", help="publish these ONNX files, too")
    model.add_argument("--space", metavar="REPO", help="publish a Gradio Space that tries it, too")
    model.add_argument("--trained-on", metavar="REPO", help="data set on the Hub that it was trained on, for the card")
    model.add_argument("--tag", action="append", default=[], help="for the card, to be found by; may be repeated")
    model.add_argument("--base", metavar="REPO", help="of an adapter: repository for its base, if it has none")

    dataset = parser.add_argument_group("a data set")
    dataset.add_argument("--images", metavar="FOLDER", help="folder of the pictures (default: images/ in FOLDER)")
    dataset.add_argument(
        "--redistribute", action="store_true", help="you may, though the licence of the posts does not say so"
    )
    args = parser.parse_args(argv)
    if (args.folder is None) != args.metric:
        parser.error("--metric takes REPO alone" if args.metric else "give FOLDER and REPO")
    for flag in ("onnx", "space", "trained_on", "tag", "base"):
        if getattr(args, flag) and (args.dataset or args.metric):
            parser.error(f"--{flag.replace('_', '-')} is for models")
    if not args.dataset and (args.images is not None or args.redistribute):
        parser.error("--images and --redistribute are for data sets")
    return args


def push_model(args: argparse.Namespace) -> int:
    from .card import Told
    from .push_model import base_name, find_folder, has_public_base, model_publication, push_adapter
    from .space_folder import space_publication

    folder = find_folder(args.folder)
    is_adapter = (folder / "adapter_config.json").is_file()
    for flag in ("onnx", "space"):
        if is_adapter and getattr(args, flag):
            raise PostError(f"{folder}: is an adapter; --{flag} goes with the merged model.")
    if not is_adapter and args.base:
        raise PostError(f"{folder}: is no adapter; leave out --base.")
    repo, space = (name and (name if args.dry_run else full_id(name)) for name in (args.repo, args.space))
    told = Told(args.license, args.trained_on, space, tuple(args.tag))
    if is_adapter and not has_public_base(folder, args.base) and args.dry_run:
        print(f"The base goes to {args.base}, unless it is there.")
    if is_adapter and not args.dry_run:
        return report(push_adapter(folder, repo, args.base, target(args), told))
    base = (args.base or base_name(folder)) if is_adapter else None
    publications = [model_publication(folder, repo, told, args.onnx, base)]
    if space is not None:
        publications.append(space_publication(space, repo))
    return finish(publications, args)


def push_dataset(args: argparse.Namespace) -> int:
    from tempfile import TemporaryDirectory

    from .push_dataset import dataset_publication

    repo = args.repo if args.dry_run else full_id(args.repo)
    with TemporaryDirectory() as work:
        publication, said = dataset_publication(
            Path(args.folder), repo, Path(work), args.images, args.license, args.redistribute
        )
        print("\n".join(said))
        return finish([publication], args)


def push_metric(args: argparse.Namespace) -> int:
    from .push_metric import metric_publication

    repo = args.repo if args.dry_run else full_id(args.repo)
    return finish([metric_publication(repo, args.license or "apache-2.0")], args)


def target(args: argparse.Namespace) -> Target:
    return Target(args.private, args.revision, args.create_pr)


def finish(publications: list[Publication], args: argparse.Namespace) -> int:
    if not args.dry_run:
        return report(publish(*((publication, target(args)) for publication in publications)))
    for publication in publications:
        print(f"{publication.kind} {publication.repo}:")
        print("\n".join(publication.listing()))
    return 0


def report(published: list[Published]) -> int:
    for made in published:
        print(
            f"{made.repo}: {f'commit {made.commit}' if made.changed else f'nothing has changed since {made.commit}'}"
        )
        print(made.url)
    return 0
