"""Files that travel with a model to the Hub: transformers copies them, and their relative imports, into one folder."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("modeling_lrsa", "processing")
TRAVELLING = sorted(path for room in ROOMS for path in (ROOT / room).glob("*_lrsa.py"))


def name_of(path):
    return str(path.relative_to(ROOT))


def imports(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_there_are_some():
    names = {name_of(path) for path in TRAVELLING}
    assert {f"modeling_lrsa/{part}_lrsa.py" for part in ("configuration", "modeling", "encoder", "fusion")} <= names
    assert "processing/processing_lrsa.py" in names


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_only_neighbours_are_imported_relatively(path):
    for node in imports(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            # `from . import x` is not copied, `from .a.b import x` and `from ..a import x` are not found.
            where = f"{name_of(path)}:{node.lineno}"
            assert node.level == 1 and node.module and "." not in node.module, where
            neighbour = path.parent / f"{node.module}.py"
            assert neighbour.is_file(), where
            assert neighbour in TRAVELLING, f"{where}: {node.module} does not travel"


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_other_imports_are_installed_packages(path):
    installed = set(packages_distributions()) | set(sys.stdlib_module_names)
    for node in imports(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            continue
        modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for module in modules:
            top = module.partition(".")[0]
            assert top not in (*ROOMS, "hub_scripts", "tests"), f"{name_of(path)}:{node.lineno}: {module} is not there"
            assert top in installed, f"{name_of(path)}:{node.lineno}: {module}"


def test_base_names_are_unique():
    names = [path.name for path in TRAVELLING]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", sorted((ROOT / "processing").rglob("*.py")), ids=name_of)
def test_processing_knows_no_models(path):
    for node in imports(path):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        assert not any(module.split(".")[0] == "modeling_lrsa" for module in modules), f"{name_of(path)}:{node.lineno}"
