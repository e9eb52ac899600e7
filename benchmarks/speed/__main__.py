"""Measures training, generation and serving side by side, against the machine's own matrix products.

    OMP_NUM_THREADS=1 python -m benchmarks.speed

At the size of BART-base with random weights: 16 posts, 36 image slots and their brackets, 40 text columns. Parts that
are left out keep what an earlier run found of them. `--device cuda --dtype bfloat16` measures on an accelerator.
"""

import argparse
import dataclasses
import json
import platform
import statistics
from pathlib import Path

import torch

from .clock import Clock
from .generation import measure_generation
from .models import FORMS, Sizes
from .report import plot, write_document
from .serving import measure_data, measure_memory, measure_serving, measure_start
from .training import measure_step, measure_training, measure_ways


PARTS = ("training", "step", "ways", "generation", "serving", "data", "start", "memory", "sweeps")
SWEEPS = {
    "posts": (1, 4, 32),
    "columns": (20, 80),
    "aspects": (1, 6),
    "text_rationale": (32, 256),
    "width": (384,),
}


def measure_sweeps(clock: Clock, turns: int) -> list[dict]:
    """Fusion off and LRSA with cached states while one size changes, from the sizes of everything else here."""
    forms = ("fusion off", "LRSA, cached states")
    found = []
    for name, values in SWEEPS.items():
        for value in values:
            sizes = dataclasses.replace(Sizes(), **{name: value})
            found.append({"size": name, "value": value} | measure_training(clock, turns, sizes, forms))
    return found


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="turns of each function (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--output", default="benchmarks/results/speed.json")
    parser.add_argument("--document", action="store_true", help="write plots and tables of docs/speed.md, and end")
    args = parser.parse_args()
    output = Path(args.output)
    result = json.loads(output.read_text()) if output.is_file() else {}
    clock = Clock(args.device, getattr(torch, args.dtype)) if not args.document else None
    measures = {
        "training": lambda: measure_training(clock, args.turns),
        "step": lambda: measure_step(clock, args.turns),
        "ways": lambda: measure_ways(clock, args.turns),
        "generation": lambda: measure_generation(clock, args.turns),
        "serving": lambda: measure_serving(clock, args.turns),
        "data": lambda: measure_data(clock, args.turns),
        "start": lambda: measure_start(args.turns),
        "memory": lambda: {what: measure_memory(what) for what in (*FORMS, "beam 4", "beam 4 without cache")},
        "sweeps": lambda: measure_sweeps(clock, turns),
    }
    for part in () if args.document else args.parts:
        turns = {"sweeps": max(1, args.turns // 2), "memory": 1}.get(part, args.turns)
        clock.rates.clear()
        measured = measures[part]()
        rates = [rate / 1e9 for rate in clock.rates]
        spread = [round(statistics.median(rates), 1), round(min(rates), 1), round(max(rates), 1)] if rates else None
        result[part] = {
            "device": device_name(args.device), "dtype": args.dtype, "threads": torch.get_num_threads(),
            "torch": torch.__version__, "turns": turns, "matrix_rate": spread, "measured": measured,
        }  # fmt: skip
        print(json.dumps({part: result[part]}, indent=1), flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n")
    if args.document:
        plot(result, Path("docs/speed.png"))
        write_document(result, Path("docs/speed.md"))


if __name__ == "__main__":
    main()
