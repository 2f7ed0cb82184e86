"""Browsers and strangers at the door (expectations.md §4.3: rows 44-47, 52-58, 62)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from anyform import cli
from anyform.server.guard import POLICY, SAFE
from anyform.server.jobs import Service
from anyform.server.store import new_id

DESCRIPTION = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text(encoding="utf-8"))
ROUTES = [
    (method.upper(), path.replace("{job_id}", "0" * 26))
    for path, methods in DESCRIPTION["paths"].items()
    for method in methods
]
UNSAFE = [route for route in ROUTES if route[0] not in SAFE]
TOKEN = "a long secret"


def test_every_kind_of_route_is_in_the_description() -> None:
    assert len(ROUTES) >= 19 and {method for method, _ in ROUTES} == {"GET", "POST", "DELETE"} and len(UNSAFE) == 5


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1.evil.example:7860"},
        {"Origin": "file://"},
        {"Origin": ""},
        {"Origin": "http://[bad"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:7860"},
        {"Origin": "http://evil.example", "Content-Type": "text/plain"},
        {"Origin": "http://evil.example", "Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_row_52_no_other_page_changes_anything(client: TestClient, service: Service, headers: dict[str, str]) -> None:
    for method, path in [*UNSAFE, ("PUT", "/v1/jobs"), ("PATCH", "/"), ("POST", "/nothing")]:
        answer = client.request(method, path, headers=headers, content=b'{"text": "x"}')
        assert answer.status_code == 403, (method, path)
        assert answer.json()["code"] == "forbidden"
    assert service.store.counts()["queued"] == 0 and service.store.list(None, 1, None) == []


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://127.0.0.1:7860"}, {"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "same-origin"}],
)
def test_row_52_our_own_page_may(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/v1/jobs", json={"text": "x"}, headers=headers).status_code == 202


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "text/html"])
def test_row_52_json_says_that_it_is_json(client: TestClient, kind: str) -> None:
    answer = client.post("/v1/jobs", content=b'{"text": "x"}', headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "host",
    [
        *("evil.com", "127.0.0.1.evil.com", "localhost.evil.com:7860", "127.0.0.1@evil.com", "[::2]:7860", "0.0.0.0"),
        *("", "127.1", "2130706433", "localhost:7860:1", "::1", "[::1"),
    ],
)
def test_row_53_foreign_hosts(client: TestClient, host: str) -> None:
    for method, path in ROUTES:
        assert client.request(method, path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1:7860", "[::1]:7860", "[::1]", "LOCALHOST:1"])
def test_row_53_our_hosts(client: TestClient, host: str) -> None:
    assert client.get("/v1/health", headers={"Host": host}).status_code == 200


def test_row_53_other_names_where_allowed(service: Service, connect: Any) -> None:
    client = connect(service, hosts=("models.example.org",))
    assert client.get("/v1/health", headers={"Host": "models.example.org"}).status_code == 200
    assert client.get("/v1/health", headers={"Host": "127.0.0.1:7860"}).status_code == 421


def test_row_54_no_cross_origin_headers(client: TestClient) -> None:
    for method, path in ROUTES:
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": method}
        for answer in (client.options(path, headers=asked), client.get(path, headers=asked)):
            assert not [name for name in answer.headers if name.startswith("access-control")]


def test_row_55_no_web_sockets(client: TestClient) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "a" * 22 + "==",
               "Sec-WebSocket-Version": "13"}  # fmt: skip
    for _, path in ROUTES:
        assert client.get(path, headers=upgrade).status_code == 426


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_row_56_no_open_address_without_a_token(monkeypatch: pytest.MonkeyPatch, capsys: Any, host: str) -> None:
    monkeypatch.delenv("ANYFORM_TOKEN", raising=False)
    assert cli.main(["serve", "--host", host]) == 2
    said = capsys.readouterr().err
    assert "--token" in said and said.count("\n") == 1


@pytest.mark.parametrize("token", ["short", "ünicode-secret"])
def test_row_56_tokens_that_protect_nothing(capsys: Any, token: str) -> None:
    assert cli.main(["serve", "--host", "0.0.0.0", "--token", token]) == 2
    assert token not in capsys.readouterr().err


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer ünicode".encode().decode("latin-1")},
        {"Cookie": f"anyform_session={TOKEN}"},
        {"Cookie": "anyform_session="},
        {"Cookie": "=;;;\x7f"},
    ],
)
def test_row_57_wrong_tokens(service: Service, connect: Any, headers: dict[str, str]) -> None:
    client = connect(service, token=TOKEN)
    open_paths = {"/v1/health", "/v1/ready", "/v1/session"}
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    for method, path in ROUTES:
        if path not in open_paths:
            answer = client.request(method, path, headers=sent)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", path
            assert TOKEN not in answer.text


def test_row_57_the_right_token_and_its_cookie(service: Service, connect: Any) -> None:
    client = connect(service, token=TOKEN)
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/v1/session").json() == {"required": True, "authorized": False}
    assert client.post("/v1/session", json={"token": "wrong"}).status_code == 401
    assert client.post("/v1/session", json={"token": 3}).status_code == 422
    answer = client.post("/v1/session", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 204 and "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    assert client.get("/v1/jobs").status_code == 200 and client.get("/v1/session").json()["authorized"] is True
    client.delete("/v1/session")
    assert client.get("/v1/jobs").status_code == 401


def test_row_57_no_token_in_the_address(service: Service, connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = connect(service, token=TOKEN)
    caplog.set_level("INFO", "anyform.server")
    for name in ("token", "access_token", "TOKEN"):
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get(f"/v1/jobs?{name}={TOKEN}", headers=right).status_code == 401
    assert TOKEN not in caplog.text and len(caplog.records) == 3


def test_row_58_every_answer_is_guarded(client: TestClient) -> None:
    for method, path in [*ROUTES, ("GET", "/"), ("GET", "/nothing"), ("PUT", "/v1/jobs")]:
        for headers in ({}, {"Host": "evil.com"}):
            answer = client.request(method, path, headers=headers)
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["referrer-policy"] == "no-referrer" and "server" not in answer.headers
    assert "frame-ancestors 'none'" in POLICY and "unsafe" not in POLICY and "http" not in POLICY


@pytest.mark.parametrize(
    "name",
    [
        *("..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e", "..\\..\\x", "//etc/passwd", "a%00b", "%c0%ae%c0%ae/", "%ff%fe"),
        *(
            "0" * 25,
            "0" * 27,
            "0" * 25 + "I",
            "0" * 26 + "%0a",
            "x" * 5000,
            "%252e%252e",
            ";x=1",
            "0" * 25 + "%EF%BC%90",
        ),
    ],
)
def test_row_44_ids_that_are_none(client: TestClient, name: str) -> None:
    constant = client.get(f"/v1/jobs/{new_id()}").text
    for path in (f"/v1/jobs/{name}", f"/v1/jobs/{name}/asset.glb", f"/v1/jobs/{name}/events", f"/{name}"):
        answer = client.get(path)
        assert answer.status_code == 404 and (answer.text == constant or "no such page" in answer.text)


def test_row_45_links_are_not_followed(client: TestClient, service: Service, wait_for: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    jobs = [client.post("/v1/jobs", json={"text": "x"}).json()["id"] for _ in range(3)]
    for job in jobs:
        wait_for(service, job)
    outs = [service.jobs / job / "out" for job in jobs]
    (outs[0] / "asset.glb").unlink()
    (outs[0] / "asset.glb").symlink_to(secret)
    outs[1].rename(tmp_path / "elsewhere")
    outs[1].symlink_to(tmp_path / "elsewhere")
    (outs[2] / "asset.glb").unlink()
    os.mkfifo(outs[2] / "asset.glb")
    for job in jobs:
        assert client.get(f"/v1/jobs/{job}/asset.glb").status_code == 404
        assert client.post("/v1/jobs", json={"job": job}).status_code == 422


def test_row_47_nothing_is_fetched(client: TestClient, service: Service) -> None:
    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in {"socket.connect", "socket.getaddrinfo"}:
            opened.append(str(arguments[-1]))

    watching = True
    sys.addaudithook(watch)
    for url in ("http://169.254.169.254/", "file:///etc/passwd", "data:image/png;base64,AA", "\\\\host\\share"):
        for field in ("image", "points", "views", "url", "weights"):
            assert client.post("/v1/jobs", json={field: url}).status_code == 422
        assert client.post("/v1/jobs", files={"prompt": (None, json.dumps({"image": url}))}).status_code == 422
    watching = False
    assert opened == []


def test_row_62_no_secrets_and_no_paths(
    service: Service, client: TestClient, caplog: pytest.LogCaptureFixture, wait_for: Any
) -> None:
    caplog.set_level("DEBUG")
    told = [client.request(method, path, content=b"{").text for method, path in ROUTES]
    job = client.post("/v1/jobs", json={"text": "fail SENTINEL-PROMPT"}).json()["id"]
    wait_for(service, job)
    told += [client.get(f"/v1/jobs/{job}").text, client.get(f"/v1/jobs/{job}/events").text]
    told += [client.post("/v1/jobs", files={"image": ("/root/x.png", b"\x89PNG\r\n\x1a\n")}).text]
    home = str(service.settings.home)
    assert not [text for text in told if home in text or "Traceback" in text or str(Path.home()) in text]
    ours = [record.getMessage() for record in caplog.records if record.name == "anyform.server"]
    assert len(ours) >= len(ROUTES) and not [line for line in ours if "SENTINEL" in line or home in line]
