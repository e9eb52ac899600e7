"""Asks a large model what the store does not hold yet."""

import hashlib
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from tqdm import tqdm
from transformers.utils import logging

from ..posts import PostError
from .estimates import estimate_prompt_tokens, estimate_tokens
from .store import AnswerStore, Source, now
from .writers import Answer, Failure, GenerationSettings, Request, Writer


logger = logging.get_logger(__name__)

MAX_REASONS = 100  # different ones that are counted apart


@dataclass(frozen=True, eq=False)
class Question:
    """A request, and the key that its answer is kept under.

    Args:
        key: from `answer_key`.
        prompt: `id@version` of the prompt that the request was made from.
        problem: why it can't be asked; it is then recorded as failed.
    """

    key: str
    request: Request
    prompt: str
    problem: str | None = None


@dataclass(frozen=True)
class Limits:
    """When a run stops asking; what is in flight then is still waited for.

    Args:
        requests: questions asked, each counted once however often it was sent.
        tokens: of prompts and answers together, as the server counts them, or estimated where it does not.
    """

    requests: int | None = None
    tokens: int | None = None


@dataclass
class Summary:
    """What became of the questions of a run.

    Args:
        answered: asked and answered in this run.
        stored: answered before, or by another run meanwhile.
        failures: reasons of those that failed in this run, or in another one meanwhile, with their counts.
        former_failures: the same, from earlier runs, not asked again.
        asked: given to the writer; what is neither answered nor failed of these was dropped when the run was stopped.
        seconds: how long the run took.
        stopped: what stopped it; `None` where all was asked.
        interrupted: whether that was Ctrl-C or SIGTERM.
    """

    answered: int = 0
    stored: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    former_failures: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    interrupted: bool = False


def answer_key(request: Request, model: str, prompt: str, settings: GenerationSettings) -> str:
    """Returns the SHA-256, in hexadecimal, of all that an answer depends on.

    That is the kind, the filled messages with the bytes of their pictures in place of the file names, the schema, the
    model, the prompt's `id@version` and how it is generated. The same question about two posts is one question.
    """

    def content(part: dict[str, Any]) -> dict[str, Any]:
        return {**part, "image": digest(part["image"])} if part.get("type") == "image" else part

    messages = [{**message, "content": [content(part) for part in message["content"]]} for message in request.messages]
    asked = [request.kind, messages, request.schema, model, prompt, asdict(settings)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def digest(picture: Any) -> str:
    """SHA-256 of a picture's bytes; of its name where it is an URL or can't be read."""
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    try:
        with open(picture, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return f"no file {picture}"


def ask(
    writer: Writer,
    store: AnswerStore,
    questions: Iterable[Question],
    limits: Limits = Limits(),
    retry_failed: bool = False,
    progress: bool = False,
    total: int | None = None,
) -> Summary:
    """Asks those questions that have no answer in the store, and keeps each answer as it comes.

    Questions are fetched as the writer takes them and forgotten when they are answered, so that their number does not
    matter. A question that another run on the same store is asking is left to that run; should it die, this one asks.
    An interrupt (Ctrl-C, or SIGTERM in the main thread) drops what is in flight and ends the run.

    Args:
        questions: gone through once more where another run gave up some of them; an iterator is not.
        retry_failed: ask again what failed in earlier runs.
        progress: show a bar with rate, tokens and time left.
        total: number of questions, for the bar.

    Raises:
        WriterError: no question can be answered. What came before is kept.
        PostError: the store can't be written to.
    """
    run = _Run(writer, store, limits, retry_failed)
    started = time.monotonic()
    with tqdm(total=total, unit="answer", disable=not progress, smoothing=0.05, dynamic_ncols=True) as run.bar:
        try:
            with interrupted_by_sigterm():
                run.ask(questions)
        except KeyboardInterrupt:
            run.summary.interrupted, run.summary.stopped = True, "it was interrupted"
        finally:
            with suppress(PostError):  # what stays claimed is free as soon as this process has ended
                store.release()
            run.summary.seconds = time.monotonic() - started
    return run.summary


class _Run:
    """One call of `ask`."""

    bar: tqdm

    def __init__(self, writer: Writer, store: AnswerStore, limits: Limits, retry_failed: bool):
        self.writer, self.store, self.limits, self.started = writer, store, limits, now()
        self.retry_before = self.started if retry_failed else ""
        self.summary = Summary()
        self.claimed: set[str] = set()  # by other runs, or by this one for a post before with the same question

    def ask(self, questions: Iterable[Question]) -> None:
        self.write(self.to_ask(questions))
        if others := sum(self.store.state(key, self.retry_before) == "claimed" for key in self.claimed):
            logger.warning(f"{self.store.path}: waiting for {others} questions that another run is asking.")
        while self.claimed and not self.summary.stopped:
            states = {key: self.store.state(key, self.retry_before) for key in self.claimed}
            for key, state in states.items():
                if state in ("answered", "failed"):
                    self.settle(key, state)
            if free := {key for key, state in states.items() if state == "free"}:
                self.claimed = {key for key, state in states.items() if state == "claimed"}
                self.write(self.to_ask(question for question in questions if question.key in free))
            else:
                self.claimed = {key for key, state in states.items() if state == "claimed"}
                time.sleep(0.5 if self.claimed else 0)

    def write(self, to_ask: Iterator[tuple[Question, Request]]) -> None:
        with closing(self.writer.write(to_ask)) as answers:
            for question, answer in answers:
                if isinstance(answer, Failure):
                    self.fail(question, answer)
                else:
                    self.keep(question, answer)
        self.store.release()

    def to_ask(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Request]]:
        """Claims the questions that are left for this run, one by one, as the writer takes them."""
        for question in questions:
            if (limit := self.reached()) and self.store.state(question.key, self.retry_before) == "free":
                self.summary.stopped = limit
                return
            state = self.store.claim(question.key, self.retry_before)
            if state == "claimed":
                self.claimed.add(question.key)
            elif state != "free":
                self.settle(question.key, state)
            elif question.problem is not None:
                self.fail(question, Failure(question.problem))
            else:
                self.summary.asked += 1
                yield question, question.request

    def reached(self) -> str | None:
        requests, tokens = self.limits.requests, self.limits.tokens
        if requests is not None and self.summary.asked >= requests:
            return f"the limit of {requests:,} requests is reached"
        if tokens is not None and self.summary.prompt_tokens + self.summary.completion_tokens >= tokens:
            return f"the limit of {tokens:,} tokens is reached"
        return None

    def keep(self, question: Question, answer: Answer) -> None:
        self.store.add_answer(question.key, answer, self.source(question))
        self.summary.answered += 1
        prompt, completion = answer.prompt_tokens, answer.completion_tokens
        if prompt is None:
            prompt = estimate_prompt_tokens(question.request, self.writer.settings)
        if completion is None:
            completion = estimate_tokens(answer.text)
        self.summary.prompt_tokens += prompt
        self.summary.completion_tokens += completion
        self.progress()

    def fail(self, question: Question, failure: Failure) -> None:
        self.store.add_failure(question.key, failure, self.source(question))
        count(self.summary.failures, failure.reason)
        self.progress()

    def source(self, question: Question) -> Source:
        return Source(question.request.kind, self.writer.model, question.prompt, self.writer.settings)

    def progress(self) -> None:
        tokens = self.summary.prompt_tokens + self.summary.completion_tokens
        self.bar.set_postfix_str(f"{tokens:,} tokens, {sum(self.summary.failures.values()):,} failed", refresh=False)
        self.bar.update()

    def settle(self, key: str, state: str) -> None:
        """Counts a question that needs no asking; the bar is about the others."""
        if state == "answered":
            self.summary.stored += 1
        else:
            meanwhile = self.store.state(key, self.started) == "failed"
            reasons = self.summary.failures if meanwhile else self.summary.former_failures
            count(reasons, self.store.failure(key) or "")
        if self.bar.total:
            self.bar.total -= 1


def count(reasons: Counter[str], reason: str) -> None:
    reasons[reason if reason in reasons or len(reasons) < MAX_REASONS else "other reasons"] += 1


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM raise `KeyboardInterrupt`, as Ctrl-C does, where this is the main thread."""

    def interrupt(*_):
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
