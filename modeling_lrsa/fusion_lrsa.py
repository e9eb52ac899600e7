"""Dual cross-attention: a rationale reads the content it explains, then the content reads the rationale."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.output_capturing import CompileableContextVar

from .backbones_lrsa import self_attention_projections
from .configuration_lrsa import LRSAConfig


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1)
    dropped = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(dropped, value).transpose(1, 2).contiguous(), weights


class LRSACrossAttention(nn.Module):
    """Multi-head attention of one sequence over another.

    Args:
        match_bias: what a score starts with where query and key are of the same token; learned for each head. `None`:
            nothing.
    """

    def __init__(self, config: LRSAConfig, match_bias: float | None = None):
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.config = config
        self.head_dim = hidden_size // config.text_config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.fusion_dropout
        self.is_causal = False
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        self.match_bias = None
        if match_bias is not None:
            self.match_bias = nn.Parameter(torch.full((config.text_config.num_attention_heads,), float(match_bias)))

    def forward(
        self,
        query_states: torch.Tensor,
        key_value_states: torch.Tensor,
        key_value_mask: torch.Tensor,
        matches: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            query_states: (batch, queries, hidden).
            key_value_states: (batch, keys, hidden).
            key_value_mask: (batch, keys), true where a key may be read; at least one key a row.
            matches: (batch, queries, keys), true where both are of the same token; read with a match bias alone.

        Returns:
            The result (batch, queries, hidden), and the weights (batch, heads, queries, keys) where the attention
            implementation computes them.
        """
        mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=query_states,
            attention_mask=key_value_mask,
            encoder_hidden_states=key_value_states,
        )
        query, key, value = (
            project(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project, states in (
                (self.q_proj, query_states),
                (self.k_proj, key_value_states),
                (self.v_proj, key_value_states),
            )
        )
        implementation = self.config._attn_implementation
        if self.match_bias is not None:
            mask = self._biased_mask(matches, key_value_mask, query)
            implementation = "eager" if implementation == "eager" else "sdpa"  # others take no bias
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        output, weights = attention(
            self, query, key, value, mask, dropout=self.dropout if self.training else 0.0, scaling=self.scaling
        )
        return self.out_proj(output.flatten(-2)), weights

    def _biased_mask(self, matches, key_value_mask, query) -> torch.Tensor:
        """Returns what is added to the scores (batch, heads, queries, keys)."""
        bias = self.match_bias.view(1, -1, 1, 1).to(query.dtype)
        bias = bias * (key_value_mask.new_zeros(1, 1, 1) if matches is None else matches).unsqueeze(1)
        return bias.masked_fill(~key_value_mask[:, None, None], torch.finfo(query.dtype).min)


class LRSADualCrossAttention(GradientCheckpointingLayer):
    """One stream of the fusion (LRSA, arXiv 2505.14499; our reading of its dual cross-attention).

        R' = R +     MHA(Q = LN(R), K = V = X)      rationale reads content
        X' = X + g · MHA(Q = LN(X), K = V = R')     content reads rationale

    `g`, a scalar, starts at zero, so that a block added to a trained model changes nothing at first. A row whose
    rationale or content is missing (its mask is all zero) keeps its `X`, to the bit.

    With `fusion_directions="content"` R' = R, with `fusion_gate=False` g = 1 for good.

    Args:
        match_bias: that of both attentions.
    """

    def __init__(self, config: LRSAConfig, match_bias: float | None = None):
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.rationale_norm = self.rationale_attention = None
        if config.fusion_directions == "both":
            self.rationale_norm = nn.LayerNorm(hidden_size)
            self.rationale_attention = LRSACrossAttention(config, match_bias)
        self.content_norm = nn.LayerNorm(hidden_size)
        self.content_attention = LRSACrossAttention(config, match_bias)
        self.gate = nn.Parameter(torch.zeros(1)) if config.fusion_gate else None
        self.dropout = nn.Dropout(config.fusion_dropout)

    def forward(
        self,
        content: torch.Tensor,
        rationale: torch.Tensor,
        content_mask: torch.Tensor,
        rationale_mask: torch.Tensor,
        matches: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """
        Args:
            content: X (batch, tokens, hidden).
            rationale: R (batch, rationale tokens, hidden).
            content_mask: (batch, tokens), true at tokens that are there.
            rationale_mask: (batch, rationale tokens), likewise.
            matches: (batch, tokens, rationale tokens), true where both are the same token.

        Returns:
            X' (batch, tokens, hidden) and R' (batch, rationale tokens, hidden); where the attention implementation
            computes them the attention weights of both directions: (batch, heads, rationale tokens, tokens) and
            (batch, heads, tokens, rationale tokens).
        """
        has_content = content_mask.any(-1, keepdim=True)
        has_rationale = rationale_mask.any(-1, keepdim=True)
        # A softmax over nothing is not a number, and its gradient poisons even what `where` leaves out: rows with
        # nothing to read read everything, and their result is dropped below.
        rationale_weights = None
        if self.rationale_attention is not None:
            update, rationale_weights = self.rationale_attention(
                self.rationale_norm(rationale),
                content,
                content_mask | ~has_content,
                None if matches is None else matches.transpose(1, 2),
            )
            rationale = rationale + self.dropout(update)
        update, content_weights = self.content_attention(
            self.content_norm(content), rationale, rationale_mask | ~has_rationale, matches
        )
        update = self.dropout(update)
        fused = content + (update if self.gate is None else self.gate * update)
        fused = torch.where((has_content & has_rationale).unsqueeze(-1), fused, content)
        return fused, rationale, rationale_weights, content_weights


@dataclass
class FusionInputs(ModelOutput):
    """What every fusion layer of one forward pass reads.

    Attributes:
        source_mask: (batch, image block + text), true at tokens that are there.
        num_image_tokens: width of the image block, 0 without image side.
        image_rationale, text_rationale: (batch, rationale tokens, depths, hidden).
        image_rationale_mask, text_rationale_mask: (batch, rationale tokens).
        image_rationale_matches, text_rationale_matches: (batch, text, rationale tokens), true where both are the same
            token, or `None`.
        attentions: takes the attention weights of each layer in turn (`fuse`), or `None`.
        memory: takes what the last layer makes of the rationales: R' and mask of each stream (`fuse`), or `None`.
    """

    source_mask: torch.Tensor | None = None
    num_image_tokens: int | None = None
    image_rationale: torch.Tensor | None = None
    image_rationale_mask: torch.Tensor | None = None
    text_rationale: torch.Tensor | None = None
    text_rationale_mask: torch.Tensor | None = None
    image_rationale_matches: torch.Tensor | None = None
    text_rationale_matches: torch.Tensor | None = None
    attentions: list[torch.Tensor] | None = None
    memory: list[torch.Tensor] | None = None


class LRSAFusionLayer(nn.Module):
    """Both streams of dual cross-attention: image with image rationale, text with text rationale.

    With `image_rationale_reader="text"` the text stream reads both rationales, so that an image rationale counts
    without its picture.
    """

    def __init__(self, config: LRSAConfig):
        super().__init__()
        self.text_reads_both = config.image_rationale_reader == "text"
        self.image = LRSADualCrossAttention(config) if config.has_images else None
        self.text = LRSADualCrossAttention(config, config.fusion_match_bias)

    def forward(
        self, hidden_states: torch.Tensor, inputs: FusionInputs, index: int
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """
        Args:
            hidden_states: [image block ; text] (batch, source, hidden).
            index: this layer's place among the fusion layers; where states come at several depths, the one it reads.

        Returns:
            The fused states, of the shape of `hidden_states`; R' and mask of each stream; and the attention weights,
            where the implementation computes them.
        """
        split = inputs.num_image_tokens
        image, image_mask = hidden_states[:, :split], inputs.source_mask[:, :split]
        text, text_mask = hidden_states[:, split:], inputs.source_mask[:, split:]
        depth = min(index, inputs.text_rationale.shape[2] - 1)
        image_rationale, image_rationale_mask = inputs.image_rationale[:, :, depth], inputs.image_rationale_mask
        text_rationale, text_rationale_mask = inputs.text_rationale[:, :, depth], inputs.text_rationale_mask
        if self.text_reads_both:
            read = torch.cat([text_rationale, image_rationale], dim=1)
            read_mask = torch.cat([text_rationale_mask, image_rationale_mask], dim=1)
        else:
            read, read_mask = text_rationale, text_rationale_mask
        matches = inputs.text_rationale_matches
        if matches is not None and self.text_reads_both:
            matches = torch.cat([matches, inputs.image_rationale_matches], dim=2)
        memory, weights = [], []
        if self.image is not None:
            image, seen, *weights = self.image(image, image_rationale, image_mask, image_rationale_mask)
            if not self.text_reads_both:
                memory += [seen, image_rationale_mask]
        text, seen, *text_weights = self.text(text, read, text_mask, read_mask, matches)
        memory += [seen, read_mask]
        weights = [part for part in [*weights, *text_weights] if part is not None]
        return torch.cat([image, text], dim=1), memory, weights


def fuse(layer: LRSAFusionLayer, hidden_states: torch.Tensor, inputs: FusionInputs, index: int) -> torch.Tensor:
    """Returns what a layer makes of states, and keeps in `inputs` what is asked for beside them.

    Here and not in the layer, which FSDP and hooks that move inputs between devices call with a copy of `inputs`.
    """
    hidden_states, memory, weights = layer(hidden_states, inputs, index)
    if inputs.memory is not None:
        inputs.memory[:] = memory
    if inputs.attentions is not None:
        inputs.attentions.extend(weights)
    return hidden_states


# What the hooks in front of encoder layers read and fill, set for one encoder pass: no text model has to hand it on.
current_fusion = CompileableContextVar("lrsa_fusion")
current_states = CompileableContextVar("lrsa_states")


class FuseBefore:
    """Forward pre-hook of an encoder layer: fuses the layer's input.

    Args:
        layers: all fusion layers.
        indices: those that stand in front of this encoder layer.
    """

    def __init__(self, layers: nn.ModuleList, indices: range):
        self.layers = layers
        self.indices = indices

    def __call__(self, module: nn.Module, args: tuple) -> tuple | None:
        inputs = current_fusion.get()
        if inputs is None:
            return None
        hidden_states = args[0]
        for index in self.indices:
            hidden_states = fuse(self.layers[index], hidden_states, inputs, index)
        return (hidden_states, *args[1:])


def keep_input(module: nn.Module, args: tuple) -> None:
    """Forward pre-hook of an encoder layer: keeps the layer's input, while a rationale is encoded."""
    states = current_states.get()
    if states is not None:
        states["rationale_states"].append(args[0])


FIRST_RATIONALE_UPDATE = 0.1


def initialize_fusion_from_layer(fusion: LRSAFusionLayer, layer: nn.Module, norm: nn.LayerNorm | None = None) -> bool:
    """Gives all attentions of a fusion layer the self-attention weights of a pre-trained encoder layer.

    Pre-trained attention already matches a name with its other mention, which a few thousand posts do not teach. It is
    met as it knows its inputs: queries have the scale of the layer's own, and what a rationale takes from the content
    is small at first.

    Args:
        norm: the layer norm that the layer's input comes from, if there is one.

    Returns:
        Whether the layer's projections were found and have the fusion's width.
    """
    source = self_attention_projections(layer)
    if source is None:
        return False
    streams = [module for module in fusion.modules() if isinstance(module, LRSADualCrossAttention)]
    if any(stream.content_attention.q_proj.weight.shape != source[0].weight.shape for stream in streams):
        return False
    with torch.no_grad():
        scale = 1.0 if norm is None else (norm.weight.square().mean() + norm.bias.var()).sqrt().item()
        for stream in streams:
            for attention in filter(None, (stream.rationale_attention, stream.content_attention)):
                for target, linear in zip(
                    (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj), source
                ):
                    target.weight.copy_(linear.weight)
                    if linear.bias is not None:
                        target.bias.copy_(linear.bias)
            if stream.rationale_attention is not None:
                stream.rationale_attention.out_proj.weight.mul_(FIRST_RATIONALE_UPDATE)
                stream.rationale_attention.out_proj.bias.mul_(FIRST_RATIONALE_UPDATE)
                stream.rationale_norm.weight.fill_(scale)
            stream.content_norm.weight.fill_(scale)
    return True
