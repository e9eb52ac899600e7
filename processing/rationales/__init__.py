"""Rationales: written by a large model, kept, and audited."""

from importlib import import_module


_WHERE = {
    "Answer": "writers",
    "Failure": "writers",
    "GenerationSettings": "writers",
    "HTTPWriter": "http_writer",
    "LocalWriter": "local_writer",
    "Prompt": "prompts",
    "Request": "writers",
    "Writer": "writers",
    "WriterError": "writers",
    "load_prompt": "prompts",
    "mask_words": "shortening",
    "polarity_words": "shortening",
    "read_aspects": "llm_aspects",
    "score_answers": "llm_aspects",
    "shorten": "shortening",
    "to_running_text": "shortening",
}

__all__ = sorted(_WHERE)


def __getattr__(name):
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
