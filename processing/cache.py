"""Where what is computed once is kept."""

import hashlib
import os
from pathlib import Path

from datasets import config


def cache_folder() -> Path:
    """Returns `LRSA_CACHE`, by default `lrsa` in the cache of `datasets`."""
    folder = Path(os.environ.get("LRSA_CACHE") or Path(config.HF_DATASETS_CACHE) / "lrsa")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_file(*parts: str) -> str:
    """Returns the path of the Arrow file that holds what is computed from `parts`."""
    return str(cache_folder() / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.arrow")
