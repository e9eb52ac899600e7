"""What the commands read and print besides posts and models. Imports no torch."""

import argparse
import os
import sys

import datasets
from transformers.utils import logging


def show_progress() -> bool:
    """Whether there is a terminal to show progress bars on, and this process is the one of its machine that speaks;
    else those of the libraries are off.
    """
    shown = sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"
    if not shown:
        datasets.disable_progress_bars()
        logging.disable_progress_bar()
    return shown


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
