"""Reads a suite: a matrix of data sets, baselines, arms and seeds, of which each cell is one run of `lrsa train`."""

import hashlib
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

from modeling_lrsa.arguments import argument_parser, parse_arguments, wrong_argument
from modeling_lrsa.training_record import chosen
from processing import PostError
from processing.chosen_inputs import INPUTS
from processing.mapping_file import Mapping, read_mapping
from processing.posts import SPLITS, split_files


KEYS = {"about", "recipe", "seeds", "datasets", "baselines", "arms", "compare", "inputs"}
REQUIRED = ("recipe", "seeds", "datasets", "baselines", "arms")
NAME = re.compile("[a-z0-9_]+")
# Arguments that a run gets from its place in the matrix.
TAKEN = ("data", "images", "output_dir", "seed")
OTHERS = "@others"


@dataclass(frozen=True)
class Cell:
    """One training run: arguments of `lrsa train` without data and seed, and a seed.

    A `teacher` `@ARM` in `arguments` stands for the model of another arm of the same data set, baseline and seed;
    `@ARM/*` for those of all seeds. `unlabelled: @others` stands for the train posts of the suite's other data sets.
    """

    suite: str
    dataset: str
    baseline: str
    arm: str
    seed: int
    arguments: dict[str, Any] = field(compare=False)

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.baseline}-{self.arm}"

    @property
    def place(self) -> str:
        """`SUITE/CELL/seedK`, in the folders of results and of runs alike."""
        return f"{self.suite}/{self.name}/seed{self.seed}"

    @property
    def given_teachers(self) -> list[str]:
        teacher = self.arguments.get("teacher") or []
        return [teacher] if isinstance(teacher, str) else teacher

    def __str__(self):
        return f"{self.name} seed {self.seed}"


@dataclass(frozen=True)
class Suite:
    """What a suite file says.

    Args:
        path: the file; its stem is the name of the suite.
        about: a sentence on what is asked.
        recipe: arguments of `lrsa train` that all runs share.
        datasets: for each data set, a folder below the data root, the SHA-256 of the file of each split.
        baselines, arms: arguments by name; those of an arm win over those of a baseline.
        compare: pairs of arms; the first is tested against the second in each data set and baseline.
        inputs: sets of inputs; each model is scored on the test split with no others, too. Names as in `INPUTS`.
    """

    path: Path
    about: str
    recipe: Mapping
    seeds: list[int]
    datasets: Mapping
    baselines: Mapping
    arms: Mapping
    compare: list[list[str]] = field(default_factory=list)
    inputs: list[list[str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.stem

    def cell(self, dataset: str, baseline: str, arm: str, seed: int) -> Cell:
        arguments = {**self.recipe, **self.baselines[baseline], **self.arms[arm]}
        return Cell(self.name, dataset, baseline, arm, seed, arguments)

    def teachers_of(self, cell: Cell) -> dict[str, list[Cell]]:
        """Returns, for each `@ARM` that a run learns from, the runs that it stands for."""
        found = {}
        for name in cell.given_teachers:
            if name.startswith("@"):
                arm, _, every = name[1:].partition("/")
                seeds = self.seeds if every else [cell.seed]
                found[name] = [self.cell(cell.dataset, cell.baseline, arm, seed) for seed in seeds]
        return found

    def lessons_of(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """Returns seeds and arguments of the runs behind each `@ARM` that a run learns from, for its result."""
        return {
            name: {"seeds": [one.seed for one in cells], "arguments": cells[0].arguments}
            for name, cells in self.teachers_of(cell).items()
        }

    def has_made(self, cell: Cell, record: dict[str, Any]) -> bool:
        """Returns whether a `results.json` of `lrsa train` is of a run with the arguments and posts of a cell."""
        arguments = chosen(parse_arguments(cell.arguments))
        if cell.given_teachers:
            known = self.teachers_of(cell)
            arguments["teachers"] = sum(len(known.get(name, [name])) for name in cell.given_teachers)
        data, expected = record.get("data", {}), self.datasets[cell.dataset]
        same = all(data.get(split, {}).get("sha256") == expected[split] for split in ("train", "validation"))
        return same and record.get("arguments") == arguments

    def unlabelled_sets(self, cell: Cell) -> list[str]:
        """Returns the data sets whose train posts, without their labels, a run learns from besides its own."""
        if cell.arguments.get("unlabelled") != OTHERS:
            return []
        return [name for name in self.datasets if name != cell.dataset]

    def cells(self, pattern: str = "*") -> list[Cell]:
        """Returns the runs whose `CELL/seedK` or `CELL` fits a shell pattern, those of the first seed first."""
        found = []
        for seed, dataset, baseline, arm in product(self.seeds, self.datasets, self.baselines, self.arms):
            cell = self.cell(dataset, baseline, arm, seed)
            if any(fnmatchcase(name, pattern) for name in (cell.name, f"{cell.name}/seed{seed}")):
                found.append(cell)
        if not found:
            raise PostError(f"{self.path}: no run fits {pattern!r}; `--list` shows all.")
        return found

    def check_teachers(self, baseline: str) -> None:
        """Raises PostError with file and line where a teacher is no arm, or arms learn from each other."""
        learns: dict[str, set[str]] = {}
        lines = {}
        for arm in self.arms:
            groups = (self.arms[arm], self.baselines[baseline], self.recipe)
            lines[arm] = next((g.lines["teacher"] for g in groups if "teacher" in g), self.arms.lines[arm])
            where, cell = f"{self.path}:{lines[arm]}: {arm}", self.cell("", baseline, arm, 0)
            if not isinstance(cell.given_teachers, list) or not all(isinstance(t, str) for t in cell.given_teachers):
                raise PostError(f"{where}: teacher: a folder, @ARM, or a list of such is expected.")
            learns[arm] = set()
            for teacher in cell.given_teachers:
                name, _, every = teacher[1:].partition("/")
                if teacher.startswith("@"):
                    if name not in self.arms or every not in ("", "*"):
                        raise PostError(f"{where}: there is no arm {teacher[1:]!r} to be the teacher.")
                    learns[arm].add(name)
            if cell.arguments.get("unlabelled") == OTHERS and not cell.given_teachers:
                raise PostError(f"{where}: unlabelled: nobody tells the aspects of these posts; give a teacher.")
        try:
            TopologicalSorter(learns).prepare()
        except CycleError as error:
            circle = error.args[1]
            raise PostError(
                f"{self.path}:{lines[circle[0]]}: {' teaches '.join(circle)}: somebody has to begin."
            ) from error

    def check_arguments(self) -> None:
        """Raises PostError with file and line where `lrsa train` takes no such argument or value."""
        parser = argument_parser()
        groups = [("recipe", self.recipe), *self.baselines.items(), *self.arms.items()]
        for group, arguments in groups:
            for name, value in arguments.items():
                where = f"{self.path}:{arguments.lines[name]}: {group}"
                if name in TAKEN:
                    raise PostError(f"{where}: {name} is set by the benchmark itself; leave it out.")
                if name == "unlabelled" and value != OTHERS:
                    raise PostError(f"{where}: unlabelled: {value!r}: a suite knows {OTHERS!r} alone.")
                if problem := wrong_argument(parser, name, value):
                    raise PostError(f"{where}: {problem}.")
        for baseline, arm in product(self.baselines, self.arms):
            try:
                parse_arguments(self.cell("", baseline, arm, 0).arguments)
            except (TypeError, ValueError) as error:
                where = f"{self.path}:{self.arms.lines[arm]}: {baseline}, {arm}"
                raise PostError(f"{where}: {' '.join(str(error).split())}") from error

    def check_data(self, root: Path, cells: list[Cell]) -> None:
        """Raises PostError where a data set of these runs is missing or not the one that the suite was written for."""
        for dataset in dict.fromkeys(name for cell in cells for name in (cell.dataset, *self.unlabelled_sets(cell))):
            where = f"{self.path}:{self.datasets.lines[dataset]}"
            if not (root / dataset).is_dir():
                raise PostError(f"{root / dataset}: there is no data set {dataset} ({where}); name its place by "
                                "--data-root.")  # fmt: skip
            for split in SPLITS:
                self.check_split(root, dataset, split)

    def check_split(self, root: Path, dataset: str, split: str) -> str:
        """Returns the SHA-256 of the file of a split; raises PostError where the suite expects another."""
        path = split_files(root / dataset, split)[split]
        found, expected = file_hash(path), self.datasets[dataset][split]
        if found != expected:
            where = f"{self.path}:{self.datasets[dataset].lines[split]}"
            raise PostError(f"{path}: SHA-256 {found[:12]}…, but {where} expects {expected[:12]}…: the data changed.")
        return found


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_suite(path: str | Path) -> Suite:
    """Reads and checks a suite file, all but the arguments of `lrsa train` in it (`Suite.check_arguments`).

    Raises:
        PostError: names file, line and what is wrong.
    """
    path = Path(path)
    given = read_mapping(path, "suite", ", ".join(REQUIRED))
    for key, line in given.lines.items():
        if key not in KEYS:
            raise PostError(f"{path}:{line}: {key} is no key of a suite; known are {', '.join(sorted(KEYS))}.")
    if missing := [key for key in REQUIRED if not given.get(key)]:
        raise PostError(f"{path}: {missing[0]} is missing or empty.")
    _check(path, given)
    suite = Suite(path, **({"about": ""} | {key: value for key, value in given.items() if value is not None}))
    for baseline in suite.baselines:
        suite.check_teachers(baseline)
    return suite


def _check(path: Path, given: Mapping) -> None:
    def fail(key: str, problem: str, line: int | None = None):
        raise PostError(f"{path}:{line or given.lines[key]}: {key}: {problem}.")

    if not isinstance(given.get("about"), str | None):
        fail("about", "a sentence is expected")
    for key in ("recipe", "datasets", "baselines", "arms"):
        if not isinstance(given[key], Mapping):
            fail(key, "a mapping is expected")
    for key in ("datasets", "baselines", "arms"):
        for name, line in given[key].lines.items():
            if not isinstance(name, str) or not NAME.fullmatch(name):
                fail(key, f"{name!r} is no name: small letters, digits and _ are expected", line)
            if not isinstance(given[key][name], Mapping):
                fail(key, f"{name}: a mapping is expected", line)
    for name, splits in given["datasets"].items():
        line = given["datasets"].lines[name]
        if set(splits) != set(SPLITS) or not all(re.fullmatch("[0-9a-f]{64}", str(v)) for v in splits.values()):
            fail("datasets", f"{name}: the SHA-256 of each of {', '.join(SPLITS)} is expected", line)
    seeds = given["seeds"]
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        fail("seeds", "a list of whole numbers is expected")
    if len(set(seeds)) < len(seeds):
        fail("seeds", "one stands there twice")
    arms = given["arms"]
    for key in ("compare", "inputs"):
        if not isinstance(given.get(key) or [], list):
            fail(key, "a list of lists is expected")
    for pair in given.get("compare") or []:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1] or not all(a in [*arms] for a in pair):
            fail("compare", f"{pair!r} is no pair of arms")
    for kept in given.get("inputs") or []:
        if not isinstance(kept, list) or not all(name in [*INPUTS] for name in kept):
            fail("inputs", f"{kept!r} is no list of some of {', '.join(INPUTS)}")
