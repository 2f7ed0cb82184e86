"""Fetching released weights from a hub that misbehaves in every way a real one does (expectations.md §4.3: 42, 43).

The fake hub listens on this machine. One process goes through all its moods, since starting one costs most.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import anyform
from anyform.errors import WeightsError
from anyform.weights import transfer
from anyform.weights.released import RELEASED

SOURCE = Path(anyform.__file__).resolve().parents[1]
ID = "ADSKAILab/WaLa-SV-1B"
MOODS: list[int | str] = [
    401, 403, 404, 429, 500, 503, "page", "half", "half once", "busy twice", "wrong hash", "well", "new args",
]  # fmt: skip


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers like a hub whose mood `server.mood` says; `GET /mood/NAME` sets it."""

    server: Any

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/mood/"):
            name = self.path.removeprefix("/mood/").replace("-", " ")
            self.server.mood, self.server.busy = int(name) if name.isdigit() else name, 2
            self.server.requests.append(f"MOOD {name}")
            self._reply(200, b"", {})
            return
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        asked = self.headers.get("Range", "")
        self.server.requests.append(f"{self.command} {self.path} {asked}".strip())
        mood = self.server.mood
        if isinstance(mood, int):
            self._reply(mood, b"", {})
            return
        if mood == "busy twice" and self.server.busy:
            self.server.busy -= 1
            self._reply(503, b"", {})
            return
        name = self.path.rpartition("/")[2]
        body = (
            b"<!DOCTYPE html><p>Sign in</p>"
            if mood == "page"
            else name.encode() * (10**6 if mood == "half once" else 1000)
        )
        if mood == "new args" and name == "args.json":
            body = b"another version"
        hashed = sha256(body if mood != "wrong hash" else b"another file").hexdigest()
        small = mood == "page" or name == "args.json"  # the hub names small files by another hash
        small_hash = ("d" if mood == "new args" else "e") * 40
        headers = {"X-Repo-Commit": "c" * 40, "ETag": f'"{small_hash if small else hashed}"'}
        status, start = 200, 0
        if asked and mood == "half once":
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        cut = mood == "half" or (mood == "half once" and not asked and name == "checkpoint.ckpt")
        self._reply(status, body[start:], headers, with_body=with_body, cut=cut)

    def _reply(
        self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True, cut: bool = False
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(body[: len(body) * 4 // 5] if cut else body)

    def log_message(self, *arguments: object) -> None:
        """Nothing on stderr."""


SCRIPT = """
    import json, os, shutil, sys, time, urllib.request
    import anyform.weights  # before the environment says where the hub is
    os.environ.update(json.loads(sys.argv[1]))
    sleep = time.sleep
    pauses = []
    time.sleep = lambda seconds: (pauses.append(seconds), sleep(min(seconds, 0.01)))  # back-off without the wait
    from anyform.errors import AnyformError
    from anyform.weights import accept_licence, resolve
    ID = "ADSKAILab/WaLa-SV-1B"
    accept_licence(ID)
    for mood in sys.argv[2:]:
        del pauses[:]
        if mood not in ("flipped", "here"):
            urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/mood/" + mood).read()
            shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
        if mood not in ("new-args", "flipped", "here"):
            shutil.rmtree(os.path.join(os.environ["ANYFORM_HOME"], "recorded"), ignore_errors=True)
        reports = []
        said = {"mood": mood.replace("-", " ")}
        try:
            said["files"] = sorted(path.name for path in resolve(ID, reports.append).iterdir())
        except AnyformError as error:
            said["error"], said["code"] = str(error), error.exit_code
        said["progress"] = [[r.stage, r.step, r.total, r.message] for r in reports]
        said["pauses"] = list(pauses)
        print(json.dumps(said), flush=True)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.mood, server.requests, server.busy = "well", [], 2
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def visit(hub: Any, folder: Path, *moods: str, **more: str) -> subprocess.Popen[str]:
    """Start a process that fetches the id once in each mood."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HTTP"))}
    late = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": "hf_sentinel_token",
        "HF_HUB_DISABLE_XET": "1",
        "ANYFORM_HOME": str(folder / "home"),
        **more,
    }
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(late), *moods]
    environment["PYTHONPATH"] = str(SOURCE)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "hf_sentinel_token" not in said + errors
    return [json.loads(line) for line in said.splitlines()]


@pytest.fixture(scope="module")
def visits(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Mood -> (what the process said, what the hub was asked meanwhile)."""
    folder = tmp_path_factory.mktemp("visits")
    said = answers(visit(hub, folder, *[str(mood).replace(" ", "-") for mood in MOODS]))
    asked: dict[str, list[str]] = {}
    for request in hub.requests:
        if request.startswith("MOOD"):
            asked[request.removeprefix("MOOD ")] = current = []
        else:
            current.append(request)
    return {answer["mood"]: (answer, asked[answer["mood"]]) for answer in said}


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        (401, "HTTP 401.*https://huggingface.co/ADSKAILab/WaLa-SV-1B.*HF_TOKEN"),
        (403, "HTTP 403.*ask for access"),
        (404, "HTTP 404.*may have moved"),
        (429, "HTTP 429"),
        (500, "HTTP 500"),
        (503, "HTTP 503.*give a folder that holds checkpoint.ckpt, args.json"),
        ("page", "web page"),
        ("half", "could not be fetched completely"),
        ("wrong hash", "differs"),
        ("new args", "args.json.* differs from the one recorded at its first use"),
    ],
)
def test_a_bad_answer_is_one_sentence_with_advice(visits: Any, mood: int | str, words: str) -> None:
    answer, _ = visits[str(mood)]
    assert answer["code"] == 3 and re.search(words, answer["error"]), answer
    assert "\n" not in answer["error"] and "<" not in answer["error"]


def test_only_overload_is_tried_again_and_after_growing_pauses(visits: Any) -> None:
    for mood in (429, 500, 503):
        answer, asked = visits[str(mood)]
        assert len(asked) >= 4 and [p for p in answer["pauses"] if p in transfer._PAUSES_S] == list(transfer._PAUSES_S)
        assert any(f"HTTP {mood}" in message for *_, message in answer["progress"])
    for mood in (401, 403, 404):
        answer, asked = visits[str(mood)]
        assert answer["pauses"] == [] and not any(request.startswith("GET") for request in asked), asked
    assert visits["busy twice"][0]["files"] == ["args.json", "checkpoint.ckpt"]


def test_a_broken_transfer_resumes_where_it_stopped(visits: Any) -> None:
    answer, asked = visits["half once"]
    assert answer["files"] == ["args.json", "checkpoint.ckpt"]
    ranges = [re.search(r"checkpoint\.ckpt bytes=(\d+)-$", request) for request in asked]
    assert [int(found[1]) > 10**7 for found in ranges if found] == [True], asked


def test_progress_counts_the_bytes(visits: Any) -> None:
    progress = visits["well"][0]["progress"]
    assert ["fetching checkpoint.ckpt", 15_000, 15_000, ""] in progress
    assert all(step <= total for _, step, total, message in progress if not message)


def test_two_processes_fetch_each_file_once_and_then_need_no_network(hub: Any, tmp_path: Path) -> None:
    hub.mood, hub.requests[:] = "well", []
    both = [visit(hub, tmp_path, "here"), visit(hub, tmp_path, "here")]
    assert [answer["files"] for process in both for answer in answers(process)] == [
        ["args.json", "checkpoint.ckpt"]
    ] * 2
    fetched = [request for request in hub.requests if request.startswith("GET") and "checkpoint.ckpt" in request]
    assert len(fetched) == 1
    seen = len(hub.requests)
    cached = next((tmp_path / "hf").rglob("snapshots/*/checkpoint.ckpt")).resolve()
    (again,) = answers(visit(hub, tmp_path, "here", ANYFORM_OFFLINE="1"))
    assert again["files"] == ["args.json", "checkpoint.ckpt"] and len(hub.requests) == seen
    damaged = bytearray(cached.read_bytes())
    damaged[100] ^= 1
    cached.write_bytes(damaged)
    (flipped,) = answers(visit(hub, tmp_path, "flipped", ANYFORM_OFFLINE="1"))
    assert flipped["code"] == 3 and "differs" in flipped["error"] and cached.read_bytes() == damaged


def test_offline_touches_no_network(hub: Any, tmp_path: Path) -> None:
    hub.requests[:] = []
    (answer,) = answers(visit(hub, tmp_path, "here", ANYFORM_OFFLINE="1"))
    assert answer["code"] == 3 and "the network is off" in answer["error"] and hub.requests == []


@pytest.mark.parametrize("location", ["http://cdn.example/file", "ftp://cdn.example/file", "//cdn.example"])
def test_https_never_becomes_http(location: str) -> None:
    with pytest.raises(WeightsError, match="without https"):
        transfer._refuse_downgrade("https://hub.example/file", location)


def test_other_redirects_are_followed() -> None:
    transfer._refuse_downgrade("https://hub.example/file", "https://cdn.example/file")
    transfer._refuse_downgrade("http://127.0.0.1:8000/file", "http://127.0.0.1:9000/file")


def test_a_gated_model_says_so() -> None:
    class Refusal(OSError):
        response = type("Response", (), {"status_code": 403})

    gated = dataclasses.replace(RELEASED[ID], gated=True)
    assert "this model is gated" in transfer._advice(gated, "a", Refusal())
    assert "gated" not in transfer._advice(RELEASED[ID], "a", Refusal())
