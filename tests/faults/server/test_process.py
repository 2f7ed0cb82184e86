"""The server as a process: killed, stopped, started twice, its port taken (expectations.md §4.3: rows 27, 29-31)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anyform.client import Client

SERVER = Path(__file__).parents[2] / "server" / "light_server.py"
Start = Callable[..., tuple[subprocess.Popen[str], Client]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(): a server process on one data folder, and its client; killed at the end."""
    running: list[subprocess.Popen[str]] = []

    def begin() -> tuple[subprocess.Popen[str], Client]:
        command = [sys.executable, str(SERVER), str(tmp_path), "0"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_TOKEN": "sentinel"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()[1]
        return process, Client(url)

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def running_job(client: Client, text: str = "slow") -> str:
    job = client.submit({"text": text, "seed": 7})["id"]
    for name, _ in client.events(job):
        if name == "preview":  # the worker is at it
            return job
    raise AssertionError("the job ended")


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for file in listed for pid in file.read_text(encoding="ascii").split()]


@pytest.mark.slow
def test_row_27_a_killed_server_goes_on(start: Start, tmp_path: Path) -> None:
    process, client = start()
    first = running_job(client)
    second = client.submit({"text": "a mug"})["id"]
    workers = children(process)
    assert len(workers) == 1
    process.kill()
    assert process.wait() == -signal.SIGKILL
    for pid in workers:
        assert subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], timeout=60, check=False).returncode == 0
    (tmp_path / "server" / "jobs" / first / "go").touch()
    process, client = start()
    assert client.wait(first)["state"] == "done" and client.wait(second)["state"] == "done"
    assert client.job(first)["attempts"] == 2 and client.job(second)["attempts"] == 1
    names = [name for name, _ in client.events(first)]
    assert names == [] or (names[-1] == "done" and names.count("interrupted") == 1)
    assert len(list(client.jobs())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_29_a_stop_is_orderly_and_resumable(start: Start, number: int) -> None:
    process, client = start()
    job = running_job(client)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "goes on when the server starts again" in said and "Traceback" not in said
    assert "sentinel" not in said
    process, client = start()
    assert client.job(job)["state"] in {"queued", "running"} and client.cancel(job)["id"] == job
    assert client.wait(job)["state"] == "cancelled"
    process.send_signal(number)
    assert process.wait(timeout=120) == 0  # nothing was running


@pytest.mark.slow
def test_row_30_two_servers_on_one_folder(start: Start, tmp_path: Path) -> None:
    process, _ = start()
    command = [sys.executable, str(SERVER), str(tmp_path), "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    second = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert second.returncode == 2 and f"in use by pid {process.pid}" in second.stderr
    process.kill()
    process.wait()
    _, client = start()  # the lock of a dead process is free
    assert list(client.jobs()) == []


def test_row_31_a_taken_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    from anyform import cli

    monkeypatch.setenv("ANYFORM_HOME", str(tmp_path))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"port {port}" in said and "--port 0" in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
