"""Loads saved folders where this package can't be imported, predicts, and saves; `test_remote_code.py` runs it.

Standard input is a JSON list of the arguments of `use`, the last line of standard output a list of what it returns.
"""

import importlib
import json
import sys
import time
from pathlib import Path


OWN_PACKAGES = ("hub_scripts", "modeling_lrsa", "processing")


class NotInstalled:
    """Hides packages from the import system."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OWN_PACKAGES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide_own_packages() -> None:
    sys.meta_path.insert(0, NotInstalled())
    for package in OWN_PACKAGES:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            continue
        sys.exit(f"{package} can be imported")


def waited() -> float:
    """Seconds for which this process could have run and other processes had the cores, where the system tells."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def use(folder: str, saved: str, piped: str, posts: list[dict], started: float) -> dict:
    """Loads `folder` by every way that there is, predicts, and saves to two others.

    Args:
        saved: where `save_pretrained` of model and processor save to.
        piped: where `save_pretrained` of the pipeline saves to.
        started: the time at which this process was started.
    """
    from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

    try:
        AutoModel.from_pretrained(folder, trust_remote_code=False)
        refusal = None
    except ValueError as error:
        refusal = str(error)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    pipe = pipeline("mabsa", model=folder, trust_remote_code=True, device="cpu")
    seconds = time.time() - started - waited()
    taskless = pipeline(model=folder, trust_remote_code=True, device="cpu")

    import torch

    torch.set_num_threads(1)
    inputs = processor(
        text=[post["text"] for post in posts],
        images=[post.get("image") for post in posts],
        image_rationales=[post.get("image_rationale") for post in posts],
        text_rationales=[post.get("text_rationale") for post in posts],
        return_tensors="pt",
    )
    outputs = model.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    predictions = {
        "model and processor": processor.post_process_mabsa(outputs, inputs),
        "pipeline": [pipe(post) for post in posts],
        "pipeline without task": [taskless(post) for post in posts],
    }
    model.save_pretrained(saved)
    processor.save_pretrained(saved)
    pipe.save_pretrained(piped)
    return {
        "seconds": seconds,
        "refusal": refusal,
        "predictions": predictions,
        "modules": [type(part).__module__ for part in (config, model, processor, pipe, taskless)],
        "imported": sorted({name.partition(".")[0] for name in sys.modules}),
    }


if __name__ == "__main__":
    hide_own_packages()
    print(json.dumps([use(**arguments) for arguments in json.load(sys.stdin)]))
