"""Checkpoints of VLP-MABSA and AoM, read into LRSA models."""

import json
import re
import warnings
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
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
TABLE = "encoder.embed_tokens.weight"
# What is stored twice or is no weight.
DERIVED = ("decoder.decoder.embed_tokens.weight", "decoder.causal_masks", "decoder.mapping")
# Modules of AoM that nothing of its released form goes through.
UNUSED = re.compile(
    r"(attention|linear2|senti_linear|mix_linear|senti_gcn|gat|gat_linear|pos_embedding|dep_linear[12]|dep_att_linear"
    r"|decoder\.senti_value_linear)\."
)
IMAGE_TOKENS = {"vlp-mabsa": 36, "aom": 49}
# What the two projects add to BART's vocabulary, in the order of the ids. Older releases lack some at the end.
_SHARED = "<<cls>> <<mlm>> <<mrm>> <<text>> <</text>> <<img_feat>> <<img>> <</img>> <<senti>> <<ANP>> <<AOG>>".split()
ADDED_TOKENS = {
    "vlp-mabsa": [*_SHARED, *"<<AESC>> <<POS>> <<NEU>> <<NEG>> <<AOE>> <<SEP>> <<AE>> <<SC>>".split()],
    "aom": [*_SHARED, *"<<POS>> <<NEU>> <<NEG>> <<AOE>> <<SEP>> <<AESC>> <<SC>>".split()],
}
TAGS = ("<<AESC>>", "<<POS>>", "<<NEU>>", "<<NEG>>")
BRACKETS = ("<<img>>", "<</img>>")
SPARE_ROWS = 5  # rows of the embedding behind the added tokens that no token has: both projects count `<s>` … twice
# Both took their layers from bart-base; dropouts in the config.json that they save had no effect.
BART_BASE_DROPOUTS = {"dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1}
# What torch says of a pickle that wants to import: GLOBAL, or the opening of a protocol in which it can't read it.
ASKS_FOR_CODE = re.compile(r"GLOBAL|Unsupported operand (147|149)\b")
# What a state dict's names begin with where a wrapper of the model was saved.
WRAPPERS = re.compile(r"(?:module\.|seq2seq_model\.)+")


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
            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickles that are refused anyway
                state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror}).") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated, damaged or no safetensors file ({error}).") from error
    except Exception as error:  # torch raises what it comes across: pickle, zip, runtime, end-of-file errors
        if ASKS_FOR_CODE.search(str(error)):
            raise CheckpointError(
                f"{path}: holds Python objects besides tensors, as a module saved whole does, and would run code when "
                "loaded. In the environment that it was trained in, save its weights alone: "
                "torch.save(torch.load(path).state_dict(), 'weights.pt')."
            ) from error
        name = type(error).__name__
        raise CheckpointError(f"{path}: truncated, damaged or no file of torch.save ({name}).") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path}: no state dict, a dictionary of names and tensors, is in this file.")
    if all(WRAPPERS.match(name) for name in state):
        state = {WRAPPERS.sub("", name, count=1): value for name, value in state.items()}
    if TABLE not in state and DERIVED[0] in state:
        state[TABLE] = state[DERIVED[0]]  # safetensors' `save_model` keeps one name of what is tied
    return state


def read_settings(path: Path) -> dict:
    """Reads the `config.json` beside a checkpoint, if there is one.

    Raises:
        CheckpointError: it is no JSON object.
    """
    beside = (path if path.is_dir() else path.parent) / "config.json"
    if not beside.exists():
        return {}
    try:
        settings = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{beside}: can't be read as JSON ({error}); mend it or take it away.") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{beside}: a JSON object of settings is expected; mend it or take it away.")
    return settings


def first_added_id(state: dict[str, torch.Tensor], source: str) -> int:
    """Returns the id of the first token that a checkpoint adds to BART's vocabulary.

    Raises:
        CheckpointError: its tags are not those of the joint task (aspects with polarities).
    """
    tokens, mapping = ADDED_TOKENS[source], state["decoder.mapping"].tolist()
    places = sorted(map(tokens.index, TAGS))
    first = mapping[2] - places[0] if isinstance(mapping, list) and len(mapping) == 6 else 0
    fits = first > 2 and mapping[-1] < len(state[TABLE]) and not state["decoder.mapping"].is_floating_point()
    if not fits or mapping != [0, 2, *(first + place for place in places)]:
        raise CheckpointError(
            f"its target tokens (decoder.mapping) are {mapping}, not what {source} has for the joint task: begin, "
            f"end, {', '.join(tokens[place] for place in places)}."
        )
    return first


def added_tokens(config: LRSAConfig, source: str) -> tuple[int, list[str]]:
    """Returns, for a converted configuration, the id of the first token that was added to BART's, and all of them."""
    tokens = ADDED_TOKENS[source]
    first = config.image_bracket_token_ids[0] - tokens.index(BRACKETS[0])
    needed = max(map(tokens.index, TAGS)) + 1
    return first, tokens[: max(needed, config.text_config.vocab_size - SPARE_ROWS - first)]


def own_name(name: str) -> str | None:
    """Returns the name in `LRSAForMABSA` of a weight of theirs; `None` where it has no place."""
    if match := GRAPH_LAYER.match(name):
        return f"model.encoder.aspect_graph.layers.{int(match[1]) - 1}.linear.{match[2]}"
    for pattern, replacement in RENAMED.items():
        if re.match(pattern, name):
            return re.sub(f"^{pattern}", replacement, name)
    return None


def convert_state_dict(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns the weights under the names of `LRSAForMABSA`, and the names that have no place in it."""
    converted, unused = {}, []
    for name, value in state.items():
        if name in DERIVED:
            continue
        own = own_name(name)
        if own is None:
            unused.append(name)
        else:
            turned = GRAPH_LAYER.match(name) and value.dim() == 2  # stored (in, out)
            converted[own] = value.T.contiguous() if turned else value
    return converted, unused


def convert_config(
    state: dict[str, torch.Tensor], source: str, num_heads: int | None = None, settings: dict | None = None
) -> LRSAConfig:
    """Returns the configuration that a checkpoint's tensors and, if given, its `config.json` (`settings`) tell.

    Args:
        source: `"vlp-mabsa"` or `"aom"`.
        num_heads: attention heads of encoder and decoder. By default what `settings` say, else one for each 64 of the
            width, as in BART.

    Raises:
        CheckpointError: sizes that make no model; the message says which.
        KeyError: a tensor that tells a size is not there.
    """
    settings = settings or {}
    rows, width = _matrix(state, TABLE)
    sizes: dict[str, int] = {}
    for side, prefix in (("encoder", "encoder."), ("decoder", "decoder.decoder.")):
        layers = {int(m[1]) for name in state if (m := re.match(re.escape(prefix) + r"layers\.(\d+)\.", name))}
        told = settings.get(f"{side}_layers", len(layers))
        if told != len(layers):
            raise CheckpointError(f"its {side} has {len(layers)} layers, {told} by the config.json beside it.")
        heads = num_heads or settings.get(f"{side}_attention_heads")
        if heads is None and width % 64 == 0:
            heads = width // 64
        if heads is None:
            raise CheckpointError(
                f"weights don't tell the number of attention heads, and the width {width} is no multiple of BART's 64 "
                "a head: give it (--num-heads), or put the checkpoint's config.json beside it."
            )
        if not isinstance(heads, int) or heads < 1 or width % heads:
            raise CheckpointError(f"a width of {width} can't be divided into {heads} attention heads.")
        sizes[f"{side}_layers"] = len(layers)
        sizes[f"{side}_ffn_dim"] = _matrix(state, f"{prefix}layers.0.fc1.weight")[0]
        sizes[f"{side}_attention_heads"] = heads
    kept = ("activation_function", "scale_embedding")
    text_config = BartConfig(
        vocab_size=rows,
        d_model=width,
        max_position_embeddings=_matrix(state, "encoder.embed_positions.weight")[0] - 2,
        **sizes,
        **BART_BASE_DROPOUTS,
        **{name: settings[name] for name in kept if name in settings},
    )
    first, tokens = first_added_id(state, source), ADDED_TOKENS[source]
    mapping = state["decoder.mapping"].tolist()
    aom = source == "aom"
    targets = [*mapping[:2], mapping[5], *mapping[2:5]] if aom else mapping
    config = LRSAConfig(
        text_config=text_config,
        num_image_tokens=settings.get("num_image_tokens") or IMAGE_TOKENS[source],
        image_feature_size=_matrix(state, "encoder.embed_images.linear.weight")[1],
        image_bracket_token_ids=[first + tokens.index(token) for token in BRACKETS],
        num_fusion_layers=0,
        decoder_pointer_input="embeddings",
        num_special_targets=3,
        target_token_ids=targets,
        decoder_input_token_ids=mapping if aom else None,
        decoder_prefix=[0, 2, 2],
        scored_special_targets=[1] if aom else [1, 2],
        aspect_attention=aom,
        pad_nouns_in_softmax=aom,
        num_graph_layers=2 if aom else 0,
    )
    check_positions(config)
    return config


def check_positions(config: LRSAConfig) -> None:
    """Checks that beside the image block there is room for a text of one token.

    Raises:
        CheckpointError: there is none.
    """
    if config.max_text_length < 3:
        raise CheckpointError(
            f"its encoder has {config.max_text_length + config.image_block_size} positions, too few for "
            f"{config.num_image_tokens} image tokens and a text."
        )


def _matrix(state: dict[str, torch.Tensor], name: str) -> tuple[int, int]:
    if state[name].dim() != 2:
        raise CheckpointError(f"{name} is {tuple(state[name].shape)}, a matrix is expected.")
    return tuple(state[name].shape)


def convert(path: Path, source: str, num_heads: int | None = None) -> tuple[LRSAForMABSA, list[str]]:
    """Reads a checkpoint of VLP-MABSA or AoM. Returns the model and the names of weights that it has no place for.

    Args:
        path: `.bin`, `.pt` or `.safetensors`, or a folder with one; a `config.json` beside it is read too.
        source, num_heads: see `convert_config`.

    Raises:
        CheckpointError: the file is none, is damaged, or its weights are not those of `source`.
    """
    state = read_checkpoint(path)
    settings = read_settings(path)
    try:
        try:
            config = convert_config(state, source, num_heads, settings)
        except KeyError as error:
            raise CheckpointError(f"{error.args[0]} is not in it.") from error
        return _convert(state, source, config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: no {source} checkpoint that can be converted: {error}") from error
    except (StrictDataclassError, KeyError, TypeError, ValueError) as error:  # values of config.json
        raise CheckpointError(f"{path}: its config.json makes no model: {' '.join(str(error).split())}") from error


def _convert(state: dict[str, torch.Tensor], source: str, config: LRSAConfig) -> tuple[LRSAForMABSA, list[str]]:
    model = LRSAForMABSA(config)
    own = model.state_dict()
    weights, unused = convert_state_dict(state)
    theirs = {own_name(name): name for name in state}
    extra = [name for name in unused if not (source == "aom" and UNUSED.match(name))]
    if extra := extra + [theirs[name] for name in weights if name not in own]:
        raise CheckpointError(f"it has {len(extra)} weights more: {_some(extra)}.")
    if missing := [name for name in own if name not in weights]:
        raise CheckpointError(f"it lacks {len(missing)} weights: what becomes {_some(missing)}.")
    for name, value in weights.items():
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            found = f"{value.layout} tensor of {value.dtype} on {value.device}"
            raise CheckpointError(f"{theirs[name]} is a {found}, a dense one of real numbers is expected.")
        if not value.isfinite().all():
            raise CheckpointError(f"{theirs[name]} holds infinite values or what is no number.")
        if own[name].shape != value.shape:
            wanted = tuple(own[name].shape)
            raise CheckpointError(f"{theirs[name]} is {tuple(value.shape)}, what becomes {name} has to be {wanted}.")
    tied = state.get(DERIVED[0])
    if tied is not None and not torch.equal(tied, state[TABLE]):
        raise CheckpointError("encoder and decoder embed tokens differently, in these models they share a table.")
    model.load_state_dict(weights)
    return model.eval(), unused


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
