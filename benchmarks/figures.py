"""Draws the figures of a suite: of its results, and of what `count_errors` found in them."""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from processing import PostError
from processing.colours import COLOURS
from processing.indexing_lrsa import DEFAULT_LABELS
from processing.writing import whole_path

from .rows import Row, with_names
from .significance import micro_f1


LENGTHS = ("1 word", "2 words", "3 words or more")
FEW = 20  # aspects, too few for a share of them


def draw(rows: list[Row], errors: Mapping[str, Any]) -> dict[str, bytes]:
    """Draws one panel for each data set and baseline.

    Args:
        rows: the results of a suite.
        errors: what `count_errors` returns for them.

    Returns:
        PNG files by name: `curves`, `slices`, `confusion`, `gates` (where there are any) and `calibration`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PostError("Figures need Matplotlib: pip install lrsa[audit]") from error
    places: dict[str, list[Row]] = {}
    for row in rows:
        places.setdefault(with_names(f"{row.dataset}, {row.baseline}"), []).append(row)
    arms = list(dict.fromkeys(row.arm for row in rows))
    colours = {arm: COLOURS[index % len(COLOURS)] for index, arm in enumerate(arms)}

    def panels(shown: Mapping[str, list[Row]], draw_panel: Callable, width: float, height: float, **shared) -> bytes:
        columns = min(2, len(shown))
        lines = -(-len(shown) // columns)
        figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False, **shared)
        for ax in axes.flat[len(shown) :]:
            ax.set_axis_off()
        for ax, (place, found) in zip(axes.flat, shown.items()):
            ax.set_title(place, loc="left", fontweight="bold", fontsize=10)
            ax.spines[["top", "right"]].set_visible(False)
            draw_panel(ax, found, errors["rows"], colours)
        handles = {text: handle for ax in axes.flat for handle, text in zip(*ax.get_legend_handles_labels())}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
        return png(figure)

    pictures = {
        "curves": panels(places, draw_curves, 5, 3.2),
        "slices": panels(places, draw_slices, 6, 3.2, sharey=True),
        "confusion": draw_confusion(Figure, places, arms, errors["rows"]),
        "calibration": panels(places, draw_calibration, 4.2, 3.8, sharey=True),
    }
    if any(run["gates"] for row in rows for run in row.runs.values()):
        pictures["gates"] = draw_gates(Figure, places, colours)
    return pictures


def png(figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def counts_of_row(errors: Mapping[str, Any], row: Row) -> Mapping[str, Any]:
    return errors[f"{row.dataset}-{row.baseline}-{row.arm}"]


def draw_curves(ax, rows: list[Row], errors: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Validation JMASA F1 by epoch: mean over seeds, and a band of a standard deviation; the first may lie outside."""
    bottom = []
    for row in rows:
        curves = [{entry["epoch"]: entry["jmasa_f1"] for entry in run["curve"]} for run in row.runs.values()]
        epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
        mean, spread = values.mean(0), values.std(0, ddof=len(values) > 1)
        ax.plot(epochs, mean, color=colours[row.arm], label=row.arm, marker=".")
        ax.fill_between(epochs, mean - spread, mean + spread, color=colours[row.arm], alpha=0.15, linewidth=0)
        bottom.append((mean - spread)[1:].min(initial=mean[-1]))
    ax.set(xlabel="epoch", ylabel="validation JMASA F1")
    ax.set_ylim(bottom=min(bottom) - 1)


def draw_slices(ax, rows: list[Row], errors: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Test JMASA F1 by polarity and by length of the span: mean and standard deviation over seeds."""
    names, gold = [*DEFAULT_LABELS, *LENGTHS], {}
    for index, row in enumerate(rows):
        slices = counts_of_row(errors, row)["slices"]
        there = [name for name in names if name in slices]
        scores = [[micro_f1(np.array(counts)) for counts in slices[name]] for name in there]
        gold |= {name: slices[name][0][2] for name in there}
        places = np.array([names.index(name) for name in there]) + 0.2 * (index - (len(rows) - 1) / 2)
        ax.errorbar(
            places,
            np.mean(scores, axis=1),
            np.std(scores, axis=1, ddof=len(row.runs) > 1),
            fmt="o",
            capsize=3,
            color=colours[row.arm],
            label=row.arm,
        )
    ax.axvline(len(DEFAULT_LABELS) - 0.5, color="grey", linewidth=0.8)
    ax.grid(axis="y", linewidth=0.4)
    labels = [f"{name.replace(' or more', '+')}\n({gold.get(name, 0)})" for name in names]
    ax.set_xticks(range(len(names)), labels, fontsize=8)
    ax.set(ylabel="test JMASA F1")


def draw_calibration(ax, rows: list[Row], errors: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """How many aspects of each tenth of `score` are right, against their mean score; larger points hold more."""
    ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for row in rows:
        bins = np.array(counts_of_row(errors, row)["bins"])
        number, scores, right = bins[bins[:, 0] >= FEW].T
        ax.plot(scores / number, right / number, color=colours[row.arm], label=row.arm)
        ax.scatter(scores / number, right / number, 200 * number / bins[:, 0].sum(), color=colours[row.arm], alpha=0.6)
    ece = "\n".join(
        f"ECE {row.arm}: {100 * calibration_error(counts_of_row(errors, row)['bins']):.1f} %" for row in rows
    )
    ax.text(0.03, 0.97, ece, transform=ax.transAxes, va="top", fontsize=8)
    ax.set(xlabel="mean score", ylabel="share right", xlim=(0, 1), ylim=(0, 1))


def calibration_error(bins: list[list[float]]) -> float:
    """Returns the expected calibration error (Naeini et al., AAAI 2015) over equal bins of `score`, in [0, 1]."""
    total = sum(number for number, *_ in bins)
    return sum(abs(scores - right) for _, scores, right in bins) / total if total else 0.0


def draw_gates(figure_class, places: Mapping[str, list[Row]], colours: Mapping[str, str]) -> bytes:
    """Mean absolute gate of each stream and fusion layer, a point a seed: a panel a gate."""
    points: dict[str, list[tuple[float, float, str]]] = {}
    for place, rows in enumerate(places.values()):
        gated = [row for row in rows if any(run["gates"] for run in row.runs.values())]
        for index, row in enumerate(gated):
            for run in row.runs.values():
                for name, value in run["gates"].items():
                    aside = 0.2 * (index - (len(gated) - 1) / 2)
                    points.setdefault(name, []).append((place + aside, value, row.arm))
    figure = figure_class(figsize=(1.8 + 1.3 * len(places) * len(points), 3.2), layout="constrained")
    (axes,) = figure.subplots(1, len(points), squeeze=False, sharey=True)
    for ax, (name, found) in zip(axes, points.items()):
        for arm in colours:
            if mine := [(x, y) for x, y, other in found if other == arm]:
                ax.plot(*zip(*mine), "o", color=colours[arm], alpha=0.6, label=arm)
        parts = name.split(".")
        layer = next(int(part) for part in parts if part.isdigit())
        ax.set_title(f"{parts[-1]} stream, fusion layer {layer + 1}", loc="left", fontweight="bold", fontsize=10)
        ax.set_xticks(range(len(places)), [place.replace(", ", "\n") for place in places], fontsize=8)
        ax.set(xlim=(-0.5, len(places) - 0.5), ylim=(0, None))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("|gate|")
    handles, arms = axes[0].get_legend_handles_labels()
    figure.legend(handles, arms, loc="outside lower center", ncols=4, frameon=False)
    return png(figure)


def draw_confusion(figure_class, places: Mapping[str, list[Row]], arms: list[str], errors: Mapping[str, Any]) -> bytes:
    """Gold polarity against the one found on the exact span, in percent of the gold ones."""
    figure = figure_class(figsize=(2.6 * len(arms) + 1, 2.3 * len(places)), layout="constrained")
    axes = figure.subplots(len(places), len(arms), squeeze=False)
    columns = [*DEFAULT_LABELS, "-"]
    for line, (place, rows) in zip(axes, places.items()):
        by_arm = {row.arm: row for row in rows}
        for ax, arm in zip(line, arms):
            if arm not in by_arm:
                ax.set_axis_off()
                continue
            found = counts_of_row(errors, by_arm[arm])["confusion"]
            counts = np.array(
                [[found.get(gold, {}).get(name, 0) for name in columns] for gold in DEFAULT_LABELS], float
            )
            shares = 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))
            ax.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
            for (i, j), share in np.ndenumerate(shares):
                ax.text(j, i, f"{share:.0f}", ha="center", va="center", color="white" if share > 55 else "black")
            ax.set_title(f"{place}: {arm}", fontsize=8)
            ax.set_xticks(range(len(columns)), [*(name[:3] for name in DEFAULT_LABELS), "not found"], fontsize=8)
            ax.set_yticks(range(len(DEFAULT_LABELS)), [name[:3] for name in DEFAULT_LABELS], fontsize=8)
    figure.supxlabel("polarity found, % of the gold ones", fontsize=9)
    figure.supylabel("gold polarity", fontsize=9)
    return png(figure)


def write_figures(folder: Path, prefix: str, rows: list[Row], errors: Mapping[str, Any]) -> list[Path]:
    """Writes the figures to `PREFIX_NAME.png` in a folder. Returns their paths."""
    paths = []
    for name, picture in draw(rows, errors).items():
        path = folder / f"{prefix}_{name}.png"
        with whole_path(path) as fresh:
            fresh.write_bytes(picture)
        paths.append(path)
    return paths
