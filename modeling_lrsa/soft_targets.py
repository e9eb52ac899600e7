"""Soft targets to learn from: smoothed labels, and what trained models, the teachers, say of the same posts."""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset, Value

from processing import LRSAProcessor, PostError

from .frozen_states import cached_map, collator_for, weights_key
from .loading import load_model
from .modeling_lrsa import LRSAForMABSA
from .predictor import prepare_for_model


# What logits of targets that can never come are at most, in the narrowest of the number formats.
LOWEST = torch.finfo(torch.float16).min


def soft_targets(
    logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float = 0.0,
    teacher: torch.Tensor | None = None,
    teacher_weight: float = 0.0,
) -> torch.Tensor:
    """Returns the distributions to learn from: (1 - w) · [(1 - s) · label + s · uniform] + w · teacher.

    All of it lies on targets that can come: masked columns and targets without a score get nothing.

    Args:
        logits: (batch, length, width) of the model.
        labels: (batch, length), -100 where there is none.
        smoothing: s.
        teacher: probabilities (batch, length, width).
        teacher_weight: w.

    Returns:
        (batch, length, width) in float32, zeros where there is no label.
    """
    possible = (logits > LOWEST).float()
    targets = torch.nn.functional.one_hot(labels.clamp(min=0), logits.shape[-1]).float()
    targets = (1 - smoothing) * targets + smoothing * possible / possible.sum(-1, keepdim=True)
    if teacher is not None:
        teacher = teacher.float() * possible
        teacher = teacher / teacher.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        targets = (1 - teacher_weight) * targets + teacher_weight * teacher
    return targets * (labels != -100).unsqueeze(-1)


def add_teachers(
    dataset: Dataset,
    posts: Dataset,
    teachers: Sequence[str],
    device: torch.device | str = "cpu",
    lexicon: str | None = None,
) -> Dataset:
    """Puts the target distributions of trained models into a student's prepared data set, their mean where several.

    The column `teacher_probabilities` holds (targets, pointer_offset + columns) a row, as the bytes of a float32
    array. Teachers read what they were trained to read, rationales and pictures, and gold targets as decoder inputs.

    Args:
        dataset: what `prepare_for_model` made of the posts for the student.
        posts: the labelled posts, from `load_posts`.
        teachers: folders or ids.
        lexicon: as in `prepare_for_model`, for teachers with AoM's modules.

    Raises:
        PostError: a teacher can't be loaded, or points at other columns than the student.
    """
    total: list[np.ndarray] | None = None
    for name in teachers:
        model, processor = load_model(name)
        prepared = prepare_for_model(
            model.to(device).eval(), processor, posts, lexicon=lexicon if model.config.reads_linguistics else None
        )
        if any(list(prepared[column]) != list(dataset[column]) for column in ("word_ids", "labels")):
            raise PostError(
                f"teacher: {name} points at other columns than the student: take one with the same tokenizer, "
                "polarities, index format and length of texts."
            )
        rows = (np.frombuffer(row, dtype=np.float32) for row in _probabilities(prepared, model, processor))
        total = list(rows) if total is None else [former + row for former, row in zip(total, rows)]
    column = [(row / len(teachers)).tobytes() for row in total]
    return dataset.add_column("teacher_probabilities", column, feature=Value("large_binary"))


def _probabilities(
    prepared: Dataset, model: LRSAForMABSA, processor: LRSAProcessor, batch_size: int = 32
) -> list[bytes]:
    """Computed at the first call and read from disk after that."""
    collate = collator_for(model, processor)
    offset = model.config.pointer_offset

    @torch.inference_mode()
    def read(columns: dict) -> dict:
        rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
        probabilities = model(**collate(rows).to(model.device)).logits.float().softmax(-1).cpu().numpy()
        cut = [
            matrix[: len(row["labels"]), : offset + len(row["input_ids"])] for matrix, row in zip(probabilities, rows)
        ]
        return {"teacher_probabilities": [np.ascontiguousarray(matrix).tobytes() for matrix in cut]}

    removed, new = prepared.column_names, ["teacher_probabilities"]
    scored = cached_map(prepared, read, removed, new, weights_key(model), batch_size, "Asking the teacher")
    return scored["teacher_probabilities"]
