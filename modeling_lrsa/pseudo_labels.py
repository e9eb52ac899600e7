"""Pseudo-labels: aspects of posts that nobody has labelled, as trained models, the teachers, find them."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from datasets import Dataset

from processing.chosen_inputs import with_columns

from .predictor import predict_posts


def label_posts(
    posts: Dataset, teachers: Sequence[str], load, device: torch.device | str = "cpu", lexicon: str | None = None
) -> Dataset:
    """Returns the posts in which the teachers find aspects, labelled with these; what labels they had is not read.

    Args:
        posts: from `load_posts`.
        teachers: folders or ids.
        load: returns the model and the processor of one of them.
        lexicon: as in `prepare_for_model`, for teachers with AoM's modules.

    Raises:
        PostError: a teacher can't be loaded.
    """
    posts = with_columns(posts, {"aspects": [None] * len(posts)})
    answers = []
    for name in teachers:
        model, processor = load(name)
        reads = lexicon if model.config.reads_linguistics else None
        answers.append(predict_posts(model.to(device), processor, posts, lexicon=reads))
    aspects = [majority(found) for found in zip(*answers)]
    labelled = with_columns(posts, {"aspects": aspects})
    return labelled.select([index for index, found in enumerate(aspects) if found])


def majority(answers: Sequence[list[dict]]) -> list[dict]:
    """Returns the spans that more than half of the answers have, sorted, each with the polarity of most score.

    They can't overlap: two such spans have an answer in common, and an answer's own spans don't overlap.

    Args:
        answers: for each model, what it predicts of one post, in characters or words.
    """
    votes: dict[tuple[int, int], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    number: dict[tuple[int, int], int] = defaultdict(int)
    for answer in answers:
        for aspect in answer:
            span = aspect.get("word_start", aspect["start"]), aspect.get("word_end", aspect["end"])
            number[span] += 1
            votes[span][aspect["polarity"]] += aspect["score"]
    return [
        {"start": span[0], "end": span[1], "polarity": max(votes[span], key=votes[span].get)}
        for span in sorted(votes)
        if 2 * number[span] > len(answers)
    ]
