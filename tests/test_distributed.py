"""Training on two processes does what training on one does: `distributed_training.py`, run both ways."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import DistributedType
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from modeling_lrsa import LRSAForMABSA


ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "examples" / "accelerate"
SCRIPT = ROOT / "tests" / "distributed_training.py"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "cpu_two_processes.yaml")]


def train_both_ways(one, two, scenarios):
    """On one process, which is this one, and on two."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*LAUNCH, str(SCRIPT), str(two), scenarios]
    with open(two / "log", "w") as log:
        launched = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        spec = importlib.util.spec_from_file_location("distributed_training", SCRIPT)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        script.main(one, scenarios)
        assert launched.wait(timeout=300) == 0, (two / "log").read_text()[-3000:]
    finally:
        torch.set_num_threads(threads)
        launched.terminate()
    return one, two


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return train_both_ways(tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two"), "first")


@pytest.fixture(scope="module")
def more_runs(tmp_path_factory):
    return train_both_ways(tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two"), "more")


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def assert_trained_alike(one, two, name):
    like = name.partition("-")[0]
    losses = read(one, like)["losses"]
    assert len(losses) == 4 and losses[-1] < losses[0] - 0.05
    assert read(two, name)["losses"] == pytest.approx(losses, abs=1e-5)
    assert read(two, name)["gates"] == pytest.approx(read(one, like)["gates"], abs=1e-5)
    weights, found = (load_file(folder / f"{kind}/model.safetensors") for folder, kind in ((one, like), (two, name)))
    for key, value in weights.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=0, msg=key)


@pytest.mark.parametrize(
    "name",
    [
        "plain",  # pictures and rationales in the batches of one process at a time
        "plain-checkpointing",
        "plain-reentrant",
        "plain-accumulation",
        "plain-fsdp",
        "plain-fsdp_checkpointing_accumulation",
        "unequal",  # one post fewer in the last batch of one process
        "smoothed",  # labels, and inputs left out, which follow from the post and not from the process
        "input",  # rationales behind the text
        "states",  # cached states of the frozen rationale encoder
        "shared",  # rationales read by the trained text encoder, learned queries, BART with its tied embeddings
        "shared-fsdp",
    ],
)
def test_two_processes_train_as_one(runs, name):
    assert_trained_alike(*runs, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "vision",
        "vision-fsdp",
        "frozen_vision",
        "frozen_vision-fsdp",
        "shared-checkpointing",
        "adam",
        "adam-resumed",
        "adam-fsdp",
        "adam-fsdp_resumed",
    ],
)
def test_two_processes_train_as_one_in_more_ways(more_runs, name):
    assert_trained_alike(*more_runs, name)


@pytest.mark.parametrize("name", ["scores", "scores-fsdp"])
def test_two_processes_score_as_one(runs, name):
    """Seven posts: two processes with batches of two have a place to fill up."""
    one, two = runs
    wanted, found = read(one, "scores"), read(two, name)
    assert 0 < wanted["metrics"]["test_jmasa_f1"] < 100
    assert found["metrics"] == pytest.approx(wanted["metrics"])
    for key in ("sequences", "labels"):
        rows = [[[target for target in row if target > 1] for row in run[key]] for run in (found, wanted)]
        assert rows[0] == rows[1] and len(rows[0]) == 7 and any(rows[0])


def test_two_processes_see_each_post_once_an_epoch(runs):
    epochs, posts = (read(runs[1], "order")[key] for key in ("epochs", "posts"))
    assert [sorted(epoch) for epoch in epochs] == [sorted(posts)] * 2
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("name", ["plain", "plain-fsdp", "shared-fsdp"])
def test_models_saved_by_two_processes_load(runs, name):
    """With their own code, though FSDP puts classes of its own in place of the model's."""
    one, two = runs
    folder = two / name
    assert json.loads((folder / "config.json").read_text())["auto_map"]["AutoModel"] == "modeling_lrsa.LRSAForMABSA"
    assert {path.name for path in folder.glob("*_lrsa.py")} >= {"modeling_lrsa.py", "encoder_lrsa.py"}
    assert not list(folder.glob("_fsdp*"))
    loaded = LRSAForMABSA.from_pretrained(folder)
    wanted = LRSAForMABSA.from_pretrained(one / name.partition("-")[0])
    ids = torch.tensor([[2, 7, 9, 11, 3]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, wanted(ids).logits, atol=1e-4, rtol=0)


def config_of(name):
    return load_config_from_file(str(CONFIGS / f"{name}.yaml"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddp", DistributedType.MULTI_GPU),
        ("fsdp", DistributedType.FSDP),
        ("deepspeed_zero2", DistributedType.DEEPSPEED),
        ("cpu_two_processes", DistributedType.MULTI_GPU),
    ],
)
def test_accelerate_reads_the_configurations(name, kind):
    config = config_of(name)
    assert (config.distributed_type, config.num_processes, config.num_machines) == (kind, 2, 1)
    assert config.use_cpu == (name == "cpu_two_processes")
    assert config.mixed_precision == ("no" if config.use_cpu else "bf16")
    assert len(list(CONFIGS.iterdir())) == 4


def test_settings_of_sharding():
    assert config_of("fsdp").fsdp_config["fsdp_version"] == 2
    assert config_of("deepspeed_zero2").deepspeed_config["zero_stage"] == 2


@pytest.mark.slow
def test_deepspeed_trains_as_ddp(tmp_path):
    pytest.importorskip("deepspeed", reason="needs deepspeed: pip install deepspeed")
    losses = []
    for config in ("cpu_two_processes", "deepspeed_zero2"):
        command = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(CONFIGS / f"{config}.yaml"),
        ]
        command += ["--mixed_precision", "no", "-m", "hub_scripts.cli", "train", "examples/recipes/quickstart.yaml"]
        command += "--use_cpu true --max_steps 10 --logging_strategy steps --logging_steps 1".split()
        command += "--eval_strategy no --load_best_model_at_end false --save_strategy no --disable_tqdm true".split()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        done = subprocess.run([*command, "--output_dir", str(tmp_path / config)], cwd=ROOT, env=environment,
                              capture_output=True, text=True, timeout=500)  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        losses.append([float(loss) for loss in re.findall(r"\{'loss': '([0-9.]+)'", done.stdout)])
    assert len(losses[0]) == 10 and losses[0][-1] < losses[0][0] / 2
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)
