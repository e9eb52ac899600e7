"""Posts saved as Parquet, with their pictures, and read back."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import Image, load_dataset

from processing import PostError, load_posts, save_posts
from processing.posts import FEATURES, iterate_posts
from processing.writing import whole_path


SAMPLES = Path(__file__).parents[2] / "examples" / "posts"


def stored(posts):
    """Rows with their pictures as they are stored, without the folder of theirs."""
    rows = list(posts.cast_column("image", Image(decode=False)))
    for row in rows:
        if row["image"] is not None:
            path = Path(row["image"]["path"])
            row["image"] = {"bytes": row["image"]["bytes"] or path.read_bytes(), "path": path.name}
    return rows


def test_the_sample_posts_come_back_with_their_pictures(tmp_path, caplog):
    posts = load_posts(SAMPLES)
    save_posts(posts, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.parquet", "train.parquet", "validation.parquet"]
    loaded = load_posts(tmp_path, labelled=True)
    assert not caplog.records
    for split, rows in posts.items():
        assert loaded[split].features == rows.features == FEATURES
        assert stored(loaded[split]) == stored(rows)
        assert str(SAMPLES) not in str(pq.read_table(tmp_path / f"{split}.parquet")["image"].to_pylist())
    named = [i for i, row in enumerate(posts["test"].select_columns("image")) if row["image"] is not None]
    assert loaded["test"][named[0]]["image"].tobytes() == posts["test"][named[0]]["image"].tobytes()
    assert load_posts(tmp_path)["test"]._fingerprint == loaded["test"]._fingerprint != posts["test"]._fingerprint
    save_posts(loaded["test"], tmp_path / "again.parquet")
    assert stored(load_posts(tmp_path / "again.parquet")) == stored(loaded["test"])


def test_datasets_reads_it(tmp_path):
    save_posts(load_posts(SAMPLES, "test"), tmp_path / "test.parquet")
    read = load_dataset("parquet", data_files=str(tmp_path / "test.parquet"), cache_dir=tmp_path / "cache")["train"]
    assert read.features == FEATURES and stored(read) == stored(load_posts(tmp_path, "test"))


@pytest.fixture
def mixed(tmp_path, picture):
    images = tmp_path / "images"
    images.mkdir()
    picture.save(images / "a.png")
    np.save(images / "a.npy", np.ones((2, 3), np.float32))
    np.save(images / "b.jpg.npy", np.ones((2, 3), np.float32))
    rows = [{"words": ["Ajax"], "image": "a.png", "id": "one"}, {"text": "b", "image": "b.jpg"}, {"text": ""}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_posts(load_posts(tmp_path / "train.jsonl"), tmp_path / "out" / "train.parquet")
    return tmp_path


def test_features_are_looked_for_where_pictures_are(mixed):
    parquet, images = mixed / "out" / "train.parquet", mixed / "images"
    loaded = load_posts(parquet, images=images)
    assert loaded["image_features"] == [str(images / "a.npy"), str(images / "b.jpg.npy"), None]
    assert loaded["id"] == ["one", "train-2", "train-3"] and loaded["text"] == [None, "b", ""]
    assert [row["image"] is not None for row in loaded] == [True, False, False]
    assert load_posts(parquet)["image_features"] == [None] * 3


def test_rows_of_parquet_can_stand_in_json_lines(mixed):
    places, rows, posts = zip(*iterate_posts(mixed / "out" / "train.parquet"))
    assert places == tuple(f"{mixed / 'out' / 'train.parquet'}, row {number}" for number in (1, 2, 3))
    assert [row["image"] for row in json.loads(json.dumps(rows))] == ["a.png", "b.jpg", None]
    assert posts[0]["image"]["bytes"] == (mixed / "images" / "a.png").read_bytes()


def test_parquet_of_others(tmp_path):
    """Columns that are not there are none, others are passed over."""
    path = tmp_path / "test.parquet"
    pd.DataFrame({"words": [["Ajax", "wins"]], "image": ["gone.png"], "date": [pd.Timestamp(0)]}).to_parquet(path)
    assert load_posts(path)[0] == dict.fromkeys(FEATURES) | {"id": "test-1", "words": ["Ajax", "wins"]}
    ((_, row, _),) = iterate_posts(path)
    assert row == {"id": "test-1", "words": ["Ajax", "wins"], "image": "gone.png"}


BAD = {"aspects": [[{"start": 0, "end": 3, "polarity": "neutral"}]]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": [["Ajax"]], **BAD}, ", row 1: aspects.0.: 0–3 lies outside the text of 1 words"),
        ({"text": ["a", None]}, ", row 2: text: give"),
        ({"text": [1]}, ", row 1: text: a string is expected"),
        ({"caption": ["a"]}, ", row 1: text: give"),
        ({"text": []}, ": the file is empty"),
        ({"text": ["a"], "image": [{"bytes": b"no picture", "path": "a.png"}]}, ", row 1: image: picture .* can't be"),
    ],
)
def test_bad_rows(columns, message, tmp_path):
    path = tmp_path / "train.parquet"
    pd.DataFrame(columns).to_parquet(path)
    with pytest.raises(PostError, match=f"^{path}{message}"):
        load_posts(path)


def test_bad_pictures_are_skipped(tmp_path, caplog):
    image = {"bytes": b"no picture", "path": "a.png"}
    pd.DataFrame({"text": ["a"], "image": [image]}).to_parquet(tmp_path / "train.parquet")
    assert load_posts(tmp_path, "train", on_bad_image="skip")["image"] == [None]
    assert "row 1: image: picture" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PAR1", b'{"text": "a"}\n', "cut"])
def test_what_is_no_parquet(content, tmp_path):
    path = tmp_path / "train.parquet"
    if content == "cut":
        pd.DataFrame({"text": ["a"] * 1000}).to_parquet(path)
        content = path.read_bytes()[:-50]
    path.write_bytes(content)
    with pytest.raises(PostError, match=f"^{path}: can't be read as Parquet"):
        load_posts(path)


def test_what_cannot_be_saved(mixed):
    posts = load_posts(mixed / "train.jsonl")
    with pytest.raises(PostError, match="posts.jsonl: name a file in .parquet"):
        save_posts(posts, mixed / "posts.jsonl")
    with pytest.raises(PostError, match="can't be written to"):
        save_posts(posts, mixed / "train.jsonl" / "train.parquet")
    (mixed / "images" / "a.png").unlink()
    former = (mixed / "out" / "train.parquet").read_bytes()
    with pytest.raises(PostError, match="train.parquet: can't be written .*No such file"):
        save_posts(posts, mixed / "out" / "train.parquet")
    assert (mixed / "out" / "train.parquet").read_bytes() == former
    assert len(list((mixed / "out").iterdir())) == 1


def test_whole_path_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"former")
    with pytest.raises(KeyboardInterrupt), whole_path(path) as fresh:
        fresh.write_bytes(b"half")
        raise KeyboardInterrupt
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.bin", b"former")]
