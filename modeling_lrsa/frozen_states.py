"""What the frozen parts of a model make of a data set, computed once and cached as Arrow."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Value, concatenate_datasets
from torch import nn

from processing import DataCollatorForMABSA, LRSAProcessor
from processing.cache import cache_file

from .modeling_lrsa import LRSAForMABSA


def weights_key(module: nn.Module, *parts: object) -> str:
    # `torch.get_float32_matmul_precision` raises where only one of these was set.
    precisions = {backend.matmul.fp32_precision for backend in (torch.backends.cuda, torch.backends.mkldnn)}
    parts += (*sorted(precisions - {"none", "ieee"}),)
    digest = hashlib.sha256((repr(parts) + module.config.to_json_string()).encode())
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def add_frozen_states(
    dataset: Dataset, model: LRSAForMABSA, processor: LRSAProcessor, batch_size: int = 32
) -> Dataset:
    """Puts the outputs of the model's frozen parts into a prepared data set, in place of what they are computed from.

    Ids of rationales stay where the model compares them with the text's.

    A frozen rationale encoder gives `image_rationale_states` and `text_rationale_states`, (tokens, depths, hidden) a
    row; a frozen vision model gives `image_features`, (N_v, D); each as the bytes of a float16 array, empty where
    there is nothing. Computed at the first call and read from disk after that; the file's name follows from data,
    weights and the precision of matrix products.
    """
    encoder = model.model.encoder
    if encoder.rationale_model is not None and "text_rationale_input_ids" in dataset.column_names:
        dataset = _add_rationale_states(dataset, model, processor, batch_size)
    if encoder.vision_model is not None and model.config.freeze_vision and "image" in dataset.column_names:
        dataset = _add_image_features(dataset, model, processor, batch_size)
    return dataset


def collator_for(model: LRSAForMABSA, processor: LRSAProcessor) -> DataCollatorForMABSA:
    """Returns the collator of data sets with the frozen states of `model`."""
    config = model.config
    return DataCollatorForMABSA(
        processor, (config.num_rationale_depths, config.text_config.hidden_size), config.image_feature_size
    )


def _bytes(array: torch.Tensor) -> bytes:
    return array.to(torch.float16).cpu().numpy().tobytes()


def cached_map(
    dataset: Dataset, function, removed: list[str], new: list[str], key: str, batch_size: int, desc: str
) -> Dataset:
    """Maps batches to `new` columns of bytes in place of the `removed` ones, in a file named by data and `key`."""
    path = cache_file(key, dataset._fingerprint)
    features = dataset.features.copy()
    for name in removed:
        features.pop(name)
    features.update({name: Value("large_binary") for name in new})
    dataset = dataset.map(
        function,
        batched=True,
        batch_size=batch_size,
        remove_columns=removed,
        features=features,
        cache_file_name=path,
        new_fingerprint=Path(path).stem,
        writer_batch_size=batch_size,
        desc=desc,
    )
    dataset._fingerprint = Path(path).stem
    return dataset


def _add_rationale_states(dataset, model, processor, batch_size):
    encoder = model.model.encoder

    @torch.inference_mode()
    def encode(batch: dict) -> dict:
        states = {}
        for kind in ("image", "text"):
            ids = batch[f"{kind}_rationale_input_ids"]
            padded = processor.pad({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
            padded = {name: torch.tensor(value, device=model.device) for name, value in padded.items()}
            output = encoder.get_rationale_states(**padded)
            states[f"{kind}_rationale_states"] = [_bytes(row[: len(i)]) for row, i in zip(output, ids)]
        return states

    key = weights_key(encoder.rationale_model, model.config.num_fusion_layers, model.config.fusion_position)
    removed = ["image_rationale_input_ids", "text_rationale_input_ids"]
    new = ["image_rationale_states", "text_rationale_states"]
    # By themselves, so that tasks and models that differ in what else is prepared share one file.
    rationales = dataset.select_columns(removed)
    content = hashlib.sha256()
    for rows in rationales.iter(1000):
        content.update(json.dumps([rows[name] for name in removed]).encode())
    rationales._fingerprint = content.hexdigest()
    states = cached_map(rationales, encode, removed, new, key, batch_size, "Encoding rationales")
    if not model.config.compares_tokens:
        dataset = dataset.remove_columns(removed)
    return concatenate_datasets([dataset, states], axis=1)


def _add_image_features(dataset, model, processor, batch_size):
    encoder = model.model.encoder

    @torch.inference_mode()
    def encode(batch: dict) -> dict:
        given = [image for image in batch["image"] if image is not None]
        if not given:
            return {"image_features": [b""] * len(batch["image"])}
        pixels = np.stack(processor.encode_images(given)["pixel_values"])
        features = iter(encoder.get_image_features(torch.from_numpy(pixels).to(model.device)))
        return {"image_features": [b"" if image is None else _bytes(next(features)) for image in batch["image"]]}

    settings = {name: value for name, value in processor.image_processor.to_dict().items() if name != "auto_map"}
    key = weights_key(encoder.vision_model, settings)
    return cached_map(dataset, encode, ["image"], ["image_features"], key, batch_size, "Encoding pictures")
