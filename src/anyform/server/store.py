"""Jobs and their events in one SQLite file (WAL), so that nothing accepted is forgotten when a process dies.

States: queued -> running -> done | failed | cancelled, and interrupted for work that a stopped server left behind
(it goes back to queued, see `jobs.Service.recover`). Every change of a job and the event that tells of it are one
transaction. Event ids count 1, 2, … within a job. SQLite's file format: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyform.errors import AnyformError, BadInput

QUEUED, RUNNING, INTERRUPTED = "queued", "running", "interrupted"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
STATES = (QUEUED, RUNNING, INTERRUPTED, DONE, FAILED, CANCELLED)
FINISHED = (DONE, FAILED, CANCELLED)
LIVE = (QUEUED, RUNNING, INTERRUPTED)

VERSION = 1  # PRAGMA user_version of the tables below
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
# SQLite's primary result codes that say nothing about the content: busy, locked, read-only, I/O, full, cannot open
_NOT_DAMAGE = {5, 6, 8, 10, 13, 14}
_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    progress TEXT NOT NULL DEFAULT '{}',
    cancelling INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    error TEXT,
    idempotency_key TEXT UNIQUE,
    digest TEXT
);
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE TABLE events (
    job TEXT NOT NULL,
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (job, id)
) WITHOUT ROWID;
CREATE TABLE deleted (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class StoreFull(AnyformError):
    """The disk that holds the jobs is full: nothing was written, reading goes on."""


class KeyReused(BadInput):
    """An Idempotency-Key came again with another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row. Times are seconds since 1970; progress: {"stage", "step", "steps", "eta_s", "message", "preview"}."""

    number: int
    id: str
    state: str
    request: dict[str, Any]
    created: float
    started: float | None
    finished: float | None
    attempts: int
    progress: dict[str, Any]
    cancelling: bool
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a job."""

    id: int
    name: str
    data: dict[str, Any]


def new_id(now: Callable[[], float] = time.time) -> str:
    """26 characters of [0-9a-z]: 48 bits of time in milliseconds, then 80 random bits, so that ids sort by age."""
    value = (int(now() * 1000) & (2**48 - 1)) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_id(text: str) -> bool:
    """Whether `text` could be one of our ids: nothing else is ever joined to a path."""
    return len(text) == 26 and all(letter in _ALPHABET for letter in text)


class Store:
    """The table of jobs. Safe to call from every thread; `on_change(job id)` is called after each committed change."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self.path, self._now, self._lock = path, now, threading.RLock()
        self.on_change: Callable[[str], object] = len  # until someone listens
        self.is_new = not path.exists()  # or what was there is damaged: then only the folders remember
        self._connection, moved = open_database(path)
        self.is_new = self.is_new or moved

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        with self._lock:
            self._connection.close()

    def submit(self, job: str, request: Mapping[str, Any], key: str | None, digest: str, most: int) -> Job | None:
        """Queue a job and return it; the earlier job where the key was seen with the same digest.

        None: `most` jobs are queued already. Raises KeyReused for a key seen with another digest, StoreFull.
        """
        with self._changing() as db:
            if key is not None:
                row = db.execute("SELECT * FROM jobs WHERE idempotency_key = ?", (key,)).fetchone()
                if row is not None and row["digest"] != digest:
                    raise KeyReused("this Idempotency-Key came before with another request: use a new key")
                if row is not None:
                    return _job(row)
            if self.count(QUEUED) >= most:
                return None
            db.execute(
                "INSERT INTO jobs (id, state, request, created, idempotency_key, digest) VALUES (?, ?, ?, ?, ?, ?)",
                (job, QUEUED, json.dumps(request), self._now(), key, digest),
            )
            self._tell(job, QUEUED, {"position": self.count(QUEUED)})
        self.on_change(job)
        return self.get(job)

    def restore(self, job: str, state: str, request: Mapping[str, Any], created: float, result: Any) -> None:
        """Enter a job that only its folder remembers (the database was lost)."""
        with self._changing() as db:
            db.execute(
                "INSERT OR IGNORE INTO jobs (id, state, request, created, finished, result) VALUES (?, ?, ?, ?, ?, ?)",
                (job, state, json.dumps(request), created, created if state == DONE else None, _json(result)),
            )
            self._tell(job, state, {})

    def claim(self) -> Job | None:
        """The oldest queued job, now running; None where none waits. No two callers get the same."""
        with self._changing() as db:
            row = db.execute("SELECT * FROM jobs WHERE state = ? ORDER BY number LIMIT 1", (QUEUED,)).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state = ?, started = ?, attempts = attempts + 1, progress = '{}' WHERE id = ?",
                (RUNNING, self._now(), row["id"]),
            )
            self._tell(row["id"], RUNNING, {"attempt": row["attempts"] + 1})
        self.on_change(row["id"])
        return self.get(row["id"])

    def progress(self, job: str, name: str, progress: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Where a running job is: kept with the job and told as the event `name`."""
        with self._changing() as db:
            row = db.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is None or row["state"] != RUNNING:
                return
            db.execute("UPDATE jobs SET progress = ? WHERE id = ?", (json.dumps(progress), job))
            self._tell(job, name, data)
        self.on_change(job)

    def finish(self, job: str, state: str, *, result: Any = None, error: Any = None) -> bool:
        """End a live job; False where it has ended before. The last event carries nothing: readers show the job."""
        with self._changing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = ?, finished = ?, result = ?, error = ? WHERE id = ? AND state IN (?, ?, ?)",
                (state, self._now(), _json(result), _json(error), job, *LIVE),
            ).rowcount
            if changed:
                self._tell(job, state, {})
        self.on_change(job)
        return bool(changed)

    def requeue(self, job: str, message: str, *, forgive: bool) -> None:
        """Interrupted work goes back to the place it had; forgive: the broken attempt does not count."""
        with self._changing() as db:
            before = db.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
            db.execute(
                "UPDATE jobs SET state = ?, attempts = attempts - ?, cancelling = 0 WHERE id = ? AND state IN (?, ?)",
                (QUEUED, int(forgive), job, RUNNING, INTERRUPTED),
            )
            if before["state"] == RUNNING:  # an orderly stop has told it already
                self._tell(job, INTERRUPTED, {"message": message})
            self._tell(job, QUEUED, {"position": 1})
        self.on_change(job)

    def interrupt(self, job: str, message: str) -> None:
        """A running job was left behind by a server that stops."""
        with self._changing() as db:
            db.execute("UPDATE jobs SET state = ? WHERE id = ? AND state = ?", (INTERRUPTED, job, RUNNING))
            self._tell(job, INTERRUPTED, {"message": message})

    def cancel(self, job: str) -> Job | None:
        """Cancel a queued job at once, mark a running one; finished ones stay as they are. None = unknown id."""
        with self._changing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = ?, finished = ? WHERE id = ? AND state IN (?, ?)",
                (CANCELLED, self._now(), job, QUEUED, INTERRUPTED),
            ).rowcount
            if changed:
                self._tell(job, CANCELLED, {})
            db.execute("UPDATE jobs SET cancelling = 1 WHERE id = ? AND state = ?", (job, RUNNING))
        self.on_change(job)
        return self.get(job)

    def delete(self, job: str) -> None:
        """Forget a finished job; its id stays known as deleted."""
        with self._changing() as db:
            if db.execute("DELETE FROM jobs WHERE id = ? AND state IN (?, ?, ?)", (job, *FINISHED)).rowcount:
                db.execute("DELETE FROM events WHERE job = ?", (job,))
                db.execute("INSERT OR IGNORE INTO deleted VALUES (?)", (job,))
        self.on_change(job)

    def was_deleted(self, job: str) -> bool:
        """Whether the id once was a job that the user deleted."""
        return bool(self._rows("SELECT 1 FROM deleted WHERE id = ?", (job,)))

    def get(self, job: str) -> Job | None:
        """The job, None for an unknown id."""
        rows = self._rows("SELECT * FROM jobs WHERE id = ?", (job,))
        return _job(rows[0]) if rows else None

    def position(self, job: Job) -> int | None:
        """1 = the next to run; None for a job that does not wait."""
        if job.state != QUEUED:
            return None
        rows = self._rows("SELECT COUNT(*) FROM jobs WHERE state = ? AND number <= ?", (QUEUED, job.number))
        return max(1, rows[0][0])  # 0: claimed since it was read

    def list(self, state: str | None, limit: int, before: int | None) -> list[Job]:
        """The newest jobs first, of one state or all, with a number below `before`."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR number < ?2) "
            "ORDER BY number DESC LIMIT ?3",
            (state, before, limit),
        )
        return [_job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        found = {row[0]: row[1] for row in self._rows("SELECT state, COUNT(*) FROM jobs GROUP BY state", ())}
        return {state: found.get(state, 0) for state in STATES}

    def count(self, state: str) -> int:
        """Jobs in one state."""
        return self._rows("SELECT COUNT(*) FROM jobs WHERE state = ?", (state,))[0][0]

    def finished_beyond(self, keep: int) -> list[str]:
        """Ids of finished jobs older than the newest `keep`."""
        marks = ", ".join("?" * len(FINISHED))
        query = f"SELECT id FROM jobs WHERE state IN ({marks}) ORDER BY number DESC LIMIT -1 OFFSET ?"
        return [row[0] for row in self._rows(query, (*FINISHED, keep))]

    def events(self, job: str, after: int) -> list[Event]:
        """The job's events with an id above `after`, oldest first."""
        rows = self._rows("SELECT id, name, data FROM events WHERE job = ? AND id > ? ORDER BY id", (job, after))
        return [Event(row[0], row[1], json.loads(row[2])) for row in rows]

    def _tell(self, job: str, name: str, data: Mapping[str, Any]) -> None:
        self._connection.execute(
            "INSERT INTO events SELECT ?1, COALESCE(MAX(id), 0) + 1, ?2, ?3 FROM events WHERE job = ?1",
            (job, name, json.dumps(data)),
        )

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; a full disk becomes StoreFull and leaves everything as it was."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._roll_back()
                raise StoreFull("the jobs cannot be written down: the disk is full or read-only") from error
            except (AnyformError, ValueError, sqlite3.Error):
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def open_database(path: Path) -> tuple[sqlite3.Connection, bool]:
    """The database, made where it is missing, and whether a damaged one was moved aside for it (`*.damaged`).

    Raises BadInput, touching nothing, where a newer anyform wrote it.
    """
    try:
        return _connect(path), False
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _NOT_DAMAGE:
            raise BadInput(f"the jobs in {path.name!r} cannot be opened: {error}") from error
    for suffix in ("", "-wal", "-shm"):
        damaged = path.with_name(path.name + suffix)
        if damaged.exists():
            damaged.replace(path.with_name(f"{path.name}.damaged{suffix}"))
    return _connect(path), True


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise BadInput(f"the jobs were written by a newer anyform (format {version}, this one reads {VERSION})")
        if version and connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("the database is damaged")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # survives a killed process; a power cut may lose the last ms
        if version == 0:
            connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
    except (BadInput, sqlite3.Error):
        connection.close()
        raise
    return connection


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _job(row: sqlite3.Row) -> Job:
    values = {key: row[key] for key in row.keys() if key not in {"idempotency_key"}}  # noqa: SIM118 (a Row is no dict)
    for key in ("request", "progress", "result", "error"):
        values[key] = None if row[key] is None else json.loads(row[key])
    values["cancelling"] = bool(row["cancelling"])
    return Job(**values)
