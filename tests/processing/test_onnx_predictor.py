import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, ViTConfig

from hub_scripts.cli import main
from modeling_lrsa import LRSAConfig, LRSAForMABSA
from modeling_lrsa.onnx_export import export_onnx, move_whole
from modeling_lrsa.predictor import predict_batch
from processing import LRSAOnnxPredictor, LRSAProcessor


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = BertConfig(vocab_size=400, max_position_embeddings=80, initializer_range=0.2, **sizes)
    vision = ViTConfig(image_size=8, patch_size=4, **sizes)
    config = LRSAConfig(
        text_config=text,
        vision_config=vision,
        num_image_tokens=5,
        image_feature_size=32,
        decoder_layers=1,
        num_fusion_layers=1,
        initializer_range=0.2,
    )
    model = LRSAForMABSA(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(0.8)  # they start at zero, where rationales change nothing
    return model


@pytest.fixture(scope="module")
def processor(model, tokenizers, image_processor):
    return LRSAProcessor(image_processor, tokenizers["wordpiece"], max_text_length=model.config.max_text_length)


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(model, processor, folder)
    return folder


@pytest.fixture(scope="module")
def predictor(folder):
    return LRSAOnnxPredictor(folder)


@pytest.fixture(scope="module")
def posts():
    texts = [
        "Jeremy Lin scored again tonight, what a game!",
        "the queue for coffee at Riverside Hall",
        "pizza in Rotterdam",
        "rain",
        "battery dies after one hour and the lazy dog hates it",
    ]
    rows = [{"text": text, "image": None, "image_rationale": None, "text_rationale": None} for text in texts]
    for index, size in ((0, (20, 16)), (2, (9, 30))):
        rows[index]["image"] = Image.linear_gradient("L").resize(size).convert("RGB")
    rows[0]["image_rationale"] = rows[4]["image_rationale"] = "a brown fox in the rain"
    rows[0]["text_rationale"] = rows[1]["text_rationale"] = "the concert was great"
    for row in rows:
        row["aspects"] = [{"start": 0, "end": row["text"].index(" ")}] if " " in row["text"] else []
    return rows


def by_torch(model, processor, posts, task="mabsa"):
    inputs = processor(
        text=[post.get("words") or post["text"] for post in posts],
        images=[post["image"] for post in posts],
        image_rationales=[post["image_rationale"] for post in posts],
        text_rationales=[post["text_rationale"] for post in posts],
        aspects=[post["aspects"] for post in posts] if task == "masc" else None,
        task=task,
        return_tensors="pt",
    )
    return predict_batch(model, processor, inputs, task)


def same(found, expected):
    """Whether both hold the same dictionaries; returns the greatest difference of two scores."""
    worst = 0.0
    assert [len(row) for row in found] == [len(row) for row in expected]
    for row, wanted in zip(found, expected):
        for aspect, other in zip(row, wanted):
            assert {**aspect, "score": 0} == {**other, "score": 0} and list(aspect) == list(other)
            worst = max(worst, abs(aspect["score"] - other["score"]))
    return worst


@pytest.mark.parametrize("task", ["mabsa", "mate", "masc"])
def test_predicts_as_torch_does(task, model, processor, predictor, posts):
    expected = by_torch(model, processor, posts, task)
    assert sum(map(len, expected)) >= 4
    assert same(predictor.predict(posts, task), expected) < 1e-5
    for batch_size in (1, 2):  # less padding, and batches where no post has a picture or a rationale
        assert same(predictor.predict(posts, task, batch_size), expected) < 1e-5


def test_words_and_plain_strings(model, processor, predictor, posts):
    words = [{**post, "words": post["text"].split()} for post in posts]
    expected = by_torch(model, processor, words)
    assert same(predictor.predict(words), expected) < 1e-5
    assert {"word_start", "word_end"} < set(next(row for row in expected if row)[0])
    bare = dict.fromkeys(("image", "image_rationale", "text_rationale", "aspects"))
    expected = by_torch(model, processor, [post | bare for post in posts])
    assert same(predictor.predict([post["text"] for post in posts]), expected) < 1e-5


def test_pictures_and_rationales_count(predictor, posts):
    full = predictor.predict(posts)
    for name in ("image", "image_rationale", "text_rationale"):
        assert predictor.predict([post | {name: None} for post in posts]) != full


def test_no_posts(predictor):
    assert predictor.predict([]) == []


def test_inputs_that_the_model_does_not_take(predictor):
    ids = np.ones((1, 3), dtype=np.int64)
    with pytest.raises(ValueError, match="does not take noun_mask"):
        predictor.generate(input_ids=ids, attention_mask=ids, word_ids=ids, noun_mask=ids)


NO_TORCH = """
import importlib.util, json, sys

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == "torch" else find_spec(name, *rest)


class NoTorch:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NoTorch())
from processing import LRSAOnnxPredictor

folder, posts = sys.argv[1:]
print(json.dumps(LRSAOnnxPredictor(folder).predict(json.loads(posts))))
assert "torch" not in sys.modules
"""


def test_runs_where_torch_is_not_installed(folder, predictor, posts, tmp_path):
    rows = []
    for index, post in enumerate(posts):
        row = {name: value for name, value in post.items() if name != "image"}
        if post["image"] is not None:
            row["image"] = str(tmp_path / f"{index}.png")
            post["image"].save(row["image"])
        rows.append(row)
    command = [sys.executable, "-c", NO_TORCH, str(folder), json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same(json.loads(done.stdout), predictor.predict(posts)) == 0


def test_command_line(folder, predictor, posts, tmp_path, capsys):
    # Here and not beside the other commands' tests, since an export takes its time.
    given = tmp_path / "posts.jsonl"
    given.write_text("".join(json.dumps({"id": str(i), "text": p["text"]}) + "\n" for i, p in enumerate(posts)))
    assert main(["predict", str(folder), str(given)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in found] == ["0", "1", "2", "3", "4"]
    assert [row["aspects"] for row in found] == predictor.predict([post["text"] for post in posts])
    with pytest.raises(SystemExit):
        main(["predict", str(folder), str(given), "--num-beams", "2"])
    assert "greedily" in capsys.readouterr().err


def test_a_lexicon_that_nothing_reads_is_refused(folder, tmp_path, capsys):
    given = tmp_path / "posts.jsonl"
    given.write_text('{"text": "so good"}\n')
    assert main(["predict", str(folder), str(given), "--lexicon", "none.txt"]) == 2
    assert "lexicon: none.txt: a model without aspect_attention" in capsys.readouterr().err


def test_an_export_takes_the_place_of_a_former_one(model, processor, tmp_path, monkeypatch):
    fresh, folder = tmp_path / "fresh", tmp_path / "onnx"
    for place, text in ((fresh, "new"), (folder, "old")):
        place.mkdir()
        for name in ("encoder.onnx", "decoder.onnx", "config.json"):
            (place / name).write_text(text)
    (folder / "vision.onnx").touch()
    (folder / "model.safetensors").touch()
    replace = Path.replace

    def fail(path, target):
        if path.name == "decoder.onnx":
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", fail)
        move_whole(fresh, folder)
    with pytest.raises(FileNotFoundError, match=r"holds no encoder\.onnx"):
        LRSAOnnxPredictor(folder)
    move_whole(fresh, folder)
    assert {path.name for path in folder.iterdir()} == {
        "encoder.onnx", "decoder.onnx", "config.json", "model.safetensors"
    }  # fmt: skip
    assert (folder / "encoder.onnx").read_text() == (folder / "decoder.onnx").read_text() == "new"


def test_a_folder_without_graphs(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no encoder.onnx"):
        LRSAOnnxPredictor(tmp_path)


def test_missing_packages_are_named(monkeypatch, folder, model, processor, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install lrsa\[onnx\]"):
        LRSAOnnxPredictor(folder)
    with pytest.raises(ImportError, match=r"pip install lrsa\[onnx\]"):
        export_onnx(model, processor, tmp_path)
