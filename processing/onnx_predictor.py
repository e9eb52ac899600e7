"""Predicts with the graphs that `modeling_lrsa.onnx_export` writes: numpy and ONNX Runtime, no torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .batch_lrsa import MABSABatch
from .decoding_lrsa import read_aspects
from .indexing_lrsa import EOS_TARGET_ID
from .processing_lrsa import LRSAProcessor
from .region_features import read_features, stack_features


class LRSAOnnxPredictor:
    """Finds the aspects of posts and the polarity towards each, by greedy decoding, as the model that was exported.

    Args:
        folder: what `export_onnx` wrote.
        session_options: `onnxruntime.InferenceSession`'s keyword arguments, such as `sess_options` and `providers`.

    Raises:
        ImportError: ONNX Runtime is missing.
        FileNotFoundError: the folder holds no exported model.
    """

    def __init__(self, folder: str | Path, **session_options):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("Running ONNX graphs needs ONNX Runtime: pip install lrsa[onnx]") from error
        folder = Path(folder)
        if not (folder / "encoder.onnx").is_file():
            raise FileNotFoundError(f"{folder} holds no encoder.onnx: `export_onnx` writes such a folder.")
        session_options = {"providers": ["CPUExecutionProvider"]} | session_options
        self.graphs = {
            path.stem: onnxruntime.InferenceSession(path, **session_options) for path in folder.glob("*.onnx")
        }
        self.inputs = {name: {node.name: node for node in graph.get_inputs()} for name, graph in self.graphs.items()}
        # Nothing in the folder needs code of its own, whose loading would be asked about.
        self.processor = LRSAProcessor.from_pretrained(folder, trust_remote_code=False)
        self.prefix = json.loads((folder / "config.json").read_text())["decoder_prefix"]
        self.max_new_tokens = json.loads((folder / "generation_config.json").read_text())["max_new_tokens"]

    def predict(
        self,
        posts: Sequence[str | dict[str, Any]],
        task: str = "mabsa",
        batch_size: int = 32,
        progress: bool = False,
    ) -> list[list[dict]]:
        """Returns for each post what `LRSAProcessor.post_process_mabsa` gives.

        Args:
            posts: strings, or dictionaries with `text` (or `words`) and any of `image`, `image_rationale`,
                `text_rationale`, `linguistics`; for `task="masc"` with `aspects`. A list, or what `load_posts` gives.
                For a model without vision model `image_features` in place of `image`: the file of an array.
            task: `"mabsa"`, `"mate"`, or `"masc"`, which asks the polarity of the given spans.

        Raises:
            ValueError: what the processor refuses, or features that are not as the model takes them.
        """
        found: list[list[dict]] = []
        for first in tqdm(range(0, len(posts), batch_size), desc="Predicting", disable=not progress):
            # One by one: a data set opens the pictures of the posts that it is asked for.
            batch = [posts[index] for index in range(first, min(first + batch_size, len(posts)))]
            inputs = self._encode([{"text": post} if isinstance(post, str) else post for post in batch], task)
            sequences, probabilities = self.generate(**inputs)
            found += read_aspects(self.processor.index_format, sequences.tolist(), probabilities, inputs.posts, task)
        return found

    def _encode(self, posts: list[dict], task: str) -> MABSABatch:
        more = {}
        if "text_rationale_input_ids" in self.inputs["encoder"]:
            for kind in ("image", "text"):
                more[f"{kind}_rationales"] = [post.get(f"{kind}_rationale") for post in posts]
        if self.reads_linguistics:
            more["linguistics"] = [post.get("linguistics") for post in posts]
        inputs = self.processor(
            text=[post["text"] if post.get("words") is None else post["words"] for post in posts],
            images=[post.get("image") for post in posts],
            aspects=[post.get("aspects") or [] for post in posts] if task == "masc" else None,
            task=task,
            return_tensors="np",
            **more,
        )
        if self.reads_features:
            inputs.update(stack_features([self._features_of(post) for post in posts]))
        return inputs

    def _features_of(self, post: dict) -> np.ndarray | None:
        if (file := post.get("image_features")) is None:
            return None
        features, wanted = read_features(file), tuple(self.inputs["encoder"]["image_features"].shape[1:])
        if features.shape != wanted:
            raise ValueError(f"{file}: features {features.shape} of a picture, but the model takes {wanted}.")
        return features

    @property
    def reads_features(self) -> bool:
        """Whether the model takes precomputed features of pictures, and no pictures."""
        return "image_features" in self.inputs["encoder"] and "vision" not in self.graphs

    @property
    def reads_linguistics(self) -> bool:
        """Whether the model has AoM's modules, which read `linguistics` of posts where they are given."""
        return "noun_mask" in self.inputs["encoder"]

    def generate(self, aspect_spans: np.ndarray | None = None, **inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decodes greedily, under the grammar.

        Args:
            aspect_spans: (batch, spans, 2) source columns, padded with -1. Where given, the polarities of exactly
                these spans are asked (MASC).
            inputs: arrays under the names that the model takes, from the processor with `return_tensors="np"`;
                `image_features` (batch, N_v, D) in place of `pixel_values` are taken too.

        Returns:
            Target ids (batch, prefix + steps), the prefix first, and the probability of each target (batch, steps).

        Raises:
            ValueError: the model does not take one of the inputs.
        """
        given = None if aspect_spans is None else self._given_targets(aspect_spans)
        steps = self.max_new_tokens if given is None else given.shape[1]
        max_length = np.array(len(self.prefix) + steps)
        sequences = np.tile(np.array(self.prefix), (len(inputs["input_ids"]), 1))
        probabilities = np.empty((len(sequences), 0), dtype=np.float32)
        state = self._run("encoder", self._complete(inputs) | {"max_length": max_length})
        while True:
            step = probabilities.shape[1]
            scores = state["scores"]
            targets = scores.argmax(-1)[:, None]
            odds = np.exp(scores - scores.max(-1, keepdims=True))
            probability = np.take_along_axis(odds / odds.sum(-1, keepdims=True), targets, 1)
            if given is not None and step % 3 < 2:
                targets, probability = given[:, step, None], np.ones_like(probability)
            sequences = np.concatenate([sequences, targets], axis=1)
            probabilities = np.concatenate([probabilities, probability], axis=1)
            if step + 1 == steps or (sequences[:, len(self.prefix) :] == EOS_TARGET_ID).any(1).all():
                return sequences, probabilities
            past = {name.replace("present", "past"): value for name, value in state.items()}
            state |= self._run("decoder", past | {"decoder_input_ids": sequences, "max_length": max_length})

    def _run(self, name: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        graph = self.graphs[name]
        feed = {node: values[node] for node in self.inputs[name]}
        return dict(zip((node.name for node in graph.get_outputs()), graph.run(None, feed)))

    def _complete(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds what the encoder takes and no post of the batch has: masked, it changes nothing."""
        rows = len(inputs["input_ids"])
        known = {"labels"}.union(*(self.inputs[name] for name in ("encoder", "vision") if name in self.inputs))
        if unknown := set(inputs) - known:
            raise ValueError(f"This model does not take {', '.join(sorted(unknown))}.")
        complete = {}
        for name, node in self.inputs["encoder"].items():
            if name in inputs:
                complete[name] = inputs[name]
            elif name == "image_features":
                complete[name] = np.zeros((rows, *node.shape[1:]), dtype=np.float32)
                if "pixel_values" in inputs:
                    has_image = inputs["image_attention_mask"].astype(bool)
                    pictures = inputs["pixel_values"][has_image]
                    complete[name][has_image] = self._run("vision", {"pixel_values": pictures})["image_features"]
            elif name == "image_attention_mask":
                complete[name] = np.full(rows, int("image_features" in inputs))
            elif "rationale" in name:
                complete[name] = np.zeros((rows, 1), dtype=np.int64)
            else:  # of AoM's modules
                shape = inputs["input_ids"].shape + inputs["input_ids"].shape[1:] * (len(node.shape) - 2)
                complete[name] = np.zeros(shape, dtype=np.int64 if name == "noun_mask" else np.float32)
        return complete

    def _given_targets(self, spans: np.ndarray) -> np.ndarray:
        """Returns the targets that given spans prescribe (batch, 3 · spans + 1): EOS where there is no further one.

        Every third is a polarity, which the model chooses.
        """
        rows, number = spans.shape[:2]
        targets = np.full((rows, 3 * number + 1), EOS_TARGET_ID)
        pointers = np.where(spans < 0, EOS_TARGET_ID, spans + self.processor.pointer_offset)
        targets[:, 0 : 3 * number : 3], targets[:, 1 : 3 * number : 3] = pointers[..., 0], pointers[..., 1]
        return targets
