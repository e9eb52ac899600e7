"""Asks a model behind an OpenAI-compatible server, or an inference provider of Hugging Face, over HTTP."""

import base64
import json
import logging
import os
import random
import re
import time
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future
from email.utils import parsedate_to_datetime
from itertools import islice
from queue import SimpleQueue
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx2
from anyio import CapacityLimiter, fail_after, sleep
from anyio.from_thread import start_blocking_portal
from huggingface_hub import AsyncInferenceClient, get_token

from .chat_format import chat_message, response_format
from .messages import one_line
from .writers import Answer, Failure, GenerationSettings, Request, WriterError


logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 2**20  # of a whole response
BACKOFF, MAX_BACKOFF = 0.5, 60.0  # seconds: the first wait is at most the one, no wait without order the other
CONNECT_TIMEOUT = 10.0  # seconds
FIRST_CONTACT = 3.0  # seconds in which a server that was never there may come up
MAX_FAILURES_IN_A_ROW = 50
HUGGING_FACE = (".huggingface.co", ".huggingface.cloud")

# What servers call errors that no other question will fare better with, under whatever status.
HOPELESS_CODES = (
    "API_KEY_INVALID",
    "insufficient_quota",
    "invalid_api_key",
    "model_not_found",
    "model_not_supported",
)


class _TryAgain(Exception):
    """A try without answer.

    Args:
        away: whether it is the server that is at fault, not the question.
        wait: seconds that the server asks for.
    """

    def __init__(self, reason: str, away: bool = False, wait: float = 0.0):
        super().__init__(reason)
        self.away, self.wait = away, wait


class _Refused(Exception):
    """This question will not be answered, however often it is asked."""


class HTTPWriter:
    """A `Writer` on `huggingface_hub.AsyncInferenceClient`.

    Tries again, with exponential backoff and full jitter and after what `Retry-After` asks for, whatever may go better
    later: a question that then has no answer is a `Failure`. Where it is the server that is away or over its limits
    (no connection; 429, 502, 503), tries do not count, time does. What is wrong for all questions is a `WriterError`.

    Args:
        model: as the server names it.
        settings: how it generates.
        base_url: of any OpenAI-compatible server, such as `http://localhost:8000/v1`; `/chat/completions` is put
            behind it, `/v1` too where it has no path. May hold `user:password@` and a query, which stay secret.
        provider: instead of `base_url`, one of Hugging Face's inference providers, or `"auto"`.
        api_key: defaults to `HF_TOKEN` (or what `hf auth login` stored) for what Hugging Face serves or routes to, to
            `OPENAI_API_KEY` for every other server.
        concurrency: questions that are asked at once, each over a connection of its own.
        timeout: seconds for a try, from connecting to the last byte.
        retries: tries after the first, of a question that the server can't answer.
        patience: seconds for which a server that is away, or over its limits, is waited for.
        sees_pictures: whether the model takes pictures, which no server tells.

    Raises:
        WriterError: the address or the key can be none.
    """

    def __init__(
        self,
        model: str,
        settings: GenerationSettings,
        base_url: str | None = None,
        provider: str | None = None,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        retries: int = 6,
        patience: float = 600.0,
        sees_pictures: bool = True,
    ):
        if "://" in model:
            raise WriterError("The model is the name that the server knows it by: give its address as base URL.")
        if base_url is not None and provider is not None:
            raise WriterError("Give a base URL or a provider, not both.")
        if concurrency < 1:
            raise WriterError(f"{concurrency} questions at once can't be asked: 1 or more.")
        self.model, self.settings, self.sees_pictures = model, settings, sees_pictures
        self.concurrency, self.timeout, self.retries, self.patience = concurrency, timeout, retries, patience

        url, self._query, user = (None, b"", "") if base_url is None else _split_url(base_url)
        self._where = str(url) if url else f"provider {provider or 'auto'}"
        hugging_face = f".{url.host}".endswith(HUGGING_FACE) if url else provider != "openai"
        self._key_name = "HF_TOKEN" if hugging_face else "OPENAI_API_KEY"
        if api_key is None and not user:
            api_key = get_token() if hugging_face else os.environ.get(self._key_name)
        api_key = (api_key or "").strip()
        if not (api_key.isascii() and api_key.isprintable()):
            raise WriterError("The API key holds characters that no key has: copy it again.")
        basic = base64.b64encode(user.encode()).decode()
        if url:
            authorization = f"Bearer {api_key}" if api_key else f"Basic {basic}" if user else None
            # Without a key of ours the client would send this machine's Hugging Face token to any server.
            self._client = {"base_url": self._where, "api_key": "-", "headers": {"authorization": authorization}}
        else:
            self._client = {"provider": provider or "auto", "api_key": api_key or None}
        in_query = [value for _, value in parse_qsl(self._query.decode())]
        secrets = [api_key, basic, user, *user.split(":", 1), *in_query]
        # The longest first; very short ones are none, and are in every word.
        self._secrets = sorted({form for s in secrets if len(s) > 3 for form in (s, quote(s, ""))}, key=len)[::-1]

    def write(self, requests: Iterable[tuple[Hashable, Request]]) -> Iterator[tuple[Hashable, Answer | Failure]]:
        """Answers questions as they are done; see `Writer.write`.

        The event loop runs in a thread of its own, so that answers come in while the caller works, and so that this
        runs where another loop does, as in notebooks; `requests` are taken in the caller's thread.
        """
        questions = iter(requests)
        names: dict[Future, Hashable] = {}
        done: SimpleQueue[Future] = SimpleQueue()
        limits = httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        http = httpx2.AsyncClient(limits=limits, timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT))
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(http):
            chat = _Chat(http, self._query, **self._client)
            try:
                while True:
                    for name, request in islice(questions, self.concurrency - len(names)):
                        future = portal.start_task_soon(self._answer, chat, request)
                        names[future] = name
                        future.add_done_callback(done.put)
                    if not names:
                        return
                    future = done.get()
                    if isinstance(future.exception(), WriterError):
                        while not done.empty():  # these are paid for
                            if (other := done.get()).exception() is None:
                                yield names.pop(other), other.result()
                    yield names.pop(future), future.result()
            finally:
                for future in names:
                    future.cancel()

    async def _answer(self, chat: "_Chat", request: Request) -> Answer | Failure:
        """Asks until there is an answer, or no hope of one."""
        tries, faults, away_since = 0, 0, 0.0
        try:
            messages = [await chat_message(m, self.settings.max_image_side, chat.limiter) for m in request.messages]
        except ValueError as error:  # a picture that can't be read
            return Failure(self._clean(error))
        while True:
            try:
                answer = await self._try(chat, messages, request.schema)
            except _Refused as refusal:
                return self._failure(chat, self._clean(refusal))
            except _TryAgain as fault:
                wait = max(fault.wait, random.uniform(0, min(MAX_BACKOFF, BACKOFF * 2**faults)))
                faults += 1
                reason = f"{self._clean(fault)} (tries: {faults})"
                if fault.away:
                    now = time.monotonic()
                    away_since = away_since or now
                    if now + wait - away_since > (self.patience if chat.contact else FIRST_CONTACT):
                        if chat.answered_at > away_since:  # others are answered
                            return self._failure(chat, reason)
                        raise WriterError(self._away(chat, reason, fault.wait)) from None
                else:
                    tries += 1
                    if tries > self.retries:
                        return self._failure(chat, reason)
                await sleep(wait)
            else:
                chat.answered_at, chat.failures_in_a_row = time.monotonic(), 0
                return answer

    async def _try(self, chat: "_Chat", messages: list[dict], schema: dict | None) -> Answer:
        settings = self.settings
        try:
            with fail_after(self.timeout):
                output = await chat.chat_completion(
                    messages,
                    model=self.model,
                    temperature=settings.temperature,
                    top_p=settings.top_p if settings.temperature > 0 else None,
                    seed=settings.seed,
                    response_format=response_format(schema) if schema else None,
                    extra_body={chat.token_limit: settings.max_new_tokens},
                )
            choice = output.choices[0]
            text = (choice.message.content or choice.message.get("refusal") or "").strip()
        except TimeoutError:
            raise _TryAgain(f"no answer within {self.timeout:g} s") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise _TryAgain(f"no connection: {str(error) or type(error).__name__}", away=True) from None
        except httpx2.RequestError as error:
            raise _TryAgain(f"the connection broke: {str(error) or type(error).__name__}") from None
        except UnicodeEncodeError:
            raise _Refused("the question holds half of a surrogate pair, which is no character") from None
        except _BadStatus as error:
            raise self._judged(chat, error) from None
        except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
            if not chat.contact:  # raised by the client, before it asked anything
                raise WriterError(f"{self._where}: {self._clean(error)}") from None
            told = getattr(error, "doc", "") or str(error)
            raise _TryAgain(f"the answer is no chat completion: {told}") from None
        if not text:
            raise _Refused(f"the answer is empty (finish reason {choice.finish_reason})")
        return Answer(
            text=text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
            finish_reason="length" if choice.finish_reason == "length" else "stop",
            prompt_tokens=_count(output.usage, "prompt_tokens"),
            completion_tokens=_count(output.usage, "completion_tokens"),
        )

    def _judged(self, chat: "_Chat", error: "_BadStatus") -> Exception:
        """Tells from a status whether to try again, to leave the question, or to leave the run."""
        status, told = error.status, f"{error.status}: {self._clean(error)}"
        # As a whole JSON string: a post that is quoted in a message can't pass for one.
        code = next((code for code in HOPELESS_CODES if f'"{code}"' in error.body), "") if status < 500 else ""
        if not code and (status in (408, 425, 429) or status >= 500):
            return _TryAgain(told, away=status in (429, 502, 503) or error.wait > 0, wait=error.wait)
        if status == 401 or "api_key" in code.lower():
            mend = f"the key is refused; set {self._key_name} to a valid one"
        elif status == 402 or code == "insufficient_quota":
            mend = "the account has nothing left; run again when it has"
        elif status == 404 or code or (status == 400 and not chat.answered_at and self._names_model(told)):
            mend = f"there is no model {self.model!r}, or no chat server; look at the name and at the base URL"
        elif status == 403 and not chat.answered_at:
            mend = f"the key opens no access to {self.model!r}; set {self._key_name} to one that does"
        elif status == 405 or status < 400:
            mend = "no chat server is at this address; look at the base URL"
        else:
            return _Refused(told)
        return WriterError(f"{self._where}: {mend} ({told}).")

    def _names_model(self, told: str) -> bool:
        """Whether a refusal is of the model, as `transformers serve` words it, and not of the question's length."""
        return any(f"{mark}{self.model}{mark}" in told for mark in "'\"`") and "token" not in told

    def _failure(self, chat: "_Chat", reason: str) -> Failure:
        chat.failures_in_a_row += 1
        if chat.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise WriterError(
                f"{self._where}: {MAX_FAILURES_IN_A_ROW} questions one after another got no answer, the last for this "
                f"reason: {reason}. Mend it and run again."
            )
        return Failure(reason)

    def _away(self, chat: "_Chat", reason: str, wait: float) -> str:
        if not chat.contact:
            return f"{self._where}: no server answers there ({reason}); start it, or look at the address."
        if wait > self.patience:
            return f"{self._where}: the server asks to come back in {wait:.0f} s ({reason}); run again then."
        return f"{self._where}: no answer for {self.patience:g} s ({reason}); run again when the server is back."

    def _clean(self, message: Any) -> str:
        return one_line(message, self._secrets)


class _BadStatus(Exception):
    """A response that is no success, with what its server says about it."""

    def __init__(self, response: httpx2.Response, body: bytes):
        self.status, self.body = response.status_code, body.decode(errors="replace")
        self.wait = _retry_after(response.headers.get("Retry-After", ""))
        super().__init__(_server_message(self.body) or response.headers.get("Location") or response.reason_phrase)


class _Chat(AsyncInferenceClient):
    """The client of one run, and what the run has seen of its server.

    Args:
        http: asks.
        query: of the URL that is asked, which no log shows. Empty for none.
        options: of `AsyncInferenceClient`.
    """

    def __init__(self, http: httpx2.AsyncClient, query: bytes, **options):
        super().__init__(**options)
        self.http, self.query = http, query
        self.limiter = CapacityLimiter(4)  # pictures that are opened at once: each may take 300 MB
        self.token_limit = "max_tokens"
        self.left_out: set[str] = set()  # parameters that the server refuses
        self.contact = False
        self.answered_at = 0.0
        self.failures_in_a_row = 0

    async def _inner_post(self, request_parameters, *, stream: bool = False) -> bytes:
        """Posts as the parent does, but reads no more than the limit, and leaves errors as they are."""
        body = dict(request_parameters.json)
        if self.model and "value" in (body.get("response_format") or {}):
            # For a URL the parent writes what text-generation-inference alone understands.
            body["response_format"] = response_format(body["response_format"]["value"])
        body = {name: value for name, value in body.items() if name not in self.left_out}
        url = httpx2.URL(request_parameters.url)
        extensions = {"target": url.raw_path + b"?" + self.query} if self.query else {}
        headers = request_parameters.headers
        async with self.http.stream("POST", url, json=body, headers=headers, extensions=extensions) as response:
            self.contact = True
            raw = bytearray()
            async for part in response.aiter_bytes():
                raw += part
                if len(raw) > MAX_ANSWER_BYTES:
                    break
        if not response.is_success:
            # Newer models of OpenAI refuse the one and take the other.
            if response.status_code == 400 and "max_tokens" in body and b"max_completion_tokens" in raw:
                self.token_limit = "max_completion_tokens"
                raise _TryAgain("the server wants max_completion_tokens")
            if response.status_code == 400 and (
                refused := self._may_leave_out(body, bytes(raw).decode(errors="replace"))
            ):
                self.left_out.add(refused)
                raise _TryAgain(f"the server refuses {refused}")
            raise _BadStatus(response, bytes(raw))
        if len(raw) > MAX_ANSWER_BYTES:
            raise _Refused(f"the answer has more than {MAX_ANSWER_BYTES:,} bytes")
        return bytes(raw)

    def _may_leave_out(self, body: dict[str, Any], told: str) -> str | None:
        """Returns the parameter that a refusal names, where answers are of use without it, too."""
        for name in ("top_p", "seed", "response_format"):
            if name in body and re.search(rf"[\"'`]{name}\b", told) and (name != "top_p" or body[name] == 1):
                if name != "top_p" and name not in self.left_out:
                    logger.warning(f"The server refuses {name!r}: asking without it.")
                return name
        return None


def _split_url(base_url: str) -> tuple[httpx2.URL, bytes, str]:
    """Returns the URL that is asked without secrets, its query, and its `user:password`."""
    try:
        url = httpx2.URL(base_url.strip())
        urlsplit(base_url).port, url.host.encode("idna")  # raise for ports and hosts that can be none
    except (httpx2.InvalidURL, ValueError):
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:  # may hold secrets: it is not shown
        raise WriterError("The base URL is no address of a server; one such as http://localhost:8000/v1 is expected.")
    path = url.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    user = f"{url.username}:{url.password}" if url.userinfo else ""
    return url.copy_with(path=path, query=None, fragment=None, userinfo=b""), url.query, user


def _retry_after(value: str) -> float:
    """Returns the seconds that a `Retry-After` header asks for, given as number or as date (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _server_message(body: str) -> str:
    """Returns the message in the body of an error, in any of the forms that servers give it, else the body."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return body
    while isinstance(told, list) and told:
        told = told[0]
    for name in ("error", "message", "detail"):
        if isinstance(told, dict) and told.get(name):
            told = told[name]
    return told if isinstance(told, str) else json.dumps(told)


def _count(usage: Any, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) else None
