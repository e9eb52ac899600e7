"""What 10⁴ to 10⁹ posts cost, stage by stage, and where the bottleneck lies: tables and plot of docs/scaling.md.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py measure STUDENT LRSA   # two trained models: without, with fusion
    python benchmarks/scaling.py plan                                     # writes into docs/scaling.md

`measure` counts, on the sample posts and without pictures, what does not depend on how busy the machine is: operations
of matrix products a post, tokens and bytes; and in processor seconds of one core what does little: tokenising, reading
and writing. `plan` works out the rest with `ASSUMED`, which nobody has measured here, and
checks its formula for what dying workers cost by a simulation.
"""

import argparse
import json
import random
import re
import statistics
import tempfile
import time
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

from processing.rationales.estimates import CHARACTERS_A_TOKEN


ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "results" / "scaling.json"
PAGE, PLOT = ROOT / "docs" / "scaling.md", ROOT / "docs" / "scaling.png"

# An accelerator with a small model, which waits for launches as long as it computes; and what a server of a 7B model
# does on one with many questions in flight. Put in what yours do.
ASSUMED = {
    "operations a second": 2e13,
    "posts a batch of prediction": 1024,
    "seconds a batch of prediction, besides operations": 0.15,
    "seconds a training step of 16 posts, besides operations": 0.05,
    "prompt tokens a second": 20_000,
    "answer tokens a second": 2_500,
}
EPOCHS, LABELLED = 10, 100_000  # training: more labels than anybody has written
BACKWARD = 3  # forward and backward, in forwards
SUBSET = 1_000_000  # posts that are rationalised where a student is to answer all
DAY = 24 * 3600
SIZES = {10**power: f"10{'⁰¹²³⁴⁵⁶⁷⁸⁹'[power]}" for power in range(4, 10)}


# --- measured


def measure(student: str, lrsa: str) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from modeling_lrsa.chunk_predictor import SCHEMA, count
    from modeling_lrsa.loading import load_model
    from modeling_lrsa.predictor import Predictor
    from processing import load_posts, save_posts
    from processing.chunks import ChunkReader, cut
    from processing.parts import Answered, Parts
    from processing.preparation import encode_posts
    from processing.rationales import load_prompt

    posts = load_posts(ROOT / "examples" / "posts", "train").remove_columns("image").add_column("image", [None] * 300)
    rows, number = list(posts), len(posts)
    result: dict[str, Any] = {"posts": number, "torch": torch.__version__}
    for name, folder in (("student", student), ("LRSA", lrsa)):
        model, processor = load_model(folder)
        model.requires_grad_(False)  # which the counter asks after
        with FlopCounterMode(display=False) as counter:
            found = Predictor(model, processor)(rows)
        result[f"operations a post, {name}"] = round(counter.get_total_flops() / number)
        result[f"aspects a post, {name}"] = round(sum(map(len, found)) / number, 2)
        columns = {column: [row[column] for row in rows] for column in rows[0]}
        seconds = fastest(lambda: encode_posts(columns, processor, "mabsa", model.config.num_fusion_layers > 0))
        result[f"tokenising, core seconds a post, {name}"] = round(seconds / number, 7)
    with tempfile.TemporaryDirectory() as folder:
        save_posts(posts, Path(folder) / "posts.parquet")
        (chunk,) = cut([Path(folder) / "posts.parquet"], number)
        parts = Parts(Path(folder) / "out", ".parquet", SCHEMA, {}, count)
        answers = [{"id": row["id"], "aspects": aspects} for row, aspects in zip(rows, found)]

        def read_and_write():
            ChunkReader().read(chunk)
            parts.write(lambda _: Answered(answers), chunk)

        result["reading and writing, core seconds a post"] = round(fastest(read_and_write) / number, 7)
        result["bytes a post, Parquet"] = round(chunk.file.stat().st_size / number)
        result["bytes an answer, Parquet"] = round(parts.path(chunk).stat().st_size / number)
    for kind in ("text_rationale", "image_rationale"):
        prompt = load_prompt(kind)
        asked = [str(prompt.request(row["text"], b"").messages) for row in rows]
        result[f"prompt tokens, {kind}"] = round(statistics.mean(map(len, asked)) / CHARACTERS_A_TOKEN)
        written = [row[kind] for row in rows if row[kind]]
        result[f"answer tokens, {kind}"] = round(statistics.mean(map(len, written)) / CHARACTERS_A_TOKEN)
    return result


def fastest(work, times: int = 7) -> float:
    """Processor seconds of the fastest run."""
    seconds = []
    for _ in range(times):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


# --- the plan


def stages(measured: dict[str, Any], posts: int) -> dict[str, float]:
    """Accelerator seconds of each stage; of reading and tokenising, core seconds."""
    rate = ASSUMED["operations a second"]
    kinds = ("text_rationale", "image_rationale")
    asked = sum(measured[f"prompt tokens, {kind}"] for kind in kinds) / ASSUMED["prompt tokens a second"]
    written = sum(measured[f"answer tokens, {kind}"] for kind in kinds) / ASSUMED["answer tokens a second"]
    steps = min(posts, LABELLED) * EPOCHS / 16
    learning = 16 * BACKWARD * measured["operations a post, LRSA"] / rate
    launches = ASSUMED["seconds a batch of prediction, besides operations"] / ASSUMED["posts a batch of prediction"]
    prepared = measured["tokenising, core seconds a post, student"]
    return {
        "rationalize": posts * (asked + written),
        "train": steps * (learning + ASSUMED["seconds a training step of 16 posts, besides operations"]),
        "predict, LRSA": posts * (measured["operations a post, LRSA"] / rate + launches),
        "predict, student": posts * (measured["operations a post, student"] / rate + launches),
        "read, tokenise, write": posts * (prepared + measured["reading and writing, core seconds a post"]),
    }


def plan(measured: dict[str, Any]) -> str:
    lines = [
        "| posts | rationales of all | training | prediction by LRSA | by a student | reading, tokenising, writing "
        "(one core) | with a student, all | its largest part |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for posts, name in SIZES.items():
        cost, few = stages(measured, posts), stages(measured, min(posts, SUBSET))
        path = {"rationales": few["rationalize"], "training": cost["train"], "prediction": cost["predict, student"]}
        path["reading"] = cost["read, tokenise, write"]
        times = [*cost.values(), sum(path.values())]
        lines.append(f"| {name} | {' | '.join(map(duration, times))} | {max(path, key=path.get)} |")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    for unit, size in (("years", 365 * DAY), ("days", DAY), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.1 else "< 0.1 s"


# --- what dying workers cost


def expected(chunks: int, seconds: float, workers: int, between_deaths: float, restart: float) -> float:
    """Seconds of a run: work, shared out; for each death half a chunk done again and a restart; and the last chunks.

    Args:
        seconds: of a chunk on one worker.
        between_deaths: mean seconds of a worker's life.
    """
    work = chunks * seconds
    deaths = work / between_deaths
    return (work + deaths * (seconds / 2 + restart)) / workers + seconds / 2


def simulate(chunks: int, seconds: float, workers: int, between_deaths: float, restart: float, seed: int = 0) -> float:
    """The same, played: workers take the next chunk, die at random, lose what they are at, and come back."""
    chance = random.Random(seed)
    free = [(0.0, worker) for worker in range(workers)]
    heapify(free)
    dies = [chance.expovariate(1 / between_deaths) for _ in range(workers)]
    left, end = chunks, 0.0
    while left:
        now, worker = heappop(free)
        left -= 1
        if now + seconds > dies[worker]:
            left += 1
            now = max(now, dies[worker]) + restart
            dies[worker] = now + chance.expovariate(1 / between_deaths)
        else:
            now += seconds
            end = max(end, now)
        heappush(free, (now, worker))
    return end


# Chunks of a thousand posts on cores, of rationales on accelerators; and chunks that are far too large.
RUNS = [
    (10_000, 10.0, 2, 3600.0, 60.0),
    (10_000, 800.0, 64, 6 * 3600.0, 300.0),
    (1_000, 8000.0, 64, 6 * 3600.0, 300.0),
]


def simulated() -> str:
    lines = [
        "| chunks | seconds each | workers | life of a worker | restart | no deaths | formula | simulated, 20 runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in RUNS:
        chunks, seconds, workers, life, restart = run
        played = statistics.mean(simulate(*run, seed) for seed in range(20))
        times = (chunks * seconds / workers, expected(*run), played)
        hours = " | ".join(f"{value / 3600:.2f} h" for value in times)
        lines.append(f"| {chunks:,} | {seconds:,.0f} | {workers} | {duration(life)} | {restart:.0f} s | {hours} |")
    return "\n".join(lines)


# --- the page


def inputs(measured: dict[str, Any]) -> str:
    lines = ["| measured | |", "|---|---|"]
    for name, value in measured.items():
        text = value if isinstance(value, str) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        lines.append(f"| {name} | {text} |")
    lines += ["", "| assumed | |", "|---|---|"]
    return "\n".join(lines + [f"| accelerator, {name} | {value:,g} |" for name, value in ASSUMED.items()])


def filled(page: str, measured: dict[str, Any]) -> str:
    """Returns the page with its tables computed anew."""
    for name, table in (("inputs", inputs(measured)), ("plan", plan(measured)), ("deaths", simulated())):
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{table}\n\n{m[2]}", page, flags=re.S
        )
    return page


def draw(measured: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=130)
    styles = {
        "rationalize": ("#c0392b", "-", "rationales of all posts, 7B model"),
        "predict, LRSA": ("#1f5f8b", "-", "prediction by LRSA"),
        "predict, student": ("#5fa8d3", "-", "prediction by a student"),
        "read, tokenise, write": ("#7f8c8d", "--", "reading, tokenising, writing, one core"),
        "train": ("#2e8b57", ":", f"training, at most {LABELLED:,} labelled posts"),
    }
    for stage, (colour, line, label) in styles.items():
        hours = [stages(measured, posts)[stage] / 3600 for posts in SIZES]
        axes.loglog(list(SIZES), hours, line, color=colour, linewidth=2, label=label)
    low, high = min(SIZES), max(SIZES)
    for days, text in ((1, "a day on one"), (100, "a day on a hundred")):
        axes.axhline(24 * days, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.text(low, 24 * days * 1.15, text, fontsize=8, color="#777777")
    axes.set_xlabel("posts")
    axes.set_ylabel("hours of one accelerator, or of one core")
    axes.set_xlim(low, high)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PLOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("measure", "plan"))
    parser.add_argument("models", nargs="*", help="of measure: folders of a student and of LRSA")
    args = parser.parse_args()
    if args.step == "measure":
        MEASURED.write_text(json.dumps(measure(*args.models), indent=2) + "\n")
        return
    measured = json.loads(MEASURED.read_text())
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")
    draw(measured)


if __name__ == "__main__":
    main()
