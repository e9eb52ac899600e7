"""A converted checkpoint, which has no vision model, learns from and predicts with features of pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import pipeline
from transformers.utils import logging

from hub_scripts.cli import main
from modeling_lrsa.loading import load_model
from modeling_lrsa.onnx_export import export_onnx


@pytest.fixture(scope="module")
def model(maker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    torch.save(maker.checkpoint("vlp-mabsa"), folder / "weights.pt")
    maker.tokenizer().save_pretrained(folder / "tokenizer")
    command = ["convert", "--from", "vlp-mabsa", str(folder / "weights.pt"), str(folder / "model")]
    assert main([*command, "--num-heads", "2", "--tokenizer", str(folder / "tokenizer")]) == 0
    return folder / "model"


def sizes(model):
    config = json.loads((model / "config.json").read_text())
    return config["num_image_tokens"], config["image_feature_size"]


@pytest.fixture
def posts(model, tmp_path, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "posts"
    (folder / "images").mkdir(parents=True)
    numbers = np.random.default_rng(0)
    rows = []
    for index in range(4):
        np.save(folder / "images" / f"{index}.npy", numbers.normal(size=sizes(model)).astype(np.float32))
        rows.append({"words": ["a", "b", "c"], "image": f"{index}.jpg", "text_rationale": "b a"})
        rows[-1]["aspects"] = [{"start": index % 3, "end": index % 3 + 1, "polarity": "neutral"}]
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def train(model, posts, output, *options):
    command = ["train", "--model", str(model), "--data", str(posts), "--output_dir", str(output)]
    return main([*command, "--warmup_steps", "0", "--max_steps", "1", "--new_parts_learning_rate", "0.01", *options])


def test_trains_evaluates_and_predicts(model, posts, tmp_path):
    name = "model.encoder.image_projection.weight"
    before = load_file(model / "model.safetensors")[name]
    for output, options in (("out", ["--num_fusion_layers", "1"]), ("without", ["--images", str(tmp_path)])):
        assert train(model, posts, tmp_path / output, *options) == 0
        after = load_file(tmp_path / output / "model" / "model.safetensors")[name]
        assert torch.equal(before, after) is (output == "without")
    out = str(tmp_path / "out" / "model")
    assert main(["evaluate", out, str(posts)]) == 0
    assert main(["predict", out, str(posts / "test.jsonl"), "--output", str(tmp_path / "found.jsonl")]) == 0
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 4


def test_its_graphs_read_features_too(model, posts, tmp_path, capfd):
    assert train(model, posts, tmp_path / "out", "--num_fusion_layers", "1") == 0
    trained, onnx = tmp_path / "out" / "model", tmp_path / "onnx"
    export_onnx(*load_model(str(trained)), onnx)
    found = {}
    for name, folder, options in (
        ("torch", trained, []),
        ("onnx", onnx, []),
        ("torch without", trained, ["--images", str(tmp_path)]),
        ("onnx without", onnx, ["--images", str(tmp_path)]),
    ):
        output = tmp_path / f"{name}.jsonl"
        assert main(["predict", str(folder), str(posts / "test.jsonl"), "--output", str(output), *options]) == 0
        rows = [json.loads(line)["aspects"] for line in output.read_text().splitlines()]
        found[name] = [[{**a, "score": round(a["score"], 4)} for a in row] for row in rows]
    assert found["torch"] == found["onnx"] and found["torch without"] == found["onnx without"]
    assert found["torch"] != found["torch without"]
    path = posts / "images" / "2.npy"
    np.save(path, np.zeros((1, 2), dtype=np.float32))
    assert main(["predict", str(onnx), str(posts / "test.jsonl")]) == 2
    message = f"features (1, 2) of a picture, but the model takes {sizes(model)}."
    assert capfd.readouterr().err.strip().splitlines()[-1] == f"lrsa predict: {path}: {message}"


def test_features_of_another_shape_are_named(model, posts, tmp_path, capfd):
    slots, width = sizes(model)
    path = posts / "images" / "2.npy"
    np.save(path, np.zeros((slots + 1, width), dtype=np.float32))
    assert train(model, posts, tmp_path / "out") == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    message = f"features {(slots + 1, width)} of a picture, but the model takes {(slots, width)}."
    assert error == f"lrsa train: {path}: {message}"


def test_a_file_that_holds_none_is_named(model, posts, tmp_path, capfd):
    path = posts / "images" / "1.npy"
    path.write_bytes(path.read_bytes()[:50])
    assert train(model, posts, tmp_path / "out") == 2
    assert f"lrsa train: {path}: features can't be read: " in capfd.readouterr().err


def test_pictures_that_nothing_reads_are_told_of(model, posts, tmp_path, caplog, run_folder):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (9, 9)).save(picture)
    logging.warning_once.cache_clear()
    for name, takes in ((model, "features of pictures"), (run_folder / "model", "text alone")):
        assert main(["predict", str(name), "--text", "a b c", "--image", str(picture)]) == 0
        assert f"The pictures are left out: this model has no vision model, it takes {takes}" in caplog.text
    caplog.clear()
    pipeline("mabsa", model=str(model))({"text": "a b c", "image": str(picture)})
    assert "The pictures are left out: this processor has no image processor." in caplog.text
