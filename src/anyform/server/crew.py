"""One thread a device: claims the oldest job, hands it to its worker process, writes down what that says.

A worker that dies fails its job ("worker died (signal 9)") and is started anew for the next; a cancelled job that does
not end within a step and `GRACE` seconds ends with its worker.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anyform.server import store as states
from anyform.server.store import Job, Store, StoreFull

GRACE = 2.0  # seconds between asking a worker to stop and killing it
TELL_EVERY = 0.25  # seconds between two progress events of one stage
_SECRETS = ("ANYFORM_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_LAST = {"done": states.DONE, "failed": states.FAILED, "cancelled": states.CANCELLED}


class Crew:
    """The workers. `idle_after(job)` runs once each finished job."""

    def __init__(
        self, store: Store, folder: Path, devices: tuple[str, ...], command: tuple[str, ...], after: Callable[[], None]
    ) -> None:
        self.seconds_per_job = 5.0  # a running mean
        self._store, self._after = store, after
        self._wanted, self._stopping = threading.Condition(), False
        cores = max(1, (os.cpu_count() or 1) // len(devices))
        self._members = [_Member(store, folder, device, command, cores) for device in devices]
        self._threads = [threading.Thread(target=self._work, args=(one,), daemon=True) for one in self._members]

    def start(self) -> None:
        """Start the threads; each starts its process."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """Kill the workers; running jobs become interrupted. True where there was one."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify_all()
        running = [member.stop() for member in self._members]
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)
        for member in self._members:
            member.reap()
        return any(running)

    def wake(self) -> None:
        """There is a new job."""
        with self._wanted:
            self._wanted.notify()

    def cancel(self, job: str) -> None:
        """Ask the worker of a running job to stop, and see to it."""
        for member in self._members:
            member.cancel(job)

    def states(self) -> list[dict[str, str]]:
        """{"state": "starting" | "idle" | "busy", "device"} of each worker."""
        return [{"state": member.state, "device": member.device} for member in self._members]

    def pids(self) -> list[int]:
        """Process ids of the living workers."""
        return [member.process.pid for member in self._members if member.process is not None]

    def _work(self, member: _Member) -> None:
        member.ensure()
        while not self._stopping:
            try:
                job = self._store.claim()
            except StoreFull:
                job = None
            if job is None:
                with self._wanted:
                    if not self._stopping:
                        self._wanted.wait(1.0)
                continue
            start = time.monotonic()
            member.work(job)
            self.seconds_per_job += 0.2 * (time.monotonic() - start - self.seconds_per_job)
            if not self._stopping:
                self._after()


class _Member:
    """A worker process and the job it has."""

    def __init__(self, store: Store, folder: Path, device: str, command: tuple[str, ...], cores: int) -> None:
        self.device, self.state = device, "starting"
        self.process: subprocess.Popen[str] | None = None
        self._store, self._folder, self._command, self._cores = store, folder, command, cores
        self._job, self._stopped, self._lock = "", False, threading.Lock()

    def ensure(self) -> subprocess.Popen[str] | None:
        """The living process, started where there is none; None once the server stops."""
        if self.process is None or self.process.poll() is not None:
            self.state = "starting"
            environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
            environment.setdefault("OMP_NUM_THREADS", str(self._cores))
            with self._lock:
                if self._stopped:
                    return None
                self.reap()
                self.process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    env=environment, start_new_session=True, text=True, encoding="utf-8",
                )  # fmt: skip
            self._hear()  # {"ready"}, or nothing from one that died at once
        self.state = "idle"
        return self.process

    def work(self, job: Job) -> None:
        """Run one job to its end, whatever that is."""
        self._job = job.id
        process = self.ensure()
        self.state = "busy"
        if process is None:
            self._store.interrupt(job.id, "the server stops; this goes on when it starts again")
            return
        order = {"job": job.id, "folder": str(self._folder / job.id), "request": job.request, "device": self.device}
        self._tell(order)
        if (seen := self._store.get(job.id)) is not None and seen.cancelling:  # cancelled before the order went out
            self.cancel(job.id)
        state, content = self._follow(job)
        self._job = ""
        self._end(job, state, content)
        self.state = "idle"

    def cancel(self, job: str) -> None:
        """Ask for an end of this job; after GRACE seconds the process is killed if it still has it."""
        if self._job != job:
            return
        self._tell({"cancel": job})
        timer = threading.Timer(GRACE, self._kill_if, (job,))
        timer.daemon = True
        timer.start()

    def stop(self) -> bool:
        """Kill the process; whether it had a job."""
        with self._lock:
            self._stopped = True
            had = bool(self._job)
            if self.process is not None:
                self.process.kill()
        return had

    def _follow(self, job: Job) -> tuple[str, Any]:
        """Write the worker's reports down until its last word: (state, content of that word)."""
        progress: dict[str, Any] = {"stage": "", "step": 0, "steps": 0, "eta_s": None, "message": "", "preview": 0}
        told, stage = float("-inf"), None
        while (answer := self._hear()) is not None:
            (name, content), now = next(iter(answer.items())), time.monotonic()
            if name in _LAST:
                return _LAST[name], content
            if name == "preview":
                progress["preview"] = content
                self._write(job, "preview", progress, {"preview": content})
            elif name == "progress":
                progress.update(content)
                if content["stage"] != stage or content["message"] or now - told >= TELL_EVERY:
                    told, stage = now, content["stage"]
                    self._write(job, "progress", progress, content)
        code = self.process.wait() if self.process is not None else 0
        how = f"signal {-code}" if code < 0 else f"code {code}"
        hint = "send it again; if it dies again, choose a lower quality"
        return states.FAILED, {"code": "worker_died", "message": f"worker died ({how})", "hint": hint}

    def _end(self, job: Job, state: str, content: Any) -> None:
        now = self._store.get(job.id)
        if self._stopped and state == states.FAILED:
            self._store.interrupt(job.id, "the server stops; this goes on when it starts again")
        elif state == states.DONE:
            self._finish(job.id, states.DONE, result=content)
        elif state == states.CANCELLED or (now is not None and now.cancelling):
            self._finish(job.id, states.CANCELLED)
        else:
            self._finish(job.id, states.FAILED, error=content)

    def _finish(self, job: str, state: str, **content: Any) -> None:
        """The end has to be written: while the disk is full, try again each second."""
        while not self._stopped:
            try:
                self._store.finish(job, state, **content)
                return
            except StoreFull:
                threading.Event().wait(1.0)

    def _write(self, job: Job, name: str, progress: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        try:
            self._store.progress(job.id, name, progress, data)
        except StoreFull:  # a report less; the end is what must not be lost
            return

    def _tell(self, order: Mapping[str, Any]) -> None:
        process = self.process
        if process is None or process.stdin is None:
            return
        try:
            with self._lock:
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
        except OSError:  # it died: `_hear` will say so
            return

    def _hear(self) -> dict[str, Any] | None:
        """The next line of the worker; None once it is gone."""
        if self.process is None or self.process.stdout is None:
            return None
        try:
            line = self.process.stdout.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith("\n"):
            return None
        return json.loads(line)

    def _kill_if(self, job: str) -> None:
        if self._job == job and self.process is not None:
            self.process.kill()

    def reap(self) -> None:
        """Close the pipes of a dead process, so that no file stays open."""
        if self.process is not None:
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:  # an order that was never read
                        continue
