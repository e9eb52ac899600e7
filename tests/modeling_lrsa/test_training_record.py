import json

import pytest

from modeling_lrsa.model_to_train import ModelArguments
from modeling_lrsa.trainer import LRSATrainingArguments
from modeling_lrsa.training_posts import DataArguments, load_split
from modeling_lrsa.training_record import training_record


@pytest.mark.parametrize(("configured", "told"), [("bf16", {"bf16": True}), ("no", {}), (None, {})])
def test_precision_that_a_configuration_of_accelerate_sets(tmp_path, monkeypatch, configured, told):
    """`accelerate launch` hands it on in the environment."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if configured is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", configured)
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": "so good", "aspects": []}) + "\n")
    arguments = (
        ModelArguments(),
        DataArguments(data=str(tmp_path)),
        LRSATrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True),
    )
    posts = {split: load_split(arguments[1], split) for split in ("train", "validation")}
    assert training_record(arguments, posts)["arguments"] == told
