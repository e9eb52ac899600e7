"""Pseudo-labels: aspects of posts that nobody has labelled, as trained models, the teachers, find them."""

import json
from collections import defaultdict
from collections.abc import Sequence

import torch
from datasets import Dataset

from processing import LRSAProcessor
from processing.chosen_inputs import with_columns

from .frozen_states import cached_map, weights_key
from .loading import load_model
from .modeling_lrsa import LRSAForMABSA
from .predictor import predict_prepared, prepare_for_model


def label_posts(
    posts: Dataset, teachers: Sequence[str], device: torch.device | str = "cpu", lexicon: str | None = None
) -> Dataset:
    """Returns the posts in which the teachers find aspects, labelled with these; what labels they had is not read.

    Args:
        posts: from `load_posts`.
        teachers: folders or ids.
        lexicon: as in `prepare_for_model`, for teachers with AoM's modules.

    Raises:
        PostError: a teacher can't be loaded.
    """
    posts = with_columns(posts, {"aspects": [None] * len(posts)})
    answers = []
    for name in teachers:
        model, processor = load_model(name)
        model = model.to(device).eval()
        prepared = prepare_for_model(
            model, processor, posts, lexicon=lexicon if model.config.reads_linguistics else None
        )
        answers.append(_predictions(prepared, model, processor))
    aspects = [majority(found) for found in zip(*answers)]
    labelled = with_columns(posts, {"aspects": aspects})
    return labelled.select([index for index, found in enumerate(aspects) if found])


def _predictions(
    prepared: Dataset, model: LRSAForMABSA, processor: LRSAProcessor, batch_size: int = 32
) -> list[list[dict]]:
    """Computed at the first call and read from disk after that."""

    def read(rows: dict) -> dict:
        found = predict_prepared(model, processor, prepared, "mabsa", batch_size, num_beams=1, progress=True)
        return {"predictions": [json.dumps(aspects).encode() for aspects in found]}

    key = weights_key(model, model.generation_config.to_json_string(), "predictions")
    posts = prepared.select_columns("input_ids")  # all at once, so that batches are of like length
    found = cached_map(posts, read, ["input_ids"], ["predictions"], key, len(posts), "Asking the teacher")
    return [json.loads(aspects) for aspects in found["predictions"]]


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
