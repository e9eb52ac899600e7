"""A Hub on loopback for tests: repositories with real commits, large files, tokens, and faults on demand.

    with LocalHub(folder) as hub:
        subprocess.run(command, env=os.environ | hub.environment(home, token=WRITER))
        hub.commits("someone/model"), hub.files("someone/model")

The client reads its environment at import: it has to be another process. Routes and answers are those that
`huggingface_hub` 2.x and `datasets` ask for, by way of LFS and not of Xet.
"""

import base64
import hashlib
import importlib.util
import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit


spec = importlib.util.spec_from_file_location("card_rules", Path(__file__).with_name("card_rules.py"))
card_rules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(card_rules)

WRITER, READER, STRANGER = "hf_writer", "hf_reader", "hf_stranger"
TOKENS = {WRITER: ("someone", "write"), READER: ("someone", "read"), STRANGER: ("stranger", "write")}
KINDS = ("models", "datasets", "spaces")
LARGE = re.compile(r"\.(safetensors|bin|onnx|data|parquet|png|jpe?g|model)$")


class Refusal(Exception):
    """What is answered in place of a result."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.body = status, {"error": message}
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


class Cut(Exception):
    """The connection is closed without an answer."""


class Repository:
    """A folder with `refs.json`, `commits/`, `blobs/` by git's hash, and `lfs/` by SHA-256."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lock = threading.Lock()

    def create(self, private: bool) -> None:
        for name in ("commits", "blobs", "lfs"):
            (self.folder / name).mkdir(parents=True)
        self._write("repo.json", {"private": private})
        self._write("refs.json", {})
        self.commit("refs/heads/main", "initial commit", {".gitattributes": self.blob(b"*.bin filter=lfs\n")})

    @property
    def private(self) -> bool:
        return self._read("repo.json")["private"]

    @property
    def refs(self) -> dict[str, str]:
        return self._read("refs.json")

    def _read(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())

    def _write(self, name: str, content: dict) -> None:
        fresh = self.folder / f"{name}.new"
        fresh.write_text(json.dumps(content, sort_keys=True))
        fresh.replace(self.folder / name)

    def blob(self, content: bytes) -> dict:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        (self.folder / "blobs" / oid).write_bytes(content)
        return {"oid": oid, "size": len(content)}

    def pointer(self, sha256: str, size: int) -> dict:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        oid = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
        return {"oid": oid, "size": size, "lfs": {"oid": sha256, "size": size, "pointerSize": len(text)}}

    def commit(self, ref: str, summary: str, files: dict[str, dict], parent: str | None = None) -> str:
        """Writes a commit, then moves the ref: whoever looks in between sees the former state."""
        content = {"summary": summary, "files": files, "parent": parent, "date": datetime.now(UTC).isoformat()}
        oid = hashlib.sha1(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self._write(f"commits/{oid}", content)
        self.point(ref, oid)
        return oid

    def point(self, ref: str, oid: str) -> None:
        self._write("refs.json", self.refs | {ref: oid})

    def resolve(self, revision: str) -> str:
        found = self.refs.get(revision) or self.refs.get(f"refs/heads/{revision}")
        if found is None and re.fullmatch("[0-9a-f]{40}", revision) and (self.folder / "commits" / revision).is_file():
            found = revision
        if found is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def at(self, oid: str) -> dict:
        return self._read(f"commits/{oid}")

    def place(self, entry: dict) -> Path:
        return self.folder / "lfs" / entry["lfs"]["oid"] if "lfs" in entry else self.folder / "blobs" / entry["oid"]

    def history(self, revision: str) -> list[dict]:
        """The commits of a revision, the last one first."""
        commits, oid = [], self.resolve(revision)
        while oid is not None:
            commits.append({"oid": oid, **self.at(oid)})
            oid = commits[-1]["parent"]
        return commits


@dataclass
class Faults:
    """What goes wrong. `cut_after` counts the bytes of uploaded files and commits; `cuts` says how many times.

    `on_upload` is called where the body of one begins.
    """

    cut_after: int | None = None
    cuts: int = 1_000_000
    cut_commits_only: bool = False
    max_file_size: int | None = None
    on_upload: Callable[[], None] | None = None


class LocalHub:
    """The Hub of the tests.

    Args:
        folder: where it keeps its repositories.
    """

    def __init__(self, folder: Path):
        self.folder, self.faults = folder, Faults()
        self.requests: list[tuple[str, str]] = []
        self._repositories: dict[Path, Repository] = {}
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = WRITER) -> dict[str, str]:
        """What a client's process finds in its environment; `home` is where it caches."""
        found = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        found |= {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(home / "hub"), "HF_MODULES_CACHE": str(home / "modules")}
        found |= {"HF_DATASETS_CACHE": str(home / "datasets"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        found |= {"HF_TOKEN_PATH": str(home / "token"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return found | {"HF_TOKEN": token or ""}

    def repository(self, name: str, kind: str = "models") -> Repository:
        folder = self.folder / kind / name
        with self.lock:
            return self._repositories.setdefault(folder, Repository(folder))

    def exists(self, name: str, kind: str = "models") -> bool:
        return (self.folder / kind / name / "refs.json").is_file()

    def commits(self, name: str, kind: str = "models", revision: str = "main") -> list[dict]:
        return self.repository(name, kind).history(revision)

    def files(self, name: str, kind: str = "models", revision: str = "main") -> dict[str, bytes]:
        repository = self.repository(name, kind)
        entries = repository.at(repository.resolve(revision))["files"]
        return {path: repository.place(entry).read_bytes() for path, entry in entries.items()}


class Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self) -> None:
        self.hub.requests.append((self.command, self.path))
        self._left = int(self.headers.get("Content-Length") or 0)
        try:
            try:
                self.user, self.role = self._who()
                self._route()
                self._body()
            except Refusal as refusal:
                self._body()
                self._send(refusal.status, json.dumps(refusal.body).encode(), **refusal.headers)
        except (Cut, ConnectionError):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _who(self) -> tuple[str | None, str | None]:
        header = self.headers.get("Authorization")
        if header is None:
            return None, None
        if (token := header.removeprefix("Bearer ")) not in TOKENS:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return TOKENS[token]

    def _body(self, counted: bool = False, commit: bool = False) -> bytes:
        """Reads what is left of the request; a counted one is subject to cuts."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            self.headers.replace_header("Transfer-Encoding", "read")
            return b"".join(chunks)
        faults, left = self.hub.faults, self._left
        if counted and faults.on_upload is not None:
            faults.on_upload()
        with self.hub.lock:
            cuts = counted and faults.cut_after is not None and faults.cuts > 0 and commit >= faults.cut_commits_only
            if cuts and left > faults.cut_after:
                faults.cuts -= 1
            elif cuts:
                faults.cut_after -= left
                cuts = False
        if cuts:
            self.rfile.read(faults.cut_after)
            raise Cut
        self._left = 0
        return self.rfile.read(left)

    def _send(self, status: int, body: bytes | dict | list = b"", **headers: str) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self) -> dict:
        return json.loads(self._body() or b"{}")

    def _route(self) -> None:
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        parts = [unquote(part) for part in split.path.strip("/").split("/")]
        routes: dict[tuple[str, ...], Callable[[], None]] = {
            ("api", "whoami-v2"): self._whoami,
            ("api", "validate-yaml"): self._validate_yaml,
            ("api", "repos", "create"): self._create,
        }
        if tuple(parts) in routes:
            return routes[tuple(parts)]()
        if parts[0] == "lfs" and len(parts) == 5:
            return self._put_large(parts[1], "/".join(parts[2:4]), parts[4])
        if parts[0] == "api" and len(parts) >= 3 and parts[1] in KINDS:
            name, rest = "/".join(parts[2:4]), parts[4:]
            repository = self._repository(name, parts[1])
            action = f"_api_{rest[0].replace('-', '_')}" if rest else "_api_revision"
            if not hasattr(self, action):
                raise Refusal(404, f"{self.path}: is not part of this Hub")
            inside = ["/".join(rest[2:])] if rest[2:] else []
            return getattr(self, action)(repository, parts[1], name, *rest[1:2], *inside)
        kind, parts = (parts[0], parts[1:]) if parts[0] in KINDS else ("models", parts)
        if parts[-4:] == ["info", "lfs", "objects", "batch"]:
            name = "/".join(parts[:2]).removesuffix(".git")
            return self._batch(self._repository(name, kind), kind, name)
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file(self._repository("/".join(parts[:2]), kind), parts[3], "/".join(parts[4:]))
        raise Refusal(404, f"{self.path}: is not part of this Hub")

    def _repository(self, name: str, kind: str) -> Repository:
        hidden = self.hub.exists(name, kind) and self.hub.repository(name, kind).private
        if not self.hub.exists(name, kind) or (hidden and name.split("/")[0] != self.user):
            raise Refusal(404 if self.user else 401, "Repository not found", "RepoNotFound")
        return self.hub.repository(name, kind)

    def _may_write(self, name: str) -> None:
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        if self.role != "write":
            raise Refusal(403, "This token has no write access: make one with the role write")
        if name.split("/")[0] != self.user:
            raise Refusal(403, f"You don't have write access to {name}")

    def _whoami(self) -> None:
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        token = {"displayName": "test", "role": self.role}
        self._send(200, {"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": token}})

    def _validate_yaml(self) -> None:
        body = self._json()
        errors = list(card_rules.problems(body["content"], body["repoType"]))
        empty = not errors and card_rules.front_matter(body["content"]) is None
        warnings = ["empty or missing yaml metadata in repo card"] if empty else []
        messages = {"errors": [{"message": m} for m in errors], "warnings": [{"message": m} for m in warnings]}
        self._send(400 if errors else 200, messages)

    def _create(self) -> None:
        body = self._json()
        kind, owner = f"{body.get('type', 'model')}s", body.get("organization") or self.user
        name = f"{owner}/{body['name']}"
        self._may_write(name)
        prefix = "" if kind == "models" else f"{kind}/"
        answer = {"url": f"{self.hub.endpoint}/{prefix}{name}", "name": name}
        with self.hub.repository(name, kind).lock:
            if self.hub.exists(name, kind):
                message = f"You already created this {kind[:-1]} repo: {name}"
                return self._send(409, {"error": message, **answer}, **{"X-Error-Message": message})
            self.hub.repository(name, kind).create(body.get("visibility") == "private")
        self._send(200, answer)

    def _api_revision(self, repository: Repository, kind: str, name: str, revision: str = "main") -> None:
        oid = repository.resolve(revision)
        commit = repository.at(oid)
        answer = {"_id": oid[:24], "id": name, "modelId": name, "author": name.split("/")[0], "sha": oid}
        answer |= {"private": repository.private, "gated": False, "disabled": False, "likes": 0, "downloads": 0}
        answer |= {"tags": [], "lastModified": commit["date"][:23] + "Z", "createdAt": commit["date"][:23] + "Z"}
        siblings = [{"rfilename": path} for path in commit["files"]]
        if "blobs" in self.query:
            for sibling, entry in zip(siblings, commit["files"].values()):
                sibling |= {"size": entry["size"], "blobId": entry["oid"]}
                if lfs := entry.get("lfs"):
                    sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
        self._send(200, answer | {"siblings": siblings})

    def _api_refs(self, repository: Repository, kind: str, name: str) -> None:
        found: dict[str, list] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        for ref, oid in repository.refs.items():
            where = "pullRequests" if ref.startswith("refs/pr/") else "branches"
            found[where].append({"name": ref.removeprefix("refs/heads/"), "ref": ref, "targetCommit": oid})
        self._send(200, found)

    def _api_branch(self, repository: Repository, kind: str, name: str, branch: str) -> None:
        self._may_write(name)
        start = self._json().get("startingPoint", "main")
        with repository.lock:
            if f"refs/heads/{branch}" in repository.refs:
                raise Refusal(409, f"Reference already exists: {branch}")
            repository.point(f"refs/heads/{branch}", repository.resolve(start))
        self._send(200, {})

    def _entries(self, repository: Repository, revision: str) -> dict[str, dict]:
        """Files and folders by path."""
        files = repository.at(repository.resolve(revision))["files"]
        entries: dict[str, dict] = {}
        for path, entry in files.items():
            for parent in list(Path(path).parents)[:-1]:
                oid = hashlib.sha1(str(parent).encode()).hexdigest()
                entries[str(parent)] = {"type": "directory", "path": str(parent), "oid": oid, "size": 0}
            entries[path] = {"type": "file", "path": path, **entry}
        return entries

    def _api_tree(self, repository: Repository, kind: str, name: str, revision: str, path: str = "") -> None:
        entries = self._entries(repository, revision)
        if path and path not in entries:
            oid = repository.resolve(revision)
            raise Refusal(404, f"{path} does not exist", "EntryNotFound", **{"X-Repo-Commit": oid})
        below = [p for p in sorted(entries) if not path or p.startswith(f"{path}/")]
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            below = [p for p in below if "/" not in p.removeprefix(path).strip("/")]
        self._send(200, [self._expanded(repository, entries[p], revision) for p in below])

    def _api_paths_info(self, repository: Repository, kind: str, name: str, revision: str) -> None:
        form = parse_qs(self._body().decode())
        entries = self._entries(repository, revision)
        asked = [path.strip("/") for path in form.get("paths", [])]
        self._send(200, [self._expanded(repository, entries[path], revision) for path in asked if path in entries])

    def _expanded(self, repository: Repository, entry: dict, revision: str) -> dict:
        oid = repository.resolve(revision)
        commit = repository.at(oid)
        date = commit["date"][:23] + "Z"
        return entry | {"lastCommit": {"id": oid, "title": commit["summary"], "date": date}}

    def _api_preupload(self, repository: Repository, kind: str, name: str, revision: str) -> None:
        if not self.query.get("create_pr"):
            self._may_write(name)
        files, answers = repository.at(repository.resolve(revision))["files"], []
        for file in self._json()["files"]:
            path, there = file["path"], files.get(file["path"], {})
            mode = "lfs" if LARGE.search(path) or file["size"] > 10 << 20 else "regular"
            oid = there.get("lfs", {}).get("oid") if mode == "lfs" else there.get("oid")
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": answers})

    def _batch(self, repository: Repository, kind: str, name: str) -> None:
        answers, limit = [], self.hub.faults.max_file_size
        for found in self._json()["objects"]:
            oid, size = found["oid"], found["size"]
            answer = {"oid": oid, "size": size}
            if limit is not None and size > limit:
                answer["error"] = {"code": 413, "message": f"the file has {size} bytes, at most {limit} are taken"}
            elif not (repository.folder / "lfs" / oid).is_file():
                href = f"{self.hub.endpoint}/lfs/{kind}/{quote(name)}/{oid}"
                answer["actions"] = {"upload": {"href": href, "header": {}}}
            answers.append(answer)
        self._send(200, {"transfer": "basic", "objects": answers})

    def _put_large(self, kind: str, name: str, oid: str) -> None:
        content = self._body(counted=True)
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "the content has another SHA-256")
        folder = self.hub.repository(name, kind).folder / "lfs"
        fresh = folder / f"{oid}.{threading.get_ident()}"
        fresh.write_bytes(content)
        fresh.replace(folder / oid)
        self._send(200)

    def _api_commit(self, repository: Repository, kind: str, name: str, revision: str) -> None:
        pull_request = bool(self.query.get("create_pr"))
        if self.user is None or not pull_request:
            self._may_write(name)
        lines = [json.loads(line) for line in self._body(counted=True, commit=True).splitlines()]
        header = lines[0]["value"]
        with repository.lock:
            head = repository.resolve(revision)
            if header.get("parentCommit") not in (None, head):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            files = dict(repository.at(head)["files"])
            for line in lines[1:]:
                self._apply(repository, files, line["key"], line["value"])
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
            ref = f"refs/pr/{number}" if pull_request else f"refs/heads/{revision}"
            if revision.startswith("refs/"):
                ref = revision
            if files == repository.at(head)["files"]:
                oid = head
            else:
                oid = repository.commit(ref, header["summary"], files, head)
        prefix = self.hub.endpoint + ("/" if kind == "models" else f"/{kind}/") + name
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{prefix}/commit/{oid}", "hookOutput": ""}
        if pull_request:
            answer["pullRequestUrl"] = f"{prefix}/discussions/{number}"
        self._send(200, answer)

    def _apply(self, repository: Repository, files: dict[str, dict], key: str, value: dict) -> None:
        limit, path = self.hub.faults.max_file_size, value["path"]
        if key == "file":
            content = base64.b64decode(value["content"])
            if limit is not None and len(content) > limit:
                raise Refusal(413, f"{path}: the file has {len(content)} bytes, at most {limit} are taken")
            files[path] = repository.blob(content)
        elif key == "lfsFile":
            if not (repository.folder / "lfs" / value["oid"]).is_file():
                raise Refusal(400, f"{path}: the large file was not uploaded")
            files[path] = repository.pointer(value["oid"], value["size"])
        else:
            gone = [p for p in files if p == path or p.startswith(f"{path.rstrip('/')}/")]
            if not gone:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            for there in gone:
                del files[there]

    def _file(self, repository: Repository, revision: str, path: str) -> None:
        oid = repository.resolve(revision)
        entry = repository.at(oid)["files"].get(path)
        if entry is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": oid})
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(entry["size"])}
        content, status = repository.place(entry).read_bytes(), 200
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self._send(status, content, **headers)
