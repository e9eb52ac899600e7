"""What `lrsa rationalize` imports, and what memory it takes."""

import subprocess
import sys

import pytest

from .cases import ROOT, RunningServer, write_posts


def test_neither_torch_nor_models_are_imported(tmp_path):
    posts = write_posts(tmp_path, 2)
    code = (
        "import sys; from hub_scripts.cli import main; code = main(['rationalize', *sys.argv[1:]])\n"
        "loaded = [n for n in sys.modules if n == 'torch' or n.startswith('transformers.models')]\n"
        "print(code, loaded)"
    )
    with RunningServer() as server:
        command = [sys.executable, "-c", code, str(posts), str(tmp_path / "out.jsonl"), "--model", "m"]
        done = subprocess.run([*command, "--url", server.url], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.endswith("0 []\n"), done


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_posts(tmp_path, print_peak):
    def peak(count: int) -> int:
        posts = write_posts(tmp_path / str(count), count)
        code = (
            "import sys; from hub_scripts.cli import main\n"
            f"assert main(['rationalize', *sys.argv[1:]]) == 0\n{print_peak}"
        )
        command = [sys.executable, "-c", code, str(posts), str(posts.with_name("out.jsonl")), "--model", "m"]
        command += ["--url", server.url, "--kinds", "text", "--concurrency", "32"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
        assert done.returncode == 0, done
        return int(done.stdout.split()[-1])

    with RunningServer() as server:
        assert peak(5000) - peak(500) < 10  # MB
