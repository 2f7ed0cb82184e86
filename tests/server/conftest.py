"""A service with the light worker, and the API over it, in this process."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from anyform import api
from anyform.geometry.asset import Asset
from anyform.server.guard import Rules
from anyform.server.http import create_app
from anyform.server.jobs import Service, Settings
from anyform.server.serving import http_server
from anyform.server.store import FINISHED, Job
from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Views, Voxels

HERE = Path(__file__).parent
COMMAND = (sys.executable, "-S", "-E", str(HERE / "light_worker.py"))


@dataclass(frozen=True, kw_only=True)
class LightSettings:
    quality: str = "standard"
    faces: int | None = None
    texture_size: int | None = None
    variation: float = 0.5


@pytest.fixture
def light_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server knows one system; its work is done by the light worker."""
    entry = api.Entry(
        load=lambda weights, device, settings: pytest.fail("the server itself never loads a system"),
        settings=lambda quality: LightSettings(quality=quality),
        smaller=lambda settings: None,
        accepts=(Text, Image, Sketch, Audio, Points, Voxels, Views, Asset),
    )
    monkeypatch.setattr("anyform.api.SYSTEMS", {"light": entry})


@pytest.fixture
def make_service(light_system: None, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Services on one data folder; the ones still open are stopped at the end."""
    made: list[Service] = []

    def make(*, start: bool = True, **settings: Any) -> Service:
        service = Service(Settings(home=tmp_path, **{"command": COMMAND, **settings}))
        made.append(service)
        if start:
            service.start()
        return service

    yield make
    for service in made:
        service.stop()


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """A running service."""
    return make_service()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    """The API without a token, as the page's own browser would call it."""
    with _connect(service) as client:
        yield client


def _connect(service: Service, **rules: Any) -> TestClient:
    app = create_app(service, Rules(**rules))
    return TestClient(app, base_url="http://127.0.0.1:7860")  # type: ignore[arg-type]


@pytest.fixture
def connect() -> Callable[..., TestClient]:
    """connect(service, **rules): a client of a service under these rules."""
    return _connect


@pytest.fixture
def wait_for() -> Callable[..., Job]:
    """wait_for(service, job, *states): the job once it is in one of these states, or has finished."""
    return _wait_for


def _wait_for(service: Service, job: str, *wanted: str) -> Job:
    changed = threading.Event()
    end = service.listen(job, changed.set)
    try:
        for _ in range(600):
            changed.clear()
            found = service.store.get(job)
            assert found is not None
            if found.state in (wanted or FINISHED):
                return found
            assert found.state not in FINISHED, f"the job is {found.state}: {found.error}"
            changed.wait(0.1)
    finally:
        end()
    raise AssertionError(f"the job is still {found.state}")


@pytest.fixture
def live() -> Iterator[Callable[..., int]]:
    """live(service, **rules): the port of a real server on loopback, in a thread of this process."""
    running: list[tuple[Any, threading.Thread]] = []

    def start(service: Service, **rules: Any) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        server = http_server(service, Rules(**rules))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        running.append((server, thread))
        return listener.getsockname()[1]

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(20)
