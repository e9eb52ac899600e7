"""Checkpoints of VLP-MABSA and AoM, read into LRSA models."""

import json
import re
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import BartConfig

from .configuration_lrsa import LRSAConfig
from .modeling_lrsa import LRSAForMABSA


# Names there and here; layers of encoder and decoder have the same names within.
RENAMED = {
    r"encoder\.embed_images\.linear\.": "model.encoder.image_projection.",
    r"encoder\.(embed_tokens|embed_positions|layernorm_embedding|layers)\.": r"model.encoder.text_model.\1.",
    r"decoder\.decoder\.(embed_positions|layernorm_embedding|layers)\.": r"model.decoder.\1.",
    r"decoder\.encoder_mlp\.": "pointer_head.source_mlp.",
    r"(noun_linear|multi_linear|att_linear|linear|alpha_linear[12])\.": r"model.encoder.aspect_attention.\1.",
    r"senti_value_linear\.": "model.encoder.aspect_graph.sentiment.",
    r"context_linear\.": "model.encoder.aspect_graph.context.",
}
GRAPH_LAYER = re.compile(r"context_gcn\.gc(\d+)\.(weight|bias)$")
# What is stored twice or is no weight.
DERIVED = ("decoder.decoder.embed_tokens.weight", "decoder.causal_masks", "decoder.mapping")
# Modules of AoM that nothing of its released form goes through.
UNUSED = re.compile(
    r"(attention|linear2|senti_linear|mix_linear|senti_gcn|gat|gat_linear|pos_embedding|dep_linear[12]|dep_att_linear"
    r"|decoder\.senti_value_linear)\."
)
IMAGE_TOKENS = {"vlp-mabsa": 36, "aom": 49}
# Places of <<img>> and <</img>> among the added tokens; those of the first tag are told by `decoder.mapping`.
BRACKETS, FIRST_TAG = (6, 7), 11


class CheckpointError(ValueError):
    """A checkpoint that is not one of these models; the message says what was found."""


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Reads a state dict from `.bin`, `.pt` or `.safetensors`, or from a folder that holds one; runs no code in it.

    Raises:
        CheckpointError: there is none, it is damaged, or it is a pickled module.
    """
    if path.is_dir():
        found = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).exists()]
        if not found:
            raise CheckpointError(f"{path}: neither model.safetensors nor pytorch_model.bin is in this folder.")
        path = found[0]
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file ({error}).") from error
    except Exception as error:  # torch raises what it comes across: pickle, zip, runtime, end-of-file errors
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            raise CheckpointError(
                f"{path}: holds Python objects besides tensors, as a module saved whole does, and would run code when "
                "loaded. In the environment that it was trained in, save its weights alone: "
                "torch.save(torch.load(path).state_dict(), 'weights.pt')."
            ) from error
        kind = "truncated or damaged" if zipfile.is_zipfile(path) or path.stat().st_size else "empty"
        raise CheckpointError(f"{path}: {kind} ({str(error).splitlines()[0][:200]}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: no state dict, a dictionary of names and tensors, is in this file.")
    return state


def convert_state_dict(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns the weights under the names of `LRSAForMABSA`, and the names that have no place in it."""
    converted, unused = {}, []
    for name, value in state.items():
        if name in DERIVED:
            continue
        if match := GRAPH_LAYER.match(name):
            layer, kind = int(match[1]) - 1, match[2]
            value = value.T.contiguous() if kind == "weight" else value
            converted[f"model.encoder.aspect_graph.layers.{layer}.linear.{kind}"] = value
            continue
        for pattern, replacement in RENAMED.items():
            if re.match(pattern, name):
                converted[re.sub(f"^{pattern}", replacement, name)] = value
                break
        else:
            unused.append(name)
    return converted, unused


def convert_config(
    state: dict[str, torch.Tensor], source: str, num_heads: int | None = None, settings: dict | None = None
) -> LRSAConfig:
    """Returns the configuration that a checkpoint's tensors and, if given, its `config.json` (`settings`) tell.

    Args:
        source: `"vlp-mabsa"` or `"aom"`.
        num_heads: attention heads, where `settings` say nothing; by default one for each 64 of the width.
    """
    settings = settings or {}
    embeddings = state["encoder.embed_tokens.weight"]
    width = embeddings.shape[1]
    heads = num_heads or max(1, width // 64)
    sizes: dict[str, int] = {}
    for side, prefix in (("encoder", "encoder."), ("decoder", "decoder.decoder.")):
        layers = {int(m[1]) for name in state if (m := re.match(re.escape(prefix) + r"layers\.(\d+)\.", name))}
        sizes[f"{side}_layers"] = len(layers)
        sizes[f"{side}_ffn_dim"] = state[f"{prefix}layers.0.fc1.weight"].shape[0]
        sizes[f"{side}_attention_heads"] = settings.get(f"{side}_attention_heads") or heads
    kept = ("activation_function", "dropout", "attention_dropout", "activation_dropout", "scale_embedding")
    text_config = BartConfig(
        vocab_size=embeddings.shape[0],
        d_model=width,
        max_position_embeddings=state["encoder.embed_positions.weight"].shape[0] - 2,
        **sizes,
        **{name: settings[name] for name in kept if name in settings},
    )
    mapping = state["decoder.mapping"].tolist()
    first_added = min(mapping[2:]) - FIRST_TAG
    aom = source == "aom"
    targets = [*mapping[:2], mapping[5], *mapping[2:5]] if aom else mapping
    return LRSAConfig(
        text_config=text_config,
        num_image_tokens=settings.get("num_image_tokens") or IMAGE_TOKENS[source],
        image_feature_size=state["encoder.embed_images.linear.weight"].shape[1],
        image_bracket_token_ids=[first_added + place for place in BRACKETS],
        num_fusion_layers=0,
        decoder_pointer_input="embeddings",
        num_special_targets=3,
        target_token_ids=targets,
        decoder_input_token_ids=mapping if aom else None,
        decoder_prefix=[0, 2, 2],
        scored_special_targets=[1] if aom else [1, 2],
        aspect_attention=aom,
        pad_nouns_in_softmax=aom,
        num_graph_layers=len({m[1] for name in state if (m := GRAPH_LAYER.match(name))}),
    )


def convert(path: Path, source: str, num_heads: int | None = None) -> tuple[LRSAForMABSA, list[str]]:
    """Reads a checkpoint of VLP-MABSA or AoM. Returns the model and the names of weights that it has no place for.

    Raises:
        CheckpointError: the file is none, is damaged, or its weights are not those of `source`.
    """
    state = read_checkpoint(path)
    beside = (path if path.is_dir() else path.parent) / "config.json"
    settings = json.loads(beside.read_text()) if beside.exists() else {}
    try:
        config = convert_config(state, source, num_heads, settings)
    except KeyError as error:
        raise CheckpointError(f"{path}: no {source} checkpoint: {error.args[0]} is not in it.") from error
    weights, unused = convert_state_dict(state)
    strange = [name for name in unused if not (source == "aom" and UNUSED.match(name))]
    if strange:
        raise CheckpointError(
            f"{path}: no {source} checkpoint: it has {len(strange)} weights more, such as {strange[0]}."
        )
    model = LRSAForMABSA(config)
    own = model.state_dict()
    if missing := sorted(own.keys() - weights.keys()):
        raise CheckpointError(
            f"{path}: no {source} checkpoint: it lacks {len(missing)} weights, such as {missing[0]}."
        )
    for name, value in weights.items():
        if name not in own or own[name].shape != value.shape:
            wanted = tuple(own[name].shape) if name in own else "no such weight"
            raise CheckpointError(f"{path}: {name} is {tuple(value.shape)}, {wanted} is expected.")
    model.load_state_dict(weights)
    return model.eval(), unused
