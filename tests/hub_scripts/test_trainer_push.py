"""`Trainer(push_to_hub=True)` against the Hub on loopback: every push holds code and card."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_lrsa.model_card import WRITTEN


HERE = Path(__file__).parent
CODE = {path.name: path.read_bytes() for path in HERE.parents[1].glob("*/*_lrsa.py")}


@pytest.fixture(scope="module")
def train(running_hub, text_folder, posts_folder, tmp_path_factory):
    """Runs `pushing_trainer.py` and returns the commits, the last one first."""

    def run(output: Path, repo: str, strategy: str, kind: str = "model") -> list[dict]:
        environment = os.environ | running_hub.environment(tmp_path_factory.mktemp("home"))
        arguments = [text_folder, posts_folder, output, repo, strategy, kind]
        done = subprocess.run(
            [sys.executable, HERE / "pushing_trainer.py", *arguments],
            env=environment | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return running_hub.commits(repo)

    return run


def test_every_save_is_pushed_whole(running_hub, train, tmp_path):
    commits = train(tmp_path / "run", "someone/every", "every_save")
    summaries = ["End of training", "Training in progress, epoch 2", "Training in progress, epoch 1", "initial commit"]
    assert [commit["summary"] for commit in commits] == summaries
    for commit in commits[:-1]:
        files = running_hub.files("someone/every", revision=commit["oid"])
        assert {path: content for path, content in files.items() if path.endswith("_lrsa.py")} == CODE
        assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= set(files)
        assert json.loads(files["config.json"])["auto_map"]["AutoModel"] == "modeling_lrsa.LRSAForMABSA"
        card = files["README.md"].decode()
        assert "handler.py" not in card and "handler.py" not in files
        assert WRITTEN in card and "library_name: transformers" in card and 'model="someone/every"' in card
        assert re.search(r"\| validation (\| \d+\.\d\d ){6}(\| – ){3}\|", card) and "Seed 42." in card
        assert not [path for path in files if path.startswith("checkpoint")]
    assert "license: apache-2.0" in running_hub.files("someone/every")["README.md"].decode()


@pytest.mark.slow
def test_a_card_by_hand_is_pushed_as_it_is(running_hub, train, tmp_path):
    card = "---\nlicense: mit\n---\n\n# Mine\n"
    (tmp_path / "README.md").write_text(card)
    commits = train(tmp_path, "someone/mine", "end")
    assert [commit["summary"] for commit in commits] == ["End of training", "initial commit"]
    assert running_hub.files("someone/mine")["README.md"].decode() == card


@pytest.mark.slow
def test_an_adapter_has_our_card(running_hub, train, tmp_path):
    train(tmp_path, "someone/lora", "every_save", "lora")
    for commit in running_hub.commits("someone/lora")[:-1]:
        files = running_hub.files("someone/lora", revision=commit["oid"])
        card = files["README.md"].decode()
        assert "adapter_model.safetensors" in files and WRITTEN in card
        assert "its base is not on the Hub" in card and "```python" not in card


def test_lrsa_train_ends_like_lrsa_push(running_hub, lrsa, text_folder, posts_folder, tmp_path):
    flags = ["--data", posts_folder, "--text_model", text_folder, "--decoder_layers", "1", "--num_fusion_layers", "0"]
    flags += ["--num_train_epochs", "1", "--push_to_hub", "true", "--hub_model_id", "someone/trained"]
    done = lrsa("train", *flags, "--output_dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert done.out.endswith(f"{running_hub.endpoint}/someone/trained\n")
    files = running_hub.files("someone/trained")
    assert files["model.safetensors"] == (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert files["results.json"] == (tmp_path / "run" / "results.json").read_bytes()
    assert "training_args.bin" not in files
    done = lrsa("push", tmp_path / "run", "someone/trained")
    assert "nothing has changed" in done.out
