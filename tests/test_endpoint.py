"""`lrsa rationalize` on sample posts with a real language model: behind a server, and in process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "examples" / "posts"


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def posts() -> list[dict]:
    """Eight sample posts with pictures, without the rationales that they come with."""
    rows = [row for row in read(SAMPLES / "test.jsonl") if row["image"]][:8]
    return [{name: row[name] for name in ("id", "text", "image", "aspects")} for row in rows]


@pytest.fixture(scope="module")
def rationalize(posts, tmp_path_factory):
    """Runs the command. The model sees no pictures: it is told what they show."""
    folder = tmp_path_factory.mktemp("endpoint")
    captions = {picture["file"]: picture["caption"] for picture in read(SAMPLES / "pictures.jsonl")}
    evidence = write(folder / "captions.jsonl", [{"id": p["id"], "caption": captions[p["image"]]} for p in posts])

    def run(posts: list[dict], name: str, *options: str) -> tuple[list[dict], str]:
        source = write(folder / f"{name}-posts.jsonl", posts)
        command = [sys.executable, "-m", "hub_scripts.cli", "rationalize", source, folder / f"{name}.jsonl", *options]
        command += ["--images", SAMPLES / "images", "--evidence", evidence, "--max-new-tokens", "16"]
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return read(folder / f"{name}.jsonl"), done.stdout

    return run


@pytest.mark.slow
def test_both_rationales_of_every_post(posts, rationalize, chat_server, language_model):
    model = str(language_model)
    at_server = ("--model", model, "--url", chat_server, "--text-only", "--concurrency", "2", "--timeout", "600")
    rows, report = rationalize(posts, "served", *at_server)
    assert "Asked 16 in " in report and ": 16 answered, 0 failed" in report
    assert [{name: row[name] for name in posts[0]} for row in rows] == posts
    written = [row[kind] for row in rows for kind in ("text_rationale", "image_rationale")]
    assert all(written) and len(set(written)) >= 12, "each is of its own post"
    again, report = rationalize(posts, "served", *at_server)
    assert "Asked 0 in " in report and again == rows

    in_process = ("--model", model, "--dtype", "float32", "--batch-size", "4")
    some, report = rationalize(posts[2:4], "local", *in_process)
    assert "Asked 4 in " in report
    for row, served in zip(some, rows[2:4]):
        for kind in ("text_rationale", "image_rationale"):
            assert row[kind] == served[kind]
            told, other = (post["rationale_provenance"][kind] for post in (row, served))
            assert told["finish_reason"] == other["finish_reason"] in ("stop", "length")
            assert told["model"].startswith(f"{language_model.name}@") and other["model"] == model
