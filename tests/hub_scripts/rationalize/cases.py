"""Posts, the command in a process of its own, a server with faults, and what must hold of the result."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image


HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def load_fault_server():
    spec = importlib.util.spec_from_file_location(
        "fault_server", HERE.parents[1] / "processing/rationales/fault_server.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RunningServer = load_fault_server().RunningServer
GOLD = {"start": 4, "end": 9, "polarity": "positive"}


def write_posts(folder: Path, count: int) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize((20, 16)).save(folder / "images" / "one.png")
    rows = ({"id": f"p{n}", "text": f"the pizza number {n} was great", "image": "one.png"} for n in range(count))
    path = folder / "posts.jsonl"
    path.write_text("".join(json.dumps(row | {"aspects": [GOLD]}) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rationalize(*arguments, before: str = "", **environment) -> subprocess.Popen:
    """Starts the command in a process of its own, after the statements of `before`."""
    code = f"import sys\n{before}\nfrom hub_scripts.cli import main\nsys.exit(main(['rationalize', *sys.argv[1:]]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, error = process.communicate(timeout=300)
    return process.returncode, out + error


def wait_for(server, answers: int) -> None:
    deadline = time.monotonic() + 60
    while server.stats()["answers"] < answers and time.monotonic() < deadline:
        time.sleep(0.02)


def answered_twice(server) -> int:
    return sum(question["answers"] - 1 for question in server.stats()["questions"].values() if question["answers"])


def check_store(path: Path, answers: int) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM answers").fetchone() == (answers,)
    assert connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    connection.close()


def check_whole(posts: Path, out: Path) -> None:
    for before, after in zip(read(posts), read(out), strict=True):
        assert after["text_rationale"] and after["image_rationale"]
        assert {name: after[name] for name in before} == before
        assert all(after["rationale_provenance"].values())
