import json
import pickle

import numpy as np
import pytest
import torch

from processing import DataCollatorForMABSA, load_posts
from processing.preparation import prepare_posts
from processing.region_features import find_features, read_features


FEATURES = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.mark.parametrize("name", ["7.jpg.npy", "7.npy", "7.jpg.npz", "7.npz"])
def test_finds_them_by_the_pictures_name(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    assert find_features(tmp_path / "7.jpg") == str(tmp_path / name)
    assert find_features(tmp_path / "8.jpg") is None


@pytest.mark.parametrize("name", ["", "..", "\0", "a" * 300])
def test_names_that_are_none(name, tmp_path):
    assert find_features(tmp_path / name) is None


@pytest.mark.parametrize(
    "arrays", [{"anything": FEATURES}, {"x": FEATURES, "bbox": FEATURES}, {"features": FEATURES, "x": 0}]
)
def test_reads_archives(arrays, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    assert np.array_equal(read_features(tmp_path / "a.npz"), FEATURES)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_reads_arrays_as_float32(dtype, tmp_path):
    np.save(tmp_path / "a.npy", FEATURES.astype(dtype))
    found = read_features(tmp_path / "a.npy")
    assert found.dtype == np.float32 and np.array_equal(found, FEATURES.astype(dtype).astype(np.float32))


def bad(path, kind):
    if kind == "two arrays":
        return np.savez(path.with_suffix(".npz"), a=FEATURES, b=FEATURES)
    if kind == "objects":
        return np.save(path, np.array([print, [1]], dtype=object), allow_pickle=True)
    if kind == "pickle":
        return path.write_bytes(pickle.dumps(FEATURES))
    if kind == "cut":
        np.save(path, FEATURES)
        return path.write_bytes(path.read_bytes()[:-7])
    return np.save(path, {"three axes": FEATURES[None], "whole numbers": np.ones((3, 5), dtype=int)}[kind])


@pytest.mark.parametrize("kind", ["two arrays", "objects", "pickle", "cut", "three axes", "whole numbers"])
def test_what_is_none_is_named(kind, tmp_path):
    bad(tmp_path / "a.npy", kind)
    (path,) = tmp_path.iterdir()
    with pytest.raises(ValueError, match=f"{path.name}: features can't be read: "):
        read_features(path)


@pytest.fixture
def posts(tmp_path, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "1.npy", FEATURES)
    np.savez(tmp_path / "images" / "3.jpg.npz", x=2 * FEATURES)
    rows = [{"text": "the rain", "aspects": [], "image": f"{number}.jpg"} for number in (1, 2, 3)]
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_posts(path)


@pytest.mark.parametrize("prepared", [False, True])
def test_from_posts_to_a_batch(prepared, posts, processor):
    rows = prepare_posts(posts, processor) if prepared else posts
    batch = DataCollatorForMABSA(processor)([rows[index] for index in range(3)])
    assert "pixel_values" not in batch
    assert torch.equal(batch["image_features"], torch.from_numpy(np.stack([FEATURES, 0 * FEATURES, 2 * FEATURES])))
    assert batch["image_attention_mask"].tolist() == [1, 0, 1]


def test_pictures_that_are_nowhere_are_counted(posts, tmp_path, caplog):
    load_posts(tmp_path / "posts.jsonl")
    assert "1 of 3 pictures are not in" in caplog.text


def test_changed_features_make_another_data_set(posts, tmp_path):
    np.save(tmp_path / "images" / "1.npy", np.concatenate([FEATURES, FEATURES]))
    assert load_posts(tmp_path / "posts.jsonl")._fingerprint != posts._fingerprint
