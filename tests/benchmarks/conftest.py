"""A suite over a tiny text model and a few posts."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from modeling_lrsa.arguments import parse_arguments
from modeling_lrsa.training_record import chosen


def _load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_fixtures = _load("hub_scripts_fixtures", Path(__file__).parents[1] / "hub_scripts" / "conftest.py")
text_folder = _fixtures.text_folder

SPLITS = {
    "train": _fixtures.POSTS,
    "validation": _fixtures.POSTS[:3],
    "test": [
        ("Marta opens Riverbend Hall", [("Marta", "neutral"), ("Riverbend Hall", "positive")]),
        ("Love Northline Rail", [("Northline Rail", "positive")]),
        ("hate May in Riverbend Hall", [("Riverbend Hall", "negative")]),
    ],
}


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data_root")
    (root / "tiny").mkdir()
    for split, posts in SPLITS.items():
        (root / "tiny" / f"{split}.jsonl").write_text(_fixtures.lines(posts))
    return root


@pytest.fixture(scope="session")
def suite_text(text_folder, data_root) -> str:
    """A suite of two arms and two seeds, as YAML."""
    hashes = "".join(
        f"    {split}: {hashlib.sha256((data_root / 'tiny' / f'{split}.jsonl').read_bytes()).hexdigest()}\n"
        for split in SPLITS
    )
    return (
        f"about: Do tiny models run?\nrecipe:\n  text_model: {text_folder}\n  decoder_layers: 1\n"
        "  num_train_epochs: 2\n  per_device_train_batch_size: 2\n  learning_rate: 1.0e-3\n  save_strategy: best\n"
        f"  dataloader_pin_memory: false\n  use_cpu: true\nseeds: [1, 2]\ndatasets:\n  tiny:\n{hashes}"
        "baselines:\n  vlp: {}\narms:\n  off: {num_fusion_layers: 0}\n  lrsa: {num_fusion_layers: 1}\n"
        "compare:\n  - [lrsa, off]\n"
    )


@pytest.fixture
def suite_file(suite_text, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(suite_text)
    return path


@pytest.fixture(scope="session")
def finished(suite_text, data_root, tmp_path_factory):
    """The suite file, and the folder of the results of one run of each arm."""
    from benchmarks.cell import run_cell
    from benchmarks.suite import read_suite

    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(suite_text)
    suite = read_suite(folder / "small.yaml")
    for cell in suite.cells("*/seed1"):
        run_cell(suite, cell, data_root, folder / "results", folder / "runs")
    return folder / "small.yaml", folder / "results"


@pytest.fixture
def keep():
    """Makes what `--keep-models` leaves of a run, but for the files of the model."""

    def keep(suite, cell, run, **other):
        (run / "model").mkdir(parents=True)
        data = {split: {"sha256": digest} for split, digest in suite.datasets[cell.dataset].items()}
        record = {"arguments": chosen(parse_arguments(cell.arguments)), "seed": cell.seed, "data": data} | other
        (run / "results.json").write_text(json.dumps(record))

    return keep
