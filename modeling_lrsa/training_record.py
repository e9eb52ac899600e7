"""What a training run was made of: it stands in `results.json`, and the model's card tells it."""

import platform
from collections.abc import Sequence
from dataclasses import fields
from hashlib import file_digest
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainingArguments

from processing.posts import split_files
from processing.rationales.provenance import summarize


PACKAGES = ("lrsa", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "scikit-learn", "spacy")
COLUMNS = {
    "images": ("image", "image_features"),
    "text_rationales": ("text_rationale",),
    "image_rationales": ("image_rationale",),
}
# Of `TrainingArguments`, what decides what is learnt; model and data arguments all do.
LEARNT = """num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps learning_rate
lora_learning_rate new_parts_learning_rate fusion_learning_rate gate_learning_rate warmup_steps lr_scheduler_type
weight_decay max_grad_norm optim label_smoothing_factor drop_inputs teacher distillation_weight bf16 fp16
load_best_model_at_end metric_for_best_model eval_strategy eval_steps generation_num_beams""".split()
PLACES = ("data", "images", "lexicon", "unlabelled")


def training_record(
    arguments: Sequence[Any], posts: dict[str, Dataset], unlabelled: Sequence[Dataset] = ()
) -> dict[str, Any]:
    """Returns what a run of `lrsa train` reads, was told and runs on, without a path of this machine.

    Args:
        arguments: of the model, of the data and of training.
        posts: each split as it was read.
        unlabelled: the files that `unlabelled` names, as they were read.
    """
    _, reading, training = arguments
    more = {
        f"unlabelled {number}": file_record(Path(file), rows)
        for number, (file, rows) in enumerate(zip(reading.unlabelled or [], unlabelled), 1)
    }
    told = chosen(arguments)
    if training.mixed_precision != "no":  # accelerate's configuration may have set it
        told[training.mixed_precision] = True
    return {
        "data": data_record(Path(reading.data), posts) | more,
        "arguments": dict(sorted(told.items())),
        "versions": versions(),
        "device": device(training) | {"processes": training.world_size},
    }


def data_record(folder: Path, posts: dict[str, Dataset]) -> dict[str, Any]:
    """Returns for each split the SHA-256 of its file, how many posts hold what, and where the rationales came from."""
    files = split_files(folder)
    found = {"name": next(iter(files.values())).resolve().parent.name}
    return found | {split: file_record(files[split], rows) for split, rows in posts.items()}


def file_record(path: Path, rows: Dataset) -> dict[str, Any]:
    counts = {
        name: len(rows) - min(rows.data.column(column).null_count for column in columns)
        for name, columns in COLUMNS.items()
    }
    with open(path, "rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
    return {"sha256": sha256, "posts": len(rows), **counts, "sources": summarize(path)}


def chosen(arguments: Sequence[Any]) -> dict[str, Any]:
    """Returns the arguments that decide what is learnt, where they are not the defaults: folders by their names, of
    teachers their number, and of unlabelled posts that there were some.
    """
    found = {}
    for group in arguments:
        for field in fields(group):
            value = getattr(group, field.name)
            relevant = field.name in LEARNT if isinstance(group, TrainingArguments) else field.name not in PLACES
            if relevant and value != field.default:
                found[field.name] = plain(value)
    if "model" in found:  # which has parts of its own
        found = {name: value for name, value in found.items() if name not in ("text_model", "vision_model")}
    if teachers := found.pop("teacher", None):
        found["teachers"] = len(teachers)
    if any(getattr(group, "unlabelled", None) for group in arguments):
        found["unlabelled"] = True
    return found


def plain(value: Any) -> Any:
    if isinstance(value, str) and Path(value).is_dir():
        return Path(value).name
    return getattr(value, "value", value)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device(training: TrainingArguments) -> dict[str, Any]:
    if training.device.type == "cuda":
        return {"name": torch.cuda.get_device_name(training.device), "threads": torch.get_num_threads()}
    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {"name": name, "threads": torch.get_num_threads()}
