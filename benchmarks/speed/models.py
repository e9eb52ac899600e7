"""Models of the size of BART-base with random weights, and batches for them."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartConfig

from modeling_lrsa import LRSAConfig, LRSAForMABSA

from .naive_decoder import naive_beam_search


FIRST_ADDED = 50265  # BART's vocabulary ends here
BRACKETS, TAGS = [FIRST_ADDED + 6, FIRST_ADDED + 7], [FIRST_ADDED + 11 + tag for tag in range(4)]
FEATURE_SIZE = 2048

# What is added to VLP-MABSA's form, which is "fusion off".
FORMS = {
    "fusion off": {"num_fusion_layers": 0},
    "LRSA, cached states": {"rationale_encoder": "frozen"},
    "LRSA, shared encoder": {"rationale_encoder": "shared"},
    "AoM": {"num_fusion_layers": 0, "aspect_attention": True, "num_graph_layers": 2},
}


@dataclass(frozen=True)
class Sizes:
    """A batch and the width of its model."""

    posts: int = 16
    slots: int = 36  # of the image block, two brackets around them
    columns: int = 40  # of the text
    image_rationale: int = 96
    text_rationale: int = 128
    aspects: int = 2
    width: int = 768


def build(form: str, sizes: Sizes = Sizes()) -> LRSAForMABSA:
    torch.manual_seed(0)
    text_config = BartConfig(vocab_size=FIRST_ADDED + 24, encoder_layers=6, decoder_layers=6, d_model=sizes.width,
                             encoder_ffn_dim=4 * sizes.width, decoder_ffn_dim=4 * sizes.width,
                             encoder_attention_heads=sizes.width // 64, decoder_attention_heads=sizes.width // 64,
                             )  # fmt: skip
    config = LRSAConfig(
        text_config=text_config,
        num_image_tokens=sizes.slots,
        image_feature_size=FEATURE_SIZE,
        image_bracket_token_ids=BRACKETS,
        decoder_pointer_input="embeddings",
        num_special_targets=3,
        target_token_ids=[0, 2, *TAGS],
        decoder_prefix=[0, 2, 2],
        **FORMS[form],
    )
    return LRSAForMABSA(config)


def make_batch(form: str, sizes: Sizes = Sizes()) -> dict[str, torch.Tensor]:
    """Returns what a form reads: texts of half to all columns, a noun in four, a tree of dependencies."""
    torch.manual_seed(0)
    posts, columns = sizes.posts, sizes.columns
    lengths = torch.randint(columns // 2, columns + 1, (posts,))
    lengths[0] = columns
    mask = torch.arange(columns) < lengths.unsqueeze(-1)
    labels = torch.randint(7, 7 + columns // 2 - 2, (posts, 3 * sizes.aspects + 1))
    labels[:, 2::3], labels[:, -1] = 4, 1
    inputs = {
        "input_ids": torch.randint(4, FIRST_ADDED, (posts, columns)),
        "attention_mask": mask.long(),
        "image_features": torch.randn(posts, sizes.slots, FEATURE_SIZE),
        "labels": labels,
    }
    if form == "AoM":
        heads = (torch.rand(posts, columns) * torch.arange(columns)).long()
        arcs = torch.nn.functional.one_hot(heads, columns).float()
        arcs = ((arcs + arcs.transpose(1, 2)) > 0) & mask.unsqueeze(1) & mask.unsqueeze(2)
        values = (torch.rand(posts, columns) * 2 - 1) * (torch.rand(posts, columns) < 0.4)
        inputs |= {"noun_mask": (torch.rand(posts, columns) < 0.25) & mask}
        inputs |= {"dependency_matrix": arcs.float(), "sentiment_value": values}
    if form.startswith("LRSA"):
        for kind, length in (("image", sizes.image_rationale), ("text", sizes.text_rationale)):
            inputs[f"{kind}_rationale_attention_mask"] = torch.ones(posts, length, dtype=torch.long)
            if "cached" in form:
                inputs[f"{kind}_rationale_states"] = torch.randn(posts, length, 1, sizes.width)
            else:
                inputs[f"{kind}_rationale_input_ids"] = torch.randint(4, FIRST_ADDED, (posts, length))
    return inputs


class Workload:
    """A model and its batch: what is timed."""

    def __init__(self, form: str, sizes: Sizes = Sizes(), device: str = "cpu", dtype: torch.dtype = torch.float32):
        self.model = build(form, sizes).to(device)
        self.inputs = {name: tensor.to(device) for name, tensor in make_batch(form, sizes).items()}
        self.sizes, self.narrow = sizes, dtype != torch.float32
        self.autocast = torch.autocast(device, dtype) if self.narrow else nullcontext()

    def forward_and_backward(self, keep_gradients: bool = False) -> None:
        self.model.zero_grad()
        with self.autocast:
            loss = self.model(**self.inputs).loss
        loss.backward()
        if not keep_gradients:
            self.model.zero_grad()

    def generate(self, num_beams: int, length: int = 16) -> torch.Tensor:
        """Generates sequences of exactly `length` targets, the prefix counted."""
        new = length - len(self.model.config.decoder_prefix)
        inputs = {name: tensor for name, tensor in self.inputs.items() if name != "labels"}
        with torch.inference_mode(), self.autocast:
            return self.model.generate(**inputs, num_beams=num_beams, min_new_tokens=new, max_new_tokens=new)

    def naive(self, num_beams: int, length: int = 16) -> torch.Tensor:
        with self.autocast:
            return naive_beam_search(self.model, self.inputs, num_beams, length)


def operations(function) -> float:
    """Operations of the matrix products of linear layers; those of attention scores, a few percent, are left out."""
    with FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())
