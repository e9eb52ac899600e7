"""Runs the cells of a suite that have no result yet, several at a time, each in a process of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from processing import PostError
from processing.writing import writable_folder

from .cell import BUSY, Running, claim, is_model_of, result_path
from .result_file import DamagedResult, check_result, read_result, write_result
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
    found = _look(suite, cell, path)
    if found[0] != "done" and path.parent.is_dir():
        try:
            with claim(path):
                found = _look(suite, cell, path)  # a run may have ended while this waited for it
        except Running:
            return "running", None
    return found


def _look(suite: Suite, cell: Cell, path: Path) -> tuple[str, dict[str, Any] | None]:
    try:
        if (result := read_result(path)) is None:
            return "to do", None
    except DamagedResult:
        return "half-written", None
    check_result(suite, cell, path, result)
    return "done", result


def same_runs(suite: Suite, cell: Cell, places: Places) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields the files and contents of results whose run is that of a cell, in whatever suite.

    None for one with a teacher, whose name means another run elsewhere.
    """
    if teachers_of(suite, cell):
        return
    for path in sorted(places.results.glob(f"*/{cell.dataset}-*/seed{cell.seed}.json")):
        try:
            result = read_result(path)
            check_result(suite, cell, path, result)
        except (DamagedResult, PostError):
            continue
        yield path, result


def take_over(suite: Suite, cell: Cell, places: Places) -> bool:
    """Copies the result of the same run from another suite, if one has done it and scored what this one scores."""
    for path, result in same_runs(suite, cell, places):
        if suite.inputs or set(result["scores"]) != {"validation", "test"}:
            continue
        own = {"suite": cell.suite, "cell": cell.name, "baseline": cell.baseline, "arm": cell.arm}
        with suppress(Running), claim(result_path(places.results, cell)):
            write_result(result_path(places.results, cell), result | own)
            print(f"{cell}: the same run as {path}, taken over.")
            return True
    return False


def find_model(suite: Suite, cell: Cell, places: Places) -> bool:
    """Returns whether the model of a run is there. One that another suite kept of the same run is linked."""
    model = model_path(places, cell)
    if is_model_of(suite, cell, model):
        return True
    if model.is_dir() and not model.is_symlink():
        return False  # that of another run, which the new one takes the place of
    for path, _ in same_runs(suite, cell, places):
        kept = places.runs / path.relative_to(places.results).with_suffix("") / "model"
        if is_model_of(suite, cell, kept):
            model.parent.mkdir(parents=True, exist_ok=True)
            model.unlink(missing_ok=True)  # a link to what is there no more, or another run's
            model.symlink_to(kept.resolve())
            return True
    return False


def run_cells(
    suite: Suite, cells: list[Cell], places: Places, processes: int = 1, keep_models: bool = False, bar: bool = False
) -> dict[Cell, str]:
    """Runs the cells without a result, and says of each how it went.

    Args:
        processes: how many run at a time. Threads are divided among them, and GPUs where there are some: each process
            has one, by way of accelerate's launcher.
        keep_models: whether trained models stay, in `model` of a run's folder. What an earlier command kept stays.
        bar: whether to show a progress bar.

    Returns:
        What is to be said of the cells that still have no result.
    """
    todo, again, left = [], [], {}
    for cell in cells:
        state, _ = state_of(suite, cell, places)
        if state == "half-written":
            print(f"{result_path(places.results, cell)}: is half-written, of a run that was killed; it is run again.")
        if state != "done" and not take_over(suite, cell, places):
            todo.append(cell)
        elif keep_models and not find_model(suite, cell, places):
            again.append(cell)
    trained, students = with_teachers(suite, [*todo, *again], places)
    for folder in (places.results, places.runs):
        writable_folder(folder)
    numbers = {
        "to do": len(todo),
        "to train again for their models": len(again),
        "to train first, to teach these": len(trained) - len(todo) - len(again),
    }
    left_to_do = ", ".join(f"{number} {what}" for what, number in numbers.items() if number or what == "to do")
    print(f"{suite.name}: {len(cells) - len(todo)} of {len(cells)} runs have their result, {left_to_do}.")
    kept = set(students) | ({*todo, *again} if keep_models else set())
    pool = Pool(suite, places, processes, kept, trained)
    with tqdm(total=len(pool.waiting), desc=suite.name, unit="run", disable=not bar) as progress:
        for number, (cell, problem, minutes) in enumerate(pool.finished(), 1):
            progress.update()
            if problem is None:
                result = read_result(result_path(places.results, cell))
                told = f"validation JMASA F1 {result['scores']['validation']['jmasa_f1']:.2f}, {minutes:.1f} min"
            else:
                told = left[cell] = problem
            tqdm.write(f"[{number}/{progress.total}] {cell}: {told}")
            for teacher in teachers_of(suite, cell):
                students[teacher] -= 1
                mine = teacher in trained or model_path(places, teacher).is_symlink()
                if not students[teacher] and mine and not keep_models:
                    shutil.rmtree(places.runs / teacher.place, ignore_errors=True)
    return {cell: told for cell, told in left.items() if cell in cells}


def with_teachers(suite: Suite, todo: list[Cell], places: Places) -> tuple[list[Cell], Counter[Cell]]:
    """Returns what is to be trained, teachers without a model ahead of the others, and each teacher's students."""
    trained, students = list(todo), Counter()
    for cell in trained:  # and the teachers that are found on the way
        for teacher in teachers_of(suite, cell):
            students[teacher] += 1
            if teacher in trained:
                continue
            if state_of(suite, teacher, places)[0] == "to do":
                take_over(suite, teacher, places)
            if not find_model(suite, teacher, places):
                trained.append(teacher)
    return [*trained[len(todo) :], *todo], students


class Process(NamedTuple):
    """A process that runs a cell: since when, and from where on the log is its own."""

    cell: Cell
    started: float
    popen: subprocess.Popen
    log_start: int


class Pool:
    """Processes that run cells, at most so many at a time.

    Args:
        kept: cells whose models stay for now.
        waiting: cells to run; those that learn from another one wait for it.
    """

    def __init__(self, suite: Suite, places: Places, processes: int, kept: set[Cell], waiting: list[Cell]):
        self.suite, self.places, self.processes, self.kept = suite, places, processes, kept
        self.waiting = list(waiting)
        self.running: dict[int, Process] = {}  # by worker

    def finished(self) -> Iterator[tuple[Cell, str | None, float]]:
        """Runs all; yields each cell that is done, what is to be said if it failed, and the minutes that it took.

        Whatever ends the loop, SIGTERM too, ends the processes.
        """
        former = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            while self.waiting or self.running:
                for worker in set(range(self.processes)) - self.running.keys():
                    if cell := self._next():
                        self.waiting.remove(cell)
                        self.running[worker] = self._start(cell, worker)
                time.sleep(0.1)
                for worker, process in list(self.running.items()):
                    if process.popen.poll() is not None:
                        del self.running[worker]
                        yield process.cell, self._problem(process), (time.monotonic() - process.started) / 60
        finally:
            self.stop()
            signal.signal(signal.SIGTERM, former)

    def stop(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGTERM)  # a launcher alone would end without its cell
        for process in self.running.values():
            process.popen.wait()

    def _next(self) -> Cell | None:
        ahead = {*self.waiting, *(process.cell for process in self.running.values())}
        return next((cell for cell in self.waiting if ahead.isdisjoint(teachers_of(self.suite, cell))), None)

    def _start(self, cell: Cell, worker: int) -> Process:
        command = ["-m", "benchmarks.cell", str(self.suite.path), f"{cell.name}/seed{cell.seed}"]
        for name in ("data_root", "results", "runs"):
            command += [f"--{name.replace('_', '-')}", str(getattr(self.places, name))]
        if cell in self.kept:
            command.append("--keep-model")
        if gpus := torch.cuda.device_count():
            launch = "accelerate.commands.launch --num_processes 1 --num_machines 1 --mixed_precision no"
            mine = worker % gpus
            if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):  # the launcher sets it anew
                mine = visible.split(",")[mine]
            command = ["-m", *launch.split(), "--dynamo_backend", "no", "--gpu_ids", str(mine), *command]
        environment = os.environ | {"TRANSFORMERS_VERBOSITY": "warning"}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // self.processes)))
        log = log_path(self.places, cell)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:  # another run may write there
            begin = output.tell()
            popen = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return Process(cell, time.monotonic(), popen, begin)

    def _problem(self, process: Process) -> str | None:
        log, code = log_path(self.places, process.cell), process.popen.returncode
        if code == 0:
            log.unlink(missing_ok=True)
            return None
        lines = log.read_bytes()[process.log_start :].decode(errors="replace").splitlines()
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if said and said[-1] == BUSY:
            return f"{BUSY}; it is left to that one."
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"failed: {said[-1] if said else ended} ({log})"


def teachers_of(suite: Suite, cell: Cell) -> list[Cell]:
    return [teacher for teachers in suite.teachers_of(cell).values() for teacher in teachers]


def model_path(places: Places, cell: Cell) -> Path:
    return places.runs / cell.place / "model"


def log_path(places: Places, cell: Cell) -> Path:
    return places.runs / f"{cell.place}.log"
