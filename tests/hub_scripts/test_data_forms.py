"""`lrsa train` on each form of the same posts."""

import json

import pytest

from hub_scripts.cli import main
from processing import load_posts, save_posts

from .conftest import POSTS


NUMBERS = {"negative": 0, "neutral": 1, "positive": 2}


def json_lines(post) -> dict:
    text, aspects = post
    words, spans = text.split(), []
    for aspect, polarity in aspects:
        start = words.index(aspect.split()[0])
        spans.append({"start": start, "end": start + len(aspect.split()), "polarity": polarity})
    return {"words": words, "aspects": spans}


def vlp(post) -> dict:
    row = json_lines(post)
    aspects = [{"from": a["start"], "to": a["end"], "polarity": a["polarity"][:3].upper()} for a in row["aspects"]]
    return {"words": row["words"], "image_id": "1.jpg", "aspects": aspects, "opinions": [{"term": []}]}


@pytest.fixture
def folders(tmp_path):
    """A folder of each form."""
    rows = [(text.replace(a, "$T$"), a, NUMBERS[polarity]) for text, aspects in POSTS for a, polarity in aspects]
    header = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String\n"
    contents = {
        "jsonl": "".join(json.dumps(json_lines(post)) + "\n" for post in POSTS),
        "tsv": header + "".join(f"{n}\t{label}\t1.jpg\t{text}\t{a}\n" for n, (text, a, label) in enumerate(rows, 1)),
        "txt": "".join(f"{text}\n{a}\n{label - 1}\n1.jpg\n" for text, a, label in rows),
        "json": json.dumps([vlp(post) for post in POSTS]),
    }
    for form, content in contents.items():
        (tmp_path / form).mkdir()
        for split in ("train", "validation" if form == "jsonl" else "dev"):
            (tmp_path / form / f"{split}.{form}").write_text(content)
    save_posts(load_posts(tmp_path / "jsonl"), tmp_path / "parquet")
    return {form: tmp_path / form for form in [*contents, "parquet"]}


def test_all_forms_train_the_same_model(text_folder, folders, tmp_path, capfd):
    curves = {}
    for form, folder in folders.items():
        out = tmp_path / "out" / form
        options = {"data": folder, "text_model": text_folder, "decoder_layers": 1, "output_dir": out, "seed": 7}
        options |= {"num_train_epochs": 1, "eval_strategy": "epoch", "use_cpu": True}
        assert main(["train", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]) == 0
        results = json.loads((out / "results.json").read_text())
        curves[form] = [(entry["step"], entry["eval_loss"]) for entry in results["curve"]], results["validation"]
    assert len(curves["jsonl"][0]) == 1
    assert {form: curve == curves["jsonl"] for form, curve in curves.items()} == dict.fromkeys(folders, True)


def test_a_bad_line_is_told_in_one_line(text_folder, folders, tmp_path, capfd):
    path = folders["txt"] / "dev.txt"
    path.write_text(path.read_text().replace("\n-1\n", "\n5\n", 1))
    command = ["--data", str(folders["txt"]), "--text_model", str(text_folder), "--output_dir", str(tmp_path / "out")]
    capfd.readouterr()
    assert main(["train", *command]) == 2
    line = path.read_text().splitlines().index("5") + 1
    assert capfd.readouterr().err.startswith(f"lrsa train: {path}:{line}: label: '5' is unknown; one of -1 (negative)")
