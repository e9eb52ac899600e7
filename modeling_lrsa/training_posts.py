"""What is trained on: labelled posts, and posts whose aspects a teacher tells."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasets import Dataset, concatenate_datasets

from processing import LRSAProcessor, PostError, load_posts
from processing.chosen_inputs import choose_rationales, shuffle_rationales

from .modeling_lrsa import LRSAForMABSA
from .predictor import prepare_for_model
from .pseudo_labels import label_posts
from .soft_targets import add_teachers


@dataclass
class DataArguments:
    """What to train on."""

    data: str = field(
        default="examples/posts",
        metadata={"help": "Folder with a train and a validation file, in a form of docs/data.md."},
    )
    images: str | None = field(
        default=None, metadata={"help": "Folder of the pictures or their features; default: images/ in data."}
    )
    on_bad_image: Literal["error", "skip"] = field(
        default="error", metadata={"help": "error, or skip: a warning and no picture."}
    )
    lexicon: str | None = field(
        default=None, metadata={"help": "Sentiment of words for AoM's modules: a word and a value a line; VADER's."}
    )
    rationales: Literal["both", "text", "image", "none"] = field(
        default="both", metadata={"help": "Which rationales are read."}
    )
    shuffle_rationales: int | None = field(
        default=None,
        metadata={"help": "Seed: each post gets another's rationales, as a control that they matter."},
    )
    unlabelled: list[str] | None = field(
        default=None,
        metadata={"help": "Files of more posts to train on: the teacher tells their aspects, labels are not read."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a better one."}
    )


def load_split(arguments: DataArguments, split: str) -> Dataset:
    """Reads the labelled posts of one split, with the rationales that are asked for.

    Raises:
        PostError: the split, or a value of the arguments, does not do.
    """
    posts = load_posts(arguments.data, split, arguments.images, arguments.on_bad_image, labelled=True)
    return _with_chosen_rationales(posts, arguments)


def load_unlabelled(arguments: DataArguments) -> list[Dataset]:
    """Reads the files of posts to be labelled by teachers, as `load_split` does; pictures lie beside each."""
    files = arguments.unlabelled or []
    if folders := [file for file in files if Path(file).is_dir()]:
        raise PostError(f"unlabelled: {folders[0]} is a folder; name the files of posts in it.")
    return [_with_chosen_rationales(load_posts(file, None, None, arguments.on_bad_image), arguments) for file in files]


def _with_chosen_rationales(posts: Dataset, arguments: DataArguments) -> Dataset:
    posts = choose_rationales(posts, arguments.rationales)
    seed = arguments.shuffle_rationales
    return posts if seed is None else shuffle_rationales(posts, seed)


def prepare_to_train(
    model: LRSAForMABSA,
    processor: LRSAProcessor,
    posts: Dataset,
    unlabelled: Sequence[Dataset] = (),
    teachers: Sequence[str] = (),
    lexicon: str | None = None,
) -> Dataset:
    """Prepares labelled posts, and others that the teachers label first, for the collator of `collator_for`.

    Where there are teachers, what they say of each target stands beside it (`add_teachers`).

    Args:
        lexicon: as in `prepare_for_model`.
    """
    parts = [posts]
    if unlabelled:
        found = label_posts(concatenate_datasets(unlabelled), teachers, model.device, lexicon)
        parts += [found] if len(found) else []
    # Each part by itself: other runs have cached the same.
    prepared = [prepare_for_model(model, processor, part, lexicon=lexicon) for part in parts]
    if teachers:
        prepared = [add_teachers(data, part, teachers, model.device, lexicon) for data, part in zip(prepared, parts)]
    return concatenate_datasets(prepared)
