"""Training a part of a model: LoRA adapters over the text model, or new parts alone."""

import re
from pathlib import Path

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import nn
from transformers.utils import find_adapter_config_file

from .configuration_lrsa import LRSAConfig
from .modeling_lrsa import LRSAForMABSA
from .parameter_parts import part_of
from .pretrained_parts import resolve_part


def lora_config(
    model: LRSAForMABSA, r: int = 16, alpha: int | None = None, dropout: float = 0.05, targets: list[str] | None = None
) -> LoraConfig:
    """Returns the LoRA of a model's pre-trained text layers; all new parts are trained in full and saved with it.

    The text model's encoder and, if it has one, its own decoder get adapters; the frozen rationale encoder and the
    vision model stay as they are.

    Args:
        r: rank.
        alpha: scale of the adapters times `r`; 2 r by default.
        dropout: on the adapters' inputs.
        targets: names of linear layers in the text model's layers, such as `["query", "value"]`. All by default.

    Raises:
        ValueError: the text model has no such layers, or the vision model is not frozen.
    """
    config = model.config
    if config.vision_config is not None and not config.freeze_vision:
        raise ValueError("LoRA leaves the vision model as it is: set freeze_vision=True.")
    places = r"encoder\.text_model|decoder" if config.text_config.is_encoder_decoder else r"encoder\.text_model"
    in_a_layer = rf"model\.({places})\.(.+\.)?\d+\.(.+\.)?"  # a pooler is in none, and nothing reads it
    linears = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.match(in_a_layer, name)
    }
    targets = sorted(linears) if targets is None else targets
    if not targets or not linears.issuperset(targets):
        raise ValueError(
            f"LoRA adapts linear layers in the layers of {type(model.model.encoder.text_model).__name__}. "
            f"Targets (--lora_targets) can be: {', '.join(sorted(linears)) or 'none, as there are none'}."
        )
    return LoraConfig(
        r=r,
        lora_alpha=2 * r if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=rf"{in_a_layer}({'|'.join(map(re.escape, targets))})",
        modules_to_save=new_parts(model),
    )


def new_parts(model: LRSAForMABSA) -> list[str]:
    """Returns the names of the outermost modules that have parameters, none of them pre-trained."""
    parts = []

    def visit(name: str, module: nn.Module) -> None:
        pretrained = [part_of(f"{name}.{key}", model.config) == "pretrained" for key, _ in module.named_parameters()]
        if pretrained and not any(pretrained) and not isinstance(module, nn.ModuleList):
            parts.append(name)
        elif not all(pretrained):
            if bare := [key for key, _ in module.named_parameters(recurse=False)]:
                raise ValueError(f"{name} holds {', '.join(bare)} beside pre-trained parts: put it into a module.")
            for child_name, child in module.named_children():
                visit(f"{name}.{child_name}", child)

    for name, child in model.named_children():
        visit(name, child)
    return parts


def freeze_backbone(model: LRSAForMABSA) -> None:
    """Leaves only the new parts of a model to train."""
    model.config.freeze_vision = True
    for name, parameter in model.named_parameters():
        if part_of(name, model.config) == "pretrained":
            parameter.requires_grad_(False)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Returns the number of parameters that are trained, and of all."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    # PEFT keeps the starting point of what it trains in full beside the trained copy.
    total = sum(p.numel() for name, p in model.named_parameters() if ".original_module." not in name)
    return trainable, total


def save_adapter(model: PeftModel, folder: str | Path) -> None:
    """Saves an adapter, and where its base was never saved, how to build it from its pre-trained parts."""
    card = Path(folder) / "README.md"
    has_card = card.exists()
    model.save_pretrained(folder, save_embedding_layers=False)
    if not has_card:
        card.unlink()  # PEFT's form with nothing filled in
    if not model.peft_config[model.active_adapter].base_model_name_or_path:
        model.config.save_pretrained(folder)


def load_adapter(name: str, is_trainable: bool = False) -> PeftModel:
    """Loads an adapter and its base, which is loaded or built anew from the same pre-trained parts.

    Args:
        name: folder or id of an adapter.

    Raises:
        ValueError: the adapter has weights that the base has no place for, or the other way round.
    """
    peft_config = PeftConfig.from_pretrained(name)
    peft_config.inference_mode = not is_trainable
    base = peft_config.base_model_name_or_path
    model = PeftModel(load_merged(base) if base else build_base(LRSAConfig.from_pretrained(name)), peft_config)
    weights = load_peft_weights(name, device="cpu")
    places = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes = [{(key, tensor.shape) for key, tensor in states.items()} for states in (weights, places)]
    if unmatched := sorted({key for key, _ in shapes[0] ^ shapes[1]}):
        raise ValueError(
            f"{name} does not fit its base: {len(unmatched)} weights have no counterpart of their shape, such as "
            f"{unmatched[0]}."
        )
    set_peft_model_state_dict(model, weights)
    return model.train(is_trainable)


def load_merged(name: str, **fields) -> LRSAForMABSA:
    """Loads a model from its folder or id; an adapter is merged into its base.

    Args:
        fields: of the configuration, in place of the saved ones; an adapter takes none.
    """
    if find_adapter_config_file(name) is None:
        return LRSAForMABSA.from_pretrained(name, **fields)
    if fields:
        raise ValueError(f"{name}: {', '.join(fields)} can't be changed in an adapter; name the merged model.")
    model = load_adapter(name).merge_and_unload()
    model.name_or_path = model.config._name_or_path = name  # the base of an adapter on top of this one
    return model


def build_base(config: LRSAConfig) -> LRSAForMABSA:
    """Builds the model of `config` from the pre-trained parts that it names; new parts are fresh."""
    names = [part and part._name_or_path for part in (config.text_config, config.vision_config)]
    text, vision = [name and resolve_part(name) for name in names]
    if not text:
        raise ValueError("Neither a base model nor its pre-trained text model is named.")
    fields = set(LRSAConfig.__annotations__) - {"text_config", "vision_config"} | {"id2label"}
    return LRSAForMABSA.from_text_vision_pretrained(
        text, vision, dtype=config.dtype, **{name: getattr(config, name) for name in fields}
    )
