"""Runs a Space of the Hub as Hugging Face does, from its repository, where this package can't be imported.

python space_runner.py REPO FOLDER
"""

import os
import runpy
import sys
from pathlib import Path

from huggingface_hub import snapshot_download


class NotInstalled:
    """Hides packages from the import system; `processing` is part of the Space."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("hub_scripts", "modeling_lrsa"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


repo, folder = sys.argv[1:]
snapshot_download(repo, repo_type="space", local_dir=folder)
os.chdir(folder)
sys.path[0] = folder
sys.meta_path.insert(0, NotInstalled())

import processing  # noqa: E402


assert Path(processing.__file__).parent.parent == Path(folder), processing.__file__
runpy.run_path("app.py", run_name="__main__")
