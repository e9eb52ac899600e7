import subprocess
import sys

import pytest

import processing


def test_what_needs_no_torch_imports_none():
    code = (
        "import sys, processing\n"
        "assert processing.split_words('a b') == [(0, 1), (2, 3)]\n"
        "from processing import IndexFormat, compute_mabsa_metrics\n"
        "gold = [[{'start': 0, 'end': 1, 'polarity': 'neutral'}]]\n"
        "assert compute_mabsa_metrics(gold, gold)['masc_accuracy'] == 100\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_every_name_is_there():
    for name in processing.__all__:
        assert getattr(processing, name).__name__ == name


def test_unknown_names():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        processing.nothing
    with pytest.raises(ImportError):
        from processing import nothing  # noqa: F401
