"""Explanations: which rationale words and which patches of the picture each triple drew on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput

from .configuration_lrsa import LRSAConfig
from .fusion_lrsa import LRSADualCrossAttention


@dataclass
class LRSAAttentionFlow(ModelOutput):
    """How much the step of each target drew on what, not normalised; every weight is at least 0.

    With a(j) the decoder's cross-attention to source position j at the step, the mean over layers and heads, and at
    fusion layer l, the mean over heads, with w_l(j, r) the attention of position j to rationale token r, u_l(r, i)
    that of token r to slot i of the image block, and g_l the gate of the position's stream:

        rationale token   r(k) = sum over l, j of a(j) · |g_l| · w_l(j, k)
        image slot        p(i) = a(i) + sum over l, j in the image block, k of a(j) · |g_l| · w_l(j, k) · u_l(k, i)

    So a layer whose gate is closed, which has changed nothing, counts for nothing; without gates g is 1. Where fusion
    has one direction u is 0. With `rationale_memory` the decoder's own attention to a token is added to its r(k). What
    self-attention moves between positions is not followed: a position stands for what was put into it, and so does R'
    in the memory. Nothing flows through what is not there.

    Args:
        text_rationale, image_rationale (`torch.FloatTensor` of shape `(batch, targets, tokens)`, *optional*):
            r(k) of each token of that rationale; `None` where the inputs have none.
        image (`torch.FloatTensor` of shape `(batch, targets, num_image_tokens)`, *optional*):
            p(i), without brackets; all 0 in rows without picture. `None` where the inputs have no pictures.
        image_share (`torch.FloatTensor` of shape `(batch, targets)`, *optional*):
            Sum of a(i) over the slots, at most 1. `None` where the inputs have no pictures.
    """

    text_rationale: torch.FloatTensor | None = None
    image_rationale: torch.FloatTensor | None = None
    image: torch.FloatTensor | None = None
    image_share: torch.FloatTensor | None = None


@contextmanager
def eager_attention_of(model: nn.Module) -> Iterator[None]:
    """Lets a model compute its attention so that weights are had. Not for a model that other threads use meanwhile."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    kept = [(config, config._attn_implementation) for config in configs.values()]
    if any(implementation != "eager" for _, implementation in kept):
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for config, implementation in kept:
            config._attn_implementation_internal = implementation


@torch.no_grad()
def attention_flow(model: nn.Module, inputs: dict[str, torch.Tensor], sequences: torch.Tensor) -> LRSAAttentionFlow:
    """Returns on what the steps of generated sequences drew.

    Args:
        model: an [`LRSAForMABSA`], in evaluation mode.
        inputs: what was generated from.
        sequences: (batch, length) from `generate`, one a post. The flow of the target at place k is at k - 1.
    """
    config, encoder = model.config, model.get_encoder()
    inputs = {name: value for name, value in inputs.items() if name not in ("labels", "aspect_spans")}
    with eager_attention_of(model):
        encoded = encoder(**inputs, output_fusion_attentions=True)
        outputs = model(
            encoder_outputs=encoded, decoder_input_ids=sequences[:, :-1], output_attentions=True, use_cache=False
        )
    attention = torch.stack(outputs.cross_attentions).float().mean((0, 2)) * encoded.source_mask.unsqueeze(1)
    split = config.image_block_size
    end = split + encoded.text_embeds.shape[1]
    streams = {
        "image": (attention[..., :split], encoded.source_mask[:, :split]),
        "text": (attention[..., split:end], encoded.source_mask[:, split:end]),
    }
    masks = {kind: _rationale_mask(inputs, kind, attention) for kind in ("text", "image")}
    both = torch.cat([masks["text"], masks["image"]], dim=1)
    drawn = {kind: attention.new_zeros(*attention.shape[:2], mask.shape[1]) for kind, mask in masks.items()}
    slots = streams["image"][0].clone()
    if (memory := attention[..., end:]).shape[-1]:
        order = ("text", "image") if config.image_rationale_reader == "text" else ("image", "text")
        for kind, part in zip(order, memory.split([masks[kind].shape[1] for kind in order], dim=-1)):
            drawn[kind] += part

    recorded = iter(encoded.fusion_attentions or ())
    for layer in encoder.fusion if encoded.fusion_attentions else ():
        if layer.image is not None:
            flow, back = _through(layer.image, *streams["image"], masks["image"], recorded)
            drawn["image"] += flow
            slots += back
        if layer.text_reads_both:
            flow, _ = _through(layer.text, *streams["text"], both, recorded)
            drawn["text"] += flow[..., : masks["text"].shape[1]]
            drawn["image"] += flow[..., masks["text"].shape[1] :]
        else:
            flow, _ = _through(layer.text, *streams["text"], masks["text"], recorded)
            drawn["text"] += flow

    flow = LRSAAttentionFlow()
    for kind, weights in drawn.items():
        if masks[kind].any():
            setattr(flow, f"{kind}_rationale", weights)
    if "pixel_values" in inputs or "image_features" in inputs:
        brackets = 1 if config.image_bracket_token_ids else 0
        there = inputs.get("image_attention_mask", encoded.source_mask.new_ones(len(sequences))).bool().view(-1, 1, 1)
        kept = slice(brackets, split - brackets)
        flow.image = slots[..., kept] * there
        flow.image_share = (streams["image"][0][..., kept] * there).sum(-1)
    return flow


def _rationale_mask(inputs: dict[str, torch.Tensor], kind: str, like: torch.Tensor) -> torch.Tensor:
    """The mask (batch, tokens) that the encoder gives a rationale; one masked token where there is none."""
    given = [inputs.get(f"{kind}_rationale_{name}") for name in ("attention_mask", "input_ids", "states")]
    if given[1] is None and given[2] is None:
        return torch.zeros(len(like), 1, dtype=torch.bool, device=like.device)
    if given[0] is not None:
        return given[0].bool()
    rows, tokens = (given[1] if given[2] is None else given[2]).shape[:2]
    return torch.ones(rows, tokens, dtype=torch.bool, device=like.device)


def _through(
    stream: LRSADualCrossAttention,
    attention: torch.Tensor,
    content_mask: torch.Tensor,
    rationale_mask: torch.Tensor,
    recorded: Iterator[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Follows attention (batch, targets, positions) through one stream of one layer.

    Args:
        recorded: gives the weights of the stream: where the rationale reads the content (batch, heads, rationale
            tokens, positions), and of the content reading the rationale (batch, heads, positions, rationale tokens).

    Returns:
        What reaches the rationale's tokens (batch, targets, tokens), and through them the positions again.
    """
    # Rows with nothing to read have weights all the same, of which the layer makes no use.
    used = (content_mask.any(-1) & rationale_mask.any(-1)).view(-1, 1, 1)
    reading_content = None if stream.rationale_attention is None else next(recorded).float().mean(1)
    drawn = attention @ (next(recorded).float().mean(1) * (used & rationale_mask.unsqueeze(1)))
    if stream.gate is not None:
        drawn = stream.gate.detach().float().abs() * drawn
    if reading_content is None:
        return drawn, torch.zeros_like(attention)
    return drawn, drawn @ (reading_content * (used & content_mask.unsqueeze(1)))


def explain(model: nn.Module, processor: Any, inputs: Any, sequences: torch.Tensor) -> list[list[dict[str, Any]]]:
    """Tells of each triple which rationale words and which patches of the picture it drew on.

    A triple's weights are the sum of `LRSAAttentionFlow` over its three steps, normalised: over the words of both
    rationales together, a word's weight being that of its tokens, and over the patches. Special tokens of rationales
    and of the vision model take part in the flow and are left out of the result.

    Args:
        model: an [`LRSAForMABSA`], in evaluation mode.
        processor: its [`LRSAProcessor`], with a fast tokenizer.
        inputs: the `MABSABatch` that was generated from, on the model's device.
        sequences: (batch, length) from `generate`, one a post.

    Returns:
        One list a post, in it for each triple, in the order of `post_process_mabsa`:

        - `"text_rationale"`, `"image_rationale"`: list of `{"word", "start", "end", "weight"}`, offsets in characters
          of the rationale, end exclusive. The weights of both lists together sum to 1. `None` where that rationale is
          missing, or where no fusion layer let any of it through.
        - `"patches"`: list of rows, from the top, of lists of weights, from the left, that sum to 1; one row where the
          slots are no grid, as with region features. `None` without picture.
        - `"image_share"`: share of the decoder's attention that went to the picture, 0 without.
    """
    flow = attention_flow(model, inputs, sequences)
    flow = {name: value.cpu() for name, value in flow.items()}
    explained = []
    for row, (targets, post) in enumerate(zip(sequences.tolist(), inputs.posts, strict=True)):
        words = {}
        for kind in ("text_rationale", "image_rationale"):
            text = getattr(post, kind)
            words[kind] = processor.rationale_words(text) if text and kind in flow else None
        triples = []
        for *_, place in processor.index_format.decode(targets, post.word_ids):
            steps = {name: value[row, place - 1 : place + 2].sum(0) for name, value in flow.items()}
            triple = _normalised({kind: _by_word(steps.get(kind), found) for kind, found in words.items()})
            triple["patches"] = _patches(steps.get("image"), model.config)
            triple["image_share"] = float(steps["image_share"]) / 3 if "image_share" in steps else 0.0
            triples.append(triple)
        explained.append(triples)
    return explained


def _by_word(weights: torch.Tensor | None, words: tuple[list[dict], list[int]] | None) -> list[dict[str, Any]] | None:
    if words is None:
        return None
    spans, word_of_token = words
    total = [0.0] * len(spans)
    for word, weight in zip(word_of_token, weights.tolist()):
        if word >= 0:
            total[word] += weight
    return [{**span, "weight": weight} for span, weight in zip(spans, total)]


def _normalised(rationales: dict[str, list[dict[str, Any]] | None]) -> dict[str, Any]:
    total = sum(word["weight"] for words in rationales.values() for word in words or [])
    if total <= 0:
        return dict.fromkeys(rationales)
    return {
        kind: words and [{**word, "weight": word["weight"] / total} for word in words]
        for kind, words in rationales.items()
    }


def patch_grid(config: LRSAConfig) -> tuple[int, int, int]:
    """Returns how many slots in front are no patches, as a class token is none, and how many rows and columns follow.

    One row where the slots are no grid.
    """
    slots, vision = config.num_image_tokens, config.vision_config
    if vision is None:
        return 0, 1, slots
    size, patch = (getattr(vision, name, None) for name in ("image_size", "patch_size"))
    if size and patch:
        height, width = size if isinstance(size, list | tuple) else (size, size)
        down, across = patch if isinstance(patch, list | tuple) else (patch, patch)
        rows, columns = height // down, width // across
        if rows * columns <= slots < 2 * rows * columns:
            return slots - rows * columns, rows, columns
    for special in (0, 1):
        side = isqrt(slots - special)
        if side and side * side == slots - special:
            return special, side, side
    return 0, 1, slots


def _patches(weights: torch.Tensor | None, config: LRSAConfig) -> list[list[float]] | None:
    if weights is None:
        return None
    special, rows, columns = patch_grid(config)
    weights = weights[special:]
    if not weights.sum() > 0:
        return None
    return (weights / weights.sum()).view(rows, columns).tolist()
