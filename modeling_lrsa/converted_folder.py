"""Model folders made of checkpoints of other projects and of plain text models: what `lrsa convert` does."""

import copy
import json
import os
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, set_seed
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from processing import LRSAProcessor
from processing.writing import whole_folder

from .backbones_lrsa import load_vision_model, measure_vision_model
from .configuration_lrsa import LRSAConfig
from .conversion import ADDED_TOKENS, CheckpointError, added_tokens, check_positions, convert
from .model_to_train import ModelArguments, build_model
from .modeling_lrsa import LRSAForMABSA
from .pretrained_parts import resolve_part


DEFAULT_TOKENIZER = "facebook/bart-base"
MODEL_FILES = ("*config.json", "model*.safetensors*", "*_lrsa.py", "tokenizer*", "*.model", "vocab.*", "merges.txt")
MODEL_FILES += ("special_tokens_map.json", "added_tokens.json")


def convert_to_folder(
    source: str,
    checkpoint: str,
    out: str,
    num_heads: int | None = None,
    tokenizer: str | None = None,
    vision: str | None = None,
) -> list[str]:
    """Makes a model folder with processor, which appears whole.

    Args:
        source: `"vlp-mabsa"` or `"aom"` for a checkpoint of these projects, or what kind of text model
            (`model_type`, such as `"bart"`) `checkpoint` is.
        out: a new or empty folder, or one that holds an LRSA model, which is replaced.
        num_heads, tokenizer: for a checkpoint of these projects: its attention heads, see `convert_config`; and id or
            folder of the tokenizer that it was trained with, without the tokens that it added.
        vision: id or folder of a vision model; without it the model takes text, and where the checkpoint has an image
            side, precomputed `image_features`.

    Returns:
        Lines that say what was done.

    Raises:
        CheckpointError: the checkpoint, the tokenizer or `out` is not what it should be; nothing is written.
    """
    if source not in (*ADDED_TOKENS, *CONFIG_MAPPING):
        raise CheckpointError(
            f"--from {source}: is none of {', '.join(ADDED_TOKENS)} and no kind of text model that transformers "
            "knows, such as bart or bert."
        )
    folder = Path(out).resolve()
    check_free(folder)
    set_seed(0)  # fresh parts, if any, are the same each time
    if source in ADDED_TOKENS:
        model, processor, said = _from_project(source, Path(checkpoint), num_heads, tokenizer, vision)
    else:
        if num_heads is not None or tokenizer is not None:
            raise CheckpointError(
                f"{checkpoint}: a {source} brings its own heads and tokenizer along: leave both out."
            )
        model, processor, said = _from_text_model(source, checkpoint, vision)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as fresh:
            model.save_pretrained(fresh)
            if processor is not None:
                processor.save_pretrained(fresh)
    except OSError as error:
        raise CheckpointError(f"{out}: can't be written to ({error.strerror}); choose another place.") from error
    return [*said, f"Model: {out}"]


def check_free(folder: Path) -> None:
    """Checks before any work that a folder can be written and holds nothing but, at most, a former model.

    Raises:
        CheckpointError: it holds something else, is a file, or can't be written.
    """
    if folder.is_dir():
        entries = sorted(path.name for path in folder.iterdir())
        strange = [name for name in entries if not any(fnmatch(name, pattern) for pattern in MODEL_FILES)]
        if entries and (strange or not _holds_lrsa(folder)):
            raise CheckpointError(
                f"{folder}: holds {(strange or entries)[0]}, which is no file of an LRSA model and would be lost; "
                "name a new folder."
            )
    elif folder.exists():
        raise CheckpointError(f"{folder}: is a file; name a folder.")
    place = next(parent for parent in folder.parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise CheckpointError(f"{folder}: can't be written to, for {place} can't; choose another place.")


def _holds_lrsa(folder: Path) -> bool:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") == "lrsa"
    except (OSError, ValueError, AttributeError):
        return False


def _from_project(
    source: str, checkpoint: Path, num_heads: int | None, tokenizer: str | None, vision: str | None
) -> tuple[LRSAForMABSA, LRSAProcessor | None, list[str]]:
    model, unused = convert(checkpoint, source, num_heads)
    text = model.config.text_config
    said = [
        f"{checkpoint}: {source}, width {text.d_model}, {text.encoder_layers} + {text.decoder_layers} layers of "
        f"{text.encoder_attention_heads} and {text.decoder_attention_heads} heads, {text.vocab_size} tokens."
    ]
    if unused:
        said.append(f"Left out, for nothing goes through them, {len(unused)} weights: {', '.join(sorted(unused))}.")
    image_processor = None
    if vision is not None:
        model, changes = with_vision(model, vision)
        image_processor = _loaded(AutoImageProcessor.from_pretrained, vision)
        said += changes
    else:
        slots, width = model.config.num_image_tokens, model.config.image_feature_size
        said.append(f"Its image side takes `image_features` (posts, {slots}, {width}); --vision gives it a tower.")
    try:
        load = partial(AutoTokenizer.from_pretrained, add_prefix_space=True)
        loaded = _loaded(load, tokenizer or DEFAULT_TOKENIZER)
    except CheckpointError:
        if tokenizer is not None:
            raise
        said.append(
            f"No processor: the tokenizer {DEFAULT_TOKENIZER} is out of reach. Run this again where it can be loaded, "
            "or with --tokenizer FOLDER that holds it."
        )
        return model, None, said
    return model, converted_processor(model.config, source, loaded, image_processor), said


def converted_processor(config: LRSAConfig, source: str, tokenizer, image_processor=None) -> LRSAProcessor:
    """Adds the tokens that `source` adds to a tokenizer, and makes the processor of a converted model.

    Behind them the model has rows of embeddings that no token has and nothing uses, five in released checkpoints.

    Raises:
        CheckpointError: the tokenizer's next id is not the one at which the checkpoint's added tokens begin.
    """
    first, tokens = added_tokens(config, source)
    if len(tokenizer) != first:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the tokenizer has {len(tokenizer)} tokens, but the first token that the "
            f"checkpoint adds has id {first}: name by --tokenizer the one that it was trained with, without added "
            f"tokens ({DEFAULT_TOKENIZER} for released checkpoints)."
        )
    tokenizer.add_tokens(tokens)
    return LRSAProcessor.from_config(config, tokenizer, image_processor)


def with_vision(model: LRSAForMABSA, vision: str) -> tuple[LRSAForMABSA, list[str]]:
    """Returns a converted model with a vision model on its image side, and lines that say what changed.

    Raises:
        CheckpointError: it can't be loaded, sees no pictures, or gives more tokens than there are positions.
    """
    tower = _loaded(load_vision_model, vision)
    if hasattr(tower.config, "vocab_size"):
        raise CheckpointError(
            f"{vision}: is a {tower.config.model_type}, which sees no pictures; name a vision model."
        )
    former, config = model.config, copy.deepcopy(model.config)
    config.update(measure_vision_model(tower))
    config.vision_config = tower.config
    config.vision_config._name_or_path = vision
    config.check()
    check_positions(config)
    weights, slots, width = model.state_dict(), config.num_image_tokens, config.image_feature_size
    said = [f"Pictures go through {vision}, which gives {slots} tokens of width {width}."]
    if slots != former.num_image_tokens:
        said.append(
            f"The checkpoint was trained with {former.num_image_tokens} image tokens: the text now stands "
            f"{slots - former.num_image_tokens:+} positions from where it stood. Train before use."
        )
    if width != former.image_feature_size:
        weights = {name: value for name, value in weights.items() if ".image_projection." not in name}
        said.append(
            f"Fresh: image_projection, for the checkpoint's own takes features of width {former.image_feature_size}. "
            "Train before use."
        )
    changed = LRSAForMABSA(config, vision_model=tower)
    changed.load_state_dict(weights, strict=False)
    return changed.eval(), said


def _from_text_model(kind: str, text_model: str, vision: str | None) -> tuple[LRSAForMABSA, LRSAProcessor, list[str]]:
    found = _loaded(AutoConfig.from_pretrained, text_model).model_type
    if found != kind:
        raise CheckpointError(f"{text_model}: is a {found}, no {kind}.")
    model, processor = build_model(ModelArguments(text_model=text_model, vision_model=vision))
    encoder = model.model.encoder
    fresh = {
        "pointer_head": True,
        "target_embeddings (polarities start from their names)": True,
        "decoder": not model.config.text_config.is_encoder_decoder,
        "image_projection": encoder.image_projection is not None,
        "fusion (starts from the encoder's self-attention; gates closed)": len(encoder.fusion) > 0,
    }
    said = f"Fresh: {', '.join(name for name, there in fresh.items() if there)}. Train before use."
    return model, processor, [f"{text_model}: {kind}, {model.num_parameters():,} parameters in all.", said]


def _loaded(load: Callable, name: str) -> Any:
    """Loads something of transformers by id, folder or embedded part."""
    try:
        return load(resolve_part(name))
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{name}: can't be loaded: {' '.join(str(error).split())[:300]}") from error
