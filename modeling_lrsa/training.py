"""Trains and evaluates from arguments: what `lrsa train` and `lrsa evaluate` do."""

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset, concatenate_datasets
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import AutoImageProcessor, AutoTokenizer, EarlyStoppingCallback, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from processing import LRSAProcessor, PostError, compute_mabsa_metrics, load_posts
from processing.chosen_inputs import choose_rationales, shuffle_rationales
from processing.posts import gold_aspects
from processing.writing import whole_folder, writable_folder, write_whole

from .adapters import count_parameters, freeze_backbone, load_merged, lora_config, save_adapter
from .frozen_states import collator_for
from .modeling_lrsa import LRSAForMABSA
from .predictor import predict_posts, prepare_for_model
from .pretrained_parts import resolve_part
from .pseudo_labels import label_posts
from .soft_targets import add_teachers
from .trainer import LRSATrainer, LRSATrainingArguments, gates
from .training_record import training_record


@dataclass
class ModelArguments:
    """What to train. Fields of `LRSAConfig` that are left out keep its defaults."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "Folder or id of an LRSA model to go on from, in place of text_model and vision_model. A baseline "
            "gets fusion on top where num_fusion_layers asks for it."
        },
    )
    text_model: str = field(
        default="embedded/minilm-l6", metadata={"help": "Folder, id or embedded part: encoder or encoder-decoder."}
    )
    vision_model: str | None = field(default=None, metadata={"help": "Folder, id or embedded part: vision model."})
    freeze_vision: bool | None = field(default=None, metadata={"help": "Leave the vision model as it is."})
    num_fusion_layers: int | None = field(default=None, metadata={"help": "Dual cross-attention blocks; 0: baseline."})
    fusion_position: str | None = field(
        default=None,
        metadata={"help": "before, inside or after the encoder, or input: rationales follow the text into it."},
    )
    fusion_directions: str | None = field(
        default=None, metadata={"help": "both, or content: it alone reads, and the rationale as it is."}
    )
    fusion_gate: bool | None = field(default=None, metadata={"help": "What fusion adds goes through a gate."})
    rationale_encoder: str | None = field(default=None, metadata={"help": "frozen, shared or embeddings."})
    fusion_match_bias: float | None = field(
        default=None, metadata={"help": "First bias of fusion towards the same token; such as 3."}
    )
    fusion_match_embeddings: bool | None = field(
        default=None, metadata={"help": "Embeddings of how a token stands in the rationales."}
    )
    rationale_memory: bool | None = field(default=None, metadata={"help": "The decoder attends to rationales too."})
    image_rationale_reader: str | None = field(default=None, metadata={"help": "text or queries."})
    decoder_layers: int | None = field(default=None, metadata={"help": "Layers of the fresh decoder of an encoder."})
    decoder_pointer_input: str | None = field(default=None, metadata={"help": "states or embeddings."})
    aspect_attention: bool | None = field(default=None, metadata={"help": "AoM's aspect-aware attention."})
    num_graph_layers: int | None = field(default=None, metadata={"help": "Layers of AoM's graph convolution."})
    tagging_weight: float | None = field(
        default=None, metadata={"help": "Weight of a second loss, on tags of the text's words; such as 0.3."}
    )
    max_rationale_length: int | None = field(
        default=None, metadata={"help": "Tokens kept of a rationale (default: the model's, 128 for a new one)."}
    )
    lora: bool = field(
        default=False, metadata={"help": "Train LoRA adapters in the text model, and the new parts in full."}
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapters; their scale is twice as much."})
    lora_targets: list[str] | None = field(
        default=None, metadata={"help": "Names of the text model's layers to adapt (default: all linear ones)."}
    )
    freeze_backbone: bool = field(
        default=False, metadata={"help": "Leave all pre-trained parts as they are, train the new ones."}
    )

    freeze_embeddings: bool = field(
        default=False, metadata={"help": "Leave the text model's token embeddings as they are; a step is cheaper."}
    )

    def config_fields(self) -> dict:
        names = ("freeze_vision", *CHANGEABLE_IN_BASELINES, "decoder_layers", "decoder_pointer_input")
        names += ("aspect_attention", "num_graph_layers", "tagging_weight")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def processor_fields(self) -> dict:
        return {} if self.max_rationale_length is None else {"max_rationale_length": self.max_rationale_length}


@dataclass
class DataArguments:
    """What to train on."""

    data: str = field(
        default="examples/posts",
        metadata={"help": "Folder with a train and a validation file, in a form of docs/data.md."},
    )
    images: str | None = field(
        default=None, metadata={"help": "Folder of the pictures or their features; default: images/ in data."}
    )
    on_bad_image: str = field(default="error", metadata={"help": "error, or skip: a warning and no picture."})
    lexicon: str | None = field(
        default=None, metadata={"help": "Sentiment of words for AoM's modules: a word and a value a line; VADER's."}
    )
    rationales: str = field(default="both", metadata={"help": "Which rationales are read: both, text, image or none."})
    shuffle_rationales: int | None = field(
        default=None,
        metadata={"help": "Seed: each post gets another's rationales, as a control that they matter."},
    )
    unlabelled: list[str] | None = field(
        default=None,
        metadata={"help": "Files of more posts to train on: the teacher tells their aspects, labels are not read."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a better one."}
    )


def load_split(arguments: DataArguments, split: str) -> Dataset:
    """Reads the labelled posts of one split, with the rationales that are asked for.

    Raises:
        PostError: the split, or a value of the arguments, does not do.
    """
    posts = load_posts(arguments.data, split, arguments.images, arguments.on_bad_image, labelled=True)
    return _with_chosen_rationales(posts, arguments)


def load_unlabelled(arguments: DataArguments) -> list[Dataset]:
    """Reads the files of posts to be labelled by teachers, as `load_split` does; pictures lie beside each."""
    files = arguments.unlabelled or []
    if folders := [file for file in files if Path(file).is_dir()]:
        raise PostError(f"unlabelled: {folders[0]} is a folder; name the files of posts in it.")
    return [_with_chosen_rationales(load_posts(file, None, None, arguments.on_bad_image), arguments) for file in files]


def _with_chosen_rationales(posts: Dataset, arguments: DataArguments) -> Dataset:
    posts = choose_rationales(posts, arguments.rationales)
    seed = arguments.shuffle_rationales
    return posts if seed is None else shuffle_rationales(posts, seed)


def build_model(arguments: ModelArguments) -> tuple[LRSAForMABSA, LRSAProcessor]:
    """Builds a model and its processor from pre-trained parts, or loads both."""
    if arguments.model is not None:
        return load_to_train(arguments)
    text = resolve_part(arguments.text_model)
    vision = resolve_part(arguments.vision_model) if arguments.vision_model else None
    try:
        model = LRSAForMABSA.from_text_vision_pretrained(text, vision, **arguments.config_fields())
        image_processor = AutoImageProcessor.from_pretrained(vision) if vision else None
        tokenizer = AutoTokenizer.from_pretrained(text, add_prefix_space=True)
    except OSError as error:
        raise PostError(f"{arguments.text_model}, {arguments.vision_model}: can't be loaded: {error}") from error
    except ValueError as error:
        raise PostError(str(error)) from error
    model.initialize_polarities(tokenizer)
    config = model.config
    config.text_config._name_or_path = arguments.text_model  # an adapter's base is built from the same part anywhere
    if vision:
        config.vision_config._name_or_path = arguments.vision_model
    return model, LRSAProcessor.from_config(config, tokenizer, image_processor, **arguments.processor_fields())


# Fields that a trained model takes other values of: it starts from where it was all the same.
CHANGEABLE = ("freeze_vision",)
CHANGEABLE_IN_BASELINES = (
    "num_fusion_layers",
    "fusion_position",
    "fusion_directions",
    "fusion_gate",
    "fusion_match_bias",
    "fusion_match_embeddings",
    "rationale_encoder",
    "rationale_memory",
    "image_rationale_reader",
)


def load_to_train(arguments: ModelArguments) -> tuple[LRSAForMABSA, LRSAProcessor]:
    """Loads what is to be trained on. A baseline gets fusion on top where it is asked for, and starts as it was."""
    name = arguments.model
    model, processor = load_model(name)
    saved = model.config
    fields = {key: value for key, value in arguments.config_fields().items() if getattr(saved, key) != value}
    changeable = CHANGEABLE + (CHANGEABLE_IN_BASELINES if saved.num_fusion_layers == 0 else ())
    if fixed := [key for key in fields if key not in changeable]:
        raise PostError(
            f"{fixed[0]}: {name} was trained with {getattr(saved, fixed[0])!r}, and its weights fit no other value: "
            "leave it out."
        )
    if fields:
        model = load_merged(name, **fields)
    for key, value in arguments.processor_fields().items():
        setattr(processor, key, value)
    return model, processor


def load_model(name: str) -> tuple[LRSAForMABSA, LRSAProcessor]:
    """Loads a trained model, or an adapter merged into its base, and the processor from one folder or repository."""
    try:
        model, processor = load_merged(name), LRSAProcessor.from_pretrained(name)
        processor.check_fits(model.config)
        return model, processor
    except (OSError, RuntimeError, SafetensorError, StrictDataclassError, ValueError) as error:
        raise PostError(f"{name}: no LRSA model with its processor: {str(error).splitlines()[0]}") from error


def choose_trained(model: LRSAForMABSA, arguments: ModelArguments) -> nn.Module:
    """Freezes what is not trained. Returns what a trainer takes: the model, with LoRA wrapped for PEFT."""
    if arguments.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if not (arguments.lora or arguments.freeze_backbone):
        return model
    if arguments.lora and arguments.freeze_backbone:
        raise PostError("lora changes the text model, freeze_backbone leaves it as it is: choose one.")
    if arguments.freeze_vision is False:
        raise PostError("lora and freeze_backbone leave the vision model as it is: drop freeze_vision.")
    freeze_backbone(model)
    if arguments.freeze_backbone:
        return model
    return get_peft_model(model, lora_config(model, arguments.lora_r, targets=arguments.lora_targets))


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
    if data_arguments.early_stopping_patience is not None and not args.load_best_model_at_end:
        raise PostError("early_stopping_patience needs load_best_model_at_end: true.")
    if data_arguments.unlabelled and not args.teacher:
        raise PostError("unlabelled: nobody tells the aspects of these posts; give a teacher, or leave them out.")
    if args.world_size != (started := int(os.environ.get("WORLD_SIZE", 1))):
        raise PostError(f"{started} processes, each of which sees itself alone: there is no GPU; pass use_cpu: true.")
    set_seed(args.seed)
    # The CPU's fused attention multiplies small blocks: with bfloat16 inside of each it is the slowest.
    plain_attention = args.device.type == "cpu" and args.float32_matmul_precision == "medium"
    if args.float32_matmul_precision is not None:
        torch.set_float32_matmul_precision(args.float32_matmul_precision)
        torch.backends.cuda.enable_flash_sdp(not plain_attention)
    if not Path(data_arguments.data).is_dir():
        raise PostError(
            f"{data_arguments.data}: no such folder; one with train.jsonl and validation.jsonl is expected."
        )
    writable_folder(Path(args.output_dir))
    posts = {split: load_split(data_arguments, split) for split in ("train", "validation")}
    unlabelled = load_unlabelled(data_arguments)
    record = training_record((model_arguments, data_arguments, args), posts, unlabelled)
    with args.main_process_first(desc="preparing"):  # the others read what it has cached
        model, processor = build_model(model_arguments)
        model.to(args.device)  # frozen parts compute there
        lexicon = data_arguments.lexicon
        parts = [posts["train"]]
        if unlabelled:
            found = label_posts(concatenate_datasets(unlabelled), args.teacher, load_model, args.device, lexicon)
            parts += [found] if len(found) else []
        # Each part by itself: other runs have cached the same.
        *prepared, validation = (
            prepare_for_model(model, processor, part, lexicon=lexicon) for part in (*parts, posts["validation"])
        )
        if args.teacher:
            prepared = [
                add_teachers(data, part, args.teacher, load_model, args.device, lexicon)
                for data, part in zip(prepared, parts)
            ]
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
        train_dataset=concatenate_datasets(prepared),
        eval_dataset=validation,
        data_collator=collator_for(model, processor),
        processing_class=processor,
        callbacks=callbacks,
    )
    if trainer.is_world_process_zero():
        print(f"trainable: {trainable:,} of {total:,} parameters ({100 * trainable / total:.1f} %)", flush=True)
    resume = {"true": True, "false": None}.get(str(args.resume_from_checkpoint).lower(), args.resume_from_checkpoint)
    if resume is True:
        resume = newest_whole_checkpoint(Path(args.output_dir)) or True
    trainer.train(resume_from_checkpoint=resume)
    seconds = None if resume else round(time.perf_counter() - begun, 1)

    output = Path(args.output_dir)
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
                lexicon=data_arguments.lexicon,
            ),
            "best_step": trainer.state.best_global_step,
            "curve": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
            "gates": gates(model),
            "parameters": {"trainable": trainable, "total": total},
            "seed": args.seed,
            "seconds": seconds,
            **record,
        }
        with whole_folder(output / "model") as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        write_whole(output / "results.json", json.dumps(results[0], indent=2) + "\n")
    return broadcast_object_list(results)[0]


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
