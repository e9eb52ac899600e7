"""What the commands read and print besides posts and models. Imports no torch."""

import argparse
import os
import sys
from pathlib import Path

import datasets
import yaml
from transformers.utils import logging

from processing import PostError


def show_progress() -> bool:
    """Whether there is a terminal to show progress bars on, and this process is the one of its machine that speaks;
    else those of the libraries are off.
    """
    shown = sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"
    if not shown:
        datasets.disable_progress_bars()
        logging.disable_progress_bar()
    return shown


def read_recipe(path: str) -> dict:
    """Reads a recipe: a flat YAML or JSON mapping of argument names to values.

    Raises:
        PostError: names file, line and what is wrong.
    """
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


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
