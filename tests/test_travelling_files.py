"""Files that travel with a model to the Hub: transformers copies them, and their relative imports, into one folder."""

import ast
import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_import_files, get_relative_imports


ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("modeling_lrsa", "processing")
TRAVELLING = sorted(path for room in ROOMS for path in (ROOT / room).glob("*_lrsa.py"))
# What a saved model and a saved processor name in their `auto_map`.
ENTRIES = [ROOT / "modeling_lrsa" / "modeling_lrsa.py", ROOT / "processing" / "processing_lrsa.py"]
# What whoever loads a model has, besides the standard library: transformers, what it requires, and torch.
REQUIRED = {"transformers", "torch", "huggingface_hub", "numpy", "regex", "safetensors", "tokenizers"}
OPTIONAL = {"PIL"}  # not where a model takes text alone


def name_of(path):
    return str(path.relative_to(ROOT))


def nodes(path, *kinds):
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]


def absolute_imports(path):
    """Top names of modules, with where they are imported."""
    for node in nodes(path, ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import) or not node.level:
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from ((module.partition(".")[0], f"{name_of(path)}:{node.lineno}") for module in modules)


def relative_imports(path):
    return [node for node in nodes(path, ast.ImportFrom) if node.level]


def test_what_travels_is_what_is_named_so():
    travels = {Path(file) for entry in ENTRIES for file in get_relative_import_files(entry)} | set(ENTRIES)
    assert sorted(travels) == TRAVELLING


def test_base_names_are_unique():
    names = [path.name for path in TRAVELLING]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_relative_imports_are_of_neighbours(path):
    for node in relative_imports(path):
        # `from . import x` is not copied, `from .a.b import x` and `from ..a import x` are not found.
        where = f"{name_of(path)}:{node.lineno}"
        assert node.level == 1 and node.module and "." not in node.module, where
        assert path.parent / f"{node.module}.py" in TRAVELLING, f"{where}: {node.module} does not travel"


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_relative_imports_are_those_that_transformers_reads(path):
    """It looks for them by a regular expression, which takes lines of a docstring and misses some forms of import."""
    assert set(get_relative_imports(path)) == {node.module for node in relative_imports(path)}


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_other_imports_are_there_where_transformers_is(path):
    for module, where in absolute_imports(path):
        assert module in REQUIRED | OPTIONAL | set(sys.stdlib_module_names), f"{where}: {module}"
    # What loading asks for: transformers passes over what is imported in a `try` block.
    assert set(get_imports(path)) <= REQUIRED | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_nothing_is_imported_by_a_string(path):
    assert "importlib" not in {module for module, _ in absolute_imports(path)}
    assert "__import__" not in {node.id for node in nodes(path, ast.Name)}


def test_transformers_requires_what_is_taken_for_granted():
    plain = [requirement for requirement in requires("transformers") if "extra ==" not in requirement]
    names = {re.match(r"[\w-]+", requirement).group().replace("-", "_") for requirement in plain}
    assert REQUIRED - names == {"transformers", "torch"}


@pytest.mark.parametrize("path", sorted((ROOT / "processing").rglob("*.py")), ids=name_of)
def test_processing_knows_no_models(path):
    for module, where in absolute_imports(path):
        assert module not in ("modeling_lrsa", "hub_scripts"), where
    depth = len(path.relative_to(ROOT / "processing").parts)
    assert all(node.level <= depth for node in relative_imports(path)), name_of(path)
