"""Jobs over a worker process: results, failures, death, cancelling, recovery after a kill."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyform.errors import BadInput
from anyform.server import store as states
from anyform.server.jobs import QueueFull, Service, stage
from anyform.server.store import Job

Wait = Callable[..., Job]


def send(service: Service, text: str = "a mug", key: str | None = None) -> str:
    job, _ = stage(service)
    request = {"text": text, "seed": 7, "system": "light", "quality": "draft", "kind": "text", "kinds": ["text"]}
    return service.submit(job, request, key, text)[0].id


def let_go(service: Service, job: str) -> None:
    (service.jobs / job / "go").touch()


def test_a_job_ends_with_its_asset(service: Service, wait_for: Wait) -> None:
    found = wait_for(service, send(service))
    assert found.state == states.DONE and found.result is not None and found.attempts == 1
    assert (service.jobs / found.id / "out" / "asset.glb").stat().st_size == found.result["formats"]["glb"]["bytes"]
    assert (service.jobs / found.id / "live.webp").is_file() and list(service.incoming.iterdir()) == []


def test_a_failure_says_why_and_the_next_job_runs(service: Service, wait_for: Wait) -> None:
    failed = wait_for(service, send(service, "fail"))
    assert failed.state == states.FAILED
    assert failed.error == {"code": "gate_failed", "message": "the mesh is open", "hint": "try another seed"}
    assert wait_for(service, send(service)).state == states.DONE


def test_a_worker_that_dies_fails_its_job_alone(service: Service, wait_for: Wait) -> None:
    before = service.crew.pids()
    failed = wait_for(service, send(service, "die"))
    assert failed.state == states.FAILED and failed.error is not None
    assert failed.error["message"] == "worker died (signal 9)" and failed.error["code"] == "worker_died"
    assert wait_for(service, send(service)).state == states.DONE
    assert service.crew.pids() != before


def test_a_worker_killed_from_outside_fails_its_job_alone(service: Service, wait_for: Wait) -> None:
    job = send(service, "slow")
    wait_for(service, job, states.RUNNING)
    os.kill(service.crew.pids()[0], signal.SIGKILL)
    failed = wait_for(service, job)
    assert failed.state == states.FAILED and failed.error is not None and "signal 9" in failed.error["message"]
    assert wait_for(service, send(service)).state == states.DONE


def test_cancelling_frees_a_warm_worker(service: Service, wait_for: Wait) -> None:
    job = send(service, "slow")
    wait_for(service, job, states.RUNNING)
    before = service.crew.pids()
    service.cancel(job)
    assert wait_for(service, job).state == states.CANCELLED
    assert wait_for(service, send(service)).state == states.DONE and service.crew.pids() == before


def test_cancelling_kills_a_worker_that_does_not_listen(
    service: Service, monkeypatch: pytest.MonkeyPatch, wait_for: Wait
) -> None:
    monkeypatch.setattr("anyform.server.crew.GRACE", 0.05)
    job = send(service, "stubborn")
    wait_for(service, job, states.RUNNING)
    service.cancel(job)
    assert wait_for(service, job).state == states.CANCELLED
    assert wait_for(service, send(service)).state == states.DONE


def test_a_cancelled_job_in_the_queue_never_runs(service: Service, wait_for: Wait) -> None:
    first = send(service, "slow")
    second = send(service)
    wait_for(service, first, states.RUNNING)
    found = service.cancel(second)
    assert found is not None and found.state == states.CANCELLED
    let_go(service, first)
    assert wait_for(service, first).state == states.DONE
    assert "running" not in [event.name for event in service.store.events(second, 0)]


def test_a_full_queue_refuses_and_leaves_nothing(make_service: Callable[..., Service]) -> None:
    service = make_service(start=False, max_queue=2)
    kept = {send(service), send(service)}
    with pytest.raises(QueueFull) as refused:
        send(service)
    assert 1 <= refused.value.seconds <= 300
    assert {path.name for path in service.jobs.iterdir()} == kept and not list(service.incoming.iterdir())


def test_a_repeated_key_leaves_one_folder(make_service: Callable[..., Service]) -> None:
    service = make_service(start=False)
    assert send(service, key="k") == send(service, key="k")
    assert len(list(service.jobs.iterdir())) == 1


def test_old_jobs_go_with_their_files(make_service: Callable[..., Service], wait_for: Wait) -> None:
    service = make_service(keep=2)
    made = [send(service, str(i)) for i in range(5)]
    wait_for(service, made[-1])
    service.stop()
    assert {path.name for path in service.jobs.iterdir()} == set(made[-2:])


def test_a_stopped_server_goes_on_where_it_was(make_service: Callable[..., Service], wait_for: Wait) -> None:
    service = make_service()
    running, waiting = send(service, "slow"), send(service)
    wait_for(service, running, states.RUNNING)
    assert service.stop() is True
    again = make_service(start=False)
    assert [(job.id, job.state, job.attempts) for job in again.store.list(None, 9, None)] == [
        (waiting, states.QUEUED, 0),
        (running, states.QUEUED, 0),
    ]
    names = [event.name for event in again.store.events(running, 0)]
    assert names.count("interrupted") == 1 and names[-1] == "queued"
    let_go(again, running)
    again.start()
    assert wait_for(again, running).state == states.DONE and wait_for(again, waiting).state == states.DONE


def leave_running(service: Service, attempts: int, text: str = "a mug") -> Job:
    """A job as a killed server leaves it: claimed `attempts` times, never ended."""
    job = send(service, text)
    for attempt in range(attempts):
        claimed = service.store.claim()
        assert claimed is not None
        if attempt < attempts - 1:
            service.store.requeue(claimed.id, "", forgive=False)
    found = service.store.get(job)
    assert found is not None and found.state == states.RUNNING
    service.stop()
    return found


def test_after_a_kill_the_job_is_interrupted_and_runs_again(
    make_service: Callable[..., Service], wait_for: Wait
) -> None:
    job = leave_running(make_service(start=False), 1)
    again = make_service()
    found = wait_for(again, job.id)
    names = [event.name for event in again.store.events(job.id, 0)]
    assert found.state == states.DONE and found.attempts == 2
    assert names[:4] == ["queued", "running", "interrupted", "queued"] and names.count("done") == 1


def test_a_job_that_kills_the_server_twice_has_failed(make_service: Callable[..., Service]) -> None:
    job = leave_running(make_service(start=False), 2)
    found = make_service(start=False).store.get(job.id)
    assert found is not None and found.state == states.FAILED and found.error is not None
    assert found.error["code"] == "interrupted" and "2 times" in found.error["message"]


def test_a_whole_asset_is_never_made_twice(make_service: Callable[..., Service], wait_for: Wait) -> None:
    service = make_service()
    found = wait_for(service, send(service))
    with service.store._lock:
        service.store._connection.execute("UPDATE jobs SET state = 'running', result = NULL")
    service.stop()
    again = make_service(start=False).store.get(found.id)
    assert again is not None and again.state == states.DONE and again.result == found.result and again.attempts == 1


def test_a_cancelled_job_stays_cancelled_over_a_kill(make_service: Callable[..., Service]) -> None:
    service = make_service(start=False)
    job = send(service)
    service.store.claim()
    service.store.cancel(job)
    service.stop()
    found = make_service(start=False).store.get(job)
    assert found is not None and found.state == states.CANCELLED


def test_half_uploads_and_strangers_are_cleared(make_service: Callable[..., Service]) -> None:
    service = make_service(start=False)
    _, folder = stage(service)
    (folder / "image.png").write_bytes(b"half")
    (service.jobs / "0123456789abcdefghjkmnpqrs").mkdir()
    kept = send(service)
    service.stop()
    again = make_service(start=False)
    assert list(again.incoming.iterdir()) == [] and [path.name for path in again.jobs.iterdir()] == [kept]


def test_jobs_are_rebuilt_from_folders(make_service: Callable[..., Service], wait_for: Wait) -> None:
    service = make_service()
    done = wait_for(service, send(service))
    waiting = send(service, "slow")
    service.stop()
    database = service.folder / "jobs.sqlite3"
    database.write_bytes(b"\xff" * 5000)
    again = make_service(start=False)
    found = again.store.get(done.id)
    assert found is not None and found.state == states.DONE and found.result == done.result
    found = again.store.get(waiting)
    assert found is not None and found.state == states.QUEUED and found.request["text"] == "slow"
    assert (service.folder / "jobs.sqlite3.damaged").exists()


def test_one_server_a_folder(make_service: Callable[..., Service]) -> None:
    service = make_service(start=False)
    with pytest.raises(BadInput, match=f"in use by pid {os.getpid()}"):
        make_service(start=False)
    service.stop()
    make_service(start=False)


def test_no_worker_outlives_its_server(tmp_path: Path) -> None:
    worker = Path(__file__).parent / "light_worker.py"
    code = (
        "import os, signal, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-S', {str(worker)!r}], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE)\nchild.stdout.readline()\nprint(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    waited = subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], timeout=30, check=False)
    assert waited.returncode == 0


def test_events_of_a_whole_job_are_in_order(service: Service, wait_for: Wait) -> None:
    job = send(service)
    wait_for(service, job)
    events = service.store.events(job, 0)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    names = [event.name for event in events]
    assert names[0] == "queued" and names[-1] == "done" and "progress" in names and "preview" in names


def test_requests_and_results_are_plain_json(service: Service, wait_for: Wait) -> None:
    found = wait_for(service, send(service))
    kept: Any = json.loads((service.jobs / found.id / "request.json").read_text(encoding="utf-8"))
    assert kept == found.request
    with sqlite3.connect(service.store.path) as database:
        assert database.execute("SELECT COUNT(*) FROM jobs").fetchone() == (1,)
    database.close()
