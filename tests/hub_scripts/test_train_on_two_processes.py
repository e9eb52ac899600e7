"""`lrsa train` under `accelerate launch`: two processes find what one finds, and one of them speaks and writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BartConfig, BartModel

from hub_scripts.cli import main
from modeling_lrsa import LRSAForMABSA
from modeling_lrsa.loading import load_model
from processing import LRSAProcessor


ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "examples" / "accelerate" / "cpu_two_processes.yaml"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG), "-m", "hub_scripts.cli"]


def launch(*command, **environment):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([*LAUNCH, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def recipe(text_folder, posts_folder, tmp_path_factory):
    """A model without dropout and a batch of four over all processes: nothing but their number differs."""
    folder = tmp_path_factory.mktemp("two")
    tokenizer = AutoTokenizer.from_pretrained(text_folder)
    small = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    small |= dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 16)
    torch.manual_seed(0)
    text = BartConfig(vocab_size=len(tokenizer), dropout=0.0, max_position_embeddings=64, init_std=0.2, **small)
    BartModel(text).save_pretrained(folder / "text")
    still = dict.fromkeys(("fusion_dropout", "pointer_dropout", "pointer_mlp_dropout"), 0.0)
    model = LRSAForMABSA.from_text_vision_pretrained(str(folder / "text"), num_fusion_layers=1, **still)
    model.save_pretrained(folder / "start")
    LRSAProcessor(None, tokenizer, max_text_length=64).save_pretrained(folder / "start")
    rows = (posts_folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(rows * 3))
    (folder / "validation.jsonl").write_text("".join(rows[:3]))
    path = folder / "recipe.yaml"
    path.write_text(
        f"data: {folder}\nmodel: {folder / 'start'}\nnum_train_epochs: 3\nseed: 7\nuse_cpu: true\noptim: sgd\n"
        "train_sampling_strategy: random\nlogging_strategy: steps\nlogging_steps: 1\nlr_scheduler_type: constant\n"
        "learning_rate: 0.1\nnew_parts_learning_rate: 0.1\nfusion_learning_rate: 0.1\nsave_total_limit: 3\n"
    )
    return path


def state(folder):
    (last,) = folder.glob("checkpoint-9")
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_two_processes_find_what_one_finds(recipe, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache_of_one"))
    sizes = ["--per_device_train_batch_size", "4", "--per_device_eval_batch_size", "4"]
    assert main(["train", str(recipe), "--output_dir", str(one), *sizes]) == 0
    sizes = ["--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "1"]
    cache = tmp_path / "cache_of_two"
    run = launch("train", str(recipe), "--output_dir", str(two), *sizes, LRSA_CACHE=str(cache))
    assert run.returncode == 0, run.stderr[-3000:]

    assert state(one)[-1] < state(one)[0] - 0.1
    assert state(two) == pytest.approx(state(one), abs=1e-5)
    wanted, found = (json.loads((folder / "results.json").read_text()) for folder in (one, two))
    assert found["validation"] == pytest.approx(wanted["validation"])
    assert found["best_step"] == wanted["best_step"] and found["gates"] == pytest.approx(wanted["gates"], abs=1e-6)
    curves = [[entry["eval_jmasa_f1"] for entry in results["curve"]] for results in (wanted, found)]
    assert curves[0] == pytest.approx(curves[1]) and len(curves[0]) == 3
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=0, msg=name)
    assert sum(parameter.numel() for parameter in load_model(str(two / "model"))[0].parameters()) > 0

    assert run.stdout.count("Validation split, step") == run.stdout.count("scores: ") == 1
    assert run.stdout.count("'eval_jmasa_f1'") == 3
    told = [line for line in run.stderr.splitlines() if line.strip()]
    assert len(set(told)) == len(told) and "find_unused_parameters" not in run.stderr, run.stderr
    assert {path.name for path in cache.iterdir()} == {path.name for path in (tmp_path / "cache_of_one").iterdir()}
    assert not [path for path in two.iterdir() if path.name.startswith(".")]


def test_bad_input_is_told_by_one_process(tmp_path, monkeypatch, capfd):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rat: 1\n")
    for rank, told in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert main(["train", str(recipe)]) == 2
        assert capfd.readouterr().err.count("learning_rat is no argument") == told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_processes_that_would_train_side_by_side(recipe, tmp_path, monkeypatch, capfd):
    """Launched for GPUs where there is none, each process would train a model of its own."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("modeling_lrsa.training_posts.load_posts", None)
    assert main(["train", str(recipe), "--output_dir", str(tmp_path), "--use_cpu", "false"]) == 2
    assert "use_cpu: true" in capfd.readouterr().err
