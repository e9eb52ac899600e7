"""Folders made of checkpoints: whole, loadable without this package, and equal to what the projects compute."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, ResNetConfig, ResNetModel, ViTImageProcessorPil

from modeling_lrsa.conversion import CheckpointError
from modeling_lrsa.converted_folder import convert_to_folder


TESTS = Path(__file__).parents[1]
REFERENCE = TESTS.parents[1] / "shared" / "fixtures"
KINDS = {"vlp_b": "vlp-mabsa", "aom_b": "aom"}
POLARITIES = {"POS": "positive", "NEU": "neutral", "NEG": "negative"}

needs_reference = pytest.mark.skipif(
    not (REFERENCE / "vlp_b").is_dir(),
    reason=f"{REFERENCE} is not here: outputs of the reference implementations are no part of the repository",
)


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("checkpoint_maker", TESTS / "checkpoint_maker.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Folder of each reference checkpoint, and what the conversion said."""
    place = tmp_path_factory.mktemp("converted")
    return {
        name: (
            place / name,
            convert_to_folder(
                source, str(REFERENCE / name), str(place / name), tokenizer=str(REFERENCE / "tokenizer_tiny")
            ),
        )
        for name, source in KINDS.items()
    }


def model_inputs(name):
    """The reference's inputs, without the image part of its sequences, as arrays under the model's names."""
    arrays = np.load(REFERENCE / name / "inputs.npz")
    offset = json.loads((REFERENCE / name / "config.json").read_text())["text_offset"]
    inputs = {
        "input_ids": arrays["input_ids"][:, offset:],
        "attention_mask": arrays["attention_mask"][:, offset:],
        "image_features": arrays["image_features"],
        "decoder_input_ids": arrays["labels"],
    }
    if "noun_mask" in arrays:
        inputs["noun_mask"] = arrays["noun_mask"][:, offset:]
        inputs |= {key: arrays[key] for key in ("dependency_matrix", "sentiment_value")}
    return inputs


IN_A_CLEAN_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
from clean_process import hide_own_packages
hide_own_packages()
import numpy, torch
from transformers import AutoModel, AutoProcessor
for folder in sys.argv[2:]:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    inputs = {name: torch.from_numpy(value) for name, value in numpy.load(folder + ".inputs.npz").items()}
    with torch.no_grad():
        numpy.save(folder + ".logits.npy", model(**inputs).logits.numpy())
"""


@needs_reference
def test_logits_in_a_clean_process_are_the_parents_and_the_references(converted, tmp_path):
    for name, (folder, _) in converted.items():
        np.savez(f"{folder}.inputs.npz", **model_inputs(name))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    folders = [str(folder) for folder, _ in converted.values()]
    arguments = [sys.executable, "-c", IN_A_CLEAN_PROCESS, str(TESTS), *folders]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    for name, (folder, _) in converted.items():
        found = np.load(f"{folder}.logits.npy")
        with torch.no_grad():
            inputs = {key: torch.from_numpy(value) for key, value in model_inputs(name).items()}
            own = AutoModel.from_pretrained(folder)(**inputs).logits.numpy()
        np.testing.assert_allclose(found, own, rtol=0, atol=1e-6)
        wanted = np.load(REFERENCE / name / "outputs.npz")["logits_eval"]
        allowed = wanted > -1e20
        assert ((found > -1e20) == allowed).all()
        ended = model_inputs(name)["decoder_input_ids"] == 1
        allowed &= (np.cumsum(ended, 1) - ended == 0)[..., None]  # behind EOS the reference feeds a padding token
        assert allowed.sum() > 1000
        assert np.abs(found - wanted)[allowed].max() < 1e-4


@needs_reference
@pytest.mark.parametrize("name", KINDS)
def test_processor_makes_the_references_ids_and_targets(converted, name):
    processor = AutoProcessor.from_pretrained(converted[name][0])
    settings = json.loads((REFERENCE / name / "config.json").read_text())
    samples = json.loads((REFERENCE / name / "samples.json").read_text())["samples"]
    aspects = [
        [{"start": a["from"], "end": a["to"], "polarity": POLARITIES[a["polarity"]]} for a in sample["aspects"]]
        for sample in samples
    ]
    batch = processor(text=[sample["words"] for sample in samples], aspects=aspects, return_tensors="np")
    arrays = np.load(REFERENCE / name / "inputs.npz")
    offset = settings["text_offset"]
    np.testing.assert_array_equal(batch["input_ids"], arrays["input_ids"][:, offset:])
    np.testing.assert_array_equal(batch["attention_mask"], arrays["attention_mask"][:, offset:])
    counted = arrays["label_mask"][:, 3:] == 1
    np.testing.assert_array_equal(np.where(batch["labels"] == -100, 1, batch["labels"]), arrays["labels"][:, 3:])
    np.testing.assert_array_equal(batch["labels"] != -100, counted)
    vocabulary = processor.tokenizer.get_vocab()
    assert {token: vocabulary[token] for token in settings["added_tokens"]} == settings["added_tokens"]
    assert len(vocabulary) == settings["embedding_rows"] - 5


@needs_reference
def test_what_is_left_out_is_named(converted):
    parameters = json.loads((REFERENCE / "aom_b" / "config.json").read_text())["param_names_sorted"]
    (line,) = (line for line in converted["aom_b"][1] if "Left out" in line)
    unused = line.rpartition(": ")[2].rstrip(".").split(", ")
    assert len(unused) == 37 and set(unused) <= set(parameters)
    assert not any("Left out" in line for line in converted["vlp_b"][1])


# --- with checkpoints of this package's own making


@pytest.fixture
def checkpoint(maker, tmp_path):
    def make(source="vlp-mabsa", **sizes):
        torch.save(maker.checkpoint(source, **sizes), tmp_path / "theirs.pt")
        maker.tokenizer(sizes.get("vocabulary", 40)).save_pretrained(tmp_path / "tokenizer")
        return str(tmp_path / "theirs.pt"), str(tmp_path / "tokenizer")

    return make


@pytest.mark.parametrize("source, vocabulary, tokens", [("vlp-mabsa", 30, 19), ("vlp-mabsa", 41, 17), ("aom", 57, 18)])
def test_ids_of_added_tokens(source, vocabulary, tokens, maker, checkpoint, tmp_path):
    path, tokenizer = checkpoint(source, vocabulary=vocabulary, tokens=tokens)
    convert_to_folder(source, path, str(tmp_path / "out"), 2, tokenizer)
    loaded = AutoProcessor.from_pretrained(tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out")
    names = maker.ADDED[source][:tokens]
    assert loaded.tokenizer.convert_tokens_to_ids(names) == list(range(vocabulary, vocabulary + tokens))
    assert len(loaded.tokenizer) == model.config.text_config.vocab_size - 5
    assert not {*names} & {*loaded.tokenizer.all_special_tokens}
    assert loaded.tokenizer.convert_ids_to_tokens(model.config.image_bracket_token_ids) == ["<<img>>", "<</img>>"]
    tags = model.config.target_token_ids[2:]
    assert loaded.tokenizer.convert_ids_to_tokens(tags) == ["<<AESC>>", "<<POS>>", "<<NEU>>", "<<NEG>>"]
    loaded.check_fits(model.config)
    assert (loaded.pointer_offset, loaded.num_special_targets, loaded.end_points_to) == (6, 3, "first")


@pytest.mark.parametrize("vocabulary", [39, 41])
def test_tokenizer_of_another_size_is_refused(vocabulary, maker, checkpoint, tmp_path):
    path, _ = checkpoint()
    maker.tokenizer(vocabulary).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=f"has {vocabulary} tokens, but .* id 40"):
        convert_to_folder("vlp-mabsa", path, str(tmp_path / "out"), 2, str(tmp_path / "other"))
    assert not (tmp_path / "out").exists()


def tower(folder, width, size):
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, width], depths=[1, 1], layer_type="basic")
    torch.manual_seed(0)
    ResNetModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("width, fresh", [(5, False), (6, True)])
def test_vision_model_in_place_of_features(width, fresh, checkpoint, tmp_path):
    path, tokenizer = checkpoint("aom", positions=900)
    vision = tower(tmp_path / "vision", width, 224)
    said = convert_to_folder("aom", path, str(tmp_path / "out"), 2, tokenizer, vision)
    model, processor = (part.from_pretrained(tmp_path / "out") for part in (AutoModel, AutoProcessor))
    slots = model.config.num_image_tokens
    assert f"gives {slots} tokens of width {width}" in " ".join(said)
    assert f"the text now stands +{slots - 49} positions" in " ".join(said)
    assert any("Fresh: image_projection" in line for line in said) is fresh
    projection = torch.load(path)["encoder.embed_images.linear.weight"]
    assert torch.equal(model.model.encoder.image_projection.weight, projection) is not fresh
    state = ResNetModel.from_pretrained(vision).state_dict()
    assert all(
        torch.equal(value, model.model.encoder.vision_model.state_dict()[name]) for name, value in state.items()
    )
    picture = Image.linear_gradient("L").convert("RGB")
    inputs = processor(text=["a b c", "a b c"], images=[picture, None], return_tensors="pt")
    logits = model(**inputs, labels=torch.tensor([[7, 7, 3, 1]] * 2)).logits
    assert logits.isfinite().all() and not torch.equal(*logits)

    again = convert_to_folder("aom", path, str(tmp_path / "again"), 2, tokenizer, vision)
    assert again[:-1] == said[:-1]
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()


def test_vision_model_with_more_tokens_than_positions(checkpoint, tmp_path):
    path, tokenizer = checkpoint("aom")
    with pytest.raises(CheckpointError, match="80 positions, too few for 784 image tokens"):
        convert_to_folder("aom", path, str(tmp_path / "out"), 2, tokenizer, tower(tmp_path / "vision", 5, 224))
    assert not (tmp_path / "out").exists()


def test_a_former_model_is_replaced_and_nothing_else(checkpoint, tmp_path):
    path, tokenizer = checkpoint()
    out = tmp_path / "new" / "out"
    convert_to_folder("vlp-mabsa", path, str(out), 2, tokenizer)
    first = (out / "model.safetensors").read_bytes()
    path, _ = checkpoint(seed=1)
    convert_to_folder("vlp-mabsa", path, str(out), 2, tokenizer)
    second = (out / "model.safetensors").read_bytes()
    assert first != second
    (out / "notes.md").write_text("mine")
    path, _ = checkpoint(seed=2)
    with pytest.raises(CheckpointError, match="holds notes.md"):
        convert_to_folder("vlp-mabsa", path, str(out), 2, tokenizer)
    assert (out / "model.safetensors").read_bytes() == second and (out / "notes.md").exists()
    assert list(out.parent.iterdir()) == [out]
