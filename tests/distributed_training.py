"""Trains tiny models, scenario after scenario, on however many processes it runs on.

`test_distributed.py` runs it by itself and under `accelerate launch`, and compares. The main process writes for each
scenario its losses and scores to OUTPUT/scenario.json and the trained model to OUTPUT/scenario/.

    distributed_training.py OUTPUT first|more
"""

import copy
import importlib.util
import json
import os
import random
import sys
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import gather_object
from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback, ViTImageProcessor
from transformers.utils import logging

from modeling_lrsa.frozen_states import collator_for
from modeling_lrsa.trainer import LRSATrainer, LRSATrainingArguments, gates
from modeling_lrsa.training import whole_model


GLOBAL_BATCH = 4
RATES = ("learning_rate", "new_parts_learning_rate", "fusion_learning_rate", "gate_learning_rate")
ROOT = Path(__file__).parents[1]
FSDP = load_config_from_file(str(ROOT / "examples" / "accelerate" / "fsdp.yaml")).fsdp_config
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
        "output_dir": str(main.output / "trainer"),
        "use_cpu": True,
        "num_train_epochs": 1,
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
    return LRSATrainingArguments(**copy.deepcopy(fields | dict.fromkeys(RATES, 0.05) | changes))


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


def train(name, model=None, rows=None, resume=None, **changes):
    model = model or build()
    args = arguments(**changes)
    if args.fsdp:  # which accelerate keeps for accelerators, though torch shards on a CPU, too
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    trainer = trainer_of(model, rows or rows_of(model), args)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume and str(main.output / resume))
    trainer.save_model(str(main.output / name))
    figures = {"losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]}
    if (whole := whole_model(trainer)) is not None:
        figures["gates"] = gates(whole)
    write(name, figures)
    return trainer


def score(name, **changes):
    """Scores seven posts, of which the model knows every other one by heart; it writes sequences of four lengths."""
    model = build(seed=5)
    rows = rows_of(model, 7)
    collate = collator_for(model, tiny.processor(model))
    for row in rows[::2]:
        inputs = {key: value for key, value in collate([row]).items() if key != "labels"}
        targets = model.generate(**inputs)[0, 1:].tolist()
        row["labels"] = [*[target for target in targets if target != 1], 1]
    rates = dict.fromkeys(RATES, 0.0)
    trainer = train(name, model, rows[:4], predict_with_generate=True, **rates, **changes)
    output = trainer.predict(rows)
    metrics = {key: value for key, value in output.metrics.items() if "jmasa" in key or "mate" in key}
    write(name, {"metrics": metrics, "sequences": output.predictions.tolist(), "labels": output.label_ids.tolist()})


def order(name):
    """Which posts the processes see in two epochs, where each draws other random numbers in between."""
    model = build()
    rows = Dataset.from_list([row | {"offsets": [[0, 0]]} for row in rows_of(model)])
    loader = trainer_of(model, rows, arguments(train_sampling_strategy="group_by_length")).get_train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        seen = [row for batch in loader for row in batch["labels"].tolist()]
        epochs.append([[target for target in row if target != -100] for row in gather_object(seen)])
        torch.rand(1 + RANK)
    write(name, {"epochs": epochs, "posts": list(rows["labels"])})


def write(name, figures):
    if RANK == 0:
        (main.output / f"{name}.json").write_text(json.dumps(figures))


def checkpointing(reentrant):
    return {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}


def shared():
    return build("bart", rationale_encoder="shared", image_rationale_reader="queries")


def vision():
    return build(image="vit", freeze_vision=False)


SHARDED = {"fsdp": True, "fsdp_config": FSDP}
# Adam with a large epsilon, below which gradients that are noise, as those of key biases, stay noise.
ADAM = {"optim": "adamw_torch", "adam_epsilon": 1e-3} | dict.fromkeys(RATES, 3e-3)
ADAM |= {"save_strategy": "steps", "save_steps": 2, "save_total_limit": None}


def first():
    train("plain")
    train("shared", shared())
    train("smoothed", label_smoothing_factor=0.2, drop_inputs=0.3)
    train("input", build(num_fusion_layers=1, fusion_position="input", rationale_encoder="embeddings"))
    train("states", model := build(), rows_of(model, states=True))
    train("unequal", rows=rows_of(build(), 15), accelerator_config={"even_batches": False})
    score("scores")
    order("order")
    if WORLD > 1:
        train("plain-checkpointing", **checkpointing(False))
        train("plain-reentrant", **checkpointing(True))
        train("plain-accumulation", accumulated=2)
        train("plain-fsdp", **SHARDED)
        train("plain-fsdp_checkpointing_accumulation", accumulated=2, **checkpointing(False), **SHARDED)
        train("shared-fsdp", shared(), **SHARDED)
        score("scores-fsdp", **SHARDED)


def more():
    train("vision", vision())
    train("frozen_vision", build(image="vit"))
    train("shared", shared())
    train("adam", **ADAM)
    if WORLD > 1:
        train("vision-fsdp", vision(), **SHARDED)
        train("frozen_vision-fsdp", build(image="vit"), **SHARDED)
        train("shared-checkpointing", shared(), **checkpointing(False))
        train("adam-resumed", resume="trainer/checkpoint-2", **ADAM)
        train("adam-fsdp", output_dir=str(main.output / "sharded"), **ADAM, **SHARDED)
        train("adam-fsdp_resumed", resume="sharded/checkpoint-2", **ADAM, **SHARDED)


def main(output, scenarios):
    main.output = output
    {"first": first, "more": more}[scenarios]()


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    main(Path(sys.argv[1]), sys.argv[2])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
