"""Puts the repository in front of this folder, whose folders have the names of its packages."""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))
