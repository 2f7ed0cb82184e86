"""The service behind the API: accepts jobs, gives each to a worker, survives the death of either process.

Data: `<home>/server/` holds jobs.sqlite3, incoming/<id>/ while a submission is being read, and jobs/<id>/ with
request.json, the prompt's arrays, and out/ once the asset is whole. One server owns the folder, by a lock.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from anyform.errors import AnyformError, BadInput
from anyform.server import store as states
from anyform.server.crew import Crew
from anyform.server.store import Job, Store, StoreFull, new_id
from anyform.server.worker import OUT

MAX_ATTEMPTS = 2  # a job that a killed server left running this many times has failed
WORKER = (sys.executable, "-m", "anyform.server.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `anyform serve` is told. Sizes in bytes."""

    home: Path
    devices: tuple[str, ...] = ("auto",)  # one worker each
    max_queue: int = 500  # jobs that may wait
    keep: int = 1000  # finished jobs that are kept; older ones are deleted with their files
    max_upload: int = 256 << 20
    command: tuple[str, ...] = field(default=WORKER)


class QueueFull(AnyformError):
    """As many jobs as may are waiting; seconds: when to try again."""

    def __init__(self, most: int, seconds: int) -> None:
        super().__init__(f"{most} jobs are waiting already: try again later")
        self.seconds = seconds


class Service:
    """Everything but HTTP. `start()` it, `stop()` it; in between every method may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.home / "server"
        self.incoming, self.jobs = self.folder / "incoming", self.folder / "jobs"
        for folder in (self.folder, self.incoming, self.jobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _own(self.folder)
        self.store = Store(self.folder / "jobs.sqlite3")
        self.store.on_change = self._changed
        self._listeners: dict[str, set[Callable[[], None]]] = {}
        self._listening = threading.Lock()
        self.crew = Crew(self.store, self.jobs, settings.devices, settings.command, self._prune)
        self.recover()

    def start(self) -> None:
        """Begin working on the queue."""
        self.crew.start()

    def stop(self) -> bool:
        """Stop the workers; True where work was broken off (it goes on at the next start)."""
        interrupted = self.crew.stop()
        self.store.close()
        self._lock.release()
        return interrupted

    def submit(self, job: str, request: dict[str, Any], key: str | None, digest: str) -> tuple[Job, bool]:
        """Queue the submission whose files lie in incoming/<job>; (the job, whether it is new).

        Raises QueueFull, StoreFull, KeyReused; then nothing of it is left.
        """
        staged, final = self.incoming / job, self.jobs / job
        is_new = False
        try:
            _write_request(staged, request)
            staged.replace(final)
            queued = self.store.submit(job, request, key, digest, self.settings.max_queue)
            if queued is None:
                raise QueueFull(self.settings.max_queue, self.patience())
            is_new = queued.id == job
        except OSError as error:
            raise StoreFull("the job cannot be written down: the disk is full or read-only") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            if not is_new:
                shutil.rmtree(final, ignore_errors=True)
        self.crew.wake()
        return queued, is_new

    def cancel(self, job: str) -> Job | None:
        """Cancel a live job: at once where it waits, within a step and two seconds where it runs."""
        found = self.store.cancel(job)
        if found is not None and found.state == states.RUNNING:
            self.crew.cancel(job)
        return found

    def delete(self, job: str) -> None:
        """Forget a finished job and its files."""
        self.store.delete(job)
        shutil.rmtree(self.jobs / job, ignore_errors=True)

    def patience(self) -> int:
        """Seconds after which a refused client may find room: the time a job takes lately, 1..300."""
        return int(min(300.0, max(1.0, self.crew.seconds_per_job / len(self.settings.devices))))

    def listen(self, job: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` (from any thread) after each change of the job; returns what ends it."""
        with self._listening:
            self._listeners.setdefault(job, set()).add(wake)

        def end() -> None:
            with self._listening:
                waiting = self._listeners.get(job, set())
                waiting.discard(wake)
                if not waiting:
                    self._listeners.pop(job, None)

        return end

    def recover(self) -> None:
        """Put right what a killed server left: half uploads, running jobs, folders without a row."""
        for left in self.incoming.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        if self.store.is_new:
            self._rebuild()
        for job in self.store.list(states.RUNNING, -1, None) + self.store.list(states.INTERRUPTED, -1, None):
            self._recover_one(job)
        for folder in self.jobs.iterdir():
            if self.store.get(folder.name) is None:  # never acknowledged, or deleted half way
                shutil.rmtree(folder, ignore_errors=True)
        self._prune()

    def _recover_one(self, job: Job) -> None:
        result = _read(self.jobs / job.id / OUT / "result.json")
        if result is not None:  # the asset was whole, only the word of it got lost
            self.store.finish(job.id, states.DONE, result=result)
        elif job.cancelling:
            self.store.finish(job.id, states.CANCELLED)
        elif job.state == states.RUNNING and job.attempts >= MAX_ATTEMPTS:
            message = f"the server was killed {job.attempts} times while this ran"
            hint = "send it again; if the server dies again, choose a lower quality"
            self.store.finish(job.id, states.FAILED, error={"code": "interrupted", "message": message, "hint": hint})
        else:
            said = "the server stopped while this ran; it goes on"
            self.store.requeue(job.id, said, forgive=job.state == states.INTERRUPTED)

    def _rebuild(self) -> None:
        """The database was lost: the folders say which jobs there were."""
        for folder in sorted(self.jobs.iterdir()):
            kept = _read(folder / "request.json")
            if kept is not None and states.is_id(folder.name):
                result = _read(folder / OUT / "result.json")
                state = states.QUEUED if result is None else states.DONE
                created = folder.stat().st_mtime
                self.store.restore(folder.name, state, kept, created, result)

    def _prune(self) -> None:
        for job in self.store.finished_beyond(self.settings.keep):
            self.delete(job)

    def _changed(self, job: str) -> None:
        with self._listening:
            waiting = list(self._listeners.get(job, ()))
        for wake in waiting:
            wake()


def stage(service: Service) -> tuple[str, Path]:
    """A new id, and the folder that takes its files until it is submitted."""
    job = new_id()
    folder = service.incoming / job
    folder.mkdir(mode=0o700)
    return job, folder


def _own(folder: Path) -> FileLock:
    """Take the data folder, or raise BadInput naming the process that has it. A dead process's lock is free."""
    lock = FileLock(folder / "lock")
    note = folder / "pid"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        pid = note.read_text(encoding="utf-8")[:20] if note.is_file() else "?"
        raise BadInput(f"the data folder is in use by pid {pid}: stop that server or set ANYFORM_HOME") from error
    note.write_text(str(os.getpid()), encoding="utf-8")
    return lock


def _write_request(folder: Path, request: dict[str, Any]) -> None:
    with (folder / "request.json").open("w", encoding="utf-8") as file:
        json.dump(request, file)


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON table of ours; None where it is not there or not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
