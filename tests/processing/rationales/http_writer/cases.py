"""Questions to a server that is real and fails as its questions say."""

from processing.rationales import GenerationSettings, HTTPWriter, Request


NAME = ("--name", r"q-\w+")
KEY = "sk-test-0123456789abcdef"


def question(text: str, **parts) -> Request:
    return Request("text_rationale", [{"role": "user", "content": [{"type": "text", "text": text}]}], **parts)


def make(url: str, **options) -> HTTPWriter:
    options = {"settings": GenerationSettings(), "timeout": 20, "retries": 3, "concurrency": 4} | options
    return HTTPWriter("tiny", base_url=url, **options)


_count = iter(range(10**6))


def ask(server, script: str = "ok", text: str = "", **options):
    """Asks one question, and returns what came of it and what the server saw of it."""
    name = f"q-{next(_count)}"
    [(_, answer)] = make(server.url, **options).write([(name, question(f"{name} <<{script}>> {text}"))])
    return answer, server.stats()["questions"][name]


def recorded(server) -> dict:
    return server.requests()[-1]
