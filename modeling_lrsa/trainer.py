"""Trainer of LRSA models."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG_NAME
from torch import nn
from transformers import EvalPrediction, Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import HubStrategy
from transformers.utils import CONFIG_NAME, logging

from processing import IndexFormat, LRSAProcessor, compute_mabsa_metrics
from processing.writing import write_whole

from .configuration_lrsa import LRSAConfig
from .dropped_inputs import DroppedInputs, EpochOfDroppedInputs
from .encoder_lrsa import LRSAEncoderOutput
from .fusion_lrsa import LRSADualCrossAttention
from .generation_lrsa import READ_BEFORE
from .model_card import own_card, render_card
from .parameter_parts import part_of
from .soft_targets import soft_targets
from .training_record import versions


logger = logging.get_logger(__name__)


def option(default, help: str):
    return field(default=default, metadata={"help": f"{help} (default: {default})"})


# Inputs that a part of the model encodes, and their masks.
ENCODED = {
    "pixel_values": "image_attention_mask",
    "image_rationale_input_ids": "image_rationale_attention_mask",
    "text_rationale_input_ids": "text_rationale_attention_mask",
}


PRECISIONS = ("highest", "high", "medium")


@dataclass
class LRSATrainingArguments(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with learning rates by part, and defaults that select on the validation split."""

    learning_rate: float = option(1e-4, "Peak learning rate of pre-trained parts.")
    lora_learning_rate: float = option(2e-3, "Peak learning rate of LoRA matrices.")
    new_parts_learning_rate: float = option(
        3e-4, "Peak learning rate of what is not pre-trained: decoder, pointer head."
    )
    fusion_learning_rate: float = option(1e-4, "Peak learning rate of the fusion layers.")
    gate_learning_rate: float = option(
        1e-2, "Peak learning rate of the fusion's gates, which start at zero, and match biases."
    )
    drop_inputs: float = option(
        0.0, "Share of pictures, image rationales and text rationales that training leaves out at random."
    )
    teacher: list[str] | None = option(None, "Trained models whose target distributions are learnt, too; their mean.")
    distillation_weight: float = option(0.5, "Share of the teacher in what is learnt, the labels have the rest.")
    warmup_steps: float = option(0.1, "Steps, or share of all steps, in which learning rates rise.")
    float32_matmul_precision: str | None = option(
        None, "highest, high or medium: what torch.set_float32_matmul_precision is given, for the whole process."
    )
    per_device_train_batch_size: int = option(16, "Posts a step and device.")
    per_device_eval_batch_size: int = option(64, "Posts at a time in evaluation.")
    train_sampling_strategy: str = option("group_by_length", "Posts of like length share a batch.")
    predict_with_generate: bool = option(True, "Score generated sequences in evaluation.")
    eval_strategy: str = option("epoch", "When to evaluate.")
    save_strategy: str = option("epoch", "When to save a checkpoint to resume from: epoch, steps, best or no.")
    logging_strategy: str = option("epoch", "When to log.")
    load_best_model_at_end: bool = option(True, "End with the best evaluated model.")
    metric_for_best_model: str = option("jmasa_f1", "Which score is best.")
    greater_is_better: bool = option(True, "Whether more of it is better.")
    save_total_limit: int = option(1, "Checkpoints to keep besides the best.")
    ddp_find_unused_parameters: bool = option(False, "Whether DDP looks for parameters left out; here are none.")
    remove_unused_columns: bool = option(False, "The collator reads more than the model takes.")

    def __post_init__(self):
        # Where there is nothing but a CPU, transformers wants to be told so before it takes bfloat16.
        self.use_cpu = self.use_cpu or (self.bf16 and not torch.accelerator.is_available())
        super().__post_init__()
        if self.n_gpu > 1:  # copies of a model within one process share their hooks
            logger.warning(f"One of {self.n_gpu} GPUs is used; `accelerate launch` uses all.")
            self._n_gpu = 1
        for name in ("drop_inputs", "distillation_weight", "label_smoothing_factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a share: it must be between 0 and 1.")
        if self.drop_inputs and self.dataloader_persistent_workers:
            raise ValueError(
                "drop_inputs draws anew in each epoch, of which persistent workers hear nothing: leave out "
                "dataloader_persistent_workers."
            )
        if isinstance(self.teacher, str):
            self.teacher = [self.teacher]
        if (precision := self.float32_matmul_precision) not in (None, *PRECISIONS):
            raise ValueError(f"float32_matmul_precision={precision!r}: one of {', '.join(PRECISIONS)} is expected.")


class LengthGroups(LengthGroupedSampler):
    """`LengthGroupedSampler` with an order that follows from seed and epoch.

    transformers draws it from the global generator, which is not where it was after a resume amid an epoch, nor, once
    dropout has drawn from it, the same in every process: some posts of an epoch then come twice and others never.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __iter__(self):
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


class LRSATrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` that scores generated sequences, and knows which parts of an LRSA model are new.

    With `predict_with_generate=True` an evaluation gives the scores of `compute_mabsa_metrics` under `eval_…`.
    """

    def __init__(self, model=None, args=None, compute_metrics=None, **kwargs):
        if compute_metrics is None and model is not None and getattr(args, "predict_with_generate", False):
            compute_metrics = SequenceMetrics(model.config)
        columns = getattr(kwargs.get("train_dataset"), "column_names", None) or ()
        if args is not None and args.train_sampling_strategy == "group_by_length" and "input_ids" not in columns:
            args.train_sampling_strategy = "random"  # posts that the collator tokenises have no length yet
        if isinstance(processor := kwargs.get("processing_class"), LRSAProcessor) and model is not None:
            processor.check_fits(model.config)
        super().__init__(model=model, args=args, compute_metrics=compute_metrics, **kwargs)
        if self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.activation_checkpointing:
            raise ValueError(
                "fsdp_activation_checkpointing computes layers anew without the rationales that they had read: set "
                "activation_checkpointing: true in place of it."
            )
        if (share := getattr(self.args, "drop_inputs", 0)) and self.train_dataset is not None:
            self.train_dataset = DroppedInputs(self.train_dataset, share, self.data_seed)
            self.add_callback(EpochOfDroppedInputs(self.train_dataset))
        self.label_smoother = None  # transformers' takes the labels away, and smooths over masked columns
        self.padded = self.positions = 0

    @property
    def data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _get_train_sampler(self, train_dataset=None):
        # The whole rows: how long they are is asked of each, and does not follow from what is left out.
        whole = train_dataset.dataset if isinstance(train_dataset, DroppedInputs) else train_dataset
        if isinstance(whole, Dataset) and "input_ids" in whole.column_names:
            whole = whole.select_columns("input_ids")  # a post's states are a hundred times as many bytes
        sampler = super()._get_train_sampler(whole)
        if isinstance(sampler, LengthGroupedSampler):
            sampler = LengthGroups(sampler.batch_size, lengths=sampler.lengths, seed=self.data_seed)
        return sampler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """In training with a teacher or `label_smoothing_factor`, the cross-entropy with `soft_targets`."""
        teacher, args = inputs.pop("teacher_probabilities", None), self.args
        if not model.training or (teacher is None and not args.label_smoothing_factor):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if args.n_gpu > 1:
            raise ValueError("A teacher and label_smoothing_factor need one process a GPU: use `accelerate launch`.")
        outputs, labels = model(**inputs, num_items_in_batch=num_items_in_batch), inputs["labels"]
        weight = getattr(args, "distillation_weight", 0.0)
        targets = soft_targets(outputs.logits, labels, args.label_smoothing_factor, teacher, weight)
        loss = nn.functional.cross_entropy(
            outputs.logits.float().flatten(0, 1), targets.flatten(0, 1), reduction="sum"
        )
        loss = loss / ((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch)
        if outputs.tagging_loss is not None:
            loss = loss + outputs.tagging_loss
        if num_items_in_batch is not None and args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, *args, **kwargs):
        for name, mask in inputs.items():
            if name.endswith("attention_mask") and mask.dim() == 2:
                self.padded = self.padded + mask.numel() - mask.sum()  # a tensor: a step waits for no device
                self.positions += mask.numel()
        return super().training_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds `padding`: which share of the positions of texts and rationales since the last time was padding."""
        if "loss" in logs and self.positions:
            logs["padding"] = round(float(self.padded) / self.positions, 4)
            self.padded = self.positions = 0
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        # Seq2SeqTrainer's `gather` counts the posts twice that fill up the last batch of the last process.
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        return with_stand_ins(inputs, self.accelerator) if self.is_fsdp_enabled else inputs

    def prediction_step(self, model, inputs, prediction_loss_only, *args, **kwargs):
        settings = self.model.generation_config
        max_length = settings.max_length
        # FSDP gathers the embeddings for a call of the whole model or of `generate` alone; beams spread what is given.
        beams = getattr(self, "_gen_kwargs", {}).get("num_beams") or settings.num_beams or 1
        once = beams == 1 and not self.is_fsdp_enabled
        if self.is_fsdp_enabled:  # a process whose posts are done goes on while others gather
            self._gen_kwargs = {**getattr(self, "_gen_kwargs", {}), "synced_gpus": self.args.world_size > 1}
        if self.args.predict_with_generate and not prediction_loss_only and once:
            inputs = self._prepare_inputs(inputs)
            inputs["encoder_outputs"] = self._encode(inputs)  # once, for the loss and for generation
        result = super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
        settings.max_length = max_length  # which the step fills with transformers' default of 20
        return result

    @torch.no_grad()
    def _encode(self, inputs: Mapping[str, torch.Tensor]) -> LRSAEncoderOutput:
        read = {name: value for name, value in inputs.items() if name in READ_BEFORE and name != "aspect_spans"}
        with self.accelerator.autocast():
            outputs = self.model.get_encoder()(**read)
            outputs.source_keys = self.model._source_keys(outputs)
        return outputs

    def create_model_card(self, license: str | None = None, **kwargs) -> None:
        """Writes our card to the output folder in place of transformers' form; a card of your own there stays.

        Args:
            license: as the Hub writes it, such as `apache-2.0`.
            kwargs: of transformers' form; what they say stands in our card already.
        """
        folder = Path(self.args.output_dir)
        if self.is_world_process_zero() and own_card(folder) is None:
            repo = self.hub_model_id or folder.absolute().name
            record = {"validation": self._scores(), "seed": self.args.seed, "versions": versions()}
            write_whole(folder / "README.md", render_card(folder, repo, license, record=record))

    def _scores(self) -> dict[str, float]:
        """Scores of the weights as they are now: the last ones, or after training the best.

        MASC is not among them: it asks for the polarity of given spans, and here those that were found count.
        """
        found = [entry for entry in self.state.log_history if "eval_jmasa_f1" in entry]
        if self.args.load_best_model_at_end and not self.is_in_train:
            found = [entry for entry in found if entry["step"] == self.state.best_global_step]
        last = found[-1] if found else {}
        return {name.removeprefix("eval_"): value for name, value in last.items() if "masc" not in name}

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            if self.args.hub_always_push:
                self._finish_current_push()  # which still reads the files that are written now
            # transformers copies weights and configuration, and this after the card, which reads the latter.
            code = [path.name for path in Path(checkpoint_folder).glob("*_lrsa.py")]
            names = [CONFIG_NAME, ADAPTER_CONFIG_NAME, *code]
            for name in filter(lambda name: (Path(checkpoint_folder) / name).is_file(), names):
                shutil.copy(Path(checkpoint_folder) / name, self.args.output_dir)
            self.create_model_card()
        super()._push_from_checkpoint(checkpoint_folder)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        card = Path(output_dir or self.args.output_dir) / "README.md"
        former = card.read_bytes() if card.exists() else None
        super()._save(output_dir, state_dict)
        if former is not None:
            card.write_bytes(former)
        else:
            card.unlink(missing_ok=True)  # PEFT's form with nothing filled in

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Groups parameters by part and by weight decay."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(self.parameter_groups(model), **options)
        return self.optimizer

    def parameter_groups(self, model: nn.Module) -> list[dict]:
        args = self.args
        rates = {
            "pretrained": args.learning_rate,
            "lora": getattr(args, "lora_learning_rate", args.learning_rate),
            "new": getattr(args, "new_parts_learning_rate", args.learning_rate),
            "fusion": getattr(args, "fusion_learning_rate", args.learning_rate),
            "gate": getattr(args, "gate_learning_rate", args.learning_rate),
        }
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[str, bool], list] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((part_of(name, model.config), name in decayed), []).append(parameter)
        return [
            {"params": parameters, "lr": rates[part], "weight_decay": args.weight_decay if decays else 0.0}
            for (part, decays), parameters in groups.items()
        ]


def with_stand_ins(inputs: Mapping[str, torch.Tensor], accelerator: Accelerator) -> Mapping[str, torch.Tensor]:
    """Adds masked pictures and rationales where another process's batch has some and this one has none.

    FSDP gathers the weights of a part where its forward is called: in all processes, or all wait for ever.
    """
    sizes = torch.zeros(len(ENCODED), 3, dtype=torch.long)
    for size, name in zip(sizes, ENCODED):
        if name in inputs:
            shape = inputs[name].shape[1:]
            size[: len(shape)] = torch.tensor(shape)
    sizes = accelerator.gather(sizes.unsqueeze(0).to(accelerator.device)).amax(0).tolist()
    like = inputs["input_ids"]
    for name, mask, size in zip(ENCODED, ENCODED.values(), sizes):
        known = name in inputs or name.replace("input_ids", "states") in inputs
        if not known and any(size):
            shape = (len(like), *filter(None, size))
            pixels = name == "pixel_values"
            inputs[name] = like.new_zeros(shape, dtype=torch.float32 if pixels else like.dtype)
            inputs[mask] = like.new_zeros(shape[:1] if pixels else shape)
    return inputs


def gates(model: nn.Module) -> dict[str, float]:
    """Returns the mean absolute gate of each stream, a sign of how much the rationales are used."""
    return {
        name: module.gate.detach().abs().mean().item()
        for name, module in model.named_modules()
        if isinstance(module, LRSADualCrossAttention) and module.gate is not None
    }


class SequenceMetrics:
    """Scores target sequences against labels, for `Trainer(compute_metrics=…)`.

    Spans are compared by column: where the grammar holds pointers to words, this equals a comparison by word.
    """

    def __init__(self, config: LRSAConfig):
        self.format = IndexFormat(
            config.num_special_targets, config.id2label, config.pointer_offset, config.end_points_to
        )

    def _aspects(self, sequences: np.ndarray) -> list[list[dict]]:
        columns = range(int(sequences.max(initial=0)) + 1)
        return [
            [{"start": a, "end": b, "polarity": polarity} for a, b, polarity, _ in self.format.decode(row, columns)]
            for row in sequences.tolist()
        ]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        return compute_mabsa_metrics(self._aspects(prediction.predictions), self._aspects(prediction.label_ids))
