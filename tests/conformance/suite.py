"""transformers' own tests, from the source distribution of the installed version, as package `transformers_suite`."""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

from processing.cache import cache_folder


# What the tests import and the distribution leaves out.
STUBS = {
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "distributed_testing_utils.py": "import torch\n\n\n"
    "def _get_distributed_backend():\n    return 'gloo'\n\n\n"
    "def _get_distributed_device_type():\n    return 'cpu'\n\n\n"
    "def _get_rank_device(rank):\n    return torch.device('cpu')\n\n\n"
    "def _set_rank_device(rank):\n    pass\n\n\n"
    "def _start_rank_processes(*args, **kwargs):\n    raise NotImplementedError\n",
}
HUB_OBJECTS = "def url_to_local_path(url, *args, **kwargs):\n    return url\n"


def fetch() -> Path:
    """Returns the folder that holds the package `transformers_suite`, downloaded where it is not there yet."""
    name = f"transformers-{transformers.__version__}"
    folder = cache_folder() / f"{name}-suite"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        source = f"transformers=={transformers.__version__}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", "transformers", "--dest", temporary, source]
        subprocess.run(command, check=True)
        with tarfile.open(Path(temporary, f"{name}.tar.gz")) as archive:
            members = [member for member in archive if member.name.startswith(f"{name}/tests/")]
            archive.extractall(temporary, members, filter="data")
        whole = Path(temporary, "suite")
        suite = whole / "transformers_suite"
        whole.mkdir()
        Path(temporary, name, "tests").rename(suite)
        for path, content in STUBS.items():
            stub = suite / path
            stub.parent.mkdir(exist_ok=True)
            stub.write_text(content)
            (stub.parent / "__init__.py").touch()
        (whole / "fetch_hub_objects_for_ci.py").write_text(HUB_OBJECTS)
        whole.rename(folder)
    return folder
