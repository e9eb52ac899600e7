"""`lrsa rationalize shorten`: posts in, the same posts out, with rationales fit for training."""

import json

import pytest
from PIL import Image

from hub_scripts.cli import main
from processing import load_posts


ROWS = [
    {
        "id": "a",
        "text": "Marta again",
        "aspects": [{"start": 0, "end": 5, "polarity": "positive"}],
        "text_rationale": "Sure! Here's the rationale:\n- love for Marta\n- hate for rain",
        "image_rationale": "Marta opens in May. It is great.",
        "rationale_provenance": {"text_rationale": {"model": "m"}},
        "case": "plain",
    },
    {"words": ["Never", "again"], "text_rationale": "- ", "image": "none.jpg"},
    {"text": "", "text_rationale": None},
]


@pytest.fixture
def posts(tmp_path):
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rationales_change_and_nothing_else(posts, text_folder, tmp_path, capsys):
    out = tmp_path / "new" / "out.jsonl"
    command = ["rationalize", "shorten", str(posts), str(out), "--tokenizer", str(text_folder)]
    assert main([*command, "--max-tokens", "20"]) == 0
    rationales = {
        "text_rationale": "love for Marta; hate for rain.",
        "image_rationale": "Marta opens in May. It is great.",
    }
    assert read(out) == [ROWS[0] | rationales, ROWS[1] | {"text_rationale": None}, ROWS[2]]
    assert capsys.readouterr().out.splitlines()[-1] == f"2 of 3 rationales changed: {out}"
    assert main([*command, "--max-tokens", "6", "--mask-polarity-words"]) == 0
    assert read(out)[0]["image_rationale"] == "Marta opens in May."
    assert read(out)[0]["text_rationale"] == "■ for Marta; ■ for"
    written = out.read_bytes()
    assert (
        main(
            ["rationalize", "shorten", str(out), str(out), *command[4:], "--max-tokens", "6", "--mask-polarity-words"]
        )
        == 0
    )
    assert out.read_bytes() == written


def test_a_folder_of_splits(posts, text_folder, tmp_path):
    folder = tmp_path / "splits"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_bytes(posts.read_bytes())
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("rain\t-1\n")
    command = ["rationalize", "shorten", str(folder), str(tmp_path / "out"), "--tokenizer", str(text_folder)]
    assert main([*command, "--mask-polarity-words", str(lexicon)]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.jsonl", "test.jsonl"}
    assert read(tmp_path / "out" / "test.jsonl")[0]["text_rationale"] == "love for Marta; hate for ■."


def test_pictures_stay_in_parquet(text_folder, tmp_path, caplog):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 8), "red").save(tmp_path / "images" / "a.png")
    rows = [{"text": "Marta again", "image": name, "text_rationale": "- rain\n- love"} for name in ("a.png", None)]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["rationalize", "shorten", "--tokenizer", str(text_folder)]
    (tmp_path / "in").mkdir()
    assert main([*command, str(tmp_path / "posts.jsonl"), str(tmp_path / "in" / "train.parquet")]) == 0
    assert main([*command, str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    first, second = (load_posts(tmp_path / name / "train.parquet") for name in ("in", "out"))
    assert first["text_rationale"] == second["text_rationale"] == ["rain; love."] * 2
    assert first[0]["image"].size == second[0]["image"].size == (9, 8) and second[1]["image"] is None
    assert not caplog.text
    assert main([*command, str(tmp_path / "in" / "train.parquet"), str(tmp_path / "lines.jsonl")]) == 0
    assert "train.parquet: JSON Lines can't hold the pictures that are in it" in caplog.text


def test_the_tokenizer_of_an_embedded_part(posts, tmp_path):
    out = tmp_path / "out.jsonl"
    command = ["rationalize", "shorten", str(posts), str(out), "--tokenizer", "embedded/minilm-l6"]
    assert main([*command, "--max-tokens", "6"]) == 0
    assert read(out)[0]["image_rationale"] == "Marta opens in May."


@pytest.mark.parametrize(
    ("posts_name", "out", "tokenizer", "message"),
    [
        ("posts.jsonl", "folder", None, "posts.jsonl is a file; name one in .jsonl"),
        ("posts.jsonl", "folder.jsonl", None, "posts.jsonl is a file; name one in .jsonl"),
        (".", "out.jsonl", None, "is a folder; name a folder for its splits"),
        (".", "out", None, "holds none of train.jsonl"),
        ("nothing.jsonl", "out.jsonl", None, "nothing.jsonl: no such file or folder"),
        ("nothing", "out", None, "nothing: no such file or folder"),
        ("posts.jsonl", "out.jsonl", "images", "images: no tokenizer: "),
        ("bad.jsonl", "out.jsonl", None, "bad.jsonl:1: text: give `text`"),
    ],
)  # fmt: skip
def test_bad_input(posts_name, out, tokenizer, message, posts, text_folder, tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    (tmp_path / "folder.jsonl").mkdir()
    before = sorted(tmp_path.iterdir())
    command = ["rationalize", "shorten", str(tmp_path / posts_name), str(tmp_path / out)]
    assert main([*command, "--tokenizer", str(tokenizer and tmp_path / tokenizer or text_folder)]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
