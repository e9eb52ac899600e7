"""Fails where a step or a generation has become slower beside another one: `make guard`.

Ratios alone count, of small models that take turns, so that the machine and what else it does cancel out. A ratio that
is more than a quarter above the committed one is measured again, twice; the least counts.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from modeling_lrsa.trainer import LengthGroups
from processing import load_posts

from .clock import Clock
from .models import Sizes, Workload
from .posts import padding_waste


COMMITTED = Path(__file__).parents[1] / "results" / "speed_guard.json"
ALLOWED = 1.25
SIZES = Sizes(posts=8, width=256)
TURNS = 7


def measure_ratios(clock: Clock) -> dict[str, float]:
    """Returns the ratios; of each, less is better."""
    works = {form: Workload(form, SIZES) for form in ("fusion off", "LRSA, cached states", "LRSA, shared encoder")}
    off = works["fusion off"]
    for work in works.values():
        work.model.eval()
        work.forward_and_backward()
    steps = clock.turns({form: work.forward_and_backward for form, work in works.items()}, TURNS)
    generation = clock.turns(
        {"beam 4": lambda: off.generate(4), "greedy": lambda: off.generate(1), "without cache": lambda: off.naive(4)},
        TURNS,
    )
    lengths = [len(text.split()) + 2 for text in load_posts("examples/posts", "train")["text"]]
    order = LengthGroups(16, lengths, seed=0)
    return {
        "LRSA step, cached states / fusion-off step": steps["LRSA, cached states"].over(steps["fusion off"]),
        "LRSA step, shared encoder / fusion-off step": steps["LRSA, shared encoder"].over(steps["fusion off"]),
        "beam 4 / greedy": generation["beam 4"].over(generation["greedy"]),
        "cached / uncached generation": generation["beam 4"].over(generation["without cache"]),
        "padded share of training batches": padding_waste([lengths[index] for index in order], 16),
    }


def worse(found: dict[str, float], committed: dict[str, float]) -> list[str]:
    """Returns the names of ratios that are more than a quarter above the committed ones."""
    return [name for name, ratio in committed.items() if found[name] > ALLOWED * ratio]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", action="store_true", help="write the ratios of this run as those to hold")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    clock = Clock()
    found = measure_ratios(clock)
    committed = json.loads(COMMITTED.read_text()) if not args.commit else {}
    for _ in range(2):
        if not worse(found, committed):
            break
        found = {name: min(ratio, found[name]) for name, ratio in measure_ratios(clock).items()}
    for name, ratio in found.items():
        print(f"{name}: {ratio:.3f}" + (f" (committed: {committed[name]:.3f})" if name in committed else ""))
    if args.commit:
        COMMITTED.write_text(json.dumps({name: round(ratio, 3) for name, ratio in found.items()}, indent=1) + "\n")
    for name in (failed := worse(found, committed)):
        print(f"{name} is {found[name] / committed[name]:.2f} times the committed one.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
