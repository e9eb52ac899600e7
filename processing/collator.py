"""Makes batches of posts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .batch_lrsa import EncodedPost, MABSABatch
from .linguistic_columns_lrsa import linguistic_columns
from .processing_lrsa import LRSAProcessor
from .region_features import read_features, stack_features


# Columns of a prepared data set that go into a batch as they are. States of frozen parts come as float16 bytes,
# features of pictures as these or as the name of a file.
_LISTS = ("labels", "aspect_spans", "image_rationale_input_ids", "text_rationale_input_ids")


class DataCollatorForMABSA:
    """Pads posts to the longest of the batch.

    Takes rows from `prepare_posts`, with or without the columns of `add_frozen_states` and of `add_teachers`, or posts
    from `load_posts`, which are then tokenised on the fly. With `Trainer`, set `remove_unused_columns=False`.

    Args:
        processor: the model's processor.
        state_shape: (depths, hidden) of cached rationale states.
        feature_size: width of cached image features.
    """

    def __init__(
        self, processor: LRSAProcessor, state_shape: tuple[int, int] | None = None, feature_size: int | None = None
    ):
        self.processor = processor
        self.state_shape = state_shape
        self.feature_size = feature_size

    def __call__(self, rows: Sequence[dict[str, Any]]) -> MABSABatch:
        if "input_ids" not in rows[0]:
            return self._from_posts(rows)
        data: dict[str, list] = {
            "input_ids": [row["input_ids"] for row in rows],
            "attention_mask": [[1] * len(row["input_ids"]) for row in rows],
            "word_ids": [row["word_ids"] for row in rows],
        }
        for name in _LISTS:
            if name in rows[0] and any(row[name] for row in rows):
                data[name] = [row[name] for row in rows]
                if name.endswith("rationale_input_ids"):
                    data[name.replace("input_ids", "attention_mask")] = [[1] * len(row[name]) for row in rows]
        data = self.processor.pad(data)
        for kind in ("image", "text"):
            data.update(self._states(kind, rows))
        data.update(self._pictures(rows))
        if "teacher_probabilities" in rows[0]:
            data["teacher_probabilities"] = self._teacher(rows, *np.shape(data["labels"]), len(data["input_ids"][0]))
        if "linguistics" in rows[0]:
            data.update(linguistic_columns([row["linguistics"] for row in rows], data["word_ids"]))
        return MABSABatch(data, tensor_type="pt", posts=[self._post(row) for row in rows])

    @staticmethod
    def _post(row: dict[str, Any]) -> EncodedPost:
        offsets = [tuple(offset) for offset in row["offsets"]]
        rationales = row.get("image_rationale"), row.get("text_rationale")
        return EncodedPost(row["text"], offsets, row["is_words"], row["word_ids"], *rationales)

    def _from_posts(self, posts: Sequence[dict[str, Any]]) -> MABSABatch:
        aspects = [post.get("aspects") for post in posts]
        batch = self.processor(
            text=[post["text"] if post.get("words") is None else post["words"] for post in posts],
            images=[post.get("image") for post in posts],
            image_rationales=[post.get("image_rationale") for post in posts],
            text_rationales=[post.get("text_rationale") for post in posts],
            aspects=None if any(row is None for row in aspects) else aspects,
            linguistics=[post.get("linguistics") for post in posts],
            return_tensors="pt",
        )
        if "pixel_values" not in batch:
            batch.update(MABSABatch(self._features(posts), tensor_type="pt"))
        return batch

    def _states(self, kind: str, rows: Sequence[dict]) -> dict[str, np.ndarray]:
        name = f"{kind}_rationale_states"
        if name not in rows[0]:
            return {}
        layers, hidden = self.state_shape
        states = [np.frombuffer(row[name] or b"", dtype=np.float16).reshape(-1, layers, hidden) for row in rows]
        longest = max(1, max(map(len, states)))
        padded = np.zeros((len(rows), longest, layers, hidden), dtype=np.float32)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for index, state in enumerate(states):
            padded[index, : len(state)] = state
            mask[index, : len(state)] = 1
        return {name: padded, f"{kind}_rationale_attention_mask": mask}

    def _teacher(self, rows: Sequence[dict], batch: int, targets: int, columns: int) -> np.ndarray:
        offset = self.processor.pointer_offset
        padded = np.zeros((batch, targets, offset + columns), dtype=np.float32)
        for index, row in enumerate(rows):
            probabilities = np.frombuffer(row["teacher_probabilities"], dtype=np.float32)
            probabilities = probabilities.reshape(len(row["labels"]), offset + len(row["input_ids"]))
            padded[index, : len(probabilities), : probabilities.shape[1]] = probabilities
        return padded

    def _pictures(self, rows: Sequence[dict]) -> dict[str, Any]:
        return self._features(rows) or self.processor.encode_images([row.get("image") for row in rows])

    def _features(self, rows: Sequence[dict]) -> dict[str, Any]:
        return stack_features([self._read(row.get("image_features")) for row in rows])

    def _read(self, features: str | bytes | None) -> np.ndarray | None:
        if isinstance(features, str):
            return read_features(features)
        if not features:
            return None
        return np.frombuffer(features, dtype=np.float16).astype(np.float32).reshape(-1, self.feature_size)
