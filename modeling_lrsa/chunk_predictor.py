"""Predicts chunks of posts: what a worker does, in this process or on a cluster."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from processing import LRSAOnnxPredictor, PostError
from processing.chunks import Chunk, ChunkReader
from processing.linguistics import load_annotator
from processing.parts import Answered
from processing.posts import stored_picture

from .loading import load_model
from .predictor import Predictor, no_lexicon


TASKS = ("mabsa", "mate", "masc")
ASPECT = {"aspect": pa.string(), "polarity": pa.string(), "score": pa.float64()}
ASPECT |= dict.fromkeys(("start", "end", "word_start", "word_end"), pa.int32())
SCHEMA = pa.schema({"id": pa.string(), "aspects": pa.list_(pa.struct(ASPECT))})

PredictPosts = Callable[[Sequence[dict[str, Any]]], list[list[dict]]]


class ChunkPredictor:
    """Reads a chunk and predicts its posts: rows of `SCHEMA`.

    Args:
        reader: of chunks.
        predict: what `load_predictor` gives.
    """

    def __init__(self, reader: ChunkReader, predict: PredictPosts):
        self.reader, self.predict = reader, predict

    def __call__(self, chunk: Chunk) -> Answered:
        read = self.reader.read(chunk)
        found = self.predict(read.posts)
        rows = [{"id": post["id"], "aspects": aspects} for post, aspects in zip(read.posts, found, strict=True)]
        return Answered(rows, read.bad, Counter(missing=read.missing))


def count(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(posts=len(rows), aspects=sum(len(row["aspects"]) for row in rows))


def load_predictor(
    name: str, task: str = "mabsa", batch_size: int = 32, num_beams: int = 1, lexicon: str | None = None
) -> PredictPosts:
    """Loads a model, of torch on an accelerator where there is one, or of ONNX.

    Args:
        name: folder or id.
        task, batch_size, num_beams, lexicon: as of `Predictor`; ONNX models know no beams.

    Returns:
        What gives the aspects of posts with the columns of `FEATURES`, in their order.

    Raises:
        PostError: there is no such model with its processor, or it can't be loaded.
    """
    if is_onnx_folder(name):
        return _onnx_predictor(name, task, batch_size, lexicon)
    model, processor = load_model(name)
    if torch.accelerator.is_available():
        model = model.to(torch.accelerator.current_accelerator())
    return Predictor(model, processor, task, batch_size, num_beams, lexicon)


def _onnx_predictor(name: str, task: str, batch_size: int, lexicon: str | None) -> PredictPosts:
    try:
        model = LRSAOnnxPredictor(name)
    except (ImportError, OSError, ValueError) as error:
        raise PostError(f"{name}: {' '.join(str(error).split())}") from error
    if lexicon is not None and not model.reads_linguistics:
        raise no_lexicon(lexicon)
    annotator = load_annotator(lexicon) if model.reads_linguistics else None

    def predict(posts: Sequence[dict[str, Any]]) -> list[list[dict]]:
        texts = [post["text"] if post["words"] is None else post["words"] for post in posts]
        posts = [post | {"image": stored_picture(post["image"])} for post in posts]
        if annotator is not None:
            posts = [post | {"linguistics": found} for post, found in zip(posts, annotator(texts))]
        order = sorted(range(len(posts)), key=lambda index: sum(map(len, texts[index])), reverse=True)
        try:
            found = model.predict([posts[index] for index in order], task, batch_size)
        except ValueError as error:
            raise PostError(str(error)) from error
        return [aspects for _, aspects in sorted(zip(order, found), key=lambda pair: pair[0])]

    return predict


def is_onnx_folder(name: str) -> bool:
    return (Path(name) / "encoder.onnx").is_file()
