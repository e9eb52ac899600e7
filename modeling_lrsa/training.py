"""Trains and evaluates from arguments: what `lrsa train` and `lrsa evaluate` do."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from peft import PeftModel, get_peft_model
from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from processing import LRSAProcessor, PostError, compute_mabsa_metrics
from processing.posts import gold_aspects
from processing.writing import whole_folder, writable_folder, write_whole

from .adapters import count_parameters, save_adapter
from .frozen_states import collator_for
from .model_to_train import ModelArguments, build_model, choose_trained
from .modeling_lrsa import LRSAForMABSA
from .predictor import predict_posts, prepare_for_model
from .trainer import LRSATrainer, LRSATrainingArguments, gates
from .training_posts import DataArguments, load_split, load_unlabelled, prepare_to_train
from .training_record import training_record


def train(
    model_arguments: ModelArguments, data_arguments: DataArguments, training_arguments: LRSATrainingArguments
) -> dict:
    """Trains, selects on the validation split, and saves the model to `model` in the output folder.

    With LoRA that model is the merged one, and the adapter is saved to `adapter`. Writes `results.json` beside it: the
    scores of the validation split, the development curve, the gates, the number of parameters, and what the run was
    made of (`training_record`). On several processes (`accelerate launch`) the main one does all the writing, and the
    others return what it found.

    Returns:
        What `results.json` holds.
    """
    args, begun = training_arguments, time.perf_counter()
    check(data_arguments, args)
    set_seed(args.seed)
    # The CPU's fused attention multiplies small blocks: with bfloat16 inside of each it is the slowest.
    plain_attention = args.device.type == "cpu" and args.float32_matmul_precision == "medium"
    if args.float32_matmul_precision is not None:
        torch.set_float32_matmul_precision(args.float32_matmul_precision)
        torch.backends.cuda.enable_flash_sdp(not plain_attention)
    output = Path(args.output_dir)
    writable_folder(output)
    posts = {split: load_split(data_arguments, split) for split in ("train", "validation")}
    unlabelled = load_unlabelled(data_arguments)
    record = training_record((model_arguments, data_arguments, args), posts, unlabelled)
    with args.main_process_first(desc="preparing"):  # the others read what it has cached
        model, processor = build_model(model_arguments)
        model.to(args.device)  # frozen parts compute there
        lexicon = data_arguments.lexicon
        prepared = prepare_to_train(model, processor, posts["train"], unlabelled, args.teacher or [], lexicon)
        validation = prepare_for_model(model, processor, posts["validation"], lexicon=lexicon)
    if plain_attention:
        model.set_attn_implementation("eager")
    trained = choose_trained(model, model_arguments)
    trainable, total = count_parameters(trained)

    callbacks = []
    if data_arguments.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(data_arguments.early_stopping_patience))
    trainer = LRSATrainer(
        model=trained,
        args=args,
        train_dataset=prepared,
        eval_dataset=validation,
        data_collator=collator_for(model, processor),
        processing_class=processor,
        callbacks=callbacks,
    )
    if trainer.is_world_process_zero():
        print(f"trainable: {trainable:,} of {total:,} parameters ({100 * trainable / total:.1f} %)", flush=True)
    resume = {"true": True, "false": None}.get(str(args.resume_from_checkpoint).lower(), args.resume_from_checkpoint)
    if resume is True:
        resume = newest_whole_checkpoint(output) or True
    trainer.train(resume_from_checkpoint=resume)
    seconds = None if resume else round(time.perf_counter() - begun, 1)

    results = [None]
    model = whole_model(trainer)
    if trainer.is_world_process_zero():
        if isinstance(model, PeftModel):
            with whole_folder(output / "adapter") as folder:
                save_adapter(model, folder)
                processor.save_pretrained(folder)
            model = model.merge_and_unload()
        results[0] = {
            "validation": evaluate(
                model,
                processor,
                posts["validation"],
                args.per_device_eval_batch_size,
                args.generation_num_beams or 1,
                lexicon=lexicon,
            ),
            "best_step": trainer.state.best_global_step,
            "curve": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
            "gates": gates(model),
            "parameters": {"trainable": trainable, "total": total},
            "seed": args.seed,
            "seconds": seconds,
            **record,
        }
        (output / "test_results.json").unlink(missing_ok=True)  # of the model that was here
        with whole_folder(output / "model") as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        write_whole(output / "results.json", json.dumps(results[0], indent=2) + "\n")
    return broadcast_object_list(results)[0]


def check(data_arguments: DataArguments, training_arguments: LRSATrainingArguments) -> None:
    """Raises PostError where arguments do not go together, or name no data."""
    args = training_arguments
    if data_arguments.early_stopping_patience is not None and not args.load_best_model_at_end:
        raise PostError("early_stopping_patience needs load_best_model_at_end: true.")
    if data_arguments.unlabelled and not args.teacher:
        raise PostError("unlabelled: nobody tells the aspects of these posts; give a teacher, or leave them out.")
    if args.world_size != (started := int(os.environ.get("WORLD_SIZE", 1))):
        raise PostError(f"{started} processes, each of which sees itself alone: there is no GPU; pass use_cpu: true.")
    if not Path(data_arguments.data).is_dir():
        raise PostError(
            f"{data_arguments.data}: no such folder; one with train.jsonl and validation.jsonl is expected."
        )


def newest_whole_checkpoint(folder: Path) -> str | None:
    """Returns the last checkpoint that was not being written when training was killed: its state is written last."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: (len(path.name), path.name), reverse=True):
        with suppress(OSError, ValueError):
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            return str(path)
    return None


def whole_model(trainer: LRSATrainer) -> LRSAForMABSA | PeftModel | None:
    """Returns the trained model; where FSDP has shared it out, put together in the main process alone."""
    if not trainer.is_fsdp_enabled:
        return trainer.model
    weights = trainer.accelerator.get_state_dict(trainer.model)  # all processes give theirs
    if not trainer.is_world_process_zero():
        return None
    model = LRSAForMABSA(trainer.model.config)
    if isinstance(trainer.model, PeftModel):
        model = get_peft_model(model, trainer.model.active_peft_config)
    model.load_state_dict(weights)
    return model.to(trainer.args.device)


def evaluate(
    model: LRSAForMABSA,
    processor: LRSAProcessor,
    posts: Dataset,
    batch_size: int = 32,
    num_beams: int = 1,
    progress: bool = False,
    lexicon: str | None = None,
) -> dict[str, float]:
    """Scores JMASA and MATE of free decoding, and MASC of the gold spans' polarities, all in percent.

    See `compute_mabsa_metrics` for the names.
    """
    gold = gold_aspects(posts)
    joint = predict_posts(model, processor, posts, "mabsa", batch_size, num_beams, progress, lexicon)
    metrics = compute_mabsa_metrics(joint, gold)
    classified = predict_posts(model, processor, posts, "masc", batch_size, num_beams, progress, lexicon)
    masc = compute_mabsa_metrics(classified, gold)
    return metrics | {name: value for name, value in masc.items() if name.startswith("masc_")}
