"""`lrsa benchmark`: runs a suite, and writes the tables of what was found."""

import argparse
from pathlib import Path

from benchmarks.errors import count_errors, write_errors
from benchmarks.figures import write_figures
from benchmarks.rows import read_rows
from benchmarks.runner import Places, run_cells, state_of
from benchmarks.suite import read_suite
from benchmarks.tables import write_tables
from processing import PostError

from .terminal import positive, show_progress


def benchmark(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="lrsa benchmark",
        description="Runs each training run of a suite that has no result yet: trains, selects on the validation "
        "split, scores the test split once. Exit code: 0 where all have their result, 1 where some have none, 2 after "
        "bad input.",
    )
    parser.add_argument("suite", metavar="SUITE.yaml", nargs="?", help="data sets x baselines x arms x seeds")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the data sets (default: data)")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="runs to do, such as 'twitter2017-*/seed1'")
    parser.add_argument("--processes", type=positive, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--list", action="store_true", help="list the runs and what there is of them, and end")
    parser.add_argument(
        "--results", type=Path, default=Places.results, help="folder of the results (default: %(default)s)"
    )
    parser.add_argument("--keep-models", action="store_true", help=f"keep the models, in {Places.runs}")
    parser.add_argument(
        "--errors",
        action="store_true",
        help="count the errors of the models, draw figures (in docs, or beside other results), and end",
    )
    parser.add_argument("--tables", action="store_true", help="make the tables of README.md and docs anew, and end")
    args = parser.parse_args(argv)
    if (args.suite is None) != args.tables:
        parser.error("give either SUITE.yaml or --tables")
    if args.tables:
        changed = write_tables(Path(), args.results)
        print(f"Made anew: {', '.join(map(str, changed))}" if changed else "All tables are as the results say.")
        return 0
    suite, places = read_suite(args.suite), Places(args.data_root, args.results)
    suite.check_arguments()
    cells = suite.cells(args.only)
    if args.list:
        for cell in cells:
            state, result = state_of(suite, cell, places)
            told = f"validation JMASA F1 {result['scores']['validation']['jmasa_f1']:.2f}" if result else state
            print(f"{cell.name}/seed{cell.seed}: {told}")
        return 0
    suite.check_data(places.data_root, cells)
    if args.errors:
        if not (rows := read_rows(suite, places.results)):
            raise PostError(f"{places.results / suite.name}: holds no result yet; run the suite.")
        errors = count_errors(suite, rows, places.data_root)
        figures = Path("docs") if places.results == Places.results else places.results / suite.name
        written = [write_errors(places.results, suite, errors), *write_figures(figures, suite.name, rows, errors)]
        print("\n".join(map(str, written)))
        return 0
    left = run_cells(suite, cells, places, args.processes, args.keep_models, show_progress())
    print(f"Results: {places.results / suite.name}; {len(cells) - len(left)} of {len(cells)} runs have theirs.")
    return 1 if left else 0
