"""LRSA for transformers: models. Importing registers them, and the processor, with the Auto classes."""

from importlib import import_module

from .registration import register


_WHERE = {
    "LRSAConfig": "configuration_lrsa",
    "LRSAForMABSA": "modeling_lrsa",
    "LRSAModel": "modeling_lrsa",
    "LRSAPreTrainedModel": "pretrained_lrsa",
    "LRSATrainer": "trainer",
}

__all__ = sorted(_WHERE)


def __getattr__(name):
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register()
