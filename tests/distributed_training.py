"""Trains tiny models, scenario after scenario, on however many processes it runs on.

`test_distributed.py` runs it by itself and under `accelerate launch`, and compares. The main process writes for each
scenario its losses and scores to OUTPUT/scenario.json and the trained model to OUTPUT/scenario/.

    distributed_training.py OUTPUT
"""

import importlib.util
import json
import os
import random
import sys
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image
from transformers import PrinterCallback, ViTImageProcessor
from transformers.utils import logging

from modeling_lrsa.frozen_states import collator_for
from modeling_lrsa.trainer import LRSATrainer, LRSATrainingArguments


GLOBAL_BATCH = 4
RATES = ("learning_rate", "new_parts_learning_rate", "fusion_learning_rate", "gate_learning_rate")
ROOT = Path(__file__).parents[1]
OUTPUT = Path(sys.argv[1])
WORLD, RANK = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))


def load_tiny():
    path = Path(__file__).parent / "modeling_lrsa" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load_tiny()


def build(text="bert", image="regions", **fields):
    model = tiny.model(text, image, **{"num_fusion_layers": 2} | fields)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def rows_of(model, number=16, states=False):
    """Prepared posts, of which those of one process have picture and rationales, those of the other none, in turn."""
    rows, encoder = [], model.get_encoder()
    for index in range(number):
        full = (index % GLOBAL_BATCH < GLOBAL_BATCH // 2) == (index // GLOBAL_BATCH % 2 == 0)
        regions = model.config.vision_config is None
        post = tiny.post(
            model, index, picture=full and regions, image_rationale=3 if full else 0, text_rationale=4 if full else 0
        )
        row = {name: post[name] for name in ("input_ids", "word_ids", "labels")}
        row |= {"text": "", "offsets": [], "is_words": False}
        if regions:
            row["image_features"] = b"" if post["image"] is None else post["image"].half().numpy().tobytes()
        else:
            noise = random.Random(index).randbytes(8 * 8 * 3)
            row["image"] = Image.frombytes("RGB", (8, 8), noise) if full else None
        for kind in ("image", "text"):
            ids = post[f"{kind}_rationale"]
            if states:
                made = encoder.get_rationale_states(torch.tensor([ids]), torch.ones(1, len(ids))) if ids else None
                row[f"{kind}_rationale_states"] = b"" if made is None else made[0].half().numpy().tobytes()
            else:
                row[f"{kind}_rationale_input_ids"] = ids
        rows.append(row)
    return rows


def arguments(**changes):
    accumulated = changes.pop("accumulated", 1)
    fields = {
        "output_dir": str(OUTPUT / "trainer"),
        "use_cpu": True,
        "num_train_epochs": 2,
        "per_device_train_batch_size": GLOBAL_BATCH // WORLD // accumulated,
        "gradient_accumulation_steps": accumulated,
        "per_device_eval_batch_size": GLOBAL_BATCH // WORLD,
        "ddp_find_unused_parameters": False,
        "average_tokens_across_devices": True,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "predict_with_generate": False,
        "disable_tqdm": True,
        "warmup_steps": 0,
        "report_to": "none",
    }
    return LRSATrainingArguments(**fields | dict.fromkeys(RATES, 0.05) | changes)


def trainer_of(model, rows, args):
    processor = tiny.processor(model, None if model.config.vision_config is None else IMAGES)
    return LRSATrainer(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collator_for(model, processor),
        processing_class=processor,
    )


IMAGES = ViTImageProcessor(size={"height": 8, "width": 8})


def train(name, model=None, rows=None, **changes):
    model = model or build()
    args = arguments(**changes)
    if args.fsdp:  # which accelerate keeps for accelerators, though torch shards on a CPU, too
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    trainer = trainer_of(model, rows or rows_of(model), args)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    folder = OUTPUT / name
    trainer.save_model(str(folder))
    write(name, {"losses": losses})
    return trainer


def write(name, figures):
    if RANK == 0:
        (OUTPUT / f"{name}.json").write_text(json.dumps(figures))


def checkpointing(reentrant):
    return {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}


FSDP = load_config_from_file(str(ROOT / "examples" / "accelerate" / "fsdp.yaml")).fsdp_config


def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    train("plain")
    if 0: train("unequal", rows=rows_of(build(), 15), accelerator_config={"even_batches": False})
    model = build()
    train("states", model, rows_of(model, states=True))
    train("vision", build(image="vit", freeze_vision=False))
    train("shared", build("bart", rationale_encoder="shared", image_rationale_reader="queries"))
    if WORLD > 1:
        train("plain-checkpointing", **checkpointing(False))
        train("plain-reentrant", **checkpointing(True))
        train("plain-accumulation", accumulated=2)
        for name in ("shared",):
            model = build("bart", rationale_encoder="shared", image_rationale_reader="queries")
            train("shared-checkpointing", model, **checkpointing(False))
        print(build()._no_split_modules, build("bart")._no_split_modules)
        train("plain-fsdp", fsdp=True, fsdp_config=dict(FSDP))
        train("plain-fsdp_checkpointing", fsdp=True, fsdp_config=dict(FSDP), **checkpointing(False))
        train("plain-fsdp_accumulation", fsdp=True, fsdp_config=dict(FSDP), accumulated=2)
        model = build("bart", rationale_encoder="shared", image_rationale_reader="queries")
        train("vision-fsdp", build(image="vit", freeze_vision=False), fsdp=True, fsdp_config=dict(FSDP))
        train("shared-fsdp", model, fsdp=True, fsdp_config=dict(FSDP))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
