"""Runs one cell of a suite: trains without sight of the test split, scores it once, and writes the result.

python -m benchmarks.cell SUITE.yaml CELL/seedK --data-root DIR --results DIR --runs DIR [--keep-model]
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset
from filelock import FileLock, Timeout
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.arguments import Arguments, parse_arguments
from modeling_lrsa.loading import load_model
from modeling_lrsa.model_card import read_json
from modeling_lrsa.predictor import predict_posts, prepare_for_model
from modeling_lrsa.training import train
from modeling_lrsa.training_posts import load_split
from modeling_lrsa.training_record import device, versions
from processing import LRSAProcessor
from processing.chosen_inputs import keep_inputs
from processing.posts import gold_aspects, split_files
from processing.writing import whole_folder

from .result_file import (
    LESSONS,
    TEACHERS,
    UNLABELLED,
    VERSION,
    DamagedResult,
    pack_predictions,
    plain,
    read_result,
    score,
    write_result,
)
from .suite import Cell, Suite, read_suite


CODE = ("modeling_lrsa", "processing", "benchmarks/*.py")
OF_THE_MACHINE = ("data", "images", "output_dir", "run_name", "logging_dir", "teacher", "unlabelled")
BUSY = "another run is at it"


class Running(Exception):
    """Another run is at this result."""


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Keeps other runs from a result, or from the folder of a run, by a lock that ends with the process.

    Raises:
        Running: another run has claimed it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.stem}.lock"), timeout=1):  # who only asks for the state lets go at once
            yield
    except Timeout as error:
        raise Running from error


def run_cell(
    suite: Suite, cell: Cell, data_root: Path, results: Path, runs: Path, keep_model: bool = False
) -> dict[str, Any]:
    """Trains and scores one cell, unless its result is there, and writes the result.

    What a killed run has left is thrown away; a model that an earlier run kept stays until the new one is whole.

    Args:
        data_root: folder of the data sets.
        results: folder of the results.
        runs: folder of what a run needs meanwhile, and of models that are kept.
        keep_model: whether the model stays, in `model` of the run's folder; it is trained again where the result is
            there already, and it is not.

    Returns:
        What the result file holds.

    Raises:
        Running: another run is at it.
        PostError: what `lrsa train` raises, or the data are not those that the suite was written for.
    """
    path, run, data = result_path(results, cell), runs / cell.place, data_root / cell.dataset
    training = run / "training"
    with claim(path), claim(run.with_name(f"{run.name}-run")):
        try:
            former = read_result(path)
        except DamagedResult:
            former = None
        if former is not None and (is_model_of(suite, cell, run / "model") or not keep_model):
            return former
        remove_leftovers(path, training)
        code, taught_by = commit(), teacher_scores(suite, cell, runs)
        hashes = {split: suite.check_split(data_root, cell.dataset, split) for split in ("train", "validation")}
        seconds = {}
        with stopwatch(seconds, "train"):
            others = {name: suite.check_split(data_root, name, "train") for name in suite.unlabelled_sets(cell)}
            unlabelled = [str(split_files(data_root / name, "train")["train"]) for name in others]
            arguments, trained = train_cell(cell, data, training, teacher_folders(suite, cell, runs), unlabelled)
        if former is not None:
            keep(training, run)
            return former
        model, processor = load_model(str(training / "model"))
        model.to(arguments[2].device)
        scores, predictions = {}, {}
        for split in ("validation", "test"):
            hashes[split] = suite.check_split(data_root, cell.dataset, split)
            posts = load_split(replace(arguments[1], data=str(data)), split)
            prepare_for_model(model, processor, posts, lexicon=arguments[1].lexicon)  # the cache may be empty
            with stopwatch(seconds, split):
                scores[split], predictions[split] = score_split(model, processor, posts, arguments)
        for kept in suite.inputs:
            part = f"test, {' + '.join(kept).replace('_', ' ') or 'text alone'}"
            scores[part], predictions[part] = score_split(model, processor, keep_inputs(posts, kept), arguments)
        result = {
            "version": VERSION,
            "suite": cell.suite,
            "cell": cell.name,
            "seed": cell.seed,
            "dataset": cell.dataset,
            "baseline": cell.baseline,
            "arm": cell.arm,
            "arguments": cell.arguments,
            "configuration": configuration(arguments),
            "data": hashes,
            "commit": code,
            "versions": versions(),
            "device": device(arguments[2]),
            "seconds": seconds,
            "peak_memory_mb": peak_memory(),
            "scores": scores,
            "predictions": predictions,
        }
        if others:
            result[UNLABELLED] = others
        if lessons := suite.lessons_of(cell):
            result[LESSONS] = lessons
            result[TEACHERS] = taught_by
        result |= {name: trained[name] for name in ("parameters", "best_step")}
        result["curve"] = [rounded(entry, "eval_") for entry in trained["curve"]]
        result["gates"] = rounded(trained["gates"])
        write_result(path, result)
        if keep_model:
            keep(training, run)
        else:
            shutil.rmtree(training)
        return result


def is_model_of(suite: Suite, cell: Cell, model: Path) -> bool:
    """Returns whether a folder is there and holds the model that the suite, as it is now, makes of a cell."""
    record = read_json(model.resolve().with_name("results.json")) if model.is_dir() else {}
    return record.get("seed") == cell.seed and suite.has_made(cell, record)


def result_path(results: Path, cell: Cell) -> Path:
    return results / f"{cell.place}.json"


def remove_leftovers(path: Path, training: Path) -> None:
    """Removes what a killed run left: its folder, and a result file that it had not finished."""
    shutil.rmtree(training, ignore_errors=True)
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink()


def keep(training: Path, run: Path) -> None:
    """Moves a trained model, and the record of its training, to the folder of the run."""
    (training / "results.json").replace(run / "results.json")
    with whole_folder(run / "model") as model:
        (training / "model").rename(model)
    shutil.rmtree(training)


def teacher_folders(suite: Suite, cell: Cell, runs: Path) -> list[str]:
    """Returns the folders of the models that a cell learns from."""
    known = suite.teachers_of(cell)
    return [
        folder
        for name in cell.given_teachers
        for folder in ([str(runs / one.place / "model") for one in known[name]] if name in known else [name])
    ]


def teacher_scores(suite: Suite, cell: Cell, runs: Path) -> dict[str, float]:
    """Returns the validation JMASA F1 of each model that a cell learns from: one trained again may have another."""
    scores = {}
    for teachers in suite.teachers_of(cell).values():
        for one in teachers:
            record = (runs / one.place / "model").resolve().with_name("results.json")
            scores[f"{one.name}/seed{one.seed}"] = round(json.loads(record.read_text())["validation"]["jmasa_f1"], 4)
    return scores


def train_cell(
    cell: Cell, data: Path, run: Path, teachers: Sequence[str] = (), unlabelled: Sequence[str] = ()
) -> tuple[Arguments, dict[str, Any]]:
    """Trains a cell and saves its model to `model` in the folder of the run.

    Training gets a folder in which links to the train and the validation split lie, and no other: it selects by what
    it sees.

    Returns:
        The arguments, parsed, and what `train` returns.
    """
    seen = run / "data"
    seen.mkdir(parents=True)
    for split in ("train", "validation"):
        file = split_files(data, split)[split]
        (seen / file.name).symlink_to(file.resolve())
    given = cell.arguments | {"data": str(seen), "images": str(data / "images")}
    given |= {"output_dir": str(run), "seed": cell.seed}
    if teachers:
        given["teacher"] = list(teachers)
    if unlabelled:
        given["unlabelled"] = list(unlabelled)
    arguments = parse_arguments(given)
    return arguments, train(*arguments)


def score_split(
    model: LRSAForMABSA, processor: LRSAProcessor, posts: Dataset, arguments: Arguments
) -> tuple[dict[str, float], dict[str, Any]]:
    """Returns the scores and the packed predictions of the posts of a split."""
    _, reading, training = arguments
    batch_size, beams = training.per_device_eval_batch_size, training.generation_num_beams or 1
    joint, classified = (
        plain(predict_posts(model, processor, posts, task, batch_size, beams, lexicon=reading.lexicon))
        for task in ("mabsa", "masc")
    )
    gold = plain(gold_aspects(posts))
    return score(joint, classified, gold), pack_predictions(posts["id"], joint, classified, gold)


def rounded(values: dict[str, float], prefix: str = "") -> dict[str, float]:
    return {
        name.removeprefix(prefix): round(value, 4)
        for name, value in values.items()
        if not name.endswith(("runtime", "per_second"))
    }


@contextmanager
def stopwatch(seconds: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Notes how many seconds of the clock and of the processors pass."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    seconds[name] = {
        "wall": round(time.perf_counter() - wall, 2),
        "processor": round(time.process_time() - processor, 2),
    }


def configuration(arguments: Arguments) -> dict[str, Any]:
    """Returns all arguments with their values, defaults too, without paths and without those that are not given."""
    model, reading, training = arguments
    values = asdict(model) | asdict(reading) | training.to_sanitized_dict()
    return {name: v for name, v in values.items() if name not in OF_THE_MACHINE and v not in (None, "None", "", [])}


def commit() -> str | None:
    """Returns the commit of the code, with a + where what runs differs from it; `None` outside of its repository."""
    package = Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(package)]
    try:
        done = subprocess.run(
            [*git, "rev-parse", "--show-toplevel", "HEAD"], capture_output=True, text=True, check=True
        )
        root, head = done.stdout.splitlines()
        if Path(root).resolve() != package:
            return None
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *CODE], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * (changed.returncode == 1)


def peak_memory() -> dict[str, int]:
    """Returns the most memory that this process has held, in MB, and that of its GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 10**6}
    if torch.cuda.is_initialized():
        found["device"] = torch.cuda.max_memory_allocated() // 10**6
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("place", metavar="CELL/seedK")
    for name in ("data-root", "results", "runs"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--keep-model", action="store_true")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    try:
        suite = read_suite(args.suite)
        (cell,) = suite.cells(args.place)
        run_cell(suite, cell, args.data_root, args.results, args.runs, args.keep_model)
    except Running:
        print(f"error: {BUSY}", file=sys.stderr)
        return 2
    except (ValueError, TypeError, OSError, StrictDataclassError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
