import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from processing import PostError, load_posts, post_table, save_posts


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LRSA_CACHE", str(folder))
    return folder


def write(folder: Path, number: int, **last) -> Path:
    """Writes posts of which every third has a picture that is there, and every third one that is not."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (16, 12), "red").save(folder / "images" / "0.png")
    rows = [
        {"id": str(i), "words": ["a", "b"], "image": [None, "0.png", "gone.png"][i % 3], "text_rationale": "r" * i,
         "aspects": [{"start": 0, "end": 1, "polarity": "neutral"}] * (i % 2)}
        for i in range(number)
    ]  # fmt: skip
    rows[-1] |= last
    path = folder / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("number", [11, 24])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_many_posts_lie_in_a_file_and_are_the_same(tmp_path, monkeypatch, caplog, cache, number, form):
    path = write(tmp_path / "in", number)
    if form == "parquet":
        save_posts(load_posts(path), tmp_path / "posts.parquet")
        path = tmp_path / "posts.parquet"
    few = load_posts(path)
    assert not few.cache_files and not cache.exists()
    caplog.clear()
    monkeypatch.setattr(post_table, "IN_MEMORY", 10)
    monkeypatch.setattr(post_table, "BATCH", 4)
    many = load_posts(path)
    assert [Path(file["filename"]).parent for file in many.cache_files] == [cache]
    assert many.features == few.features and many._fingerprint == few._fingerprint
    for kept, mapped in zip(few, many, strict=True):
        for post in (kept, mapped):
            post["image"] = post["image"] and post["image"].tobytes()
        assert kept == mapped
    assert load_posts(path)._fingerprint == few._fingerprint and len(list(cache.iterdir())) == 1
    if form == "jsonl":
        assert f"{number // 3} of {number} pictures are not in" in caplog.text


def test_as_many_as_are_held_in_memory(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(post_table, "IN_MEMORY", 12)
    assert not load_posts(write(tmp_path / "in", 12)).cache_files
    assert not cache.exists()


def test_a_bad_post_behind_many_leaves_nothing(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(post_table, "IN_MEMORY", 10)
    with pytest.raises(PostError, match=r"posts.jsonl:20: aspects: a list is expected"):
        load_posts(write(tmp_path / "in", 20, aspects=1))
    assert list(cache.iterdir()) == []


def test_another_picture_of_the_same_name_is_another_data_set(tmp_path):
    path = write(tmp_path / "in", 5)
    former = load_posts(path)._fingerprint
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "in" / "images" / "0.png")
    assert load_posts(path)._fingerprint != former


def test_a_picture_that_has_gone_is_told_by_its_name(tmp_path, monkeypatch, cache):
    row = {"id": "1", "text": "a", "image": str(tmp_path / "gone.png"), "image_features": None}
    for in_memory in (10, 0):
        monkeypatch.setattr(post_table, "IN_MEMORY", in_memory)
        with pytest.raises(PostError, match=r"gone.png: can't be read \(No such file or directory\)"):
            post_table.to_dataset([row])


FULL = """
import resource, signal, sys
from processing import PostError, load_posts, post_table
post_table.IN_MEMORY = 10
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    load_posts(sys.argv[1])
except PostError as error:
    print(error)
"""


def test_a_full_disk_is_told_in_one_line(tmp_path, cache):
    path = write(tmp_path / "in", 1000)
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert done.stdout.startswith(f"{cache}: posts can't be kept there (") and done.stdout.count("\n") == 1, done
    assert "make room, or set LRSA_CACHE" in done.stdout and list(cache.iterdir()) == []


PEAK = """
import sys
from processing import load_posts, post_table
post_table.IN_MEMORY = 500
posts = load_posts(sys.argv[1], labelled=True)
print(len(posts))
"""


def test_memory_does_not_grow_with_posts(tmp_path, print_peak):
    def peak(number: int) -> int:
        path = tmp_path / f"{number}.jsonl"
        rationale = "w " * 1000
        row = {"text": "a b c d", "aspects": [], "text_rationale": rationale, "image_rationale": rationale}
        path.write_text((json.dumps(row) + "\n") * number)
        command = [sys.executable, "-c", PEAK + print_peak, path]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found, megabytes = map(int, done.stdout.split())
        assert found == number
        return megabytes

    assert peak(11_000) - peak(1_000) < 15  # MB; what is read in addition are 40
