"""Which inputs of posts are used: subsets of them, and rationales of other posts, as a control."""

import random
from collections.abc import Collection

from datasets import Dataset

from .posts import PostError


RATIONALES = ("image_rationale", "text_rationale")
# What a post may lack, and the columns that hold it.
INPUTS = {"image": ("image", "image_features")} | {name: (name,) for name in RATIONALES}
# Values of the option `rationales`.
CHOICES = {"both": RATIONALES, "text": ("text_rationale",), "image": ("image_rationale",), "none": ()}


def choose_rationales(posts: Dataset, which: str) -> Dataset:
    """Returns posts (from `load_posts`) with `"both"` of their rationales, the `"text"` or `"image"` one, or `"none"`.

    Raises:
        PostError: `which` is none of these.
    """
    if which not in CHOICES:
        raise PostError(f"rationales: {which!r} is unknown; one of {', '.join(CHOICES)} is expected.")
    return keep_inputs(posts, ("image", *CHOICES[which]))


def keep_inputs(posts: Dataset, kept: Collection[str]) -> Dataset:
    """Returns posts (from `load_posts`) without those of `INPUTS` that are not `kept`."""
    dropped = [column for name in INPUTS if name not in kept for column in INPUTS[name]]
    return with_columns(posts, {column: [None] * len(posts) for column in dropped if column in posts.column_names})


def shuffle_rationales(posts: Dataset, seed: int) -> Dataset:
    """Gives every post that has a rationale both rationales of another post that has one; nobody keeps its own.

    Posts without any stay without, so that as many posts as before have one of each kind. The order follows from the
    seed alone.

    Raises:
        PostError: one post alone has rationales.
    """
    columns = {name: list(posts[name]) for name in RATIONALES}
    holders = [index for index in range(len(posts)) if any(columns[name][index] for name in RATIONALES)]
    if len(holders) == 1:
        raise PostError("shuffle_rationales: one post alone has a rationale, so there is none to swap with.")
    random.Random(seed).shuffle(holders)
    shuffled = {name: list(values) for name, values in columns.items()}
    for former, index in zip([*holders[-1:], *holders], holders):  # round a circle
        for name in RATIONALES:
            shuffled[name][index] = columns[name][former]
    return with_columns(posts, shuffled)


def with_columns(posts: Dataset, columns: dict[str, list]) -> Dataset:
    order = posts.column_names
    for name, values in columns.items():
        posts = posts.remove_columns(name).add_column(name, values, feature=posts.features[name])
    return posts.select_columns(order) if columns else posts
