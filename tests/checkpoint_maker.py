"""Checkpoints in the form of VLP-MABSA and AoM, of any sizes, with random weights, and a tokenizer for them."""

import string

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SHARED = "<<cls>> <<mlm>> <<mrm>> <<text>> <</text>> <<img_feat>> <<img>> <</img>> <<senti>> <<ANP>> <<AOG>>".split()
ADDED = {
    "vlp-mabsa": SHARED + "<<AESC>> <<POS>> <<NEU>> <<NEG>> <<AOE>> <<SEP>> <<AE>> <<SC>>".split(),
    "aom": SHARED + "<<POS>> <<NEU>> <<NEG>> <<AOE>> <<SEP>> <<AESC>> <<SC>>".split(),
}


def checkpoint(
    source,
    vocabulary=40,
    width=8,
    ffn=12,
    layers=(1, 2),
    positions=80,
    features=5,
    spare=5,
    tokens=None,
    seed=0,
):
    """State dict; `layers` of encoder and decoder, `tokens` added to the vocabulary, `spare` rows behind them."""
    generator = torch.Generator().manual_seed(seed)
    rows = vocabulary + (len(ADDED[source]) if tokens is None else tokens) + spare
    shapes = {"encoder.embed_tokens.weight": (rows, width)}

    def linear(name, out, into, bias=True):
        shapes[f"{name}.weight"] = (out, into)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    linear("encoder.embed_images.linear", width, features)
    for prefix, number in zip(("encoder.", "decoder.decoder."), layers):
        shapes[f"{prefix}embed_positions.weight"] = (positions + 2, width)
        norm(f"{prefix}layernorm_embedding")
        for layer in range(number):
            here = f"{prefix}layers.{layer}."
            for attention in ("self_attn", "encoder_attn")[: 1 + (prefix != "encoder.")]:
                for part in "kvq":
                    linear(f"{here}{attention}.{part}_proj", width, width)
                linear(f"{here}{attention}.out_proj", width, width)
                norm(f"{here}{attention}_layer_norm")
            linear(f"{here}fc1", ffn, width)
            linear(f"{here}fc2", width, ffn)
            norm(f"{here}final_layer_norm")
    linear("decoder.encoder_mlp.0", width, width)
    linear("decoder.encoder_mlp.3", width, width)
    if source == "aom":
        for name in ("noun_linear", "multi_linear", "alpha_linear1", "alpha_linear2", "context_linear"):
            linear(name, width, width)
        linear("att_linear", 1, 2 * width)
        linear("linear", 1, 2 * width)
        linear("senti_value_linear", width, 1)
        for graph in ("context_gcn", "senti_gcn"):
            linear(f"{graph}.gc1", width, width)
            linear(f"{graph}.gc2", width, width)
        for name in ("attention.query_layer", "senti_linear", "dep_linear1", "gat_linear"):
            linear(name, width, width)
    state = {name: torch.randn(shape, generator=generator) / 3 for name, shape in shapes.items()}
    state["decoder.decoder.embed_tokens.weight"] = state["encoder.embed_tokens.weight"]
    state["decoder.causal_masks"] = torch.full((512, 512), float("-inf")).triu(1)
    tags = sorted(vocabulary + ADDED[source].index(tag) for tag in ("<<AESC>>", "<<POS>>", "<<NEU>>", "<<NEG>>"))
    state["decoder.mapping"] = torch.tensor([0, 2, *tags])
    return state


def tokenizer(vocabulary=40):
    """A tokenizer with as many tokens as asked for, whose words are letters."""
    words = [*SPECIAL, *string.ascii_letters, *map(str, range(10_000))][: vocabulary - 1] + ["<mask>"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
