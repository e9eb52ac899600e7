"""Tiny configurations and inputs in the form that transformers' model tests ask for."""

import torch
from transformers import BartConfig, BertConfig, EfficientNetConfig, ViTConfig

from modeling_lrsa import LRSAConfig


VOCABULARY, HIDDEN, HEADS = 99, 32, 4


def bart_config() -> BartConfig:
    sides = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in SIZES.items()}
    return BartConfig(vocab_size=VOCABULARY, d_model=HIDDEN, max_position_embeddings=64, **sides)


SIZES = {"layers": 2, "attention_heads": HEADS, "ffn_dim": 37}


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=37,
        max_position_embeddings=64,
    )


def vit_config() -> ViTConfig:
    return ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=37,
        image_size=8,
        patch_size=4,
    )


def efficientnet_config() -> EfficientNetConfig:
    return EfficientNetConfig(
        image_size=32,
        width_coefficient=0.1,
        depth_coefficient=0.1,
        in_channels=[8, 8, 8, 8],
        out_channels=[8, 8, 8, 8],
        kernel_sizes=[3, 3, 3, 3],
        strides=[1, 2, 2, 1],
        num_block_repeats=[1, 1, 1, 1],
        expand_ratios=[1, 2, 2, 2],
        hidden_dim=128,
    )


class LRSATester:
    """
    Args:
        parent: the test case.
        image: fields of `LRSAConfig` for the image side.
        image_shape: of one post's picture or regions.
        brackets: positions around them.
        fields: other fields of `LRSAConfig`.
    """

    batch_size = 3
    seq_length = 7
    rationale_length = 5
    num_hidden_layers = 2
    num_attention_heads = HEADS
    hidden_size = HIDDEN
    decoder_seq_length = 4
    is_training = True

    def __init__(self, parent, text_config, image=None, image_shape=None, brackets=0, **fields):
        self.parent = parent
        self.text_config = text_config
        self.image = image or {}
        self.image_shape = image_shape
        self.fields = fields
        self.encoder_seq_length = self.seq_length + self.image.get("num_image_tokens", 0) + brackets
        self.key_length = self.encoder_seq_length

    def get_config(self) -> LRSAConfig:
        return LRSAConfig(
            text_config=self.text_config.to_dict(),
            decoder_layers=2,
            initializer_range=0.02,
            **self.image,
            **self.fields,
        )

    def prepare_config_and_inputs_for_common(self):
        size = (self.batch_size, self.seq_length)
        input_ids = torch.randint(5, VOCABULARY, size)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "decoder_input_ids": torch.randint(2, 5, (self.batch_size, self.decoder_seq_length)),
        }
        for kind in ("image", "text"):
            # Below what is left of a vocabulary that a test cuts by 15: it clamps the ids of texts alone.
            ids = torch.randint(5, VOCABULARY - 15, (self.batch_size, self.rationale_length))
            inputs |= {f"{kind}_rationale_input_ids": ids, f"{kind}_rationale_attention_mask": torch.ones_like(ids)}
        if self.image_shape is not None:
            name = "pixel_values" if "vision_config" in self.image else "image_features"
            inputs[name] = torch.randn(self.batch_size, *self.image_shape)
        return self.get_config(), inputs
