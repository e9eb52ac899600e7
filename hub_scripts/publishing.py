"""Publishes files to a repository of the Hub in one commit. Imports no torch."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetInfo,
    HfApi,
    ModelInfo,
    RepoUrl,
    SpaceInfo,
    get_token,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from processing import PostError


RepoInfo = ModelInfo | DatasetInfo | SpaceInfo
BLANK = (".gitattributes", "README.md", "LICENSE*")  # what a repository made on the website holds


@dataclass
class Publication:
    """What is to stand in a repository.

    Args:
        kind: `"model"`, `"dataset"` or `"space"`.
        repo: id of the repository; without a namespace it is the user's.
        files: path in the repository, and the file or its content.
        owned: patterns of files that go from the repository where they are no longer among `files`.
        mark: pattern of a file by which a repository that is there already is known as one of this kind.
        message: of the commit.
    """

    kind: str
    repo: str
    files: dict[str, Path | bytes]
    owned: tuple[str, ...]
    mark: str
    message: str

    def listing(self) -> list[str]:
        """Files and their sizes, a line each, the sum below."""
        sizes = {
            path: len(file) if isinstance(file, bytes) else file.stat().st_size for path, file in self.files.items()
        }
        rows = [*sorted(sizes.items()), (f"{len(sizes)} files", sum(sizes.values()))]
        return [f"{size:15,}  {path}" for path, size in rows]


@dataclass
class Target:
    """How it is published: see `lrsa push --help`; `token` in place of the one that the client finds."""

    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    token: str | None = None


@dataclass
class Published:
    """Where it stands now; `commit` is the one that has it, `changed` whether that is a new one."""

    repo: str
    url: str
    commit: str
    changed: bool


def publish(*goes: tuple[Publication, Target]) -> list[Published]:
    """Publishes one repository after the other, once all of them are found to be such as may be written to.

    Raises:
        PostError: no token, no access, a name that is taken, a file above the limit, no network.
    """
    places = [find_place(publication, target) for publication, target in goes]
    return [make_commit(publication, target, *place) for (publication, target), place in zip(goes, places)]


def find_place(publication: Publication, target: Target) -> tuple[RepoUrl, RepoInfo]:
    """Returns a repository, made where it is missing, and what stands there on the branch that is asked for."""
    kind, api = publication.kind, HfApi(token=target.token)
    with hub_errors(publication):
        check_token(target.token)
        sdk = {"space_sdk": "gradio"} if kind == "space" else {}
        url = api.create_repo(publication.repo, repo_type=kind, private=target.private or None, exist_ok=True, **sdk)
        repo = url.repo_id
        there = api.repo_info(repo, repo_type=kind)
        check_same_kind(publication, [file.rfilename for file in there.siblings])
        if target.private and not there.private:
            raise PostError(
                f"{repo}: is there already and public; make it private in its settings, or leave out --private."
            )
        if target.revision is not None:
            there = at_branch(api, repo, kind, target.revision)
    return url, there


def make_commit(publication: Publication, target: Target, url: RepoUrl, there: RepoInfo) -> Published:
    """Uploads what is new and then makes one commit, so that nobody ever sees half of it.

    `upload_folder` is not used: where Xet is installed it commits large folders piece by piece.
    """
    repo = url.repo_id
    with hub_errors(publication):
        gone = stale(publication, [file.rfilename for file in there.siblings])
        made = HfApi(token=target.token).create_commit(
            repo,
            [
                *(CommitOperationDelete(path) for path in gone),
                *(CommitOperationAdd(path, file) for path, file in sorted(publication.files.items())),
            ],
            commit_message=publication.message,
            repo_type=publication.kind,
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=there.sha,
        )
    place = f"{url}/tree/{target.revision}" if target.revision else str(url)
    return Published(repo, made.pr_url or place, made.oid, changed=made.oid != there.sha)


def check_same_kind(publication: Publication, there: list[str]) -> None:
    strange = [path for path in there if not any(fnmatch(path, pattern) for pattern in BLANK)]
    if strange and not any(fnmatch(path, publication.mark) for path in there):
        raise PostError(
            f"{publication.repo}: the name is taken by something else (it holds {strange[0]} and no "
            f"{publication.mark}); choose another name."
        )


def stale(publication: Publication, there: list[str]) -> list[str]:
    return [
        path
        for path in there
        if path not in publication.files and any(fnmatch(path, pattern) for pattern in publication.owned)
    ]


def at_branch(api: HfApi, repo: str, kind: str, revision: str):
    """What stands on a branch, which is made of the main one where it is missing."""
    try:
        return api.repo_info(repo, repo_type=kind, revision=revision)
    except RevisionNotFoundError:
        api.create_branch(repo, branch=revision, repo_type=kind, exist_ok=True)
        return api.repo_info(repo, repo_type=kind, revision=revision)


def full_id(repo: str, token: str | None = None) -> str:
    """Returns an id with its namespace, which is the user's where there is none."""
    if "/" in repo:
        return repo
    with hub_errors(Publication("model", repo, {}, (), "", "")):
        check_token(token)
        return f"{HfApi(token=token).whoami()['name']}/{repo}"


def check_token(token: str | None) -> None:
    if token is None and get_token() is None:
        raise PostError("no token: run `hf auth login`, or set HF_TOKEN to one with the role write.")


def is_repo_id(name: str) -> bool:
    """Whether a name can be that of a repository with its namespace, and is no folder here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not os.path.exists(name)


@contextmanager
def hub_errors(publication: Publication) -> Iterator[None]:
    """Turns what `huggingface_hub` raises into one line."""
    try:
        yield
    except PostError:
        raise
    except (HfHubHTTPError, httpx2.HTTPError, HFValidationError, RuntimeError, ValueError, OSError) as error:
        raise PostError(explain(error, publication)) from error


def explain(error: BaseException, publication: Publication) -> str:
    repo, endpoint = publication.repo, HfApi().endpoint
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # an upload, which names its file
        path = re.search("'(.+)'", str(error))
        return explain(error.__cause__, publication).replace(repo, f"{repo}: {path[1]}" if path else repo, 1)
    said = " ".join(str(error).split())
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo}: HF_HUB_OFFLINE forbids to use the network; unset it."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        reason = (error.server_message or error.response.headers.get("X-Error-Message") or said).split("\n")[0]
        reason = reason.rstrip(".")
        if isinstance(error, RepositoryNotFoundError):
            return f"{repo}: {endpoint} has no such repository, or hides it from this token."
        if status == 401:
            return f"{repo}: the token is not accepted ({reason}); run `hf auth login`, or set HF_TOKEN to another."
        if status == 403:
            return (
                f"{repo}: no write access ({reason}); choose a name of your own, or a token with the role write; "
                "--create-pr suggests a change to a repository of others."
            )
        if status == 412:
            return f"{repo}: somebody else has made a commit meanwhile; run this again."
        if status == 413:
            return f"{repo}: a file is above the limit ({reason}); nothing is published."
        return f"{repo}: {endpoint} refuses ({status}: {reason}); nothing is published."
    if isinstance(error, httpx2.HTTPError | OSError) and not isinstance(error, FileNotFoundError):
        return (
            f"{repo}: the connection to {endpoint} failed ({said or type(error).__name__}); nothing is published but "
            "whole, run this again."
        )
    if found := re.findall(r"file with OID (\w+): `([^`\n]+)", str(error)):
        paths = {file_hash(file): path for path, file in publication.files.items()}
        told = "; ".join(f"{paths.get(oid, oid)}: {reason.strip()}" for oid, reason in found)
        return f"{repo}: a file is above the limit or refused ({told}); nothing is published."
    return f"{repo}: {said}"


def file_hash(file: Path | bytes) -> str:
    return CommitOperationAdd("file", file).upload_info.sha256.hex()
