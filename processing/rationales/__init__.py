"""Rationales: written by a large model, kept, and audited."""

from importlib import import_module


_WHERE = {
    "Answer": "writers",
    "Failure": "writers",
    "GenerationSettings": "writers",
    "LocalWriter": "local_writer",
    "HTTPWriter": "http_writer",
    "Request": "writers",
    "Writer": "writers",
    "WriterError": "writers",
}

__all__ = sorted(_WHERE)


def __getattr__(name):
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
