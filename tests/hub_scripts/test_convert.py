"""`lrsa convert`: what it writes and says, and what bad input leaves behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor, BartConfig, BartModel

from hub_scripts.cli import main


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parts(maker, tmp_path_factory):
    """A checkpoint of each project, and a tokenizer that fits both."""
    folder = tmp_path_factory.mktemp("parts")
    for source in ("vlp-mabsa", "aom"):
        torch.save(maker.checkpoint(source), folder / f"{source}.pt")
    maker.tokenizer().save_pretrained(folder / "tokenizer")
    maker.tokenizer(30).save_pretrained(folder / "small_tokenizer")
    return folder


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("source", ["vlp-mabsa", "aom"])
def test_converts_and_then_predicts(source, parts, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(parts / f"{source}.pt"), str(out), "--num-heads", "2", "--tokenizer", str(parts / "tokenizer")]
    assert main(["convert", "--from", source, *arguments]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{parts / source}.pt: {source}, width 8, 1 + 2 layers of 2 and 2 heads, ")
    assert said[-1] == f"Model: {out}"
    assert ("attention.query_layer.weight" in "".join(said)) is (source == "aom")
    assert {"config.json", "model.safetensors", "processor_config.json"} <= {path.name for path in out.iterdir()}
    assert main(["predict", str(out), "--text", "a b c"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out)["aspects"], list)


def test_plain_text_models(maker, text_folder, posts_folder, tmp_path, capsys):
    sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes |= {"encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "d_model": 8, "max_position_embeddings": 64}
    BartModel(BartConfig(vocab_size=40, **sizes)).save_pretrained(tmp_path / "bart")
    maker.tokenizer().save_pretrained(tmp_path / "bart")
    for kind, folder in (("bart", tmp_path / "bart"), ("bert", text_folder)):
        assert main(["convert", "--from", kind, str(folder), str(tmp_path / "out")]) == 0
        said = capsys.readouterr().out
        assert "Fresh: pointer_head" in said and (", decoder," in said) is (kind == "bert")
        model = AutoModel.from_pretrained(tmp_path / "out")
        AutoProcessor.from_pretrained(tmp_path / "out").check_fits(model.config)
        theirs = AutoModel.from_pretrained(folder).state_dict()
        own = {value.numpy().tobytes() for value in model.state_dict().values()}
        assert all(value.numpy().tobytes() in own for name, value in theirs.items() if "pooler" not in name)
    assert main(["evaluate", str(tmp_path / "out"), str(posts_folder)]) == 0


def test_without_tokenizer_there_is_no_processor_and_a_word_on_it(parts, tmp_path):
    arguments = ["convert", "--from", "vlp-mabsa", str(parts / "vlp-mabsa.pt"), "out", "--num-heads", "2"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "hub_scripts.cli", *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No processor: the tokenizer facebook/bart-base is out of reach." in done.stdout
    assert "--tokenizer FOLDER" in done.stdout
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "processor_config.json").exists()


# Arguments in place of the good ones, and what the message says.
BAD = {
    "no such file": ({"checkpoint": "nothing.pt"}, "no such file"),
    "another project": ({"source": "aom"}, "no aom checkpoint .* not what aom has"),
    "another architecture": ({"checkpoint": "bert.pt"}, "encoder.embed_tokens.weight is not in it"),
    "truncated": ({"checkpoint": "half.pt"}, "truncated"),
    "module saved whole": ({"checkpoint": "module.pt"}, "would run code .*state_dict"),
    "unknown kind": ({"source": "vlp"}, "--from vlp: is none of vlp-mabsa, aom"),
    "of another kind": ({"source": "bart", "checkpoint": "tokenizer", "flags": []}, "can't be loaded|is a"),
    "kind with heads": ({"source": "bart"}, "leave both out"),
    "heads that do not divide": ({"flags": ["--num-heads", "3"]}, "8 can't be divided into 3"),
    "small tokenizer": ({"flags": ["--num-heads", "2", "--tokenizer", "small_tokenizer"]}, "30 tokens, .* id 40"),
    "no tokenizer there": ({"flags": ["--num-heads", "2", "--tokenizer", "./no/tokenizer"]}, "./no/tokenizer: can't"),
    "no vision model": ({"flags": ["--num-heads", "2", "--vision", "./no/vision"]}, "./no/vision: can't be loaded"),
    "out is a file": ({"out": "vlp-mabsa.pt"}, "is a file"),
    "out is foreign": ({"out": "tokenizer"}, "would be lost"),
    "out below a file": ({"out": "vlp-mabsa.pt/a/b"}, "can't be written"),
    "out holds the checkpoint": ({"out": "."}, "would be lost"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore")
def test_bad_input_is_one_line_and_exit_2_and_nothing_is_written(name, parts, tmp_path, monkeypatch, capfd):
    changes, message = BAD[name]
    for part in ("vlp-mabsa.pt", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).write_bytes((parts / part).read_bytes())
    (tmp_path / "small_tokenizer").symlink_to(parts / "small_tokenizer")
    whole = (parts / "vlp-mabsa.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"bert.embeddings.weight": torch.zeros(2, 2)}, tmp_path / "bert.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    monkeypatch.chdir(tmp_path)
    given = {"source": "vlp-mabsa", "checkpoint": "vlp-mabsa.pt", "out": "new/out", "flags": ["--num-heads", "2"]}
    given |= changes
    if "--tokenizer" not in given["flags"] and given["source"] == "vlp-mabsa":
        given["flags"] = [*given["flags"], "--tokenizer", "tokenizer"]
    before = files(tmp_path)
    assert main(["convert", "--from", given["source"], given["checkpoint"], given["out"], *given["flags"]]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("lrsa convert: "), lines
    assert re.search(message, lines[0]), lines[0]
    assert files(tmp_path) == before and not (tmp_path / "new").exists()


def test_a_former_model_is_kept_where_the_conversion_fails(parts, tmp_path, capfd):
    flags = ["--num-heads", "2", "--tokenizer", str(parts / "tokenizer")]
    assert main(["convert", "--from", "aom", str(parts / "aom.pt"), str(tmp_path / "out"), *flags]) == 0
    before = files(tmp_path)
    assert main(["convert", "--from", "aom", str(parts / "vlp-mabsa.pt"), str(tmp_path / "out"), *flags]) == 2
    assert files(tmp_path) == before


def test_help_is_enough(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["convert", "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("--from", "checkpoint", "out", "--num-heads", "--tokenizer", "--vision", "vlp-mabsa", "aom", "bart"):
        assert word in text
