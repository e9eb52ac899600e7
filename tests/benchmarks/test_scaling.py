"""The plan of docs/scaling.md is what its program computes, and its formula what a simulation gives."""

import json
import statistics

import pytest

from benchmarks.scaling import MEASURED, PAGE, RUNS, duration, expected, filled, simulate


def test_the_tables_of_the_page_are_computed():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, json.loads(MEASURED.read_text())) == page


@pytest.mark.parametrize("run", RUNS)
def test_the_formula_of_dying_workers_agrees_with_the_simulation(run):
    assert statistics.mean(simulate(*run, seed) for seed in range(20)) == pytest.approx(expected(*run), rel=0.03)


def test_without_deaths_the_simulation_is_the_work_shared_out():
    assert simulate(100, 5.0, 10, 1e12, 60.0) == pytest.approx(50)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.01, "< 0.1 s"), (59, "59.0 s"), (90, "1.5 min"), (5e8, "15.9 years")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
