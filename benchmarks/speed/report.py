"""Tables and plots of docs/speed.md, made of the result file alone."""

import re
from pathlib import Path

from processing import PostError
from processing.colours import COLOURS
from processing.writing import write_whole

from .training import PARTS_OF_A_STEP


MARKED = re.compile(r"(<!-- speed (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOTHING = "Not measured."


def training_table(measured: dict) -> str:
    columns = [
        "form",
        "operations, billions",
        "share of the matrix rate",
        "time, × fusion off",
        "operations, × fusion off",
    ]
    lines = [
        [form, billions(cost["operations"]), percent(cost["rate"]), f"{cost['over']:.2f}", f"{cost['predicted']:.2f}"]
        for form, cost in measured.items()
    ]
    return table(columns, lines)


def step_table(measured: dict) -> str:
    lines = [
        [name, f"{cost['of_step']:.3f}", percent(cost["rate"]) if "rate" in cost else "–"]
        for name, cost in measured.items()
    ]
    return table(["part", "of the whole step's time", "share of the matrix rate"], lines)


def ways_table(measured: dict) -> str:
    return table(["way", "time, × float32"], [[name, f"{cost['over']:.2f}"] for name, cost in measured.items()])


def generation_table(measured: dict) -> str:
    columns = [
        "decoding",
        "operations, billions",
        "share of the matrix rate",
        "counting 274 billion",
        "time, × beam 4",
    ]
    lines = [
        [
            name,
            billions(cost["operations"]),
            percent(cost["rate"]),
            percent(cost["rate_as_counted"]) if "rate_as_counted" in cost else "–",
            f"{cost['over']:.2f}",
        ]
        for name, cost in measured.items()
    ]
    return table(columns, lines)


def serving_table(measured: dict) -> str:
    lines = [
        [name, f"{cost['posts_a_second']:.1f}", f"{cost['over']:.2f}"]
        for name, cost in measured.items()
        if "over" in cost
    ]
    loaded = f"\n`from_pretrained`: {measured['from_pretrained']['seconds']:.2f} s.\n"
    return table(["way", "posts a processor second", "time, × pipeline at batch 32"], lines) + loaded


def data_table(measured: dict) -> str:
    lines = [["posts tokenised a processor second", str(measured["tokenising"]["posts_a_second"])]]
    lines += [[f"padding, batches of 16 {name}", percent(share)] for name, share in measured["padding"].items()]
    return table(["", ""], lines)


def start_table(measured: dict) -> str:
    lines = [[f"`{name}`", f"{s['least_seconds']:.2f}", f"{s['seconds']:.2f}"] for name, s in measured.items()]
    return table(["process", "processor seconds, least", "median"], lines)


def memory_table(measured: dict) -> str:
    return table(["process", "peak memory, GB"], [[name, f"{size:.1f}"] for name, size in measured.items()])


def sweeps_table(measured: list[dict]) -> str:
    cached = "LRSA, cached states"
    columns = ["size", "value", "fusion off: share of the matrix rate", f"{cached}: share", "time, × fusion off"]
    lines = [
        [
            point["size"].replace("_", " "),
            str(point["value"]),
            percent(point["fusion off"]["rate"]),
            percent(point[cached]["rate"]),
            f"{point[cached]['over']:.2f}",
        ]
        for point in measured
    ]
    return table(columns, lines)


TABLES = {
    "training": training_table,
    "step": step_table,
    "ways": ways_table,
    "generation": generation_table,
    "serving": serving_table,
    "data": data_table,
    "start": start_table,
    "memory": memory_table,
    "sweeps": sweeps_table,
}


def conditions(part: dict) -> str:
    """On what a part was measured."""
    told = f"{part['device']}, {part['dtype']}, {part['threads']} thread(s), torch {part['torch']}"
    told += f", {part['turns']} turn(s)"
    if part["matrix_rate"]:
        median, least, most = part["matrix_rate"]
        told += f"; matrix products meanwhile: {median} GFLOP/s ({least} to {most})"
    return f"*{told}.*\n"


def render(text: str, result: dict) -> str:
    """Returns a document with what stands between `<!-- speed PART -->` and `<!-- end -->` made anew."""

    def fill(match: re.Match) -> str:
        opening, name, closing = match.groups()
        if name not in TABLES:
            raise PostError(f"There is no table {name!r}; known are {', '.join(TABLES)}.")
        part = result.get(name)
        made = NOTHING + "\n" if part is None else TABLES[name](part["measured"]) + "\n" + conditions(part)
        return f"{opening}\n{made}\n{closing}"

    return MARKED.sub(fill, text)


def write_document(result: dict, path: Path) -> None:
    write_whole(path, render(path.read_text(encoding="utf-8"), result))


def plot(result: dict, path: Path) -> None:
    """Draws how near each part comes to the machine's matrix products."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    bars = {f"step, {form}": cost["rate"] for form, cost in measured(result, "training").items()}
    step = measured(result, "step")
    bars |= {f"{name}": step[name]["rate"] for name in PARTS_OF_A_STEP if "rate" in step.get(name, {})}
    bars |= {f"generation, {name}": cost["rate"] for name, cost in measured(result, "generation").items()}
    figure, axes = pyplot.subplots(figsize=(8, 0.42 * len(bars) + 1))
    drawn = axes.barh(list(bars)[::-1], [100 * share for share in list(bars.values())[::-1]], color=COLOURS[0])
    axes.bar_label(drawn, fmt="%.0f %%", padding=3)
    axes.set_xlim(0, 110)
    axes.set_xlabel("operations a second, % of the rate of matrix products alone")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def measured(result: dict, part: str) -> dict:
    return result.get(part, {}).get("measured", {})


def table(columns: list[str], lines: list[list[str]]) -> str:
    rows = [columns, ["---"] * len(columns), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def billions(operations: float) -> str:
    return f"{operations / 1e9:.0f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
