"""`--engine ray` on a cluster of this machine: two workers, one of which is killed, and workers that keep dying."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest


pytest.importorskip("ray", reason="needs Ray: pip install lrsa[ray]")
pytestmark = pytest.mark.slow  # a cluster takes half a minute to start

ROOT = Path(__file__).parents[1]
PATIENCE = 1500  # seconds


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """Folder of an untrained model that finds aspects in nearly any post."""
    spec = importlib.util.spec_from_file_location("tiny_models", ROOT / "tests/modeling_lrsa/conftest.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    model, folder = tiny.model("bert", seed=5, num_fusion_layers=0), tmp_path_factory.mktemp("tiny") / "model"
    model.save_pretrained(folder)
    tiny.processor(model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def twenty_thousand(tmp_path_factory):
    """Posts of two to four words, as three shards of Parquet."""
    folder, words = tmp_path_factory.mktemp("posts") / "shards", "love hate cafe hall band phone river great".split()
    folder.mkdir()
    for shard, numbers in enumerate((range(0, 9000), range(9000, 9001), range(9001, 20_000))):
        texts = [" ".join(words[(n >> 3 * i) % 8] for i in range(2 + n % 3)) for n in numbers]
        table = pa.table({"id": [f"p{n}" for n in numbers], "text": texts})
        pa.parquet.write_table(table, folder / f"{shard}.parquet")
    return folder


def start(*arguments) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "hub_scripts.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_a_worker(run: subprocess.Popen, when) -> int:
    """Kills one of two worker processes once `when()`; returns its id."""
    deadline = time.monotonic() + PATIENCE
    while not when():
        assert run.poll() is None and time.monotonic() < deadline, run.communicate()
        time.sleep(0.02)
    workers = [p for p in psutil.Process(run.pid).children(recursive=True) if "MapWorker" in " ".join(p.cmdline())]
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    return workers[0].pid


def rows_of(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pa.parquet.read_table(path).to_pylist()]


def test_twenty_thousand_posts_by_two_workers_of_which_one_is_killed(tiny_folder, twenty_thousand, tmp_path):
    command = ["predict", tiny_folder, twenty_thousand, "--batch-size", 256, "--part-size", 250, "--format", "parquet"]
    command += ["--output"]
    alone = start(*command, tmp_path / "alone")
    told, _ = alone.communicate(timeout=PATIENCE)
    assert alone.returncode == 0, told
    run = start(*command, tmp_path / "ray", "--engine", "ray", "--workers", 2)
    killed = kill_a_worker(run, lambda: len(list((tmp_path / "ray").glob("part-*"))) >= 40)
    told, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0 and f"PID: {killed}" in told, told
    expected, found = rows_of(tmp_path / "alone"), rows_of(tmp_path / "ray")
    assert [row["id"] for row in found] == [f"p{n}" for n in range(20_000)]
    for row in expected + found:
        for aspect in row["aspects"]:
            aspect["score"] = round(aspect["score"], 4)
    assert sum(len(row["aspects"]) for row in found) > 10_000
    assert found == expected
    assert f" aspects in 20,000 posts: {tmp_path / 'ray'}" in told
    again = start(*command, tmp_path / "ray", "--engine", "ray", "--workers", 2)
    told, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0 and "81 of 81 parts were answered before." in told, told


def fault_server():
    path = ROOT / "tests/processing/rationales/fault_server.py"
    spec = importlib.util.spec_from_file_location("fault_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RunningServer


def test_rationales_by_two_workers_of_which_one_is_killed(twenty_thousand, tmp_path):
    concurrency = 8
    posts = tmp_path / "posts.jsonl"
    posts.write_text("".join(json.dumps({"id": str(n), "text": f"post {n}"}) + "\n" for n in range(600)))
    with fault_server()("--delay", 0.05) as server:
        command = ["rationalize", posts, tmp_path / "out", "--model", "m", "--url", server.url, "--kinds", "text"]
        command += ["--engine", "ray", "--workers", 2, "--concurrency", concurrency]
        command += ["--part-size", 20, "--format", "parquet"]
        run = start(*command)
        kill_a_worker(run, lambda: server.stats()["answers"] >= 250)
        told, _ = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, told
        stats = server.stats()
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == [str(n) for n in range(600)]
    assert all(row["text_rationale"] and row["rationale_provenance"]["text_rationale"]["model"] == "m" for row in rows)
    assert len(stats["questions"]) == 600 and stats["answers"] <= 600 + concurrency, "those in flight are asked again"
    assert "600 posts with 600 text rationales" in told


def test_a_model_that_is_not_there_is_one_line(twenty_thousand, tmp_path):
    run = start("predict", "/no/such/model", twenty_thousand, "--output", tmp_path / "out.jsonl", "--engine", "ray")
    told, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 2 and told.splitlines()[-1].startswith("lrsa predict: /no/such/model: no LRSA model")
    assert "Traceback" not in told and not list(tmp_path.iterdir())


class Greedy:
    """A worker that the kernel kills at one chunk, as where memory runs out."""

    def __call__(self, chunk):
        from processing.parts import Answered

        if chunk.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return Answered([{"id": str(chunk.number)}])


def make_greedy():
    return Greedy()


DRIVER = """
import sys; sys.path.insert(0, {folder!r})
from collections import Counter
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet
from processing import PostError
from processing.chunks import cut
from processing.parts import Parts
from processing.ray_engine import answer_by_ray
from test_ray import make_greedy
parts = Parts(Path({out!r}), ".jsonl", pa.schema({{"id": pa.string()}}), {{}}, lambda rows: Counter(posts=len(rows)))
try:
    list(answer_by_ray(cut([Path({posts!r})], 2), make_greedy, parts, 1))
except PostError as error:
    print("TOLD", error)
"""


def test_a_worker_that_keeps_dying_ends_the_run_with_one_line(tmp_path):
    posts, out = tmp_path / "posts.jsonl", tmp_path / "out"
    posts.write_text('{"text": "a"}\n' * 10)
    code = DRIVER.format(folder=str(Path(__file__).parent), out=str(out), posts=str(posts))
    paths = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    environment = os.environ | {"PYTHONPATH": paths, "RAY_worker_niceness": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=PATIENCE
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("TOLD")]
    assert len(told) == 1 and told[0].startswith(f"TOLD {out}: a worker failed ("), done
    assert "what was answered is kept" in told[0] and "run again" in told[0]
    assert sorted(path.name for path in out.glob("part-*")) == [f"part-{n:06d}.jsonl" for n in range(3)]
