"""Runs the cells of a suite that have no result yet, several at a time, each in a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from processing import PostError
from processing.writing import writable_folder

from .cell import RUNNING, Running, claim, result_path
from .result_file import DamagedResult, read_result
from .suite import Cell, Suite


@dataclass(frozen=True)
class Places:
    """Folders of the data sets, of the results, and of what a run needs meanwhile."""

    data_root: Path
    results: Path = Path("benchmarks/results")
    runs: Path = Path("runs/benchmark")


def state_of(suite: Suite, cell: Cell, places: Places) -> tuple[str, dict[str, Any] | None]:
    """Returns whether a cell is `done`, `half-written`, `running` or `to do`, and its result if it is done.

    Raises:
        PostError: the result was made with other arguments or data than those of the suite.
    """
    path = result_path(places.results, cell)
    state = "to do"
    try:
        if (result := read_result(path)) is not None:
            check_result(suite, cell, path, result)
            return "done", result
    except DamagedResult:
        state = "half-written"
    if path.parent.is_dir():
        try:
            with claim(path):
                pass
        except Running:
            state = "running"
    return state, None


def check_result(suite: Suite, cell: Cell, path: Path, result: dict[str, Any]) -> None:
    """Raises PostError where a result is of another run than that of the suite."""
    made = result["arguments"]
    for name in made.keys() | cell.arguments.keys():
        if made.get(name) != cell.arguments.get(name):
            raise PostError(f"{path}: was made with {name} {made.get(name)!r}, {suite.path} now says "
                            f"{cell.arguments.get(name)!r}; delete the file to run it again.")  # fmt: skip
    for split, expected in suite.datasets[cell.dataset].items():
        if result["data"][split] != expected:
            raise PostError(f"{path}: was made with other {split} posts than {suite.path} now expects; delete the "
                            "file to run it again.")  # fmt: skip


def run_cells(
    suite: Suite, cells: list[Cell], places: Places, processes: int = 1, keep_models: bool = False, bar: bool = False
) -> dict[Cell, str]:
    """Runs the cells without a result, and says of each how it went.

    Args:
        processes: how many run at a time. Threads are divided among them, and GPUs where there are some: each process
            has one, by way of accelerate's launcher.
        bar: whether to show a progress bar.

    Returns:
        What is to be said of the cells that still have no result.
    """
    left = {}
    todo = []
    for cell in cells:
        state, _ = state_of(suite, cell, places)
        if state == "half-written":
            print(f"{result_path(places.results, cell)}: is half-written, of a run that was killed; it is run again.")
        if state != "done":
            todo.append(cell)
    for folder in (places.results, places.runs):
        writable_folder(folder)
    print(f"{suite.name}: {len(cells) - len(todo)} of {len(cells)} runs have their result, {len(todo)} to do.")
    for done, (cell, problem, minutes) in enumerate(_finished(suite, todo, places, processes, keep_models, bar), 1):
        if problem is not None:
            left[cell] = problem
            told = problem
        else:
            _, result = state_of(suite, cell, places)
            told = f"validation JMASA F1 {result['scores']['validation']['jmasa_f1']:.2f}, {minutes:.0f} min"
        tqdm.write(f"[{done}/{len(todo)}] {cell}: {told}")
    return left


def _finished(suite, todo, places, processes, keep_models, bar) -> Iterator[tuple[Cell, str | None, float]]:
    waiting, running = list(todo), {}
    free = list(range(processes))
    with tqdm(total=len(todo), desc=suite.name, unit="run", disable=not bar) as progress:
        try:
            while waiting or running:
                while waiting and free:
                    cell, worker = waiting.pop(0), free.pop(0)
                    running[worker] = (
                        cell,
                        time.monotonic(),
                        start(suite, cell, places, worker, processes, keep_models),
                    )
                for worker, (cell, started, process) in list(running.items()):
                    if (code := process.poll()) is None:
                        continue
                    del running[worker]
                    free.append(worker)
                    progress.update()
                    yield cell, _problem(cell, code, places), (time.monotonic() - started) / 60
                time.sleep(0.1)
        finally:
            for _, _, process in running.values():
                process.terminate()
            for _, _, process in running.values():
                process.wait()


def log_path(places: Places, cell: Cell) -> Path:
    return places.runs / f"{cell.place}.log"


def _problem(cell: Cell, code: int, places: Places) -> str | None:
    """Returns what is to be said of a process that ended; `None` if all went well, and its log is deleted."""
    log = log_path(places, cell)
    if code == 0:
        log.unlink(missing_ok=True)
        return None
    if code == RUNNING:
        log.unlink(missing_ok=True)
        return "another run is at it; it is left to that one."
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"failed: {said[-1] if said else f'exit code {code}'} ({log})"


def start(
    suite: Suite, cell: Cell, places: Places, worker: int, processes: int, keep_models: bool
) -> subprocess.Popen:
    """Starts the process of a cell, which writes to a log."""
    command = ["-m", "benchmarks.cell", str(suite.path), f"{cell.name}/seed{cell.seed}"]
    for name in ("data_root", "results", "runs"):
        command += [f"--{name.replace('_', '-')}", str(getattr(places, name))]
    if keep_models:
        command.append("--keep-models")
    if gpus := torch.cuda.device_count():
        launch = [
            "accelerate.commands.launch",
            "--num_processes",
            "1",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
        ]
        command = ["-m", *launch, "--dynamo_backend", "no", "--gpu_ids", str(worker % gpus), *command]
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "warning"}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    log = log_path(places, cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as output:
        return subprocess.Popen(
            [sys.executable, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
