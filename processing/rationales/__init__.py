"""Rationales: written by a large model, kept, and audited."""

from importlib import import_module


_WHERE = {
    "Answer": "writers",
    "AnswerStore": "store",
    "Failure": "writers",
    "GenerationSettings": "writers",
    "HTTPWriter": "http_writer",
    "Limits": "asking",
    "LocalWriter": "local_writer",
    "Prompt": "prompts",
    "Question": "asking",
    "Request": "writers",
    "Source": "store",
    "Summary": "asking",
    "Writer": "writers",
    "WriterError": "writers",
    "answer_key": "asking",
    "ask": "asking",
    "audit_rationales": "audit.report",
    "fit_for_training": "shortening",
    "load_prompt": "prompts",
    "mask_words": "shortening",
    "polarity_words": "shortening",
    "read_aspects": "llm_aspects",
    "read_rationales": "audit.posts",
    "read_answers": "llm_aspects",
    "score_answers": "llm_aspects",
    "shorten": "shortening",
    "to_running_text": "shortening",
}

__all__ = sorted(_WHERE)


def __getattr__(name):
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
