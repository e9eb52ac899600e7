"""`lrsa rationalize audit`."""

import json
import random
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hub_scripts.cli import main
from hub_scripts.rationalize_audit import audit


pytestmark = pytest.mark.filterwarnings("error::UserWarning")

SAMPLES = Path(__file__).parents[2] / "examples" / "posts"
PICTURES = ("coverage", "rates", "leak_test")


def write(path: Path, rows) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def samples(split: str) -> list[dict]:
    return [json.loads(line) for line in (SAMPLES / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def colours(picture: Path) -> int:
    """How many pixels are neither white nor grey."""
    pixels = np.asarray(Image.open(BytesIO(picture.read_bytes())).convert("RGB")).astype(int)
    assert pixels.shape[0] > 250 and pixels.shape[1] == 1100
    return int((np.ptp(pixels, axis=2) > 40).sum())


def test_sample_posts(tmp_path, capsys):
    out = tmp_path / "a" / "b"
    assert main(["rationalize", "audit", str(SAMPLES), "--output", str(out)]) == 0
    said = capsys.readouterr().out
    report = json.loads((out / "audit.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == sorted(["audit.json", *(f"{name}.png" for name in PICTURES)])
    assert all(colours(out / f"{name}.png") > 1000 for name in PICTURES)
    lines = said.splitlines()
    assert lines[0].split() == ["image", "rationale", "train", "validation", "test"]
    assert next(line for line in lines if line.startswith("posts")).split() == ["posts", "300", "60", "50"]
    shares = [line.split()[-6:] for line in lines if line.startswith("name all gold aspects of their post  ")]
    assert shares == [["0.0", "%", "0.0", "%", "0.0", "%"], ["100.0", "%", "100.0", "%", "100.0", "%"]]
    assert "leak suspected" not in said and said.count("no sign of a rate that jumps on one split") == 2
    assert all(f"{v['level']}: {v['kind']}: {v['text']}" in lines for v in report["verdicts"])
    assert report["posts"] == {"train": 300, "validation": 60, "test": 50}


def test_a_leak_and_a_repeated_example(tmp_path, capsys):
    chance, rows = random.Random(0), samples("train")
    for row in chance.sample(rows, 60):
        row["text_rationale"] += f" The sentiment is {row['aspects'][0]['polarity']}."
    from processing.rationales import load_prompt

    rows[0]["text_rationale"] = load_prompt("text_rationale").examples[0].answer
    path = write(tmp_path / "posts.jsonl", rows)
    assert audit([str(path), "--prompt", "text_rationale", "--budget", "20"]) == 0
    said = capsys.readouterr().out
    assert "leak suspected: text_rationale: they know gold polarities (posts): " in said
    assert "leak suspected: image" not in said and "1 of 300 repeat an example of the prompt" in said
    assert "beyond 20 words" in said
    report = json.loads((tmp_path / "posts.audit" / "audit.json").read_text())
    assert report["kinds"]["text_rationale"]["splits"]["posts"]["rates"]["label_statement"]["count"] in (59, 60)

    # The same writer, asked for the polarities, would get all of them right: then it is no leak.
    assert audit([str(path), "--reader-accuracy", "99.9"]) == 0
    assert "leak suspected" not in capsys.readouterr().out


def test_posts_without_labels_and_a_split_without_rationales(tmp_path, capsys):
    rows = [{"text": row["text"], "text_rationale": row["text_rationale"]} for row in samples("test")]
    write(tmp_path / "posts" / "train.jsonl", rows)
    write(tmp_path / "posts" / "test.jsonl", [{"text": row["text"]} for row in rows[:3]])
    assert audit([str(tmp_path / "posts")]) == 0
    out = tmp_path / "posts.audit"
    assert sorted(path.name for path in out.iterdir()) == ["audit.json", "coverage.png", "rates.png"]
    said = capsys.readouterr().out
    assert "look: text_rationale: 3 of 53 posts have none." in said and "no post has one" in said
    assert "not checked: text_rationale: " in said and "leak suspected" not in said


def test_nothing_but_posts(tmp_path, capsys):
    path = write(tmp_path / "posts.jsonl", [{"text": "a"}])
    assert audit([str(path)]) == 0
    assert [path.name for path in (tmp_path / "posts.audit").iterdir()] == ["audit.json"]
    assert capsys.readouterr().out.count("no post has one") == 2


def test_folders_with_dots_in_their_names(tmp_path, monkeypatch, capsys):
    for name in ("my.v1", "my.v2"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", [{"text": "a"}])
        assert audit([str(tmp_path / name)]) == 0
    monkeypatch.chdir(tmp_path / "my.v1")
    assert audit(["."]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.v1", "my.v1.audit", "my.v2", "my.v2.audit"]


def test_without_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert audit([str(SAMPLES / "test.jsonl"), "--output", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["audit.json"]
    assert "No plots: Plots need Matplotlib: pip install lrsa[audit]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "none.jsonl: no such file or folder."),
        (["bad.jsonl"], "bad.jsonl:2: no JSON"),
        (["good.jsonl", "--prompt", "none.yaml"], "none.yaml: no prompt file"),
        (["good.jsonl", "--output", "good.jsonl"], "good.jsonl: can't be written to"),
        (["good.jsonl", "--output", "good.jsonl/out"], "good.jsonl/out: can't be written to"),
    ],
)
def test_bad_input(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.jsonl", [{"text": "a"}])
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    assert main(["rationalize", "audit", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"lrsa rationalize: {message}") and said.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl"]


@pytest.mark.parametrize("flags", [["--budget", "0"], ["--reader-accuracy", "100"], ["--reader-accuracy", "x"], []])
def test_bad_flags(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        audit(flags and [str(SAMPLES), *flags])
    assert stop.value.code == 2
