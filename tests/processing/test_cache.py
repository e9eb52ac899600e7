import os

from processing.cache import cache_file


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LRSA_CACHE", str(tmp_path / "a" / "b"))
    path = cache_file("prepare", "key")
    assert os.path.dirname(path) == str(tmp_path / "a" / "b") and os.path.isdir(os.path.dirname(path))
    assert path == cache_file("prepare", "key") != cache_file("prepare", "other")
