"""Keeps the answers of large models in one SQLite file, each from the moment at which it came."""

import json
import platform
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from ..posts import PostError
from .writers import Answer, Failure, GenerationSettings


VERSION = 1  # of the tables
APPLICATION_ID = 0x4C525341  # "LRSA", by which SQLite files of other programs are told apart
PATIENCE = 60  # seconds that a locked store is waited for
OLD = timedelta(minutes=15)  # silence after which a run on another host counts as dead

_open_stores: weakref.WeakSet["AnswerStore"] = weakref.WeakSet()  # of this process

TABLES = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL, settings TEXT NOT NULL,
    date TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER,
    completion_tokens INTEGER
);
CREATE TABLE failures (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL, settings TEXT NOT NULL,
    date TEXT NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL,
    seen TEXT NOT NULL
);
CREATE TABLE claims (key TEXT PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX claims_of_run ON claims (run);
"""


@dataclass(frozen=True)
class Source:
    """Where an answer came from.

    Args:
        kind: what was asked for, as in `Request`.
        model: name of the model.
        prompt: `id@version` of the prompt.
        settings: how it was generated.
        date: when the answer came, UTC, as `2026-01-31T23:59:59.000000Z`; the store fills it in.
    """

    kind: str
    model: str
    prompt: str
    settings: GenerationSettings
    date: str = ""


class AnswerStore:
    """Answers of large models and what failed, by key (`answer_key`), in one file.

    An answer is on the disk when `add_answer` returns. Processes on one machine may share a file: a question belongs
    to the run that has claimed it, until its answer or failure is there, the run closes the store, or it is dead.

    Args:
        path: the file; made if it is not there.

    Raises:
        PostError: in any method: the file can't be opened, read or written, is damaged, or is none of ours.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = threading.RLock()  # writers may fetch questions from a thread of theirs
        self._process = (platform.node(), psutil.Process().pid, psutil.Process().create_time())
        self._seen = ""
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            try:
                self._open()
            except BaseException:
                self._connection.close()
                raise

    def _open(self) -> None:
        # Told before the first write, which would turn a file of another program to write-ahead logging.
        self._check_version()
        self._connection.execute("PRAGMA journal_mode = wal")
        with self._transaction(durable=True):
            if not self._check_version():
                for statement in TABLES.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise PostError(f"{self.path}: is damaged ({' '.join(found.split())}); give another file by --store.")
            for run, *process in self._connection.execute("SELECT * FROM runs").fetchall():
                if not self._lives(run, *process):
                    self._connection.execute("DELETE FROM claims WHERE run = ?", (run,))
                    self._connection.execute("DELETE FROM runs WHERE id = ?", (run,))
            self._run = self._connection.execute(
                "INSERT INTO runs (host, pid, started, seen) VALUES (?, ?, ?, ?)", (*self._process, now())
            ).lastrowid
        _open_stores.add(self)

    def _check_version(self) -> bool:
        """Returns whether the tables are there; an empty file has none."""
        # Tables first: another run may make them meanwhile, together with the rest.
        tables, application, version = (
            self._connection.execute(statement).fetchone()[0]
            for statement in ("SELECT count(*) FROM sqlite_schema", "PRAGMA application_id", "PRAGMA user_version")
        )
        if not tables:
            return False
        if application != APPLICATION_ID:
            raise PostError(f"{self.path}: is a database of another program; give another file by --store.")
        if version > VERSION:
            raise PostError(
                f"{self.path}: was written by a newer lrsa (tables {version}, known are {VERSION}); update lrsa."
            )
        return True

    def close(self) -> None:
        """Gives up what is claimed, and closes the file."""
        try:
            self.release()
            with self._errors(), self._transaction():
                self._connection.execute("DELETE FROM runs WHERE id = ?", (self._run,))
        finally:
            _open_stores.discard(self)
            self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with suppress(PostError if error[0] else ()):  # a full disk was told of already
            self.close()

    def get(self, key: str) -> tuple[Answer, Source] | None:
        """Returns the answer that is kept under a key, and where it came from."""
        with self._errors(), self._lock:
            row = self._connection.execute(
                "SELECT text, finish_reason, prompt_tokens, completion_tokens, kind, model, prompt, settings, date "
                "FROM answers WHERE key = ?",
                (key,),
            ).fetchone()
        if row is None:
            return None
        kind, model, prompt, settings, date = row[4:]
        return Answer(*row[:4]), Source(kind, model, prompt, GenerationSettings(**json.loads(settings)), date)

    def failure(self, key: str) -> str | None:
        """Returns why a question got no answer."""
        with self._errors(), self._lock:
            row = self._connection.execute("SELECT reason FROM failures WHERE key = ?", (key,)).fetchone()
        return row and row[0]

    def state(self, key: str, retry_before: str = "") -> str:
        """Returns `"answered"`, `"failed"`, `"claimed"` (by any run that lives, this one included) or `"free"`.

        Args:
            retry_before: a failure from before this date (`now()`) counts for nothing.
        """
        with self._errors(), self._lock:
            if self._connection.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone():
                return "answered"
            if self._connection.execute(
                "SELECT 1 FROM failures WHERE key = ? AND date >= ?", (key, retry_before)
            ).fetchone():
                return "failed"
            claim = self._connection.execute(
                "SELECT run, host, pid, started, seen FROM claims LEFT JOIN runs ON id = run WHERE key = ?", (key,)
            ).fetchone()
            return "claimed" if claim and self._lives(*claim) else "free"

    def claim(self, key: str, retry_before: str = "") -> str:
        """Returns `state` as it was found; what was `"free"` is now this run's to ask."""
        state = self.state(key, retry_before)
        if state == "free":
            with self._errors(), self._transaction():
                state = self.state(key, retry_before)
                if state == "free":
                    self._connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (key, self._run))
        return state

    def add_answer(self, key: str, answer: Answer, source: Source) -> None:
        """Keeps an answer, in place of a failure; one that is there stays."""
        counts = (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens)
        with self._errors(), self._transaction(durable=True):
            self._connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, *columns(source), storable(answer.text), *counts),
            )
            self._connection.execute("DELETE FROM failures WHERE key = ?", (key,))
            self._connection.execute("DELETE FROM claims WHERE key = ?", (key,))

    def add_failure(self, key: str, failure: Failure, source: Source) -> None:
        """Keeps why there is no answer, in place of a former failure."""
        with self._errors(), self._transaction(durable=True):
            self._connection.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key, *columns(source), storable(failure.reason)),
            )
            self._connection.execute("DELETE FROM claims WHERE key = ?", (key,))

    def release(self) -> None:
        """Gives up what this run has claimed and not answered."""
        with self._errors(), self._transaction():
            self._connection.execute("DELETE FROM claims WHERE run = ?", (self._run,))

    @contextmanager
    def _transaction(self, durable: bool = False) -> Iterator[None]:
        """All or nothing, and one at a time over all processes.

        Args:
            durable: whether it outlasts a power failure, too, and not only the death of the process.
        """
        with self._lock:
            self._connection.execute(f"PRAGMA synchronous = {'full' if durable else 'normal'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._tell_life()
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _tell_life(self) -> None:
        if hasattr(self, "_run") and self._seen < now(timedelta(seconds=-30)):
            self._seen = now()
            self._connection.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", (self._run, *self._process, self._seen)
            )

    def _lives(self, run: int, host: str | None, pid: int, started: float, seen: str) -> bool:
        """Whether the run that a claim belongs to is still there."""
        if host is None:
            return False
        if host != self._process[0]:
            return seen > now(-OLD)
        if (host, pid, started) == self._process:
            return any(store._run == run and store.path.samefile(self.path) for store in list(_open_stores))
        try:
            process = psutil.Process(pid)
            return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 1
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns what SQLite says into one line with the mend."""
        try:
            yield
        except OSError as error:
            raise PostError(f"{self.path}: can't be made ({error.strerror}); choose another place.") from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "")
            mends = {
                "SQLITE_NOTADB": "is no store of answers; give another file by --store.",
                "SQLITE_CORRUPT": "is damaged; give another file by --store.",
                "SQLITE_CANTOPEN": "can't be opened; choose another place.",
                "SQLITE_READONLY": "can't be written to; make the file and its folder writable.",
                "SQLITE_BUSY": f"has been locked by another program for {PATIENCE} seconds; end that and run again.",
                "SQLITE_FULL": "the disk is full; make room and run again. All answers before are kept.",
                "SQLITE_IOERR": "the disk is full or faulty; mend it and run again. All answers before are kept.",
            }
            mend = next((text for name, text in mends.items() if code.startswith(name)), "can't be used.")
            raise PostError(f"{self.path}: {mend} ({error})") from error


def now(shift: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + shift).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def columns(source: Source) -> tuple[Any, ...]:
    settings = json.dumps(asdict(source.settings), sort_keys=True)
    return source.kind, source.model, source.prompt, settings, now()


def storable(text: str) -> str:
    """Halves of surrogate pairs, which a broken answer may hold, are no UTF-8."""
    return text.encode("utf-8", "replace").decode()
