"""Puts transformers' own tests on the import path."""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parent))
from suite import fetch  # noqa: E402


sys.path.insert(0, str(fetch()))
