"""Configuration of LRSA models."""

from transformers.utils.versions import require_version


require_version("transformers>=5.22,<6")  # before imports that others lack

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, BartConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec


FusionPosition = Literal["before", "inside", "after", "input"]
FusionDirections = Literal["both", "content"]
RationaleEncoder = Literal["frozen", "shared", "embeddings"]
ImageRationaleReader = Literal["text", "queries"]
DecoderPointerInput = Literal["states", "embeddings"]


class PipelinesBeside(dict):
    """`custom_pipelines` of config.json: pipelines whose code lies beside it.

    A task that this process has registered is not `in` it: like the Auto classes, `pipeline` then uses the registered
    class, which needs no trust in remote code.
    """

    def __contains__(self, task):
        from transformers.pipelines import PIPELINE_REGISTRY  # what loads a configuration alone needs no pipelines

        return super().__contains__(task) and task not in PIPELINE_REGISTRY.get_supported_tasks()


@strict
class LRSAConfig(PreTrainedConfig):
    r"""
    Configuration of [`LRSAModel`] and [`LRSAForMABSA`]: LLM-generated rationales for multimodal aspect-based sentiment
    analysis (arXiv 2505.14499) on top of a text model, an optional image side and a pointer decoder.

    Args:
        text_config (`PreTrainedConfig` or `dict`):
            The text model: any encoder, or an encoder-decoder, which then brings its own decoder.
        vision_config (`PreTrainedConfig` or `dict`, *optional*):
            The vision model. `None` for text alone or precomputed region features.
        num_image_tokens (`int`, *optional*):
            Slots of the image block in front of the text, N_v. Needed with an image side.
        image_feature_size (`int`, *optional*):
            Width of one token of the vision model, or of one precomputed region feature. Needed with an image side.
        freeze_vision (`bool`, *optional*, defaults to `True`):
            Whether the vision model is left as it is: no gradients, running statistics unchanged.
        num_fusion_layers (`int`, *optional*, defaults to 1):
            Number of dual cross-attention blocks. 0 is the baseline, which takes no rationales.
        fusion_position (`str`, *optional*, defaults to `"inside"`):
            `"before"`: between the embedding and the text encoder. `"inside"`: one block in front of each of the last
            `num_fusion_layers` layers of the text encoder, reading the rationale's states at that depth. `"after"`: on
            the encoder's output. Before and after, a block reads the rationale encoder's output. `"input"`: no blocks;
            the tokens of both rationales follow the text's into the text encoder.
        fusion_directions (`str`, *optional*, defaults to `"both"`):
            `"both"`: the rationale reads the content, then the content the rationale. `"content"`: the content alone
            reads, and the rationale as it is.
        fusion_gate (`bool`, *optional*, defaults to `True`):
            Whether what a block adds to the content goes through a gate that starts at zero.
        fusion_dropout (`float`, *optional*, defaults to 0.1):
            Dropout on what the blocks add, and on their attention weights.
        rationale_encoder (`str`, *optional*, defaults to `"frozen"`):
            What encodes a rationale: `"frozen"`, a copy of the pre-trained text encoder that is never trained, whose
            states can be computed once (`get_rationale_states`); `"shared"`, the text encoder itself; `"embeddings"`,
            the text model's token embeddings alone.
        rationale_memory (`bool`, *optional*, defaults to `False`):
            Whether the decoder attends to the rationales too, besides image and text: as the last block leaves them,
            or with `fusion_position="input"` as the text encoder does.
        fusion_match_bias (`float`, *optional*):
            Where fusion starts to look: what it adds to the score of a pair of content and rationale that are the same
            token, before the softmax, in the text stream. Learned for each head from this value on. `None`: no such
            bias.
        fusion_match_embeddings (`bool`, *optional*, defaults to `False`):
            Whether each text token gets, beside its embedding, one of how it stands in the rationales: with which
            neighbours and how early.
        image_rationale_reader (`str`, *optional*, defaults to `"text"`):
            What reads the image rationale of a post without picture: `"text"`, the text stream, which then reads both
            rationales in every post; `"queries"`, learned query tokens in the slots of the image block.
        num_rationale_queries (`int`, *optional*, defaults to 8):
            How many learned query tokens, with `image_rationale_reader="queries"`.
        decoder_layers (`int`, *optional*, defaults to 3):
            Layers of the fresh decoder of an encoder-only text model.
        decoder_config (`PreTrainedConfig` or `dict`, *optional*):
            That fresh decoder, BART-style. Made from `text_config` and `decoder_layers` where it is not given; `None`
            with an encoder-decoder.
        decoder_pointer_input (`str`, *optional*, defaults to `"states"`):
            What a pointer is to the decoder as its next input: the encoder's `"states"` of the column, or its token's
            `"embeddings"`, as in BARTABSA.
        num_special_targets (`int`, *optional*, defaults to 2):
            Target ids before the polarities: 0 BOS, 1 EOS and padding.
        pointer_offset (`int`, *optional*):
            Target id of text column 0. Defaults to `num_special_targets` plus the number of polarities.
        end_points_to (`str`, *optional*, defaults to `"first"`):
            Whether the end of a span is the `"first"` or the `"last"` sub-token of its last word.
        target_token_ids (`list[int]`, *optional*):
            Tokens whose embeddings stand for the targets before the columns, as in BARTABSA, one each. By default
            targets have embeddings of their own.
        decoder_input_token_ids (`list[int]`, *optional*):
            The same for targets as decoder inputs, where released weights were trained with others (AoM's are).
        decoder_prefix (`list[int]`, *optional*):
            Target ids that are given in front of the first start. Defaults to BOS.
        scored_special_targets (`list[int]`, *optional*):
            Special targets that have a score. Defaults to EOS alone.
        image_bracket_token_ids (`list[int]`, *optional*):
            Two tokens whose embeddings stand in front of and behind the slots of the image block.
        aspect_attention (`bool`, *optional*, defaults to `False`):
            Whether AoM's aspect-aware attention (A3M) stands behind the encoder. It reads `noun_mask`.
        pad_nouns_in_softmax (`bool`, *optional*, defaults to `False`):
            Whether it gives a share to the padding of shorter lists of nouns, as released AoM weights are used to; a
            post then depends on its batch.
        num_graph_layers (`int`, *optional*, defaults to 0):
            Layers of AoM's graph convolution behind that; 2 in AoM. Reads `noun_mask`, `dependency_matrix` and
            `sentiment_value`.
        graph_proportion (`float`, *optional*, defaults to 0.5):
            Share of the graph's states in what the decoder attends to.
        pointer_dropout (`float`, *optional*, defaults to 0.1):
            Dropout on decoder states and on embeddings in the pointer head.
        pointer_mlp_dropout (`float`, *optional*, defaults to 0.3):
            Dropout inside the pointer head's projection of encoder states.
        tagging_weight (`float`, *optional*, defaults to 0):
            Weight of a second loss in training: which aspect, of which polarity, each text column is a part of, told
            from the encoder's states. 0: no such loss, and no head for it.
    """

    model_type = "lrsa"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bart"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="vit", optional=True),
        "decoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bart", optional=True),
    }
    keys_to_ignore_at_inference = ["cache", "past_key_values"]

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    num_image_tokens: int | None = None
    image_feature_size: int | None = None
    freeze_vision: bool = True
    num_fusion_layers: int = 1
    fusion_position: FusionPosition = "inside"
    fusion_directions: FusionDirections = "both"
    fusion_gate: bool = True
    fusion_dropout: float | int = 0.1
    rationale_encoder: RationaleEncoder = "frozen"
    rationale_memory: bool = False
    fusion_match_bias: float | int | None = None
    fusion_match_embeddings: bool = False
    image_rationale_reader: ImageRationaleReader = "text"
    num_rationale_queries: int = 8
    decoder_layers: int = 3
    decoder_config: dict | PreTrainedConfig | None = None
    decoder_pointer_input: DecoderPointerInput = "states"
    num_special_targets: int = 2
    pointer_offset: int | None = None
    end_points_to: Literal["first", "last"] = "first"
    target_token_ids: list[int] | None = None
    decoder_input_token_ids: list[int] | None = None
    decoder_prefix: list[int] | None = None
    scored_special_targets: list[int] | None = None
    image_bracket_token_ids: list[int] | None = None
    aspect_attention: bool = False
    pad_nouns_in_softmax: bool = False
    num_graph_layers: int = 0
    graph_proportion: float | int = 0.5
    pointer_dropout: float | int = 0.1
    pointer_mlp_dropout: float | int = 0.3
    tagging_weight: float | int = 0
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = 1
    is_encoder_decoder: bool = True

    def __post_init__(self, **kwargs):
        kwargs.pop("custom_pipelines", None)
        if self.id2label is None and kwargs.get("num_labels") is None:
            self.id2label = {0: "positive", 1: "neutral", 2: "negative"}
            self.label2id = {label: i for i, label in self.id2label.items()}
        super().__post_init__(**kwargs)
        if self.pointer_offset is None:
            self.pointer_offset = self.num_special_targets + self.num_labels
        if self.decoder_prefix is None:
            self.decoder_prefix = [self.bos_token_id]
        self.decoder_start_token_id = self.decoder_prefix[0]
        if self.scored_special_targets is None:
            self.scored_special_targets = [self.eos_token_id]
        reads_text = hasattr(self.text_config, "vocab_size")  # `check` refuses others
        if self.decoder_config is None and reads_text and not self.text_config.is_encoder_decoder:
            self.decoder_config = self._fresh_decoder_config()
        self.check()

    def check(self) -> None:
        """Checks values against each other.

        Raises:
            ValueError: some do not go together; the message says what to change.
        """
        if self.pointer_offset < self.num_special_targets + self.num_labels:
            raise ValueError(
                f"pointer_offset={self.pointer_offset} leaves no room for {self.num_special_targets} special targets "
                f"and {self.num_labels} polarities: it must be at least {self.num_special_targets + self.num_labels}."
            )
        for name in ("target_token_ids", "decoder_input_token_ids"):
            ids = getattr(self, name)
            if ids is not None and len(ids) != self.pointer_offset:
                raise ValueError(
                    f"{name} has {len(ids)} ids, one for each of {self.pointer_offset} targets is needed."
                )
        if self.decoder_input_token_ids is not None and self.target_token_ids is None:
            raise ValueError("decoder_input_token_ids goes with target_token_ids: give both or neither.")
        if self.image_bracket_token_ids is not None and (
            len(self.image_bracket_token_ids) != 2 or not self.has_images
        ):
            raise ValueError(
                "image_bracket_token_ids are two tokens around an image block: give num_image_tokens too."
            )
        sizes = (self.num_image_tokens, self.image_feature_size)
        if (self.vision_config is not None or any(sizes)) and not all(sizes):
            raise ValueError(
                "An image side needs both `num_image_tokens` and `image_feature_size`. "
                "`LRSAForMABSA.from_text_vision_pretrained` measures them from the vision model."
            )
        if any(size is not None and size < 0 for size in sizes):
            raise ValueError(
                f"num_image_tokens={self.num_image_tokens} and image_feature_size={self.image_feature_size} can't be "
                "negative."
            )
        if not hasattr(self.text_config, "vocab_size"):
            raise ValueError(
                f"text_config is a {self.text_config.model_type!r}, which reads no text: name an encoder such as bert "
                "or an encoder-decoder such as bart."
            )
        if self.vision_config is not None and hasattr(self.vision_config, "vocab_size"):
            raise ValueError(
                f"vision_config is a {self.vision_config.model_type!r}, which sees no pictures: name a vision model "
                "such as vit; of CLIP and its kin, the vision_config."
            )
        width = getattr(self.vision_config, "hidden_size", None)
        if isinstance(width, int) and width != self.image_feature_size:
            raise ValueError(
                f"image_feature_size={self.image_feature_size}, but the vision model gives tokens of width {width}: "
                "set it to that."
            )
        hidden_size = self.text_config.hidden_size
        if self.decoder_config is not None and self.decoder_config.hidden_size != hidden_size:
            raise ValueError(
                f"The decoder has width {self.decoder_config.hidden_size} and the text model {hidden_size}: set the "
                f"decoder_config's d_model to {hidden_size}, or leave it out."
            )
        layers = self.text_config.num_hidden_layers
        if self.num_fusion_layers < 0 or (self.fusion_position == "inside" and self.num_fusion_layers > layers):
            raise ValueError(
                f"num_fusion_layers={self.num_fusion_layers} must be between 0 and the {layers} encoder layers."
            )
        if self.num_fusion_layers and self.fusion_position == "input":
            self._check_without_blocks()
        slots = self.num_image_tokens or 0
        has_queries = self.num_fusion_layers and self.image_rationale_reader == "queries"
        if has_queries and not 0 < self.num_rationale_queries <= slots:
            raise ValueError(
                f"image_rationale_reader='queries' needs an image block with at least num_rationale_queries="
                f"{self.num_rationale_queries} slots, and this one has {slots}. "
                "A model without image side takes image_rationale_reader='text'."
            )

    def _check_without_blocks(self):
        wanted = {
            "rationale_encoder": "embeddings",
            "num_fusion_layers": 1,
            "fusion_directions": "both",
            "fusion_gate": True,
            "fusion_match_bias": None,
            "fusion_match_embeddings": False,
            "image_rationale_reader": "text",
        }
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"fusion_position='input' puts embeddings of rationales behind the text and has no fusion blocks: "
                    f"{name}={getattr(self, name)!r} must be {value!r}."
                )

    @property
    def compares_tokens(self) -> bool:
        """Whether fusion reads which tokens of text and rationales are the same."""
        return self.fusion_match_embeddings or self.fusion_match_bias is not None

    @property
    def custom_pipelines(self) -> dict[str, dict]:
        """Where `pipeline` finds its code in a saved folder. Made anew each time, for `pipeline` writes classes in."""
        return PipelinesBeside(mabsa={"impl": "pipeline_lrsa.MABSAPipeline", "pt": ["AutoModel"]})

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"custom_pipelines": dict(self.custom_pipelines)}

    @property
    def has_images(self) -> bool:
        """Whether the model has an image side, and with it an image block in front of the text."""
        return bool(self.num_image_tokens)

    @property
    def image_block_size(self) -> int:
        """Source positions in front of the text."""
        return (self.num_image_tokens or 0) + (2 if self.image_bracket_token_ids else 0)

    @property
    def reads_linguistics(self) -> bool:
        """Whether the model has modules of AoM, which read nouns, dependencies and the sentiment of words."""
        return self.aspect_attention or self.num_graph_layers > 0

    @property
    def num_fusion_blocks(self) -> int:
        """How many fusion layers are built."""
        return 0 if self.fusion_position == "input" else self.num_fusion_layers

    @property
    def num_rationale_depths(self) -> int:
        """At how many depths a rationale's states are read."""
        at_each = self.fusion_position == "inside" and self.rationale_encoder != "embeddings"
        return self.num_fusion_layers if at_each else min(1, self.num_fusion_layers)

    @property
    def max_text_length(self) -> int:
        """Text columns that fit into the encoder beside the image block, special tokens included."""
        positions = getattr(self.text_config, "max_position_embeddings", None) or 512
        # RoBERTa and its kin spend the positions up to and including the padding index.
        if self.text_config.model_type in (
            "roberta",
            "xlm-roberta",
            "camembert",
            "mpnet",
            "longformer",
            "data2vec-text",
        ):
            positions -= self.text_config.pad_token_id + 1
        return positions - self.image_block_size

    def _fresh_decoder_config(self) -> BartConfig:
        text = self.text_config
        sizes = {
            "layers": self.decoder_layers,
            "attention_heads": text.num_attention_heads,
            "ffn_dim": getattr(text, "intermediate_size", 4 * text.hidden_size),
        }
        return BartConfig(
            vocab_size=self.pointer_offset,
            d_model=text.hidden_size,
            max_position_embeddings=256,
            activation_function="gelu",
            dropout=0.1,
            attention_dropout=0.1,
            init_std=self.initializer_range,
            pad_token_id=self.pad_token_id,
            bos_token_id=self.bos_token_id,
            eos_token_id=self.eos_token_id,
            attn_implementation=self._attn_implementation,
            **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()},
        )

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:
        if not decoder or encoder:
            return self.text_config
        if self.decoder_config is not None:
            return self.decoder_config
        sides = self.text_config, self.text_config.get_text_config(decoder=True)
        encoder_sizes, decoder_sizes = ((side.num_hidden_layers, side.num_attention_heads) for side in sides)
        # A view of the decoder is a copy: what is set on it is lost, so it is given only where it is needed.
        return sides[encoder_sizes != decoder_sizes]


__all__ = ["LRSAConfig"]
