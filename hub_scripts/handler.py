"""Serves the model of this folder on a Hugging Face Inference Endpoint. Needs this folder, torch and transformers."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from transformers import pipeline


TASKS = ("mabsa", "mate", "masc")
MAX_POSTS = 64
BATCH_SIZE = 16
MAX_CHARACTERS = 10_000
MAX_BEAMS = 8
POST_FIELDS = {
    "text": str,
    "words": list,
    "image": str,
    "image_rationale": str,
    "text_rationale": str,
    "aspects": list,
    "linguistics": dict,
}


class RequestError(ValueError):
    """A request that is not as `EndpointHandler` takes it: the message names the place and the mend."""


class EndpointHandler:
    """Answers requests with `MABSAPipeline`. The model is loaded once.

    Args:
        path: folder of the model.
    """

    def __init__(self, path: str = ""):
        self.pipe = pipeline(
            "mabsa",
            model=path,
            trust_remote_code=True,
            device=0 if torch.cuda.is_available() else "cpu",
            # What explanations need; switching to it for one request would touch others that run meanwhile.
            model_kwargs={"attn_implementation": "eager"},
        )
        self.together = Together(self.answer_all)

    def __call__(self, data: Any) -> list:
        """Answers one request.

        Args:
            data: `{"inputs": post or list of posts, "parameters": {...}}`. A post is a string, or an object with
                `text` (or `words`) and any of `image` (base64, a data URL, or an https URL on the public Internet),
                `image_rationale`, `text_rationale`, and for the task `masc` `aspects`. Parameters, all optional:
                `task` (`"mabsa"`, `"mate"`, `"masc"`), `threshold` (0 to 1), `num_beams` (1 to 8), `explain`.

        Returns:
            The aspects of the post, or of each post of a list.

        Raises:
            RequestError: what is wrong with the request, in one line; the endpoint answers 400 with it.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise RequestError('The request must be a JSON object {"inputs": ..., "parameters": {...}}.')
        inputs, several = data["inputs"], isinstance(data["inputs"], list)
        parameters = check_parameters(data.get("parameters"))
        if several and len(inputs) > MAX_POSTS:
            raise RequestError(f"inputs: {len(inputs)} posts, at most {MAX_POSTS} go into one request.")
        places = [f"inputs[{index}]" for index in range(len(inputs))] if several else ["inputs"]
        given = inputs if several else [inputs]
        posts = [check_post(post, place, parameters) for post, place in zip(given, places)]
        # A picture of a slow server keeps waiting the request that names it, and no other.
        alone = any(is_address(post.get("image", "")) for post in posts)
        answer = self.answer_all if alone else self.together
        try:
            answers = answer(posts, parameters)
        except ValueError:  # of one of them: by itself it says which
            answers = [self.answer(post, place, parameters) for post, place in zip(posts, places)]
        return answers if several else answers[0]

    def answer_all(self, posts: list[dict[str, Any]], parameters: dict[str, Any]) -> list[list[dict[str, Any]]]:
        return self.pipe(posts, batch_size=BATCH_SIZE, trust_images=False, **parameters)

    def answer(self, post: dict[str, Any], place: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            return self.pipe(post, trust_images=False, **parameters)
        except ValueError as error:
            raise RequestError(f"{place}: {' '.join(str(error).split())}") from error


@dataclass(eq=False)
class Waiting:
    """A request that waits for its turn."""

    posts: list[dict[str, Any]]
    parameters: dict[str, Any]
    answers: list[list[dict[str, Any]]] | None = None


class Together:
    """Answers requests of many threads, those with the same parameters in one batch (dynamic batching).

    While a batch is computed, requests gather; whichever comes next takes all that fit with it. So nobody waits for
    company: a request alone is answered at once.

    Args:
        answer_all: answers posts with parameters.
    """

    def __init__(self, answer_all: Callable[[list[dict[str, Any]], dict[str, Any]], list]):
        self.answer_all = answer_all
        self.waiting: list[Waiting] = []
        self.changing, self.computing = Lock(), Lock()

    def __call__(self, posts: list[dict[str, Any]], parameters: dict[str, Any]) -> list[list[dict[str, Any]]]:
        own = Waiting(posts, parameters)
        with self.changing:
            self.waiting.append(own)
        with self.computing:
            if own in self.waiting:
                self._compute(self._take(own))
        return self.answer_all(posts, parameters) if own.answers is None else own.answers

    def _take(self, own: Waiting) -> list[Waiting]:
        """Takes a request and those that fit with it off the list."""
        batch, size = [own], len(own.posts)
        with self.changing:
            for other in self.waiting:
                if other is not own and other.parameters == own.parameters and size + len(other.posts) <= BATCH_SIZE:
                    batch.append(other)
                    size += len(other.posts)
            self.waiting = [request for request in self.waiting if request not in batch]
        return batch

    def _compute(self, batch: list[Waiting]) -> None:
        """Answers requests together. Where that fails, one alone raises, and several are answered one by one."""
        try:
            answers = iter(self.answer_all([post for request in batch for post in request.posts], batch[0].parameters))
        except Exception:
            if len(batch) == 1:
                raise
            return
        for request in batch:
            request.answers = [next(answers) for _ in request.posts]


def check_parameters(parameters: Any) -> dict[str, Any]:
    """Returns the arguments for the pipeline."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError("parameters: an object is expected.")
    fits = {
        "task": (lambda value: value in TASKS, f"one of {', '.join(TASKS)}"),
        "threshold": (lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
        "num_beams": (lambda value: type(value) is int and 1 <= value <= MAX_BEAMS, f"1 to {MAX_BEAMS}"),
        "explain": (lambda value: isinstance(value, bool), "true or false"),
    }
    for name, value in parameters.items():
        if name not in fits:
            raise RequestError(f"parameters: there is no {name[:40]!r}; known are {', '.join(fits)}.")
        fit, wanted = fits[name]
        if not fit(value):
            raise RequestError(f"parameters.{name}: {wanted} is expected.")
    return parameters


def is_address(image: str) -> bool:
    """Whether a picture is neither base64, in which there is no colon, nor a data URL."""
    return ":" in image and image.lstrip()[:5].lower() != "data:"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_post(post: Any, place: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns the post as an object, its fields of the kinds that they must be."""
    if isinstance(post, str):
        post = {"text": post}
    if not isinstance(post, dict):
        raise RequestError(f"{place}: a post is expected: a string, or an object with `text`.")
    post = {name: value for name, value in post.items() if value is not None}
    for name, value in post.items():
        kind = POST_FIELDS.get(name)
        if kind is None:
            raise RequestError(f"{place}: there is no field {name[:40]!r}; known are {', '.join(POST_FIELDS)}.")
        if not isinstance(value, kind):
            raise RequestError(f"{place}.{name}: a {NAMES[kind]} is expected.")
        if kind is str and name != "image":
            check_string(value, f"{place}.{name}")
    if ("text" in post) == ("words" in post):
        raise RequestError(f"{place}: give `text` (a string) or `words` (a list of words).")
    for word in post.get("words", []):
        if not isinstance(word, str):
            raise RequestError(f"{place}.words: a list of strings is expected.")
    check_string(" ".join(post.get("words", [])), f"{place}.words")
    if parameters.get("task") == "masc" and "aspects" not in post:
        raise RequestError(f"{place}.aspects: is missing; the task masc asks the polarity of given aspects.")
    for index, aspect in enumerate(post.get("aspects", [])):
        borders = [aspect.get(name) for name in ("start", "end")] if isinstance(aspect, dict) else []
        if [type(border) for border in borders] != [int, int]:
            raise RequestError(f'{place}.aspects[{index}]: an object {{"start": int, "end": int}} is expected.')
    return post


NAMES = {str: "string", list: "list", dict: "object"}


def check_string(text: str, place: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise RequestError(f"{place}: {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError(f"{place}: holds half of a surrogate pair, which is no character.")
