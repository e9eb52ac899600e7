"""What is trained: a model of pre-trained parts, or one that was trained before, and which of its parts learn."""

from dataclasses import dataclass, field

from peft import get_peft_model
from torch import nn
from transformers import AutoImageProcessor, AutoTokenizer

from processing import LRSAProcessor, PostError

from .adapters import freeze_backbone, load_merged, lora_config
from .configuration_lrsa import (
    DecoderPointerInput,
    FusionDirections,
    FusionPosition,
    ImageRationaleReader,
    RationaleEncoder,
)
from .loading import load_model
from .modeling_lrsa import LRSAForMABSA
from .pretrained_parts import resolve_part


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
    fusion_position: FusionPosition | None = field(
        default=None,
        metadata={"help": "before, inside or after the encoder, or input: rationales follow the text into it."},
    )
    fusion_directions: FusionDirections | None = field(
        default=None, metadata={"help": "both, or content: it alone reads, and the rationale as it is."}
    )
    fusion_gate: bool | None = field(default=None, metadata={"help": "What fusion adds goes through a gate."})
    rationale_encoder: RationaleEncoder | None = field(
        default=None, metadata={"help": "frozen, shared or embeddings."}
    )
    fusion_match_bias: float | None = field(
        default=None, metadata={"help": "First bias of fusion towards the same token; such as 3."}
    )
    fusion_match_embeddings: bool | None = field(
        default=None, metadata={"help": "Embeddings of how a token stands in the rationales."}
    )
    rationale_memory: bool | None = field(default=None, metadata={"help": "The decoder attends to rationales too."})
    image_rationale_reader: ImageRationaleReader | None = field(default=None, metadata={"help": "text or queries."})
    decoder_layers: int | None = field(default=None, metadata={"help": "Layers of the fresh decoder of an encoder."})
    decoder_pointer_input: DecoderPointerInput | None = field(default=None, metadata={"help": "states or embeddings."})
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
