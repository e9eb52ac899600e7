"""Parts of a run: each whole, kept, and written once."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from processing import PostError
from processing.chunks import ChunkReader, cut
from processing.parts import Answered, Parts, answer


SCHEMA = pa.schema({"id": pa.string(), "length": pa.int32()})


def count(rows):
    return Counter(posts=len(rows))


def parts_of(folder, ending=".jsonl", **settings):
    return Parts(folder, ending, SCHEMA, {"task": "mabsa"} | settings, count)


@pytest.fixture
def chunks(tmp_path):
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "text": f"post {i}"}) + "\n" for i in range(95)) + "torn\n")
    return cut([path], 10)


class Worker:
    """Dies at its n-th chunk."""

    def __init__(self, dies=None):
        self.reader, self.dies, self.done = ChunkReader(on_bad_post="skip"), dies, []

    def __call__(self, chunk):
        if len(self.done) == self.dies:
            raise KeyboardInterrupt
        self.done.append(chunk.number)
        read = self.reader.read(chunk)
        return Answered([{"id": post["id"], "length": len(post["text"])} for post in read.posts], read.bad)


def test_what_is_done_is_not_done_again(tmp_path, chunks):
    first, second = Worker(dies=4), Worker()
    with pytest.raises(KeyboardInterrupt):
        list(answer(chunks, lambda: first, parts_of(tmp_path / "out")))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == [
        f"part-{i:06d}.jsonl" for i in range(4)
    ]
    counts = sum(answer(chunks, lambda: second, parts_of(tmp_path / "out")), Counter())
    assert first.done == [0, 1, 2, 3] and second.done == [4, 5, 6, 7, 8, 9] and counts == {"posts": 55}
    assert list(answer(chunks, pytest.fail, parts_of(tmp_path / "out"))) == []


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_parts_become_one_file(tmp_path, chunks, ending):
    parts, target = parts_of(tmp_path / "out.parts", ending), tmp_path / f"out{ending}"
    target.write_text("former")
    (tmp_path / ".out.parts.done").mkdir()  # of a run that was killed as it removed its parts
    (tmp_path / ".out.parts.done" / "part-000000.jsonl").touch()
    assert sum(answer(chunks, Worker, parts), Counter()) == {"posts": 95}
    assert sum(map(parts.count, chunks), Counter()) == {"posts": 95}
    parts.merge(chunks, target)
    if ending == ".parquet":
        rows = pq.read_table(target).to_pylist()
    else:
        rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert rows == [{"id": str(i), "length": len(f"post {i}")} for i in range(95)]
    (bad,) = (tmp_path / "out.bad.jsonl").read_text().splitlines()
    assert json.loads(bad)["place"] == f"{tmp_path}/posts.jsonl:96"
    assert {path.name for path in tmp_path.iterdir()} == {"posts.jsonl", target.name, "out.bad.jsonl"}


def test_readers_of_data_sets_see_parts_alone(tmp_path, chunks):
    from datasets import load_dataset

    list(answer(chunks, Worker, parts_of(tmp_path / "out", ".parquet")))
    assert len(load_dataset("parquet", data_dir=str(tmp_path / "out"), cache_dir=tmp_path / "cache")["train"]) == 95
    assert pq.read_table(tmp_path / "out").num_rows == 95


def test_a_folder_of_another_run_is_refused(tmp_path, chunks):
    list(answer(chunks, Worker, parts_of(tmp_path / "out")))
    for changes in ({"task": "mate"}, {"model": "x"}):
        with pytest.raises(
            PostError, match=f"^{tmp_path}/out: holds parts of a run with another {min(changes)} .*go on"
        ):
            parts_of(tmp_path / "out", **changes)
    with pytest.raises(PostError, match="with another form"):
        parts_of(tmp_path / "out", ".parquet")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes.txt").touch()
    with pytest.raises(PostError, match="else: holds files of something else; name another folder"):
        parts_of(tmp_path / "else")
    (tmp_path / "out" / ".run" / "settings.json").write_text("torn {")
    with pytest.raises(PostError, match="settings.json: can't be read"):
        parts_of(tmp_path / "out")


def test_a_folder_without_answers_may_be_begun_anew(tmp_path, chunks):
    parts_of(tmp_path / "out").discard()
    assert not (tmp_path / "out").exists()
    parts = parts_of(tmp_path / "out", task="mate")
    parts.write(Worker(), chunks[0])
    parts.discard()
    assert parts.has(chunks[0])
    (tmp_path / "out" / ".part-000001.jsonl.99").touch()  # of a killed process
    parts.sweep()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".run", "part-000000.jsonl"}
