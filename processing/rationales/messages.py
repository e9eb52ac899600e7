"""Messages of servers and libraries, made fit to be kept and shown: one short line, without secrets."""

import re
from collections.abc import Iterable
from typing import Any


MAX_LENGTH = 300


def one_line(message: Any, secrets: Iterable[str] = ()) -> str:
    """Returns a message in one short line without secrets, whoever wrote it.

    Args:
        secrets: those that are known, the longest first. What looks like a token, and what addresses hold of passwords
            and queries, is taken out besides.
    """
    text = str(message)
    for secret in secrets:
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)\b(hf_|sk-|bearer\s+|basic\s+)[\w.+/=-]{8,}", r"\1***", text)
    text = re.sub(r"(?i)(\w://)[^\s/@]+@", r"\1***@", text)
    text = re.sub(r"(?i)(\w://[^\s?\"']+\?)[^\s\"']+", r"\1***", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"
