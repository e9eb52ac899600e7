"""Predicts the aspects of a data set of posts."""

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from processing import LRSAProcessor
from processing.preparation import prepare_posts

from .frozen_states import add_frozen_states, collator_for
from .modeling_lrsa import LRSAForMABSA


def predict_posts(
    model: LRSAForMABSA,
    processor: LRSAProcessor,
    posts: Dataset,
    task: str = "mabsa",
    batch_size: int = 32,
    num_beams: int = 1,
    progress: bool = False,
) -> list[list[dict]]:
    """Returns what `post_process_mabsa` gives for each post (from `load_posts`), in their order.

    Args:
        task: `"mabsa"`, `"mate"`, or `"masc"`, which asks the polarity of the gold spans.
    """
    model = model.eval()
    prepared = prepare_posts(posts, processor, task, rationales=model.config.num_fusion_layers > 0)
    prepared = add_frozen_states(prepared, model, processor)
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


def gold_aspects(posts: Dataset) -> list[list[dict]]:
    """Returns the gold aspects of posts in the units of the predictions: words for posts given as words."""
    gold = []
    for words, aspects in zip(posts["words"], posts["aspects"]):
        if words is not None:
            aspects = [{**a, "word_start": a["start"], "word_end": a["end"]} for a in aspects or []]
        gold.append(aspects or [])
    return gold
