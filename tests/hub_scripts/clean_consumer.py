"""Loads what was pushed, by repository id, where this package can't be imported; `test_push_end_to_end.py` runs it.

Standard input is a JSON object of what to use, the last line of standard output what came of it.
"""

import importlib.util
import json
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from huggingface_hub import RepoCard


spec = importlib.util.spec_from_file_location("clean_process", Path(__file__).parents[1] / "clean_process.py")
clean_process = importlib.util.module_from_spec(spec)
spec.loader.exec_module(clean_process)


def predictions(model, processor, posts: list[dict]) -> list[list[dict]]:
    inputs = processor(
        text=[post["text"] for post in posts],
        images=[post.get("image") for post in posts] if processor.image_processor is not None else None,
        image_rationales=[post.get("image_rationale") for post in posts],
        text_rationales=[post.get("text_rationale") for post in posts],
        return_tensors="pt",
    )
    outputs = model.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    return processor.post_process_mabsa(outputs, inputs)


def use_model(repo: str, posts: list[dict], revision: str | None = None) -> dict:
    from transformers import AutoModel, AutoProcessor, pipeline

    trusted = {"trust_remote_code": True, "revision": revision}
    model = AutoModel.from_pretrained(repo, **trusted)
    processor = AutoProcessor.from_pretrained(repo, **trusted)
    pipe = pipeline("mabsa", model=repo, device="cpu", **trusted)
    return {
        "model": predictions(model, processor, posts),
        "pipeline": [pipe(post) for post in posts],
        "masc": [pipe(post, task="masc") for post in posts],
        "modules": [type(part).__module__ for part in (model, processor, pipe)],
    }


def use_adapter(repo: str, posts: list[dict], commit: str) -> dict:
    from transformers import AutoModel, AutoProcessor, pipeline

    model = AutoModel.from_pretrained(repo, trust_remote_code=True)
    pinned = AutoModel.from_pretrained(repo, trust_remote_code=True, adapter_kwargs={"revision": commit})
    processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
    pipe = pipeline("mabsa", model=repo, trust_remote_code=True, device="cpu")
    return {
        "model": predictions(model, processor, posts),
        "pinned": predictions(pinned, processor, posts),
        "pipeline": [pipe(post) for post in posts],
        "masc": [pipe(post, task="masc") for post in posts],
    }


def use_card(repo: str, kind: str) -> dict:
    """Has the Hub look at the card of a repository, and runs its code as it stands there."""
    card = RepoCard.load(repo, repo_type=kind)
    card.validate(repo_type=kind)
    names, printed = {}, []
    for block in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL):
        with redirect_stdout(StringIO()) as out:
            exec(block, names)
        printed.append(out.getvalue())
    return {"printed": printed, "data": card.data.to_dict()}


def use_dataset(repo: str) -> dict:
    from datasets import load_dataset

    loaded = load_dataset(repo)
    rows = {}
    for split, posts in loaded.items():
        sizes = [image and list(image.size) for image in posts["image"]]
        rows[split] = [{**row, "image": size} for row, size in zip(posts.remove_columns("image"), sizes)]
    return {"rows": rows, "image": type(loaded["train"].features["image"]).__name__}


def use_metric(repo: str, predictions: list, references: list) -> dict:
    import evaluate

    return evaluate.load(repo, "jmasa").compute(predictions=predictions, references=references)


if __name__ == "__main__":
    clean_process.hide_own_packages()
    import torch

    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    print(json.dumps({name: globals()[f"use_{call.pop('what')}"](**call) for name, call in asked.items()}))
