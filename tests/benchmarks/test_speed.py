"""What measures speed: that it measures the same work, counts it right and tells what it found."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.speed.clock import Clock, Cost
from benchmarks.speed.guard import COMMITTED, main, worse
from benchmarks.speed.models import FORMS, Sizes, Workload, operations
from benchmarks.speed.posts import padding_waste
from benchmarks.speed.report import render
from benchmarks.speed.training import measure_ways
from processing import PostError


ROOT = Path(__file__).parents[2]
SMALL = Sizes(posts=2, slots=4, columns=10, image_rationale=5, text_rationale=6, width=64)


def test_naive_decoder_finds_what_the_cached_one_finds():
    work = Workload("fusion off", SMALL)
    work.model.eval()
    inputs = {name: tensor for name, tensor in work.inputs.items() if name != "labels"}
    length = {"min_new_tokens": 9, "max_new_tokens": 9}
    cached = work.model.generate(**inputs, num_beams=4, constrained_decoding=False, **length)
    assert torch.equal(work.naive(4, 12), cached)
    assert work.generate(4, 13).shape == (2, 13)  # three triples and EOS


@pytest.mark.parametrize("form", FORMS)
def test_operations_of_a_step(form):
    work = Workload(form, SMALL)
    found = operations(work.forward_and_backward)
    # By hand, of fusion off: twelve squares of the width a position and encoder layer, fourteen in the decoder, whose
    # cross-attention projects the source besides; the pictures' projection has no gradient of its input.
    square, source, targets = 2 * 64**2, 2 * 16, 2 * 9
    off = 3 * 6 * square * (12 * source + 14 * targets + 2 * source) + 3 * 2 * square * 2 * 10
    off += 2 * 2 * 2048 * 64 * 2 * 4
    assert found == pytest.approx(off, rel=0.05) if form == "fusion off" else found > off
    assert all(parameter.grad is None for parameter in work.model.parameters())


def test_costs_are_set_against_the_rate_of_their_moment():
    slow, fast = Cost([4.0, 2.0, 9.0], [400.0, 400.0, 900.0]), Cost([1.0, 1.0, 1.0], [100.0, 200.0, 100.0])
    assert slow.over(fast) == 4 and slow.share(300) == 0.75
    clock, called = Clock(), []
    costs = clock.turns({name: lambda name=name: called.append(name) for name in "ab"}, 2)
    assert called == ["a", "b", "b", "a"] and len(costs["a"].products) == 2


def test_ways_to_compute_a_step():
    ways = ("float32", "float32, products in bfloat16", "autocast to bfloat16")
    found = measure_ways(Clock(), 2, SMALL, ways)
    assert tuple(found) == ways and found["float32"]["over"] == 1
    assert torch.get_float32_matmul_precision() == "highest"


def test_padding_waste():
    assert padding_waste([2, 4, 3, 3, 1], 2) == pytest.approx(1 - 13 / 15)


def test_guard_fails_where_a_ratio_is_a_quarter_worse(monkeypatch, capsys):
    committed = json.loads(COMMITTED.read_text())
    assert worse(committed, committed) == []
    (name, ratio), *_ = committed.items()
    assert worse(committed | {name: 1.24 * ratio}, committed) == []
    measured = iter([committed | {name: factor * ratio} for factor in (1.5, 1.3, 1.2, 2.0, 2.0, 2.0)])
    monkeypatch.setattr("benchmarks.speed.guard.measure_ratios", lambda clock: next(measured))
    assert main([]) == 0  # a noisy machine gets three tries
    assert main([]) == 1 and f"{name} is 2.00 times the committed one" in capsys.readouterr().err


def test_document_is_what_the_results_say():
    result = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text())
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert render(text, result) == text
    with pytest.raises(PostError, match="no table 'prices'"):
        render("<!-- speed prices -->\n<!-- end -->", result)
