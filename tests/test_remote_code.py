"""A saved folder is whole: a process without this package loads it, predicts the same, and saves it again."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Seq2SeqTrainingArguments, ViTImageProcessorPil

from modeling_lrsa import LRSATrainer
from processing import LRSAProcessor, MABSAPipeline


HERE = Path(__file__).parent
CODE = {path.name: path.read_bytes() for path in HERE.parent.glob("*/*_lrsa.py")}
KINDS = ("bert and vit", "bart")
PIPELINES = {"mabsa": {"impl": "pipeline_lrsa.MABSAPipeline", "pt": ["AutoModel"]}}


@pytest.fixture(scope="module")
def tiny():
    spec = importlib.util.spec_from_file_location("tiny_models", HERE / "modeling_lrsa" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def parts(tiny):
    """Model and processor of each kind."""
    with_pictures = tiny.model("bert", "vit", seed=5, num_fusion_layers=2)
    text_only = tiny.model("bart", seed=5, num_fusion_layers=1)
    pictures = ViTImageProcessorPil(size={"height": 8, "width": 8})
    return {
        "bert and vit": (with_pictures, tiny.processor(with_pictures, pictures)),
        "bart": (text_only, tiny.processor(text_only)),
    }


@pytest.fixture(scope="module")
def posts(tmp_path_factory):
    picture = tmp_path_factory.mktemp("pictures") / "post.png"
    Image.linear_gradient("L").save(picture)
    text = {"text": "awful phones at riverbend"}
    image, rationale = {"image": str(picture)}, {"text_rationale": "the text is so great ."}
    image_rationale = {"image_rationale": "a band in the hall !"}
    return [text, text | image, text | rationale, text | image_rationale, text | image | rationale | image_rationale]


@pytest.fixture(scope="module")
def folders(parts, tmp_path_factory):
    """The folder of each kind; the second is saved in the other order."""
    folders = {}
    for kind, order in zip(KINDS, (1, -1)):
        folders[kind] = tmp_path_factory.mktemp("saved") / "model"
        for part in parts[kind][::order]:
            part.save_pretrained(folders[kind])
    return folders


def in_a_clean_process(place: Path, posts, *models: tuple[str, Path]) -> list[dict]:
    """Runs `clean_process.py` for models, each given by its folder or id and a folder that it saves beside."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(place / "hub"), "HF_MODULES_CACHE": str(place)}
    started = time.time()
    arguments = [
        {"folder": name, "saved": f"{folder}_saved", "piped": f"{folder}_piped", "posts": posts, "started": started}
        for name, folder in models
    ]
    done = subprocess.run(
        [sys.executable, str(HERE / "clean_process.py")],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        cwd=place,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def as_downloaded(folder: Path, repository: str, hub: Path):
    """Copies a folder to where huggingface_hub keeps a repository that it has downloaded."""
    kept = hub / f"models--{repository.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(40 * "a")
    shutil.copytree(folder, kept / "snapshots" / (40 * "a"))


@pytest.fixture(scope="module")
def results(folders, posts, tmp_path_factory):
    """What clean processes made of each kind, and then of what they had saved: one as folder, one as repository."""
    pictures, text_only = folders.values()
    saved = [folder.with_name(f"{folder.name}_saved") for folder in folders.values()]
    first = in_a_clean_process(tmp_path_factory.mktemp("first"), posts, (str(pictures), pictures))
    place = tmp_path_factory.mktemp("second")
    as_downloaded(saved[0], "someone/their-model", place / "hub")
    models = [(str(text_only), text_only), ("someone/their-model", saved[0]), (str(saved[1]), saved[1])]
    second = in_a_clean_process(place, posts, *models)
    return {"bert and vit": [*first, second[1]], "bart": [second[0], second[2]]}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_whole(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    assert config["custom_pipelines"] == PIPELINES
    assert config["auto_map"] == {
        "AutoConfig": "configuration_lrsa.LRSAConfig",
        "AutoModel": "modeling_lrsa.LRSAForMABSA",
    }
    assert json.loads((folder / "processor_config.json").read_text())["auto_map"] == {
        "AutoProcessor": "processing_lrsa.LRSAProcessor"
    }
    assert "trust_remote_code" not in "".join(path.read_text() for path in folder.glob("*.json"))
    assert {path.name: path.read_bytes() for path in folder.glob("*.py")} == CODE
    assert {"model.safetensors", "generation_config.json", "tokenizer.json"} <= names(folder)


def assert_same(found: list[list[dict]], wanted: list[list[dict]]):
    assert any(wanted)
    for aspects, expected in zip(found, wanted, strict=True):
        scores = [aspect["score"] for aspect in aspects]
        assert scores == pytest.approx([aspect["score"] for aspect in expected], rel=0, abs=1e-6)
        assert [{**a, "score": None} for a in aspects] == [{**a, "score": None} for a in expected]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [1, 2])
def test_every_way_of_saving_gives_the_whole_folder(parts, tmp_path, kind, times):
    model, processor = parts[kind]
    arguments = Seq2SeqTrainingArguments(tmp_path / "trainer", use_cpu=True)
    trainer = LRSATrainer(model=model, args=arguments, processing_class=processor)
    pipe = MABSAPipeline(model=model, processor=processor, device="cpu")
    for _ in range(times):
        for part in (model, processor):
            part.save_pretrained(tmp_path / "parts")
        pipe.save_pretrained(tmp_path / "pipeline")
        trainer.save_model()
    for folder in ("parts", "pipeline", "trainer"):
        assert_whole(tmp_path / folder)
    assert names(tmp_path / "pipeline") == names(tmp_path / "parts")
    assert names(tmp_path / "trainer") == names(tmp_path / "parts") | {"training_args.bin"}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_this_package_is_used(results, kind):
    for result in results[kind]:
        assert all(module.startswith("transformers_modules.") for module in result["modules"])
        # Nor what this package needs and transformers does not.
        assert not {"datasets", "evaluate", "peft", "sklearn"} & set(result["imported"])


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_equal(parts, folders, posts, results, kind):
    model = parts[kind][0]
    # Loaded, for the image processor is then of the backend that the other processes take.
    pipe = MABSAPipeline(model=model, processor=LRSAProcessor.from_pretrained(folders[kind]), device="cpu")
    wanted = [pipe(post) for post in posts]
    for result in results[kind]:
        for found in result["predictions"].values():
            assert_same(found, wanted)
    scores = {tuple(aspect["score"] for aspect in aspects) for aspects in wanted}
    assert len(scores) == (5 if model.config.has_images else 4), "each part of a post counts"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_clean_process_saves_is_whole(folders, results, kind):
    weights = (folders[kind] / "model.safetensors").read_bytes()
    for end in ("saved", "piped", "saved_saved", "saved_piped"):
        folder = folders[kind].with_name(f"{folders[kind].name}_{end}")
        assert_whole(folder)
        assert names(folder) == names(folders[kind])
        assert (folder / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("kind", KINDS)
def test_parts_and_pipeline_load_in_15_seconds(results, kind):
    """By the clock, from the start of the process, torch and transformers included, less what it waited for a core."""
    assert 0 < results[kind][0]["seconds"] < 15


@pytest.mark.parametrize("kind", KINDS)
def test_without_trust_the_code_is_refused(results, kind):
    for result in results[kind]:
        assert "contains custom code" in result["refusal"] and "`trust_remote_code=True`" in result["refusal"]
