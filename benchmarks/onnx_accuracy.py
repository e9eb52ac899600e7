"""Exports a model to ONNX in float32 and in 8 bits, and compares both with torch: scores, size, time.

    python benchmarks/onnx_accuracy.py runs/quickstart/model examples/posts

Every engine gets the raw posts and does all of the work, tokenising and pictures included, on one thread; rounds take
turns, and of the processor time the least counts, so that the ratios hold on a machine that does other things too.
"""

import argparse
import json
import time
from pathlib import Path

import onnxruntime
import torch
from datasets import concatenate_datasets

from modeling_lrsa.loading import load_model
from modeling_lrsa.onnx_export import export_onnx
from modeling_lrsa.predictor import predict_batch
from processing import LRSAOnnxPredictor, compute_mabsa_metrics, load_posts
from processing.posts import gold_aspects


class TorchPredictor:
    """The same as `LRSAOnnxPredictor`, by torch."""

    def __init__(self, folder: str):
        self.model, self.processor = load_model(folder)
        self.model.eval()

    def predict(self, posts: list[dict], task: str, batch_size: int) -> list[list[dict]]:
        found: list[list[dict]] = []
        for first in range(0, len(posts), batch_size):
            batch = posts[first : first + batch_size]
            inputs = self.processor(
                text=[post["text"] or post["words"] for post in batch],
                images=[post["image"] for post in batch],
                image_rationales=[post["image_rationale"] for post in batch],
                text_rationales=[post["text_rationale"] for post in batch],
                aspects=[post["aspects"] for post in batch] if task == "masc" else None,
                task=task,
                return_tensors="pt",
            )
            found += predict_batch(self.model, self.processor, inputs, task)
        return found


def triples(predictions: list[list[dict]]) -> list[list[tuple]]:
    return [[(a["start"], a["end"], a["polarity"]) for a in row] for row in predictions]


def megabytes(folder: Path, *patterns: str) -> float:
    return sum(path.stat().st_size for pattern in patterns for path in folder.glob(pattern)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of an LRSA model with image side or without")
    parser.add_argument("posts", help="folder of labelled splits")
    parser.add_argument("--splits", nargs="+", default=["validation", "test"])
    parser.add_argument("--output", default="runs/onnx", help="folder for the exported models and results.json")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    output = Path(args.output)
    engines = {"torch float32": TorchPredictor(args.model)}
    results = {"torch float32": {"megabytes": megabytes(Path(args.model), "*.safetensors")}}
    torch_engine = engines["torch float32"]
    for name, int8 in (("ONNX float32", False), ("ONNX int8", True)):
        folder = output / ("int8" if int8 else "float32")
        export_onnx(torch_engine.model, torch_engine.processor, folder, int8)
        engines[name] = LRSAOnnxPredictor(folder, sess_options=options)
        results[name] = {"megabytes": megabytes(folder, "*.onnx", "*.onnx.data")}

    posts = concatenate_datasets([load_posts(args.posts, split, labelled=True) for split in args.splits])
    rows, gold = list(posts), gold_aspects(posts)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    found = {}
    for _ in range(args.rounds):
        for name, engine in engines.items():
            started = time.process_time()
            found[name] = engine.predict(rows, "mabsa", args.batch_size)
            seconds[name].append(time.process_time() - started)
    expected = triples(found["torch float32"])
    for name, engine in engines.items():
        joint = compute_mabsa_metrics(found[name], gold)
        masc = compute_mabsa_metrics(engine.predict(rows, "masc", args.batch_size), gold)
        results[name] |= {metric: joint[metric] for metric in ("jmasa_f1", "mate_f1")}
        results[name] |= {metric: masc[metric] for metric in ("masc_accuracy", "masc_macro_f1")}
        results[name] |= {
            "posts_as_torch": sum(a == b for a, b in zip(triples(found[name]), expected)),
            "posts": len(rows),
            "seconds": min(seconds[name]),
            "times_torch_speed": min(seconds["torch float32"]) / min(seconds[name]),
        }
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    columns = list(results["torch float32"])
    print(" | ".join(["", *columns]))
    for name, values in results.items():
        print(" | ".join([name, *(f"{values[column]:.2f}" for column in columns)]))


if __name__ == "__main__":
    main()
