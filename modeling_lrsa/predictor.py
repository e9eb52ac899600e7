"""Predicts the aspects of a data set of posts."""

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.utils import logging

from processing import LRSAProcessor, PostError
from processing.linguistics import add_linguistics, load_annotator
from processing.preparation import PICTURES, prepare_posts
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
    if config.reads_linguistics:
        prepared = add_linguistics(prepared, posts, load_annotator(lexicon))
    elif lexicon is not None:
        raise PostError(f"lexicon: {lexicon}: a model without aspect_attention and num_graph_layers reads none.")
    return add_frozen_states(prepared, model, processor)


def only_pictures_that_are_read(prepared: Dataset, config: LRSAConfig) -> Dataset:
    """Leaves pictures to models with a vision model, and their features, whose shape is checked, to those without."""
    reads = "image" if config.vision_config is not None else "image_features" if config.has_images else None
    if "image" in prepared.column_names and reads != "image":
        takes = "features of pictures, as .npy files in their folder" if config.has_images else "text alone"
        logger.warning_once(f"The pictures are left out: this model has no vision model, it takes {takes}.")
    prepared = prepared.remove_columns([name for name in PICTURES if name in prepared.column_names and name != reads])
    if "image_features" in prepared.column_names:
        wanted = (config.num_image_tokens, config.image_feature_size)
        for file in filter(None, prepared["image_features"]):
            try:
                shape = read_features(file).shape
            except ValueError as error:
                raise PostError(str(error)) from error
            if shape != wanted:
                raise PostError(f"{file}: features {shape} of a picture, but the model takes {wanted}.")
    return prepared


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
    model = model.eval()
    prepared = prepare_for_model(model, processor, posts, task, lexicon)
    # Posts of like length share a batch, so that little is padded.
    order = sorted(range(len(prepared)), key=lambda index: len(prepared[index]["input_ids"]), reverse=True)
    loader = DataLoader(prepared.select(order), batch_size, collate_fn=collator_for(model, processor))
    found: list[list[dict]] = []
    for batch in tqdm(loader, desc="Predicting", disable=not progress):
        found += predict_batch(model, processor, batch, task, num_beams)
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
