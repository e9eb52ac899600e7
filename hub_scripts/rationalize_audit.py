"""`lrsa rationalize audit`: what rationales hold, and whether gold labels leaked into them."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from processing import PostError
from processing.rationales.audit.plots import draw
from processing.rationales.audit.posts import read_rationales
from processing.rationales.audit.report import BUDGET, FAULTS, audit_rationales
from processing.rationales.audit.verdicts import SIGNS
from processing.rationales.prompts import load_prompt
from processing.writing import whole_file, writable_folder, write_whole

from .terminal import positive


FAULT_NAMES = {
    "refusals": "refusals",
    "truncated": "cut off",
    "duplicated": "same at different texts",
    "like_an_example": "repeat an example",
}


def audit(argv: list[str]) -> int:
    args = parse(argv)
    place = Path(args.rationales)
    stem = place.resolve() if place.name in ("", "..") else place if place.is_dir() else place.with_suffix("")
    output = Path(args.output or f"{stem}.audit")
    posts = read_rationales(args.rationales)
    examples = [example.answer for prompt in args.prompt for example in load_prompt(prompt).examples]
    writable_folder(output)
    report = audit_rationales(posts, examples, args.budget, args.reader_accuracy)
    for kind, figures in report["kinds"].items():
        print("\n".join(table(kind, figures, report["budget"])) + "\n")
    for verdict in report["verdicts"]:
        print(f"{verdict['level']}: {verdict['kind']}: {verdict['text']}")
    try:
        pictures = draw(report)
    except ImportError as error:
        pictures = {}
        print(f"\nNo plots: {error}")
    try:
        write_whole(output / "audit.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        for name, picture in pictures.items():
            with whole_file(output / f"{name}.png") as file:
                file.buffer.write(picture)
    except OSError as error:
        raise PostError(f"{output}: can't be written to ({error.strerror}); choose another place.") from error
    print(f"\nFigures: {output}/audit.json" + "".join(f", {output}/{name}.png" for name in pictures))
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lrsa rationalize audit",
        description="Tells what the rationales of posts hold, and whether gold labels leaked into them.",
        epilog="docs/audit.md tells what each figure means, and when a leak is suspected.",
    )
    parser.add_argument("rationales", help="file of posts, folder of splits, or folder that `datasets` saved")
    parser.add_argument("--output", help="folder for audit.json and the plots (default: beside the rationales)")
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        help="prompt that they were written with, a name or a file; its examples should not be repeated",
    )
    parser.add_argument("--budget", type=positive, default=BUDGET, help="words of a rationale (default: %(default)s)")
    parser.add_argument(
        "--reader-accuracy",
        type=share,
        metavar="PERCENT",
        help="polarities that the same writer finds when asked for them: a leak is then more than that",
    )
    return parser.parse_args(argv)


def share(text: str) -> float:
    percent = float(text)
    if not 0 < percent < 100:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 100")
    return percent / 100


def table(kind: str, figures: Mapping[str, Any], budget: int) -> Iterator[str]:
    splits = figures["splits"]
    width = max(map(len, SIGNS.values())) + 1
    rows: dict[str, list[str]] = {kind.replace("_", " "): list(splits)}
    rows["posts"] = [f"{split['posts']:,}" for split in splits.values()]
    rows["with a rationale"] = [percent(split["coverage"]) for split in splits.values()]
    if any(split["rationales"] for split in splits.values()):
        words = [split["words"] for split in splits.values()]
        rows["words, mean"] = [f"{w['mean']:.1f}" if w else "–" for w in words]
        rows["words, median"] = [f"{w['quantiles']['0.5']:.0f}" if w else "–" for w in words]
        rows["words, most"] = [f"{w['quantiles']['1.0']:.0f}" if w else "–" for w in words]
        rows[f"beyond {budget} words"] = [percent(split["beyond_budget"]["rate"]) for split in splits.values()]
        rows["empty"] = [f"{split['empty']:,}" for split in splits.values()]
        for fault in FAULTS:
            rows[FAULT_NAMES[fault]] = [f"{split[fault]:,}" for split in splits.values()]
        rows["language"] = [language(split["languages"]) for split in splits.values()]
        rows["gold aspects that are named"] = [percent(split["aspects"]["rate"]) for split in splits.values()]
        for sign, words in SIGNS.items():
            rows[words] = [percent(split["rates"][sign]["rate"]) for split in splits.values()]
        agreements = [figures["agreement"].get(split) for split in splits]
        rows["named polarity is gold"] = [f"{a['right']} of {a['rationales']}" if a else "–" for a in agreements]
        leaks = [figures["leak_test"].get(split) for split in splits]
        for name, words in (
            ("text", "text"),
            ("rationale", "rationale"),
            ("masked", "the same without polarity words"),
        ):
            rows[f"polarity found, {words}"] = [
                percent((leak["from_train"] or leak["within"])[name][0]) if leak else "–" for leak in leaks
            ]
    for name, cells in rows.items():
        yield f"{name:{width}}" + "".join(f"{cell:>16}" for cell in cells)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def language(counts: Mapping[str, int]) -> str:
    most = max(counts, key=counts.get, default=None)
    return f"{most} {100 * counts[most] / sum(counts.values()):.0f} %" if most else "–"
