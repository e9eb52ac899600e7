"""The LRSA encoder: text, picture and rationales in; states of [image block ; text] out."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import can_return_tuple, logging

from .aspect_graph_lrsa import LRSAAspectAttention, LRSAAspectGraph
from .backbones_lrsa import encoder_layers, norm_in_front_of, text_encoder_of
from .configuration_lrsa import LRSAConfig
from .fusion_lrsa import (
    FuseBefore,
    FusionInputs,
    LRSAFusionLayer,
    current_fusion,
    fuse,
    initialize_fusion_from_layer,
    keep_input,
)
from .image_block_lrsa import ImageBlock
from .match_lrsa import LRSAMatchEmbeddings
from .pretrained_lrsa import LRSAPreTrainedModel
from .rationale_reader_lrsa import RationaleReader


logger = logging.get_logger(__name__)

# Modules of text and vision models that only their pooled outputs go through.
UNREAD_PARTS = ("pooler", "post_layernorm", "head")


@dataclass
class LRSAEncoderOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, image block + text, hidden)`):
            States of the image block and the text; with `rationale_memory`, of the rationales behind them, here and in
            `source_mask`.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*):
            Embeddings and the output of each layer, of the same shape. With `fusion_position="input"` they, and the
            attentions, are of rows as they are encoded: the rationales right behind each row's own text.
        attentions (`tuple(torch.FloatTensor)`, *optional*):
            Self-attention weights of each layer (batch, heads, source, source).
        fusion_attentions (`tuple(torch.FloatTensor)`, *optional*, with `output_fusion_attentions=True`):
            Cross-attention weights of each fusion layer in turn: with an image side rationale ← image and
            image ← rationale, then rationale ← text and text ← rationale; each (batch, heads, queries, keys). With
            `fusion_directions="content"` every second of them.
        source_mask (`torch.BoolTensor` of shape `(batch, image block + text)`):
            True at source tokens that are there.
        text_states (`torch.FloatTensor` of shape `(batch, text, hidden)`):
            States of the text that the pointer head reads; of those that the decoder attends to, the graph's share
            of AoM is left out.
        text_embeds (`torch.FloatTensor` of shape `(batch, text, hidden)`):
            Token embeddings of the text.
        pointer_mask (`torch.BoolTensor` of shape `(batch, text)`):
            True at text columns that may be pointed at.
        source_keys (`torch.FloatTensor` of shape `(batch, text, hidden)`, *optional*):
            What the pointer head scores columns with, computed once by `generate`.
    """

    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    fusion_attentions: tuple[torch.FloatTensor, ...] | None = None
    source_mask: torch.BoolTensor | None = None
    text_states: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    pointer_mask: torch.BoolTensor | None = None
    source_keys: torch.FloatTensor | None = None


class LRSAEncoder(RationaleReader, ImageBlock, LRSAPreTrainedModel):
    """Text encoder with an image block in front and dual cross-attention to the rationales."""

    def __init__(
        self,
        config: LRSAConfig,
        text_model: PreTrainedModel | None = None,
        vision_model: PreTrainedModel | None = None,
        rationale_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.text_model = text_model or text_encoder_of(AutoModel.from_config(config.text_config))
        hidden_size = config.text_config.hidden_size
        width = self.text_model.get_input_embeddings().weight.shape[1]
        if width != hidden_size:
            raise ValueError(
                f"{type(self.text_model).__name__} embeds tokens in {width} dimensions and encodes them in "
                f"{hidden_size}: take a text model in which both are the same."
            )
        self.vision_model = None
        self.image_projection = None
        if config.vision_config is not None:
            self.vision_model = vision_model or AutoModel.from_config(config.vision_config)
        if config.has_images:
            self.image_projection = nn.Linear(config.image_feature_size, hidden_size)

        self.aspect_attention = LRSAAspectAttention(config) if config.aspect_attention else None
        self.aspect_graph = LRSAAspectGraph(config) if config.num_graph_layers else None
        self.rationale_model = None
        self.rationale_queries = None
        self.match_embeddings = None
        self.fusion = nn.ModuleList([LRSAFusionLayer(config) for _ in range(config.num_fusion_blocks)])
        if config.num_fusion_blocks:
            if config.rationale_encoder == "frozen":
                self.rationale_model = rationale_model or text_encoder_of(AutoModel.from_config(config.text_config))
            if config.image_rationale_reader == "queries":
                self.rationale_queries = nn.Embedding(config.num_rationale_queries, hidden_size)
            if config.fusion_match_embeddings:
                self.match_embeddings = LRSAMatchEmbeddings(config)
            if config.fusion_position != "after":
                self._fuse_before_layers()
            if config.fusion_position == "inside" and config.rationale_encoder != "embeddings":
                for layer in encoder_layers(self.rationale_model or self.text_model)[-config.num_fusion_layers :]:
                    layer.register_forward_pre_hook(keep_input)
        self.post_init()
        self.freeze_parts()
        self.train(self.training)

    @staticmethod
    def is_fusion(name: str) -> bool:
        """Whether a weight is one of fusion, or of what reads rationales for it."""
        parts = ("fusion", "match_embeddings", "rationale_model", "rationale_queries")
        return any(f"{part}." in name for part in parts)

    def add_fusion(self):
        """Starts fusion on top of a trained text encoder: with its attention, and a copy of it for the rationales."""
        if self.rationale_model is not None:
            self.rationale_model.load_state_dict(self.text_model.state_dict())
        self.initialize_fusion()
        said = f"{len(self.fusion)} fusion layers are new"
        if self.config.fusion_gate and not self.config.rationale_memory:
            said += "; with their gates at zero they change nothing yet"
        logger.warning(f"{said}.")

    def freeze_parts(self):
        """Leaves frozen parts, and what stands behind the states that are read, without gradients.

        Parameters that wait for a gradient in vain stop DDP.
        """
        if self.rationale_model is not None:
            self.rationale_model.requires_grad_(False)
        for model in (self.text_model, self.vision_model):
            for name in UNREAD_PARTS:
                if isinstance(part := getattr(model, name, None), nn.Module):
                    part.requires_grad_(False)
        if self.vision_model is not None and self.config.freeze_vision:
            self.vision_model.requires_grad_(False)
        if self.aspect_attention is not None:
            self.aspect_attention.multi_linear.requires_grad_(False)

    def _fuse_before_layers(self):
        layers = encoder_layers(self.text_model)
        if layers is None:
            name, wanted = type(self.text_model).__name__, self.config.text_config.num_hidden_layers
            raise ValueError(
                f"{name} has no list of {wanted} layers to fuse in front of: use fusion_position='after'."
            )
        number = self.config.num_fusion_layers
        for depth, layer in enumerate(layers):
            if self.config.fusion_position == "before":
                indices = range(number if depth == 0 else 0)
            else:
                first = max(0, depth - len(layers) + number)
                indices = range(first, depth - len(layers) + number + 1)
            if indices:
                layer.register_forward_pre_hook(FuseBefore(self.fusion, indices))

    def train(self, mode: bool = True):
        super().train(mode)
        if self.rationale_model is not None:
            self.rationale_model.eval()
        if self.vision_model is not None and self.config.freeze_vision:
            self.vision_model.eval()
        return self

    def initialize_fusion(self) -> None:
        """Gives the fusion layers the self-attention weights of the encoder layers that they stand at, or next to."""
        fusion = self.fusion
        if not len(fusion):
            return
        text_model = self.text_model
        layers, done = encoder_layers(text_model), [False]
        if layers is not None:
            depths = {"before": [0] * len(fusion), "after": [len(layers) - 1] * len(fusion)}
            depths = depths.get(self.config.fusion_position, range(len(layers) - len(fusion), len(layers)))
            done = [
                initialize_fusion_from_layer(block, layers[depth], norm_in_front_of(text_model, layers, depth))
                for block, depth in zip(fusion, depths)
            ]
        if not all(done):
            name = type(text_model).__name__
            logger.warning(
                f"The self-attention of {name} is not one that fusion can start from: fusion starts at random."
            )

    def get_encoder(self, modality=None) -> "LRSAEncoder":
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.text_model.set_input_embeddings(value)

    def _embed(self, input_ids, inputs_embeds):
        """Returns the embeddings of the text (batch, text, hidden), and of the image block's brackets, if it has some.

        By one look-up: on the way back each fills a gradient as large as the vocabulary.
        """
        embeddings, ids = self.get_input_embeddings(), self.config.image_bracket_token_ids
        if ids is None:
            return (embeddings(input_ids) if inputs_embeds is None else inputs_embeds), None
        text = input_ids if inputs_embeds is None else inputs_embeds
        brackets = torch.tensor(ids, device=text.device).expand(text.shape[0], -1)
        if inputs_embeds is not None:
            return inputs_embeds, embeddings(brackets)
        embeds = embeddings(torch.cat([brackets, input_ids], dim=1))
        return embeds[:, len(ids) :], embeds[:, : len(ids)]

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        image_features: torch.FloatTensor | None = None,
        image_attention_mask: torch.Tensor | None = None,
        image_rationale_input_ids: torch.LongTensor | None = None,
        image_rationale_attention_mask: torch.Tensor | None = None,
        text_rationale_input_ids: torch.LongTensor | None = None,
        text_rationale_attention_mask: torch.Tensor | None = None,
        image_rationale_states: torch.FloatTensor | None = None,
        text_rationale_states: torch.FloatTensor | None = None,
        word_ids: torch.LongTensor | None = None,
        noun_mask: torch.Tensor | None = None,
        dependency_matrix: torch.FloatTensor | None = None,
        sentiment_value: torch.FloatTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        output_fusion_attentions: bool | None = None,
        **kwargs,
    ) -> LRSAEncoderOutput:
        r"""
        See [`LRSAForMABSA.forward`].
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        text_embeds, brackets = self._embed(input_ids, inputs_embeds)
        if attention_mask is None:
            attention_mask = torch.ones(text_embeds.shape[:2], dtype=torch.long, device=text_embeds.device)
        text_mask = attention_mask.bool()
        given = [image_rationale_input_ids, text_rationale_input_ids, image_rationale_states, text_rationale_states]
        has_rationales = any(tensor is not None for tensor in given)
        if has_rationales and not self.config.num_fusion_layers:
            raise ValueError("This model has no fusion (num_fusion_layers=0), so it can't take rationales.")

        rationales = None
        if self.config.num_fusion_layers and (has_rationales or self.training):
            image_rationale, image_rationale_mask, image_matches = self.read_rationale(
                text_embeds,
                input_ids,
                image_rationale_input_ids,
                image_rationale_attention_mask,
                image_rationale_states,
            )
            text_rationale, text_rationale_mask, text_matches = self.read_rationale(
                text_embeds, input_ids, text_rationale_input_ids, text_rationale_attention_mask, text_rationale_states
            )
            rationales = (image_rationale, image_rationale_mask, text_rationale, text_rationale_mask)
            rationales += (image_matches, text_matches)
        if output_fusion_attentions and self.config._attn_implementation != "eager":
            raise ValueError("output_fusion_attentions=True needs attention weights: set attn_implementation='eager'.")

        source, source_mask = text_embeds, text_mask
        if rationales is not None and self.match_embeddings is not None:
            source = text_embeds + self.match_embeddings(image_matches, text_matches)
        num_image_tokens = 0
        if self.config.has_images:
            has_image_rationale = (
                text_mask.new_zeros(text_mask.shape[0]) if rationales is None else image_rationale_mask.any(-1)
            )
            block, block_mask = self.image_block(
                text_embeds, brackets, pixel_values, image_features, image_attention_mask, has_image_rationale
            )
            source = torch.cat([block, source], dim=1)
            source_mask = torch.cat([block_mask, text_mask], dim=1)
            num_image_tokens = block.shape[1]
        elif pixel_values is not None or image_features is not None:
            raise ValueError("This model has no image side: leave out `pixel_values` and `image_features`.")
        self._check_length(source.shape[1])

        attentions = [] if output_fusion_attentions else None
        memory = [] if self.config.rationale_memory and rationales is not None else None
        if rationales is not None and self.config.fusion_position == "input":
            outputs, hidden_states, *appended = self.encode_source(
                source,
                source_mask,
                num_image_tokens,
                [text_rationale, image_rationale],
                [text_rationale_mask, image_rationale_mask],
                **kwargs,
            )
            if memory is not None:
                memory += appended
        else:
            fusion = None
            if rationales is not None:
                fusion = FusionInputs(source_mask, num_image_tokens, *rationales, attentions, memory)
            token = current_fusion.set(fusion)
            try:
                outputs = self.text_model(inputs_embeds=source, attention_mask=source_mask.long(), **kwargs)
            finally:
                current_fusion.reset(token)
            hidden_states = outputs.last_hidden_state
            if self.config.fusion_position == "after" and fusion is not None:
                for index, layer in enumerate(self.fusion):
                    hidden_states = fuse(layer, hidden_states, fusion, index)

        text_columns = text_embeds.shape[1]
        text_states = hidden_states[:, -text_columns:]
        if self.aspect_attention is not None or self.aspect_graph is not None:
            noun_mask = torch.zeros_like(text_mask) if noun_mask is None else noun_mask.bool()
            if noun_mask.shape != text_mask.shape:
                raise ValueError(f"noun_mask is {tuple(noun_mask.shape)}, the text {tuple(text_mask.shape)}.")
            noun_mask = noun_mask & text_mask
        if self.aspect_attention is not None:
            hidden_states = self.aspect_attention(hidden_states, noun_mask)
            text_states = hidden_states[:, -text_columns:]
        if self.aspect_graph is not None:
            hidden_states = self.aspect_graph(
                hidden_states, source_mask, noun_mask, dependency_matrix, sentiment_value
            )
        if memory:
            hidden_states = torch.cat([hidden_states, *memory[::2]], dim=1)
            source_mask = torch.cat([source_mask, *memory[1::2]], dim=1)
        return LRSAEncoderOutput(
            last_hidden_state=hidden_states,
            text_states=text_states,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            fusion_attentions=None if attentions is None else tuple(attentions),
            source_mask=source_mask,
            text_embeds=text_embeds,
            pointer_mask=self.pointer_mask(text_mask, word_ids),
        )

    def pointer_mask(self, text_mask: torch.Tensor, word_ids: torch.Tensor | None) -> torch.Tensor:
        """Words may be pointed at; where they are not given, everything before the last token, which ends the text."""
        if word_ids is not None:
            return (word_ids >= 0) & text_mask
        return text_mask & nn.functional.pad(text_mask[:, 1:], (0, 1))

    def _check_length(self, length: int):
        positions = self.config.max_text_length + self.config.image_block_size
        if length > positions:
            raise ValueError(
                f"The source has {length} positions (image block and text), the text model has {positions}: "
                f"let the processor cut texts to `max_text_length={self.config.max_text_length}` tokens."
            )
