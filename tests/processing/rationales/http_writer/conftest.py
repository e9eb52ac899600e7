"""A server without random faults, and short waits."""

import pytest

from processing.rationales import http_writer

from ..fault_server import RunningServer
from .cases import NAME


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http_writer, "BACKOFF", 0.01)
    for name in ("HF_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server():
    """Without random faults: questions script their own."""
    with RunningServer(*NAME, "--record") as server:
        yield server
