"""What a large model is asked, and what it answers, whoever runs it."""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..posts import PostError


class WriterError(PostError):
    """No answer can be had at all: no server, a wrong key, an unknown model, a model that sees no pictures."""


@dataclass(frozen=True)
class GenerationSettings:
    """How answers are generated. Part of the key that an answer is kept under.

    Args:
        max_new_tokens: an answer that is longer is cut there, and marked as cut (`Answer.finish_reason`).
        temperature: 0 is greedy decoding.
        top_p: share of the probability that sampling draws from.
        seed: of sampling, where the writer takes one.
        max_image_side: pixels of the longer side that a picture is made smaller to.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    max_image_side: int = 768


@dataclass(frozen=True)
class Request:
    """A question to a large model.

    Args:
        kind: what is asked for: `"text_rationale"`, `"image_rationale"` or `"aspects"`.
        messages: a chat. Each message is `{"role": "system" | "user" | "assistant", "content": [part, ...]}`, a part
            `{"type": "text", "text": str}` or `{"type": "image", "image": file name, URL or bytes of a picture}`.
        schema: JSON schema that the answer is to follow; `None` for free text.
    """

    kind: str
    messages: list[dict[str, Any]]
    schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """What a large model wrote.

    Args:
        text: without white space around it, not empty.
        finish_reason: `"stop"`, or `"length"` where the answer was cut at `max_new_tokens`.
        prompt_tokens, completion_tokens: as the writer counted them; `None` where it does not tell.
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Failure:
    """Why a question got no answer, in one line without secrets, after all retries."""

    reason: str


class Writer(Protocol):
    """Something that answers questions: a server, or a model in this process.

    Attributes:
        model: name of the model, part of the key of its answers. Holds no secrets.
        settings: how it generates.
        sees_pictures: whether it takes image parts.
    """

    model: str
    settings: GenerationSettings
    sees_pictures: bool

    def write(self, requests: Iterable[tuple[Hashable, Request]]) -> Iterator[tuple[Hashable, Answer | Failure]]:
        """Answers questions, each with the name that it came under, as they are done: in any order.

        Takes as many from `requests` as it can work on at once, and the next ones as answers are fetched, so that
        neither many questions nor many answers are ever held. Closing the iterator drops those in flight.

        Raises:
            WriterError: no question can be answered; what was yielded before stands.
        """
        ...
