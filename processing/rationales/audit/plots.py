"""Draws the figures of an audit."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from textwrap import fill
from typing import Any

from ...colours import COLOURS
from .posts import KINDS
from .verdicts import SIGNS


INPUT_NAMES = {"text": "text", "rationale": "rationale", "masked": "rationale without\npolarity words"}


def draw(report: Mapping[str, Any]) -> dict[str, bytes]:
    """Draws three pictures: how many posts have rationales and how long these are; how often they name polarities and
    aspects; and the leak test.

    Args:
        report: what `audit_rationales` returns.

    Returns:
        PNG files by name: `coverage`, `rates` and `leak_test`. Kinds without any rationale are left out, the leak test
        where there are too few labels.

    Raises:
        ImportError: Matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need Matplotlib: pip install lrsa[audit]") from error
    kinds = report["kinds"]
    there = [kind for kind in KINDS if any(split["rationales"] for split in kinds[kind]["splits"].values())]
    plots: dict[str, tuple[list[str], Callable, float]] = {
        "coverage": (there, _draw_coverage, 2.4),
        "rates": (there, _draw_rates, 3.6),
        "leak_test": ([kind for kind in there if kinds[kind]["leak_test"]], _draw_leak_test, 3.2),
    }
    pictures = {}
    for name, (drawn, draw_kind, height) in plots.items():
        if not drawn:
            continue
        figure = Figure(figsize=(10, height * len(drawn)), layout="constrained")
        for kind, axes in zip(drawn, figure.subplots(len(drawn), 2, squeeze=False)):
            draw_kind(axes, kinds[kind], report)
            axes[0].set_title(kind.replace("_", " "), loc="left", fontweight="bold")
        for ax in figure.axes:
            ax.spines[["top", "right"]].set_visible(False)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        pictures[name] = buffer.getvalue()
    return pictures


def _draw_coverage(axes, figures: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    splits, boxes = figures["splits"], []
    for place, split in enumerate(splits.values()):
        axes[0].barh(place, 100 * split["coverage"], color=COLOURS[0], alpha=0.4)
        axes[0].text(2, place, f"{split['rationales']:,} of {split['posts']:,}", va="center")
        shares = split["words"]["quantiles"] if split["words"] else {}
        low, first, middle, third, high = (
            shares.get(q, float("nan")) for q in ("0.05", "0.25", "0.5", "0.75", "0.95")
        )
        boxes.append({"whislo": low, "q1": first, "med": middle, "q3": third, "whishi": high})
    axes[0].set(xlim=(0, 100), xlabel="posts with a rationale, %")
    style = {"boxprops": {"facecolor": COLOURS[0], "alpha": 0.4}, "medianprops": {"color": "black"}}
    axes[1].bxp(boxes, range(len(splits)), orientation="horizontal", showfliers=False, patch_artist=True, **style)
    axes[1].axvline(report["budget"], color=COLOURS[1], linestyle="--", label=f"budget of {report['budget']} words")
    axes[1].set(xlim=(0, None), xlabel="words of a rationale: 5, 25, 50, 75 and 95 %")
    axes[1].legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    for ax in axes:
        ax.set_yticks(range(len(splits)), list(splits))
        ax.invert_yaxis()


def _draw_rates(axes, figures: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    splits = figures["splits"]
    for ax, of_aspects in zip(axes, (False, True)):
        signs = [sign for sign in SIGNS if sign.startswith("gold_aspects") == of_aspects]
        signs = [sign for sign in signs if any(split["rates"][sign]["of"] for split in splits.values())]
        if not signs:
            ax.set_axis_off()
            continue
        for index, (name, split) in enumerate(splits.items()):
            rates = [split["rates"][sign] for sign in signs]
            shares = [[rate["rate"], rate["low"], rate["high"]] if rate["of"] else None for rate in rates]
            _draw_shares(ax, shares, index, len(splits), name)
        ax.set_yticks(range(len(signs)), [fill(SIGNS[sign], 26) for sign in signs])
        ax.set(xlim=(0, None), ylim=(len(signs) - 0.5, -0.5), xlabel="rationales, % (interval of 95 %)")
    series = axes[0].get_legend_handles_labels()
    axes[1].legend(
        *series, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(splits), borderaxespad=0
    )


def _draw_leak_test(axes, figures: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    leaks = figures["leak_test"]
    for ax, learned in zip(axes, ("from_train", "within")):
        shown = {split: leak for split, leak in leaks.items() if leak[learned]}
        if not shown:
            ax.set_axis_off()
            continue
        for index, (name, label) in enumerate(INPUT_NAMES.items()):
            _draw_shares(ax, [leak[learned][name] for leak in shown.values()], index, len(INPUT_NAMES), label)
        for place, leak in enumerate(shown.values()):
            label = "most frequent polarity" if place == 0 else None
            ax.plot([100 * leak["majority"]] * 2, [place - 0.35, place + 0.35], ":", color="black", label=label)
        ax.set_yticks(range(len(shown)), list(shown))
        where = "learned from train" if learned == "from_train" else "learned within the split, in 5 folds"
        ax.set(xlim=(0, 100), xlabel=f"polarity found by a bag of words, %\n{where}")
        ax.invert_yaxis()
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_shares(ax, shares: Sequence[Sequence[float] | None], index: int, count: int, label: str) -> None:
    """Draws `[share, low, high]` as points with intervals, one a row, as the `index`-th of `count` series."""
    drawn = [(place, share) for place, share in enumerate(shares) if share]
    ax.errorbar(
        [100 * share for _, (share, _, _) in drawn],
        [place + (index - (count - 1) / 2) * 0.2 for place, _ in drawn],
        xerr=[
            [100 * (share - low) for _, (share, low, _) in drawn],
            [100 * (high - share) for _, (share, _, high) in drawn],
        ],
        fmt="o",
        color=COLOURS[index % len(COLOURS)],
        capsize=2,
        clip_on=False,
        label=label,
    )
