"""Predicts the aspects of a data set of posts."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers.utils import logging

from processing import LRSAProcessor, PostError
from processing.linguistics import Annotator, add_linguistics, load_annotator
from processing.posts import stored_picture
from processing.preparation import PICTURES, encode_posts, prepare_posts
from processing.region_features import read_features

from .configuration_lrsa import LRSAConfig
from .frozen_states import add_frozen_states, collator_for
from .modeling_lrsa import LRSAForMABSA


logger = logging.get_logger(__name__)


def prepare_for_model(
    model: LRSAForMABSA, processor: LRSAProcessor, posts: Dataset, task: str = "mabsa", lexicon: str | None = None
) -> Dataset:
    """Prepares posts (from `load_posts`) with all that the model reads, for the collator of `collator_for`.

    Args:
        lexicon: file of the sentiment of words, for a model with AoM's modules; VADER's by default.

    Raises:
        PostError: what such a model needs is not installed, or another one is given a lexicon, or features of
            pictures are not of the shape that the model takes.
    """
    config = model.config
    prepared = prepare_posts(posts, processor, task, rationales=config.num_fusion_layers > 0)
    prepared = only_pictures_that_are_read(prepared, config)
    if (annotator := annotator_of(config, lexicon)) is not None:
        prepared = add_linguistics(prepared, posts, annotator)
    return add_frozen_states(prepared, model, processor)


def only_pictures_that_are_read(prepared: Dataset, config: LRSAConfig) -> Dataset:
    """Leaves pictures to models with a vision model, and their features, whose shape is checked, to those without."""
    reads = picture_column(config)
    if "image" in prepared.column_names and reads != "image":
        warn_of_pictures(config)
    prepared = prepared.remove_columns([name for name in PICTURES if name in prepared.column_names and name != reads])
    if "image_features" in prepared.column_names:
        for file in filter(None, prepared["image_features"]):
            check_features(file, config)
    return prepared


def picture_column(config: LRSAConfig) -> str | None:
    """Returns which of `PICTURES` a model reads."""
    return "image" if config.vision_config is not None else "image_features" if config.has_images else None


def warn_of_pictures(config: LRSAConfig) -> None:
    takes = "features of pictures, as .npy files in their folder" if config.has_images else "text alone"
    logger.warning_once(f"The pictures are left out: this model has no vision model, it takes {takes}.")


def check_features(file: str, config: LRSAConfig) -> None:
    wanted = (config.num_image_tokens, config.image_feature_size)
    try:
        shape = read_features(file).shape
    except ValueError as error:
        raise PostError(str(error)) from error
    if shape != wanted:
        raise PostError(f"{file}: features {shape} of a picture, but the model takes {wanted}.")


class Predictor:
    """Predicts posts, as many as are in memory, and keeps nothing of them on the disk.

    Args:
        task: `"mabsa"`, `"mate"`, or `"masc"`, which asks the polarity of the gold spans.
        lexicon: as in `prepare_for_model`; the one that the model was trained with.
    """

    def __init__(
        self,
        model: LRSAForMABSA,
        processor: LRSAProcessor,
        task: str = "mabsa",
        batch_size: int = 32,
        num_beams: int = 1,
        lexicon: str | None = None,
    ):
        self.model, self.processor, self.task = model.eval(), processor, task
        self.batch_size, self.num_beams = batch_size, num_beams
        self.annotator = annotator_of(model.config, lexicon)

    def __call__(self, posts: Sequence[dict[str, Any]]) -> list[list[dict]]:
        """Returns what `post_process_mabsa` gives for each post, in their order.

        Args:
            posts: with the columns of `FEATURES`, pictures as they are stored: paths, or `{"bytes", "path"}`.
        """
        if not posts:
            return []
        columns = {name: [post[name] for post in posts] for name in posts[0]}
        encoded = encode_posts(columns, self.processor, self.task, self.model.config.num_fusion_layers > 0)
        if (reads := picture_column(self.model.config)) is not None:
            encoded[reads] = [stored_picture(picture) for picture in columns[reads]]
        if reads != "image" and any(columns["image"]):
            warn_of_pictures(self.model.config)
        if reads == "image_features":
            for file in filter(None, encoded[reads]):
                check_features(file, self.model.config)
        if self.annotator is not None:
            given = (text if words is None else words for text, words in zip(columns["text"], columns["words"]))
            encoded["linguistics"] = list(self.annotator(given))
        rows = [dict(zip(encoded, values)) for values in zip(*encoded.values())]
        return predict_prepared(self.model, self.processor, rows, self.task, self.batch_size, self.num_beams)


def annotator_of(config: LRSAConfig, lexicon: str | None) -> Annotator | None:
    if config.reads_linguistics:
        return load_annotator(lexicon)
    if lexicon is not None:
        raise no_lexicon(lexicon)
    return None


def no_lexicon(lexicon: str) -> PostError:
    return PostError(f"lexicon: {lexicon}: a model without aspect_attention and num_graph_layers reads none.")


def predict_posts(
    model: LRSAForMABSA,
    processor: LRSAProcessor,
    posts: Dataset,
    task: str = "mabsa",
    batch_size: int = 32,
    num_beams: int = 1,
    progress: bool = False,
    lexicon: str | None = None,
) -> list[list[dict]]:
    """Returns what `post_process_mabsa` gives for each post (from `load_posts`), in their order.

    Args:
        task: `"mabsa"`, `"mate"`, or `"masc"`, which asks the polarity of the gold spans.
        lexicon: as in `prepare_for_model`; the one that the model was trained with.
    """
    prepared = prepare_for_model(model, processor, posts, task, lexicon)
    return predict_prepared(model.eval(), processor, prepared, task, batch_size, num_beams, progress)


def predict_prepared(
    model: LRSAForMABSA,
    processor: LRSAProcessor,
    prepared: Dataset | Sequence[dict[str, Any]],
    task: str,
    batch_size: int,
    num_beams: int,
    progress: bool = False,
) -> list[list[dict]]:
    """Predicts prepared rows in batches of like length, so that little is padded, the longest first."""
    rows_of_ids = prepared["input_ids"] if isinstance(prepared, Dataset) else [row["input_ids"] for row in prepared]
    lengths = [len(ids) for ids in rows_of_ids]
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    collate = collator_for(model, processor)

    def predict(rows: list[dict[str, Any]]) -> list[list[dict]]:
        """Predicts a batch; by halves where memory runs out."""
        try:
            return predict_batch(model, processor, collate(rows), task, num_beams)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if len(rows) == 1:
                raise PostError(f"memory ran out over one post ({str(error).splitlines()[0]}).") from error
        half = (len(rows) + 1) // 2
        logger.warning_once(f"Memory ran out over {len(rows)} posts; they are predicted {half} at a time.")
        clear_device_cache(garbage_collection=True)
        return predict(rows[:half]) + predict(rows[half:])

    found: list[list[dict]] = []
    for rows in tqdm(
        DataLoader(Subset(prepared, order), batch_size, collate_fn=list), desc="Predicting", disable=not progress
    ):
        found += predict(rows)
    return [aspects for _, aspects in sorted(zip(order, found), key=lambda pair: pair[0])]


@torch.inference_mode()
def predict_batch(model, processor, batch, task: str = "mabsa", num_beams: int = 1) -> list[list[dict]]:
    """Predicts one batch from the processor or the collator."""
    batch = batch.to(model.device)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if task == "masc" and "aspect_spans" not in inputs:  # no post of the batch has an aspect
        return [[] for _ in batch.posts]
    outputs = model.generate(**inputs, num_beams=num_beams, return_dict_in_generate=True, output_scores=True)
    return processor.post_process_mabsa(outputs, batch, task)
