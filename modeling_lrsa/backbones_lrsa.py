"""What is to be found in text and vision models of any make."""

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.modeling_utils import PreTrainedModel


# Names of the query, key, value and output projections in the self-attention of the text models.
_PROJECTION_NAMES = (
    ("query", "key", "value", "dense"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("q", "k", "v", "o"),
)


def text_encoder_of(text_model: PreTrainedModel) -> PreTrainedModel:
    return text_model.get_encoder() if text_model.config.is_encoder_decoder else text_model


def encoder_layers(text_model: nn.Module) -> nn.ModuleList | None:
    """Returns the layers of a text encoder; `None` where it has no list of them, as ALBERT, whose layers are one."""
    number = text_model.config.num_hidden_layers
    for module in text_model.modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == number:
                return child
    return None


def norm_in_front_of(text_model: nn.Module, layers: nn.ModuleList | None, depth: int) -> nn.LayerNorm | None:
    """Returns the layer norm that the input of layer `depth` comes from.

    `None` in models that normalise later, or that have no list of layers.
    """
    if layers is None:
        return None
    inner = {module for layer in layers for module in layer.modules()}
    places = layers[depth - 1].modules() if depth else (m for m in text_model.modules() if m not in inner)
    norms = [module for module in places if isinstance(module, nn.LayerNorm)]
    return norms[-1] if norms else None


def self_attention_projections(layer: nn.Module) -> list[nn.Linear] | None:
    """Returns the query, key, value and output projections of an encoder layer, in this order.

    `None` where they are not found. Of several layers in one module, the first one's are returned.
    """
    linears: dict[str, nn.Linear] = {}
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear) and module.in_features == module.out_features:
            linears.setdefault(name.rpartition(".")[2], module)
    for names in _PROJECTION_NAMES:
        if all(name in linears for name in names):
            return [linears[name] for name in names]
    return None


def load_vision_model(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads a pre-trained vision model; of one with a text side, such as CLIP, the vision side."""
    model = AutoModel.from_pretrained(name, dtype=dtype)
    if model.config.model_type in ("clip", "siglip", "siglip2"):
        model = AutoModel.from_pretrained(name, config=AutoConfig.from_pretrained(name).vision_config, dtype=dtype)
    return model


def measure_vision_model(vision_model: PreTrainedModel) -> dict[str, int]:
    """Returns how many tokens of which width a vision model makes of a picture of its own size."""
    size = getattr(vision_model.config, "image_size", 224)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = getattr(vision_model.config, "num_channels", 3)
    with torch.no_grad():
        features = vision_model.eval()(
            torch.zeros(1, channels, height, width, dtype=vision_model.dtype)
        ).last_hidden_state
    if features.dim() == 4:
        features = features.flatten(2).transpose(1, 2)
    return {"num_image_tokens": features.shape[1], "image_feature_size": features.shape[2]}
