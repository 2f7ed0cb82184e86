"""The server under load, killed, and for long: prints figures and ends with 1 where a bar is missed.

    python benchmarks/serve.py load [--jobs 500 --clients 50 --real]     none lost, none twice, FIFO, health p99
    python benchmarks/serve.py kill [--rounds 200]                       kill -9 of server or worker at random moments
    python benchmarks/serve.py soak [--jobs 1000]                        slope of memory, open files, disk

The work is done by tests/server/light_worker.py, so that what is measured is the server. `--real` runs
`anyform generate` on all cores beside it. Servers are forked from this process, which has everything imported.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyform.client import FINISHED, Client, ServerError

LIGHT = Path(__file__).resolve().parents[1] / "tests" / "server" / "light_server.py"


@dataclass
class Figures:
    """What was found: name, value, bar; `failed` once a bar is missed."""

    rows: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def add(self, name: str, value: object, bar: str, *, ok: bool) -> None:
        """One figure against its bar."""
        self.rows.append((name, str(value), bar, ok))
        print(f"{'ok  ' if ok else 'MISS'} {name}: {value}  (bar: {bar})", flush=True)

    @property
    def failed(self) -> bool:
        """Whether a bar was missed."""
        return not all(ok for *_, ok in self.rows)


# asks for the health until its stdin ends, in a process of its own so that our threads do not slow it; prints seconds
_ASKER = """
import http.client, select, sys, time
while not select.select([sys.stdin], [], [], 0.05)[0]:
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
    connection.request("GET", "/v1/health")
    assert connection.getresponse().read().startswith(b'{"status":"ok"')
    connection.close()
    print(time.monotonic() - start)
"""


class Server:
    """A server forked from this process, on a data folder that outlives it."""

    def __init__(self, home: Path, *, workers: int = 1, keep: int = 10_000) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            os.dup2(writing, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            os._exit(light_server().serve(home, 0, workers, keep))
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as pipe:
            self.client = Client(pipe.readline().strip() or "http://127.0.0.1:1", timeout=600)

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        listed = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for file in listed for pid in file.read_text(encoding="ascii").split()]

    def facts(self) -> tuple[int, int]:
        """(resident bytes, open files) of the server process."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(resident.split()[1]) * 1024, len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def end(self, number: int = signal.SIGKILL) -> None:
        """Kill it and wait for its end."""
        os.kill(self.pid, number)
        os.waitpid(self.pid, 0)


def light_server() -> Any:
    """tests/server/light_server.py as a module."""
    if "light_server" not in sys.modules:
        spec = importlib.util.spec_from_file_location("light_server", LIGHT)
        if spec is None or spec.loader is None:
            raise SystemExit("tests/server/light_server.py is missing: run this from a checkout")
        sys.modules["light_server"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["light_server"])
        importlib.import_module("uvicorn.protocols.http.h11_impl")
        importlib.import_module("sse_starlette")
        importlib.import_module("python_multipart")
    return sys.modules["light_server"]


def load(arguments: argparse.Namespace, figures: Figures, home: Path) -> None:
    """Many clients at once, as many listeners, and one that asks for its health."""
    server = Server(home)
    made: list[list[str]] = [[] for _ in range(arguments.clients)]
    busy = None
    if arguments.real:
        generate = ["nice", "-n", "5", sys.executable, "-m", "anyform", "generate", "a wooden chair", "--force"]
        command = [*generate, "-o", str(home / "a.glb")]
        busy = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    idle = _ask(server)
    time.sleep(5)
    print(f"     health p50, p99 of the idle server on this machine as it is: {_percentiles(idle)}", flush=True)
    asker, start = _ask(server), time.monotonic()

    def submit(index: int) -> None:
        for number in range(arguments.jobs // arguments.clients):
            made[index].append(server.client.submit({"text": f"job {index} {number}", "seed": number})["id"])

    heard: list[str] = []

    def listen(index: int) -> None:
        heard.append(list(server.client.events(made[index][-1]))[-1][0])

    _all(submit, arguments.clients)
    accepted = time.monotonic() - start
    _all(listen, arguments.clients)
    ids = [job for one in made for job in one]
    last = max(ids, key=lambda job: server.client.job(job)["created"])
    server.client.wait(last)
    while any(job["state"] not in FINISHED for job in server.client.jobs()):
        time.sleep(0.2)
    took = time.monotonic() - start
    told = _percentiles(asker)
    jobs = list(server.client.jobs())
    resident, files = server.facts()
    server.end()
    still_busy = busy is not None and busy.poll() is None
    if busy is not None:
        busy.kill()
    _judge_load(figures, home, ids, jobs, heard)
    beside = f", real generation beside it {'throughout' if still_busy else 'for a part'}" if busy else ""
    figures.add(f"health p50, p99{beside}", told, "p99 < 100 ms", ok=float(told.split()[2]) < 100)
    print(
        f"     accepted in {accepted:.1f} s, all done in {took:.1f} s; {resident / 2**20:.0f} MiB, {files} files open"
    )


def _ask(server: Server) -> subprocess.Popen[str]:
    """Begin to ask for the health twenty times a second."""
    command = [sys.executable, "-S", "-c", _ASKER, str(server.client._port)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _percentiles(asker: subprocess.Popen[str]) -> str:
    """Stop asking: "p50 ms, p99 ms of how many"."""
    waits = sorted(float(line) * 1000 for line in asker.communicate()[0].split())
    return f"{waits[len(waits) // 2]:.1f} ms, {waits[int(len(waits) * 0.99)]:.1f} ms of {len(waits)}"


def _judge_load(figures: Figures, home: Path, ids: list[str], jobs: list[dict[str, Any]], heard: list[str]) -> None:
    states = {job["state"] for job in jobs}
    figures.add("jobs accepted, listed, states", (len(ids), len(jobs), sorted(states)), "equal, all done",
                ok=sorted(ids) == sorted(job["id"] for job in jobs) and states == {"done"})  # fmt: skip
    attempts = {job["attempts"] for job in jobs}
    figures.add("runs a job", sorted(attempts), "1", ok=attempts == {1})
    with sqlite3.connect(home / "server" / "jobs.sqlite3") as database:
        order = database.execute("SELECT number, started FROM jobs ORDER BY number").fetchall()
    database.close()
    figures.add("first in, first out", order == sorted(order, key=lambda row: row[1]), "True",
                ok=order == sorted(order, key=lambda row: row[1]))  # fmt: skip
    figures.add("listeners that heard the end", f"{heard.count('done')} of {len(heard)}", "all",
                ok=set(heard) == {"done"})  # fmt: skip


def kill(arguments: argparse.Namespace, figures: Figures, home: Path) -> None:
    """Kill the server or its worker at random moments; afterwards everything promised has to be there, once."""
    chance = random.Random(arguments.seed)
    promised: dict[str, str] = {}
    killed = {"server": 0, "worker": 0}
    for number in range(arguments.rounds):
        server = Server(home)
        for index in range(3):
            key = f"{number}-{index}"
            text = f"wait {chance.randrange(30)}"
            promised[key] = server.client.submit({"text": text, "seed": index}, key=key)["id"]
        time.sleep(chance.random() * 0.15)
        victim = chance.choice(["server", "worker"])
        if victim == "worker":
            for pid in server.workers()[:1]:
                os.kill(pid, signal.SIGKILL)
            time.sleep(chance.random() * 0.05)
        killed[victim] += 1
        if chance.random() < 0.3:  # a client that never got its answer asks again: the same job
            again = server.client.submit({"text": text, "seed": 2}, key=f"{number}-2")["id"]
            if again != promised[f"{number}-2"]:
                figures.add("a repeated key", again, "the same job", ok=False)
        server.end()
    server = Server(home)
    jobs = {job: server.client.wait(job) for job in promised.values()}
    listed = [job["id"] for job in server.client.jobs()]
    server.end(signal.SIGTERM)
    figures.add("rounds", f"{arguments.rounds} ({killed})", str(arguments.rounds), ok=True)
    lost = len(set(promised.values()) - set(listed))
    twice = len(listed) - len(set(promised.values()))
    figures.add("promised, lost, twice", (len(promised), lost, twice), "lost 0, twice 0", ok=lost == twice == 0)
    _judge_kill(figures, home, jobs)


def _judge_kill(figures: Figures, home: Path, jobs: dict[str, dict[str, Any]]) -> None:
    states: dict[str, int] = {}
    broken = []
    for name, job in jobs.items():
        why = (job["error"] or {}).get("code", "")
        states[f"{job['state']} {why}".strip()] = states.get(f"{job['state']} {why}".strip(), 0) + 1
        if job["state"] == "done":
            content = (home / "server" / "jobs" / name / "out" / "asset.glb").read_bytes()
            if hashlib.sha256(content).hexdigest() != job["result"]["formats"]["glb"]["sha256"]:
                broken.append(name)
    allowed = {"done", "failed worker_died", "failed interrupted"}
    figures.add("how they ended", states, "done, or failed by the kill", ok=set(states) <= allowed)
    figures.add("damaged assets", len(broken), "0", ok=not broken)
    with sqlite3.connect(home / "server" / "jobs.sqlite3") as database:
        sound = database.execute("PRAGMA integrity_check").fetchone()[0]
        twice = database.execute(
            "SELECT COUNT(*) FROM (SELECT job FROM events WHERE name IN ('done', 'failed', 'cancelled') "
            "GROUP BY job HAVING COUNT(*) <> 1)"
        ).fetchone()[0]
    database.close()
    figures.add("database", sound, "ok", ok=sound == "ok")
    figures.add("jobs with not just one end", twice, "0", ok=twice == 0)
    strays = [path.name for path in (home / "server" / "jobs").iterdir() if path.name not in jobs]
    figures.add("folders without a job", len(strays), "0", ok=not strays)


def soak(arguments: argparse.Namespace, figures: Figures, home: Path) -> None:
    """Many jobs one after another, with pages and event streams read in between."""
    keep = 50
    server = Server(home, keep=keep)
    samples: list[tuple[int, int, int]] = []
    for number in range(arguments.jobs):
        job = server.client.submit({"text": f"job {number}", "seed": number})["id"]
        server.client.wait(job)
        server.client._request("GET", f"/v1/jobs/{job}/asset.glb")
        if number % max(1, arguments.jobs // 40) == 0:
            list(server.client.jobs())
            samples.append((number, *server.facts()))
    folders = len(list((home / "server" / "jobs").iterdir()))
    server.end(signal.SIGTERM)
    settled = samples[len(samples) // 4 :]
    slope = _slope([(number, resident / 1024) for number, resident, _ in settled])
    files = [files for *_, files in settled]
    print(f"     resident {samples[0][1] / 2**20:.1f} MiB at first, {samples[-1][1] / 2**20:.1f} MiB at last")
    figures.add("resident memory", f"{slope:.2f} KiB a job over {arguments.jobs} jobs", "< 2 KiB", ok=slope < 2)
    figures.add("open files", f"{min(files)}..{max(files)}", "flat within 3", ok=max(files) - min(files) <= 3)
    figures.add("job folders", folders, f"at most {keep + 2}", ok=folders <= keep + 2)


def _slope(points: list[tuple[float, float]]) -> float:
    """Of the least-squares line."""
    count = len(points)
    x, y = sum(a for a, _ in points) / count, sum(b for _, b in points) / count
    return sum((a - x) * (b - y) for a, b in points) / (sum((a - x) ** 2 for a, _ in points) or 1)


def _all(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> int:
    """Run one measurement in a folder of its own; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "kill", "soak"))
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="load: `anyform generate` on all cores beside it")
    arguments = parser.parse_args()
    arguments.jobs = arguments.jobs or {"load": 500, "soak": 1000}.get(arguments.what, 0)
    light_server()
    home, figures = Path(tempfile.mkdtemp(prefix="anyform-serve-")), Figures()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    start = time.monotonic()
    try:
        {"load": load, "kill": kill, "soak": soak}[arguments.what](arguments, figures, home)
    except (ServerError, OSError) as error:
        figures.add("the run itself", f"{type(error).__name__}: {error}", "no error", ok=False)
    shutil.rmtree(home, ignore_errors=True)
    print(json.dumps({"seconds": round(time.monotonic() - start, 1), "ok": not figures.failed}))
    return int(figures.failed)


if __name__ == "__main__":
    sys.exit(main())
