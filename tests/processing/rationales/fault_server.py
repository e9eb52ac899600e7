"""A chat server that answers late, wrongly or not at all, and counts what it is asked. Standard library alone.

    python fault_server.py --port 0 --faults 0.2 --kinds 429@1 500 reset --delay 0.05

prints its port and serves `POST /v1/chat/completions` (any path that ends so) until it is killed. A share `--faults`
of the requests gets one of `--kinds`, drawn at random. A question may script its own: the text `<<500 429@2 ok>>` in
it means a 500 at the first request of this question, a 429 with `Retry-After: 2` at the second, then answers; the last
of a script holds on, so `<<500>>` is never answered.

`GET /stats` tells what happened:

    {"requests": 7, "answers": 5, "most_at_once": 2, "faults": {"500": 2},
     "questions": {NAME: {"requests": 3, "answers": 1, "times": [0.01, 0.31, 2.4]}}}

A question's NAME is what `--name` (a regular expression) finds in its text, else `question_name` of it. An answer
counts once it was written to a client that was still there. `GET /requests` lists headers, paths and bodies, with
`--record`.

Kinds: a status such as `500`; `429:insufficient_quota`, with a code of the error; `400:quote`, with a message that
quotes the question; `429@2` and `429@date2`, with `Retry-After` in seconds or as HTTP date; `hang` (no byte for an
hour), `reset` (in mid-body), `close` (before the first byte), `empty` (body), `junk` (no JSON), `list` (JSON of
another kind), `error` (a 200 that holds an error), `blank` (an answer without text), `refusal`, `cut` (at the limit),
`huge` (an answer of 2 MB), `ok`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import re
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from email.utils import formatdate
from urllib.request import urlopen


KINDS = ["429", "429@1", "500", "503", "hang", "reset", "empty", "junk", "refusal", "huge"]
REFUSAL = "I'm sorry, but I can't help with that."
PHRASES = {429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}


def question_text(body: dict) -> str:
    texts = []
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts)


def question_name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def answer_text(name: str) -> str:
    return f"The answer to {name}."


class Server:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.random = random.Random(options.seed)
        self.started = time.monotonic()
        self.requests = self.answers = self.busy = self.most_at_once = 0
        self.faults: Counter = Counter()
        self.questions: dict[str, dict] = {}
        self.recorded: list[dict] = []

    async def serve(self) -> None:
        server = await asyncio.start_server(self.connection, "127.0.0.1", self.options.port, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self.exchange(reader, writer):
                pass
        writer.close()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Reads one request and answers it; returns whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET":
            told = {"/stats": self.stats, "/requests": lambda: self.recorded}.get(path)
            return await self.send(writer, *((200, told()) if told else (404, {"detail": "Not Found"})))
        if not path.partition("?")[0].endswith("/chat/completions"):
            return await self.send(writer, 404, {"detail": "Not Found"})
        self.requests += 1
        self.busy += 1
        self.most_at_once = max(self.most_at_once, self.busy)
        try:
            return await self.chat(reader, writer, path, headers, json.loads(raw))
        finally:
            self.busy -= 1

    async def chat(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, headers: dict, body: dict
    ) -> bool:
        text = question_text(body)
        found = self.options.name and re.search(self.options.name, text)
        name = found[0] if found else question_name(text)
        question = self.questions.setdefault(name, {"requests": 0, "answers": 0, "times": []})
        question["requests"] += 1
        question["times"].append(round(time.monotonic() - self.started, 4))
        if self.options.record:
            self.recorded.append({"name": name, "path": path, "headers": headers, "body": body})
        if self.options.key and headers.get("authorization") != f"Bearer {self.options.key}":
            told = f"Incorrect API key provided: {headers.get('authorization')} at {path}"
            return await self.send(writer, 401, {"error": {"message": told, "code": "invalid_api_key"}})
        if self.options.model and body["model"] != self.options.model:
            told = f"The model {body['model']!r} does not exist."
            return await self.send(writer, 404, {"error": {"message": told, "code": "model_not_found"}})
        if self.options.modern and "max_tokens" in body:
            told = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
            return await self.send(writer, 400, {"error": {"message": told, "code": "unsupported_parameter"}})
        if refused := [name for name in self.options.refuse if name in body]:
            told = f"Unsupported parameter: '{refused[0]}' is not supported with this model."
            return await self.send(writer, 400, {"error": {"message": told, "param": refused[0]}})
        if self.options.delay:
            await asyncio.sleep(self.options.delay)
        return await self.behave(reader, writer, self.kind(text, question["requests"]), name, text)

    def kind(self, text: str, number: int) -> str:
        if script := re.search(r"<<([^<>]+)>>", text):
            kinds = script[1].split()
            return kinds[min(number, len(kinds)) - 1]
        if self.random.random() < self.options.faults:
            return self.random.choice(self.options.kinds)
        return "ok"

    async def behave(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str, name: str, asked: str
    ) -> bool:
        if kind != "ok":
            self.faults[kind] += 1
        told, _, wait = kind.partition("@")
        told, _, code = told.partition(":")
        if told.isdigit():
            error, extra = {"message": f"fault {told}"}, {}
            if code == "quote":
                error["message"] += f" for {asked}"
            elif code:
                error["code"] = code
            if wait:
                date = wait.startswith("date")
                seconds = float(wait.removeprefix("date"))
                extra["Retry-After"] = formatdate(time.time() + seconds, usegmt=True) if date else wait
            if told.startswith("3"):
                extra["Location"] = "http://127.0.0.1:9/v1/chat/completions"
            return await self.send(writer, int(told), {"error": error}, extra)
        if kind == "hang":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), 3600)  # returns when the client goes
            return False
        if kind == "close":
            return False
        text, finish = answer_text(name), "stop"
        if kind == "blank":
            text = " \n"
        elif kind == "refusal":
            text = REFUSAL
        elif kind == "cut":
            finish = "length"
        elif kind == "huge":
            text = "word " * 400_000
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "fault",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }
        if kind == "list":
            answer = [answer]
        elif kind == "error":
            answer = {"error": {"message": "fault in a 200"}}
        raw = json.dumps(answer).encode()
        if kind == "empty":
            raw = b""
        elif kind == "junk":
            raw = b"<html>" + raw[: len(raw) // 2]
        if kind == "reset":
            writer.write(header(200, len(raw)) + raw[: len(raw) // 2])
            await writer.drain()
            await asyncio.sleep(0.01)
            linger = struct.pack("ii", 1, 0)  # closing sends a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return False
        if kind in ("ok", "refusal", "cut") and not (writer.is_closing() or reader.at_eof()):
            self.answers += 1
            self.questions[name]["answers"] += 1
        writer.write(header(200, len(raw)) + raw)
        await writer.drain()
        return True

    async def send(self, writer: asyncio.StreamWriter, status: int, told, extra: dict | None = None) -> bool:
        raw = json.dumps(told).encode()
        writer.write(header(status, len(raw), extra) + raw)
        await writer.drain()
        return True

    def stats(self) -> dict:
        return {
            "requests": self.requests,
            "answers": self.answers,
            "most_at_once": self.most_at_once,
            "faults": dict(self.faults),
            "questions": self.questions,
        }


def header(status: int, length: int, extra: dict | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} {PHRASES.get(status, 'Some')}", "Content-Type: application/json"]
    lines += [f"Content-Length: {length}"] + [f"{name}: {value}" for name, value in (extra or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class RunningServer:
    """A server in a process of its own. `url` is what a client takes as `base_url`."""

    def __init__(self, *arguments: str | float):
        command = [sys.executable, __file__, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def get(self, path: str):
        with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=30) as response:
            return json.load(response)

    def stats(self) -> dict:
        return self.get("stats")

    def requests(self) -> list[dict]:
        return self.get("requests")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> "RunningServer":
        return self

    def __exit__(self, *_) -> None:
        self.kill()


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A chat server with faults, for tests.")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free; it is printed")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests with a fault")
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="faults to draw from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="regular expression that finds a question's name in its text")
    parser.add_argument("--key", help="the API key that is asked for")
    parser.add_argument("--model", help="the one model that is known")
    parser.add_argument("--modern", action="store_true", help="refuse max_tokens, take max_completion_tokens")
    parser.add_argument("--refuse", nargs="*", default=[], metavar="PARAMETER", help="answer 400 where one is given")
    parser.add_argument("--record", action="store_true", help="keep every request for GET /requests")
    return parser


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Server(options().parse_args()).serve())
