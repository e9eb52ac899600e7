"""What AoM's modules add to a training step of VLP-MABSA: aspect-aware attention and two layers of graph convolution.

    OMP_NUM_THREADS=2 python benchmarks/aspect_attention_cost.py

Both forms have the size of BART-base, random weights and the same batch: 16 posts, 36 image slots and their brackets,
40 text columns. A step is forward and backward with dropout, in float32; an optimizer, which costs both the same,
would only bring them nearer. The forms take turns, and their ratio is taken pair by pair. Processor time counts, which
depends less than wall-clock time on what else the machine does; take many pairs where it does much. Operations, those
of matrix products, are the same on every machine.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartConfig

from modeling_lrsa import LRSAConfig, LRSAForMABSA


POSTS, SLOTS, FEATURE_SIZE, COLUMNS, TRIPLES = 16, 36, 2048, 40, 2
FIRST_ADDED = 50265  # BART's vocabulary ends here
BRACKETS, TAGS = [FIRST_ADDED + 6, FIRST_ADDED + 7], [FIRST_ADDED + 11 + tag for tag in range(4)]
FORMS = {"VLP-MABSA": {}, "AoM": {"aspect_attention": True, "num_graph_layers": 2}}


def build(**form) -> LRSAForMABSA:
    torch.manual_seed(0)
    text_config = BartConfig(vocab_size=FIRST_ADDED + 24, encoder_layers=6, decoder_layers=6, d_model=768,
                             encoder_ffn_dim=3072, decoder_ffn_dim=3072, encoder_attention_heads=12,
                             decoder_attention_heads=12)  # fmt: skip
    config = LRSAConfig(
        text_config=text_config,
        num_image_tokens=SLOTS,
        image_feature_size=FEATURE_SIZE,
        image_bracket_token_ids=BRACKETS,
        num_fusion_layers=0,
        decoder_pointer_input="embeddings",
        num_special_targets=3,
        target_token_ids=[0, 2, *TAGS],
        decoder_prefix=[0, 2, 2],
        **form,
    )
    return LRSAForMABSA(config).train()


def make_batch() -> tuple[dict, dict]:
    """Returns what both forms read, and what AoM reads besides: a noun in four, a tree of dependencies."""
    torch.manual_seed(0)
    lengths = torch.randint(COLUMNS // 2, COLUMNS + 1, (POSTS,))
    lengths[0] = COLUMNS
    mask = torch.arange(COLUMNS) < lengths.unsqueeze(-1)
    labels = torch.randint(7, 7 + COLUMNS // 2 - 2, (POSTS, 3 * TRIPLES + 1))
    labels[:, 2::3], labels[:, -1] = 4, 1
    inputs = {
        "input_ids": torch.randint(4, FIRST_ADDED, (POSTS, COLUMNS)),
        "attention_mask": mask.long(),
        "image_features": torch.randn(POSTS, SLOTS, FEATURE_SIZE),
        "labels": labels,
    }
    heads = (torch.rand(POSTS, COLUMNS) * torch.arange(COLUMNS)).long()
    arcs = torch.nn.functional.one_hot(heads, COLUMNS).float()
    arcs = ((arcs + arcs.transpose(1, 2)) > 0) & mask.unsqueeze(1) & mask.unsqueeze(2)
    values = torch.rand(POSTS, COLUMNS) * 2 - 1
    aom = {
        "noun_mask": (torch.rand(POSTS, COLUMNS) < 0.25) & mask,
        "dependency_matrix": arcs.float(),
        "sentiment_value": values * (torch.rand(POSTS, COLUMNS) < 0.4),
    }
    return inputs, aom


def step(model: LRSAForMABSA, inputs: dict) -> tuple[float, float]:
    """Returns the processor and wall-clock seconds of one forward and backward."""
    model.zero_grad()
    cpu, wall = time.process_time(), time.perf_counter()
    model(**inputs).loss.backward()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--output", default="runs/aspect_attention_cost.json")
    args = parser.parse_args()
    shared, aom = make_batch()
    inputs = {"VLP-MABSA": shared, "AoM": shared | aom}
    models = {name: build(**form) for name, form in FORMS.items()}
    operations = {}
    for name, model in models.items():
        with FlopCounterMode(display=False) as counter:
            step(model, inputs[name])
        operations[name] = counter.get_total_flops()
    seconds = {name: [] for name in FORMS}
    for pair in range(args.pairs):
        for name in sorted(FORMS, reverse=bool(pair % 2)):
            seconds[name].append(step(models[name], inputs[name]))
    result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "pairs": args.pairs}
    result["operations"] = {f"{name} billions": round(number / 1e9, 1) for name, number in operations.items()}
    result["operations"]["ratio"] = round(operations["AoM"] / operations["VLP-MABSA"], 3)
    for index, clock in enumerate(("processor", "wall")):
        taken = {name: [times[index] for times in values] for name, values in seconds.items()}
        ratios = [b / a for a, b in zip(taken["VLP-MABSA"], taken["AoM"])]
        result[clock] = {f"{name} seconds": round(statistics.median(values), 2) for name, values in taken.items()}
        result[clock] |= {
            "ratios": [round(ratio, 3) for ratio in ratios],
            "median ratio": round(statistics.median(ratios), 3),
            "ratio of the least": round(min(taken["AoM"]) / min(taken["VLP-MABSA"]), 3),
        }
    print(json.dumps(result, indent=2))
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
