"""A server of the page in a process of its own, with a home that outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SHAPES = Path(__file__).parent / "shapes.py"
PATIENCE = 300_000  # milliseconds: a busy machine may be slow, a broken page is wrong for ever


@dataclass
class Served:
    """A server that can be killed and started again on the same port and folder. `command` gets home and port."""

    command: list[str]
    home: Path
    port: int
    process: subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Returns once the port answers."""
        log = (self.home / "server.log").open("a", encoding="utf-8")
        environment = {**os.environ, "ANYFORM_HOME": str(self.home), "OMP_NUM_THREADS": "1", **self.environment}
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
        )
        log.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert self.url in line, (self.home / "server.log").read_text(encoding="utf-8")[-2000:]

    def kill(self) -> None:
        """kill -9 of the server alone: its worker ends by itself when its orders do."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end."""
        if self.process is not None:
            self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        assert self.process is not None and self.process.stdout is not None
        self.process.send_signal(how)
        self.process.wait(60)
        self.process.stdout.close()
        self.process = None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def serve() -> Callable[[str, Path], Iterator[Served]]:
    """serve(verb of shapes.py, home): yields a running server, stops it in the end."""
    return _serve


def _serve(verb: str, home: Path) -> Iterator[Served]:
    pytest.importorskip("fastapi", reason="fastapi is not installed (the extra serve)")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra dev)")
    port = free_port()
    server = Served([sys.executable, str(SHAPES), verb, str(home), str(port)], home, port)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., Iterator[Served]]) -> Iterator[Served]:
    """The page over the system of shapes.py."""
    yield from serve("serve", tmp_path_factory.mktemp("served"))


class Visitor:
    """A browser tab that notes what a page must not do: scripts' errors, refused code, dialogs, other machines."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(
            **{
                "viewport": {"width": 1280, "height": 860},
                "reduced_motion": "reduce",
                "accept_downloads": True,
                **options,
            }
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.url, self.wrong, self.asked, self.sent = url, [], [], []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog {dialog.message}"))
        self.page.on("request", self._request)

    def _request(self, request: Any) -> None:
        self.asked.append(request.url)
        if request.method == "POST":
            self.sent.append((request.url, request.post_data_buffer or b""))

    def open(self, path: str = "") -> Any:
        """The page, ready for use."""
        self.page.goto(self.url + path)
        self.page.get_by_role("button", name="Generate").wait_for()
        return self.page

    def order(self, text: str, quality: str = "Draft") -> Any:
        """Type, choose, generate."""
        self.page.get_by_role("tab", name="Text").click()
        self.page.get_by_label("What should it be?").fill(text)
        self.page.get_by_role("radio", name=quality).check()
        self.page.get_by_role("button", name="Generate").click()
        return self.page

    def viewer(self, index: int = 0) -> Any:
        """A model on the stage, drawn."""
        found = self.page.locator("#stage .viewer-frame").nth(index)
        found.wait_for()
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return found

    def close(self) -> None:
        self.context.close()

    def was_good(self, *expected: str) -> None:
        """Nothing went wrong but for messages that hold one of `expected`; nobody else was asked."""
        rest = [line for line in self.wrong if not any(part in line for part in expected)]
        assert rest == []
        assert [url for url in self.asked if not url.startswith((self.url, "blob:", "data:"))] == []


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Any]:
    """visit(**options): a new Visitor of the server."""
    opened: list[Visitor] = []

    def make(**options: Any) -> Visitor:
        opened.append(Visitor(browser, served.url, **options))
        return opened[-1]

    yield make
    for visitor in opened:
        visitor.close()
