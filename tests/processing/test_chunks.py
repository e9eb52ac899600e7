"""Chunks of files, in any order, hold what the whole file holds."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from processing import PostError, iterate_posts
from processing.chunks import ChunkReader, cut, named_files, shard_files, whole


def write_lines(path: Path, number: int) -> Path:
    """Posts of many lengths, empty lines among them, and a byte order mark."""
    rows = [
        json.dumps({"id": f"p{i}" if i % 2 else None, "text": "é" * (i % 7) + f" post {i}"}) for i in range(number)
    ]
    path.write_text("\ufeff" + "".join(f"{row}\n" + "\n \n" * (i % 3 == 0) for i, row in enumerate(rows)), "utf-8")
    return path


def write_parquet(path: Path, number: int, rows_a_group: int = 17) -> Path:
    rows = [{"id": f"p{i}", "text": f"post {i}", "image": {"bytes": None, "path": "no.png"}} for i in range(number)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=rows_a_group)
    return path


def posts_of(read):
    return [post for chunk in read for post in chunk.posts]


@pytest.mark.parametrize("size", [1, 3, 50, 250, 1000])
@pytest.mark.parametrize("form", ["jsonl", "parquet", "json"])
def test_chunks_are_the_file_in_any_order(form, size, tmp_path):
    number = 250 if form == "parquet" else 60
    path = tmp_path / f"posts.{form}"
    if form == "json":
        path.write_text(json.dumps([{"words": [f"w{i}"], "image_id": "no.png", "aspects": []} for i in range(number)]))
    else:
        {"jsonl": write_lines, "parquet": write_parquet}[form](path, number)
    expected = [post | {"image": None} for _, _, post in iterate_posts(path)]
    assert len(expected) == number
    chunks = cut([path], size)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    reader = ChunkReader()
    assert posts_of(map(reader.read, chunks)) == expected
    mixed = random.Random(0).sample(chunks, len(chunks))
    found = {chunk.number: reader.read(chunk) for chunk in mixed}
    assert posts_of(found[chunk.number] for chunk in chunks) == expected
    assert max(len(read.posts) for read in found.values()) <= size
    assert sum(read.missing for read in found.values()) == (0 if form == "jsonl" else number)
    assert posts_of([ChunkReader().read(whole(path))]) == expected


def test_chunks_that_follow_read_on(tmp_path, monkeypatch):
    """A row group of a million rows is not read again for each chunk."""
    path, opened = write_parquet(tmp_path / "posts.parquet", 500, 500), []
    original = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda file: opened.append(file) or original(file))
    reader = ChunkReader()
    assert len(posts_of(map(reader.read, cut([path], 10)))) == 500
    assert len(opened) == 2  # once to count


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_a_chunk_that_follows_on_a_bad_one_is_its_own(tmp_path, form):
    rows = [{"words": [f"w{i}"], "aspects": []} for i in range(30)]
    rows[3]["words"] = ["white space"]
    path = tmp_path / f"posts.{form}"
    if form == "json":
        path.write_text(json.dumps(rows))
    else:
        pq.write_table(pa.Table.from_pylist([{"words": row["words"]} for row in rows]), path)
    reader, chunks = ChunkReader(), cut([path], 10)
    with pytest.raises(PostError):
        reader.read(chunks[0])
    assert [post["words"] for post in reader.read(chunks[1]).posts] == [[f"w{i}"] for i in range(10, 20)]


def test_one_bad_row_in_many(tmp_path):
    path = write_lines(tmp_path / "posts.jsonl", 100)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[40:40] = [b'{"text": 7}\n', b"torn {\n", b'{"text": "\xff"}\n', b'{"text": "a", "words": ["a"]}\n']
    path.write_bytes(b"".join(lines))
    reader, bad = ChunkReader(on_bad_post="skip"), []
    ids = []
    for chunk in cut([path], 25):
        read = reader.read(chunk)
        ids += [post["text"] for post in read.posts]
        bad += read.bad
    assert len(ids) == 100
    assert [row["place"] for row in bad] == [f"{path}:{line}" for line in (41, 42, 43, 44)]
    reasons = ("text: a string", "no JSON", "no UTF-8", "not both")
    assert all(reason in row["problem"] for reason, row in zip(reasons, bad, strict=True))
    with pytest.raises(PostError, match=f"^{path}:41: text: a string is expected"):
        for chunk in cut([path], 25):
            ChunkReader().read(chunk)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no parquet", "b.parquet: can't be read as Parquet"),
        ({"caption": ["a"], "date": [1]}, "b.parquet: has no column `text` or `words`, but caption, date."),
    ],
)
def test_a_bad_shard_is_told_before_any_is_read(content, message, tmp_path):
    write_parquet(tmp_path / "a.parquet", 3)
    if isinstance(content, bytes):
        (tmp_path / "b.parquet").write_bytes(content)
    else:
        pq.write_table(pa.table(content), tmp_path / "b.parquet")
    with pytest.raises(PostError, match=message):
        cut(shard_files(tmp_path), 10)


def test_empty_shards_are_passed_over_and_no_post_at_all_is_told(tmp_path):
    first, second = write_parquet(tmp_path / "a.parquet", 3), tmp_path / "b.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), second)
    assert [chunk.file for chunk in cut([second, first], 10)] == [first]
    with pytest.raises(PostError, match="b.parquet: the file is empty"):
        cut([second], 10)


def test_shards_of_a_folder(tmp_path):
    for name in ("b.jsonl", "a.jsonl", ".c.jsonl", "train-00001-of-00002.parquet", "train-00000-of-00002.parquet"):
        (tmp_path / name).touch()
    names = ["train-00000-of-00002", "train-00001-of-00002"]
    assert [file.stem for file in shard_files(tmp_path)] == list(named_files(tmp_path)) == names
    assert [file.stem for file in shard_files(tmp_path, "train")] == names
    (tmp_path / "test-00000-of-00001.parquet").touch()
    assert [file.stem for file in shard_files(tmp_path, "train")] == names
    for file in tmp_path.glob("*.parquet"):
        file.unlink()
    assert [file.stem for file in shard_files(tmp_path)] == ["a", "b"]
    (tmp_path / "dev.jsonl").touch()
    assert shard_files(tmp_path, "validation") == [tmp_path / "dev.jsonl"]
    assert named_files(tmp_path) == {"validation": tmp_path / "dev.jsonl"}
    with pytest.raises(PostError, match="is a folder; name one of its splits by --split"):
        shard_files(tmp_path)
    (tmp_path / "extra.parquet").touch()  # of another form than the splits
    assert named_files(tmp_path) == {"validation": tmp_path / "dev.jsonl"}
    with pytest.raises(PostError, match="is a folder; name one of its splits by --split"):
        shard_files(tmp_path)
