"""The Hub of the tests keeps what the real one promises: whole commits, and content of the hash that is named."""

import base64
import hashlib
import importlib.util
import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest


spec = importlib.util.spec_from_file_location("local_hub", Path(__file__).with_name("local_hub.py"))
local_hub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(local_hub)
NAME = "someone/model"


@pytest.fixture
def hub(tmp_path):
    with local_hub.LocalHub(tmp_path) as hub:
        hub.repository(NAME).create(private=False)
        yield hub


def ask(hub, method: str, path: str, body: bytes = b"", token: str | None = local_hub.WRITER) -> tuple[int, dict]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = Request(hub.endpoint + path, body, headers, method=method)
    try:
        with build_opener(ProxyHandler({})).open(request) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def commit(hub, *lines: tuple[str, dict], parent: str | None = None, **options) -> tuple[int, dict]:
    header = {"summary": "a commit", "description": ""} | ({"parentCommit": parent} if parent else {})
    body = "\n".join(json.dumps({"key": key, "value": value}) for key, value in (("header", header), *lines))
    return ask(hub, "POST", f"/api/models/{NAME}/commit/main", body.encode(), **options)


def file(path: str, content: bytes) -> tuple[str, dict]:
    return "file", {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}


def test_a_commit_with_one_bad_line_changes_nothing(hub):
    before = hub.commits(NAME)
    large = {"path": "model.safetensors", "algo": "sha256", "oid": 64 * "0", "size": 3}
    assert commit(hub, file("a.txt", b"a"), ("lfsFile", large))[0] == 400
    assert commit(hub, file("a.txt", b"a"), ("deletedFile", {"path": "none"}))[0] == 404
    assert hub.commits(NAME) == before and "a.txt" not in hub.files(NAME)


def test_commits_follow_one_another(hub):
    (first,) = hub.commits(NAME)
    status, answer = commit(hub, file("a/b.txt", b"a"), parent=first["oid"])
    assert status == 200 and hub.files(NAME)["a/b.txt"] == b"a"
    assert commit(hub, file("a/b.txt", b"b"), parent=first["oid"])[0] == 412
    assert commit(hub, file("a/b.txt", b"a"))[1]["commitOid"] == answer["commitOid"], "nothing has changed"
    assert [one["oid"] for one in hub.commits(NAME)] == [answer["commitOid"], first["oid"]]
    assert commit(hub, ("deletedFolder", {"path": "a/"}))[0] == 200 and set(hub.files(NAME)) == {".gitattributes"}


def test_large_files_have_the_hash_that_is_named(hub):
    content = b"weights"
    oid = hashlib.sha256(content).hexdigest()
    asked = {"operation": "upload", "objects": [{"oid": oid, "size": len(content)}]}
    batch = f"/{NAME}.git/info/lfs/objects/batch"
    upload = ask(hub, "POST", batch, json.dumps(asked).encode())[1]["objects"][0]["actions"]["upload"]["href"]
    upload = upload.removeprefix(hub.endpoint)
    assert ask(hub, "PUT", upload, b"others!")[0] == 400
    assert ask(hub, "PUT", upload, content)[0] == 200
    assert "actions" not in ask(hub, "POST", batch, json.dumps(asked).encode())[1]["objects"][0]


@pytest.mark.parametrize(
    ("token", "read", "write"),
    [(local_hub.WRITER, 200, 200), (local_hub.READER, 200, 403), (local_hub.STRANGER, 200, 403), (None, 200, 401)],
)
def test_who_may_what(hub, token, read, write):
    assert ask(hub, "GET", f"/api/models/{NAME}", token=token)[0] == read
    assert commit(hub, file("a.txt", b"a"), token=token)[0] == write


def test_what_is_hidden_and_what_is_wrong(hub):
    hub.repository("someone/hidden").create(private=True)
    for token, status in ((local_hub.WRITER, 200), (local_hub.STRANGER, 404), (None, 401), ("hf_wrong", 401)):
        assert ask(hub, "GET", "/api/models/someone/hidden", token=token)[0] == status


def test_a_cut_leaves_no_answer_and_no_commit(hub):
    before = hub.commits(NAME)
    hub.faults.cut_after, hub.faults.cuts = 20, 1
    with pytest.raises(OSError):
        commit(hub, file("a.txt", 100 * b"a"))
    assert hub.commits(NAME) == before
    assert commit(hub, file("a.txt", 100 * b"a"))[0] == 200
