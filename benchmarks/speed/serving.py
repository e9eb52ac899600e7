"""From raw posts to aspects, with a small pre-trained text model: pipeline, ONNX, preparation, start-up, memory."""

import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from transformers import AutoModel, pipeline

from modeling_lrsa.model_to_train import ModelArguments, build_model
from modeling_lrsa.onnx_export import export_onnx
from processing import LRSAOnnxPredictor, load_posts
from processing.preparation import prepare_posts

from .clock import Clock
from .posts import padding_waste


POSTS, NEW_TARGETS = 64, 7
FIELDS = ("text", "image_rationale", "text_rationale")
STARTS = {
    "import torch, transformers": ["-c", "import torch, transformers"],
    "import torch, transformers, modeling_lrsa": ["-c", "import torch, transformers, modeling_lrsa"],
    "the same, and its classes": ["-c", "import torch, transformers; from modeling_lrsa import LRSAForMABSA"],
    "the same without this package": ["-c", "import torch, transformers; from transformers import AutoModel, "
                                      "AutoProcessor, BartModel, GenerationMixin, PreTrainedModel, pipeline"],
    "lrsa --help": ["-m", "hub_scripts.cli", "--help"],
}  # fmt: skip


def measure_serving(clock: Clock, turns: int) -> dict:
    """Posts a second, all work counted, one and 32 posts at a time, without pictures."""
    import onnxruntime

    torch.manual_seed(0)
    model, processor = build_model(ModelArguments())
    model.generation_config.max_new_tokens = NEW_TARGETS
    posts = [
        {name: post[name] for name in FIELDS} for post in load_posts("examples/posts", "train").select(range(POSTS))
    ]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        start = clock.turns({"from_pretrained": lambda: AutoModel.from_pretrained(folder)}, turns)
        engines = {"pipeline": pipeline("mabsa", model=model, processor=processor, device=clock.device)}
        for name, int8 in (("ONNX float32", False), ("ONNX int8", True)):
            export_onnx(model, processor, Path(folder) / name, int8)
            engines[name] = LRSAOnnxPredictor(Path(folder) / name, sess_options=options)
        handler = runpy.run_path("hub_scripts/handler.py")["EndpointHandler"](folder)  # as an endpoint does
        batch = {}
        for size in (1, 32):
            batch[size] = processor(
                text=[post["text"] for post in posts[:size]],
                image_rationales=[post["image_rationale"] for post in posts[:size]],
                text_rationales=[post["text_rationale"] for post in posts[:size]],
                return_tensors="pt",
            ).to(clock.device)

        def generate(size: int) -> None:
            with torch.inference_mode():
                for _ in range(0, POSTS, size):
                    model.generate(**batch[size])

        functions = {f"model.generate alone, batch {size}": lambda size=size: generate(size) for size in (1, 32)}
        for size in (1, 32):
            functions[f"pipeline, batch {size}"] = lambda size=size: engines["pipeline"](posts, batch_size=size)
            for name in ("ONNX float32", "ONNX int8"):
                functions[f"{name}, batch {size}"] = lambda name=name, size=size: engines[name].predict(
                    posts, batch_size=size
                )
        for threads in (1, 16):
            functions[f"endpoint, {threads} request{'s' * (threads > 1)} at a time"] = lambda threads=threads: ask(
                handler, posts, threads
            )
        for function in functions.values():
            function()
        costs = clock.turns(functions, turns)
    reference = costs["pipeline, batch 32"]
    result = {
        name: cost.summary()
        | {"posts_a_second": round(POSTS / statistics.median(cost.seconds), 1), "over": round(cost.over(reference), 3)}
        for name, cost in costs.items()
    }
    return result | {"from_pretrained": start["from_pretrained"].summary()}


def ask(handler: Callable[[dict], list], posts: list[dict], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(handler, [{"inputs": post} for post in posts]))


def measure_data(clock: Clock, turns: int) -> dict:
    """Tokenising, and how much of the batches is padding."""
    model, processor = build_model(ModelArguments())
    posts = load_posts("examples/posts", "train")
    former = os.environ.get("LRSA_CACHE")
    with tempfile.TemporaryDirectory() as folder:

        def prepare() -> None:
            os.environ["LRSA_CACHE"] = tempfile.mkdtemp(dir=folder)  # or the second turn would read the first's
            prepare_posts(posts, processor)

        cost = clock.turns({"prepare": prepare}, turns)["prepare"]
        lengths = [len(row) for row in prepare_posts(posts, processor)["input_ids"]]
    os.environ.pop("LRSA_CACHE")
    if former is not None:
        os.environ["LRSA_CACHE"] = former
    return {
        "tokenising": cost.summary() | {"posts_a_second": round(len(posts) / statistics.median(cost.seconds))},
        "padding": {
            "in order": round(padding_waste(lengths, 16), 3),
            "by length": round(padding_waste(sorted(lengths), 16), 3),
        },
    }


def measure_start(turns: int) -> dict:
    """Processor seconds of processes that do nothing but start: the least of all turns, and the median."""
    seconds: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(turns):
        for name, arguments in STARTS.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        name: {"seconds": round(statistics.median(values), 2), "least_seconds": round(min(values), 2)}
        for name, values in seconds.items()
    }


def measure_memory(what: str) -> float:
    """Peak memory, in gigabytes, of a process of its own that does one part once."""
    code = f"from benchmarks.speed.memory import main; main({what!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return round(float(done.stdout.split()[-1]), 2)
