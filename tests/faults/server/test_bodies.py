"""Bodies, files and connections that mean harm (expectations.md §4.3: rows 1-5, 7-18, 21, 32, 33, 46, 49-51, 60)."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyform.server.jobs import Service


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("DOT", "."), content)
    return file.getvalue()


FILES = [
    ("row 2", "image", "a.png", b"", 422),
    ("row 2 cut off", "image", "a.png", png(64, 64)[:20], 422),
    ("row 2 no pixels", "image", "a.png", png(64, 64), 422),
    ("row 2 text", "image", "a.png", b"hello, I am text", 415),
    ("row 3 bomb", "image", "a.png", png(50_000, 50_000, bytes(100_000)), 413),
    ("row 3 bomb as mask", "sketch", "a.png", png(50_000, 50_000, bytes(100_000)), 413),
    *[
        (f"row 5 {name}", "image", "a.png", data, 415)
        for name, data in {
            "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "psd": b"8BPS\0\1",
            "fits": b"SIMPLE  =",
            "eps": b"%!PS-Adobe",
            "pdf": b"%PDF-1.4",
            "heic": b"\0\0\0\x18ftypheic",
            "gif": b"GIF89a",
        }.items()
    ],
    ("row 7 header", "audio", "a.wav", b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\x60\0", 422),
    ("row 10 counts", "points", "a.ply", b"ply\nformat ascii 1.0\nelement vertex 1000000000000\nproperty float x\n"
     b"property float y\nproperty float z\nend_header\n0 0 0\n", 422),
    ("row 12 pickle", "points", "a.npy", b"\x93NUMPY\1\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (9,)}",
     422),
    ("row 12 name", "points", "a.npz", zipped(____secretDOTnpy=b"x"), 422),
    ("row 14 nesting", "voxels", "a.json", b"[" * 100_000, 422),
    ("row 14 size", "voxels", "a.json", b'{"resolution": 1000000, "occupancy": [[0,0,0]]}', 422),
    ("row 15 dims", "voxels", "a.binvox", b"#binvox 1\ndim 65535 65535 65535\ndata\n\1\1", 422),
    ("row 16 lies", "points", "a.glb", b"glTF\2\0\0\0\xff\xff\xff\x7f", 422),
    ("row 17 link", "points", "a.obj", b"mtllib ../../../etc/passwd\nf 1 2 999999999\n", 422),
    ("row 18 slip", "views", "a.zip", zipped(DOTDOT__xDOTpng=b"x"), 422),
    ("unknown suffix", "points", "a.exe", b"MZ", 415),
    ("no suffix", "voxels", "voxels", b"{}", 415),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("label, field, name, content, status", FILES, ids=[row[0].replace(" ", "-") for row in FILES])
def test_bad_files_are_refused_in_one_sentence(
    client: TestClient, service: Service, label: str, field: str, name: str, content: bytes, status: int
) -> None:
    answer = client.post("/v1/jobs", files={field: (name, content)})
    assert answer.status_code == status, (label, answer.text)
    problem = answer.json()
    assert problem["detail"] and str(service.settings.home) not in answer.text and "Traceback" not in answer.text
    assert list(service.jobs.iterdir()) == [] and list(service.incoming.iterdir()) == []


def test_row_8_a_reader_that_dies_is_a_refusal(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    done = subprocess.CompletedProcess([], -9, b"", b"Traceback: /root/secret")
    monkeypatch.setattr("anyform.server.reading.subprocess.run", lambda *_, **__: done)
    answer = client.post("/v1/jobs", files={"audio": ("a.wav", b"RIFF")})
    assert answer.status_code == 422 and "broke its reader" in answer.json()["detail"] and "secret" not in answer.text
    assert list(service.incoming.iterdir()) == []


def test_row_8_the_reader_has_limits_no_secrets_and_no_home(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    asked: dict[str, Any] = {}

    def run(command: list[str], **given: Any) -> Any:
        asked.update(given)
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setenv("HF_TOKEN", "sentinel")
    monkeypatch.setenv("ANYFORM_TOKEN", "sentinel")
    monkeypatch.setattr("anyform.server.reading.subprocess.run", run)
    answer = client.post("/v1/jobs", files={"audio": ("a.wav", b"RIFF")})
    assert answer.status_code == 422 and "to read" in answer.json()["detail"]
    assert "sentinel" not in asked["env"].values() and "HOME" not in asked["env"] and asked["timeout"] <= 120


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "a", "text": "b"}',
        b'{"seed": 1e400, "text": "a"}',
        b'{"seed": NaN, "text": "a"}',
        b'{"seed": -Infinity, "text": "a"}',
        b"{" + b",".join(b'"k%d": 0' % i for i in range(50_000)) + b"}",
        b"[" * 100_000,
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b"",
        b"{",
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
    ids=["twice", "1e400", "nan", "inf", "keys", "deep", "utf8", "surrogate", "empty", "cut", "digits"],
)
def test_row_21_json(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and answer.json()["field"].startswith("prompt") and len(answer.content) < 2000


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    field=st.sampled_from(["text", "seed", "settings", "size", "quality", "faces", "system", "refine", "job"]),
)
def test_row_21_any_json_is_accepted_or_refused(client: TestClient, prompt: Any, field: str) -> None:
    for body in (prompt, {"text": "x", field: prompt}):
        answer = client.post("/v1/jobs", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code in {202, 422, 429}, answer.text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300), boundary=st.sampled_from(["b", "", "x" * 300, '"', "b; boundary=c"]))
def test_any_form_is_accepted_or_refused(client: TestClient, service: Service, body: bytes, boundary: str) -> None:
    framed = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n' + body + b"\r\n--b--"
    for content in (body, framed, framed[: len(framed) // 2]):
        kind = f"multipart/form-data; boundary={boundary}"
        # a picture that reaches the reader costs a process: this one never begins like a picture
        if not (content is framed and boundary.startswith("b")):
            answer = client.post("/v1/jobs", content=content, headers={"Content-Type": kind})
            assert answer.status_code in {400, 422}, answer.text
    assert list(service.incoming.iterdir()) == []


@pytest.mark.parametrize(
    "parts, status",
    [
        ([("prompt", None, b"{}"), ("prompt", None, b"{}")], 422),
        ([("image", "a.png", b"x"), ("image", "b.png", b"x")], 422),
        ([("secret", "a.png", b"x")], 422),
        ([("mask", "a.png", b"x")], 422),
        ([("image", "x" * 10_000 + ".png", b"text")], 400),
        ([("image", "x" * 1_000 + ".png", b"text")], 415),
        ([("points", "../../x.ply\0.sh", b"text")], 415),
        ([("prompt", None, b'{"text": "' + b"x" * 2_000_000 + b'"}')], 413),
    ],
)
def test_row_46_forms(client: TestClient, service: Service, parts: list[Any], status: int) -> None:
    answer = client.post("/v1/jobs", files=[(field, (name, content)) for field, name, content in parts])
    assert answer.status_code == status, answer.text
    assert list(service.incoming.iterdir()) == [] and list(service.jobs.iterdir()) == []


def test_row_46_names_of_clients_reach_no_disk(
    make_service: Callable[..., Service], connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(start=False)
    seen: list[Path] = []
    monkeypatch.setattr("anyform.server.http.read_files", lambda files, folder: seen.extend(files.values()) or [])
    client = connect(service)
    for name in ("../../x.png", "C:\\x.png", "con.png", "\x1b]0;x\x07.png", "..", "x/y/z.PNG"):
        assert client.post("/v1/jobs", files={"image": (name, b"x")}).status_code == 202
    assert {path.name for path in seen} == {"image.png"} and {path.parent.parent for path in seen} == {service.incoming}


def talk(port: int, data: bytes, *, more: Iterable[bytes] = ()) -> bytes:
    """Send bytes as they are; everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
            for part in more:
                connection.sendall(part)
        received = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65_536):
                received += part
        return received


def request(*headers: str, body: bytes = b"", method: str = "POST", path: str = "/v1/jobs") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


JSON = "Content-Type: application/json"


@pytest.fixture
def port(make_service: Callable[..., Service], live: Callable[..., int]) -> int:
    """A real server that takes bodies up to 100 kB."""
    return live(make_service(start=False), max_body=100_000)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def test_row_49_sizes(port: int) -> None:
    assert status(talk(port, request(JSON, "Content-Length: 100001"))) == 413
    assert status(talk(port, request(JSON, "Content-Length: 99999999999999999999999"))) in {400, 413}
    endless = (b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(1000))
    assert status(talk(port, request(JSON, "Transfer-Encoding: chunked"), more=endless)) == 413
    packed = gzip.compress(bytes(1_000_000))
    assert (
        status(talk(port, request(JSON, "Content-Encoding: gzip", f"Content-Length: {len(packed)}", body=packed)))
        == 415
    )
    assert status(talk(port, request(method="GET", path="/v1/health"))) == 200


def test_row_51_smuggling_and_headers(port: int) -> None:
    both = request(JSON, "Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n")
    assert status(talk(port, both)) == 400
    assert status(talk(port, request(JSON, "Content-Length: 4", "Content-Length: 5", body=b"{}  "))) == 400
    assert status(talk(port, request(JSON, "Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n"))) in {0, 400}
    assert status(talk(port, request(JSON, "Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"))) in {400, 501}
    assert status(talk(port, request("X: " + "y" * 100_000, method="GET"))) in {0, 400, 431}
    assert status(talk(port, request(*[f"X{i}: y" for i in range(1500)], method="GET"))) in {400, 431}
    assert status(talk(port, request("Host: 127.0.0.1", method="GET"))) in {400, 421}
    assert status(talk(port, request("X : y", method="GET"))) == 400
    assert status(talk(port, b"GET /v1/health HTTP/1.1\r\n\r\n")) in {400, 421}
    assert status(talk(port, b"\x16\x03\x01\x02\x00")) in {0, 400}
    assert status(talk(port, request(method="GET", path="/v1/health"))) == 200


def test_row_50_slow_clients_are_let_go(
    make_service: Callable[..., Service], live: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anyform.server.serving.HEADER_SECONDS", 0.3)
    monkeypatch.setattr("anyform.server.guard.PATIENCE", 0.3)
    service = make_service(start=False)
    port = live(service)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(60)]
        for connection in idle[:30]:
            connection.sendall(b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        assert status(talk(port, request(method="GET", path="/v1/health"))) == 200
        answers = [connection.recv(1000) for connection in idle]
    assert set(answers) == {b""}  # closed, every one
    assert status(talk(port, request(JSON, "Content-Length: 50", body=b'{"te'))) == 408
    assert service.store.counts()["queued"] == 0 and list(service.incoming.iterdir()) == []


def test_row_32_a_client_that_leaves_during_an_upload(
    make_service: Callable[..., Service], live: Callable[..., int]
) -> None:
    service = make_service(start=False)
    port = live(service)
    head = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 90000"
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + bytes(40_000)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request(head, body=body))
    for _ in range(200):  # each answer is a round through the server: by then it has seen the others go
        assert status(talk(port, request(method="GET", path="/v1/health"))) == 200
        if not list(service.incoming.iterdir()):
            break
    assert list(service.incoming.iterdir()) == [] and service.store.list(None, 1, None) == []


def test_row_33_listeners_that_leave_cost_nothing(
    make_service: Callable[..., Service], live: Callable[..., int]
) -> None:
    service = make_service(start=False)
    port = live(service)
    created = json.loads(
        talk(port, request(JSON, "Content-Length: 13", body=b'{"text": "x"}')).partition(b"\r\n\r\n")[2]
    )
    path = f"/v1/jobs/{created['id']}/events"

    def visit() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(request(method="GET", path=path))
            assert connection.recv(100).startswith(b"HTTP/1.1 200")

    visit()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(25):
        visit()
    for _ in range(300):
        assert status(talk(port, request(method="GET", path="/v1/health"))) == 200
        if not service._listeners:
            break
    assert not service._listeners and len(list(Path("/proc/self/fd").iterdir())) <= before + 3
    assert json.loads(talk(port, request(method="GET", path=path[:-7])).partition(b"\r\n\r\n")[2])["state"] == "queued"


def test_row_60_logs_are_one_clean_line_a_request(
    make_service: Callable[..., Service], live: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "anyform.server")
    port = live(make_service(start=False))
    talk(port, request(method="GET", path="/v1/%0a%1b[2Jjobs/" + "x" * 5000 + "?prompt=secret"))
    lines = [record.getMessage() for record in caplog.records if record.name == "anyform.server"]
    assert len(lines) == 1 and "\n" not in lines[0] and "\x1b" not in lines[0]
    assert len(lines[0]) < 300 and "secret" not in lines[0]
