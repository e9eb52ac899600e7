"""The command line: `lrsa train | evaluate | predict`."""

import argparse
import json
import os
import sys
from pathlib import Path


COMMANDS = {
    "train": "train a model from a recipe and/or flags",
    "evaluate": "score a model on labelled posts",
    "predict": "find aspects and polarities in posts",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns 0, or 2 after bad input, which is told in one line."""
    parser = argparse.ArgumentParser(
        prog="lrsa",
        description="Multimodal aspect-based sentiment analysis with LLM-generated rationales.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
        + "\n\n`lrsa COMMAND --help` tells more.",
    )  # fmt: skip
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=" | ".join(COMMANDS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")

    from processing import PostError

    from . import commands

    if not sys.stderr.isatty():
        commands.hide_progress()
    try:
        getattr(commands, parsed.command)(parsed.arguments)
    except PostError as error:
        print(f"lrsa {parsed.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def read_recipe(path: str) -> dict:
    """Reads a recipe: a flat YAML or JSON mapping of argument names to values.

    Raises:
        PostError: names file, line and what is wrong.
    """
    import yaml

    from processing import PostError

    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PostError(f"{path}: no such recipe.") from error
    except UnicodeDecodeError as error:
        raise PostError(f"{path}: no UTF-8 ({error.reason}); save the file as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise PostError(f"{path}{line}: neither YAML nor JSON: {getattr(error, 'problem', error)}.") from error
    if not isinstance(recipe, dict):
        raise PostError(f"{path}: a mapping of argument names to values is expected.")
    return recipe


def print_scores(scores: dict[str, float], out=None) -> None:
    """Prints the scores of one model as a table, in percent."""
    print(f"{'':6} {'precision':>9} {'recall':>9} {'F1':>9}", file=out)
    for task in ("jmasa", "mate"):
        row = [scores[f"{task}_{name}"] for name in ("precision", "recall", "f1")]
        print(f"{task.upper():6} " + " ".join(f"{value:9.2f}" for value in row), file=out)
    names = {"masc_accuracy": "accuracy", "masc_macro_f1": "macro F1", "masc_weighted_f1": "weighted F1"}
    print("MASC   " + ", ".join(f"{text} {scores[name]:.2f}" for name, text in names.items()), file=out)


def dump_lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
