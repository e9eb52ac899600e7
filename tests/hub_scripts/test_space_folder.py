"""The files of a Space, and the page that they make without this package."""

import configparser
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard

from hub_scripts.cli import main
from hub_scripts.space_folder import EXAMPLES, space_files
from processing import PostError


ROOT = Path(__file__).parents[2]
RUN = """
import runpy, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("hub_scripts", "modeling_lrsa"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, ".")
app = runpy.run_path("app.py")
from pathlib import Path
import processing
assert Path(processing.__file__).parent.parent == Path.cwd(), processing.__file__
pipe = app["load_pipeline"](sys.argv[1])
examples = app["read_examples"](Path("examples"))
app["build"](pipe, "someone/their-model", examples, app["writer_of_environment"]())
page = app["Page"](pipe)
post = examples[0]
print(page.find(post["text"], post["image"], "", post["text_rationale"], post["image_rationale"]))
"""


def test_what_lies_in_it():
    files = space_files("someone/their-model")
    assert {"app.py", "README.md", "requirements.txt", "examples/posts.jsonl", "processing/__init__.py"} <= set(files)
    assert "processing/rationales/prompts/text_rationale.yaml" in files
    assert sum(name.endswith(".jpg") for name in files) == len(EXAMPLES)
    assert sum(map(len, files.values())) < 1_000_000
    assert not any("__pycache__" in name or name.startswith(("modeling_lrsa", "hub_scripts")) for name in files)
    assert files == space_files("someone/their-model")


def test_the_card():
    card = SpaceCard(space_files("someone/their-model")["README.md"].decode())
    assert (card.data.sdk, card.data.app_file, card.data.models) == ("gradio", "app.py", ["someone/their-model"])
    assert "MODEL" not in card.content.replace("LRSA_MODEL", "")
    assert len(card.data.short_description) <= 60
    constraints = (ROOT / "constraints.txt").read_text()
    assert f"gradio=={card.data.sdk_version}\n" in constraints


def test_requirements_are_those_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = dict(re.match(r"([\w-]+)(.*)", line).groups() for line in setup["options"]["install_requires"].split())
    for line in space_files("a/b")["requirements.txt"].decode().split():
        name, version = re.match(r"([\w-]+)(.*)", line).groups()
        assert version.startswith(wanted[name]), line


@pytest.mark.parametrize("name", ["", "/", "a/b/c", "a b", "a/b`", "a\nb", "<script>"])
def test_what_is_no_id(name):
    with pytest.raises(PostError, match="is no id of a model"):
        space_files(name)


def test_the_page_without_this_package(picture_model, tmp_path):
    pytest.importorskip("gradio", reason="needs gradio: pip install lrsa[demo]")
    for name, content in space_files("someone/their-model").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, picture_model], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '<p class="post">Wedding ' in done.stdout and "data:image/jpeg;base64," in done.stdout


def test_bad_input_of_the_demo(picture_model, tmp_path, capsys):
    pytest.importorskip("gradio", reason="needs gradio: pip install lrsa[demo]")
    assert main(["demo", str(tmp_path), "--no-browser"]) == 2
    assert capsys.readouterr().err.startswith(f"lrsa demo: {tmp_path}: ")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["demo", str(picture_model), "--no-browser", "--port", port]) == 2
    message = capsys.readouterr().err
    assert f"lrsa demo: --port {port}: " in message and len(message.strip().splitlines()[-1]) < 300


def test_without_gradio_the_mend_is_told(monkeypatch, capsys):
    monkeypatch.setattr("hub_scripts.demo.find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "lrsa demo: the page needs gradio: pip install 'lrsa[demo]'\n"
