"""A client of `anyform serve` in one file of the standard library: copy it where anyform itself is not installed.

    from client import Client                       # from anyform.client import Client
    server = Client("http://127.0.0.1:7860")        # Client(url, token="…") for a server with a token
    job = server.submit({"text": "a wooden chair", "quality": "draft"})
    for name, data in server.events(job["id"]):     # queued, running, progress, …, done
        print(name, data)
    server.download(job["id"], "chair.glb")

Errors of the server are `ServerError`; a connection that cannot be made is `OSError`.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

FINISHED = ("done", "failed", "cancelled")
_CHUNK = 1 << 18


class ServerError(Exception):
    """The server refused. status: of HTTP; code: of the problem; retry_after: seconds to wait, 0 = do not."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: int = 0) -> None:
        hint = f" ({problem['hint']})" if problem.get("hint") else ""
        super().__init__(f"{problem.get('detail', 'the server refused')}{hint}")
        self.status, self.code, self.retry_after = status, str(problem.get("code", "")), retry_after


class Client:
    """One server. url: with the sub-path if there is one. timeout: seconds without a byte."""

    def __init__(self, url: str = "http://127.0.0.1:7860", *, token: str = "", timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address: write it like http://127.0.0.1:7860")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._root, self._timeout = parts.path.rstrip("/"), timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def submit(
        self, prompt: Mapping[str, Any], files: Mapping[str, str | Path] | None = None, *, key: str | None = None
    ) -> dict[str, Any]:
        """Queue a job; files: field (image, mask, sketch, points, …) -> path. Returns the job.

        key: the Idempotency-Key; None = a random one, so that a request repeated by a retry makes one job.
        """
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        if not files:
            return self._json("POST", "/v1/jobs", json.dumps(prompt).encode(), "application/json", headers)
        boundary = secrets.token_hex(16)
        body = _form(boundary, prompt, files)
        return self._json("POST", "/v1/jobs", body, f"multipart/form-data; boundary={boundary}", headers)

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        return self._json("GET", f"/v1/jobs/{job_id}")

    def jobs(self, *, state: str | None = None) -> Iterator[dict[str, Any]]:
        """All jobs, newest first."""
        query = {"limit": "200", **({"state": state} if state else {})}
        while True:
            page = self._json("GET", f"/v1/jobs?{urlencode(query)}")
            yield from page["jobs"]
            if page["next"] is None:
                return
            query["cursor"] = page["next"]

    def events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, data) of everything that happens to a job until it ends; a lost connection is taken up again."""
        last, failures = "", 0
        while True:
            try:
                for number, name, data in self._stream(job_id, last):
                    last, failures = number or last, 0
                    yield name, data
                    if name in FINISHED:
                        return
                if self.job(job_id)["state"] in FINISHED:
                    return
            except (OSError, http.client.HTTPException):
                failures += 1
                if failures > 5:
                    raise
                time.sleep(min(8.0, 0.5 * 2**failures))

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended."""
        for name, data in self.events(job_id):
            if name in FINISHED:
                return data
        return self.job(job_id)

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a live job; cancelling it again changes nothing."""
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def delete(self, job_id: str) -> None:
        """Delete a finished job with its files (a live one is cancelled instead)."""
        self._request("DELETE", f"/v1/jobs/{job_id}")

    def download(self, job_id: str, path: str | Path) -> Path:
        """Write the asset to a file whose suffix chooses the format; the file appears whole or not at all."""
        path = Path(path)
        suffix = "obj.zip" if path.name.endswith(".obj.zip") else path.suffix[1:].lower()
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        connection, answer = self._open("GET", f"/v1/jobs/{job_id}/asset.{suffix}")
        try:
            with partial.open("wb") as file:
                while data := answer.read(_CHUNK):
                    file.write(data)
            partial.replace(path)
        finally:
            connection.close()
            partial.unlink(missing_ok=True)
        return path

    def models(self) -> dict[str, Any]:
        """Systems with their settings, and weights with their licences."""
        return self._json("GET", "/v1/models")

    def _stream(self, job_id: str, last: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(id, name, data) of server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        connection, answer = self._open("GET", f"/v1/jobs/{job_id}/events", headers=headers)
        fields: dict[str, str] = {}
        try:
            for raw in answer:
                line = raw.decode("utf-8").rstrip("\r\n")
                name, _, value = line.partition(":")
                if line and name:
                    fields[name] = value.removeprefix(" ")
                elif not line and "data" in fields:
                    yield fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
                    fields = {}
        finally:
            connection.close()

    def _json(
        self, method: str, path: str, body: Any = None, kind: str = "", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return json.loads(
            self._request(method, path, body, {**(headers or {}), **({"Content-Type": kind} if kind else {})})
        )

    def _request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
        connection, answer = self._open(method, path, body, headers)
        try:
            return answer.read()
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A connection and its answer; raises ServerError for a refusal."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, self._root + path, body, {**self._headers, **(headers or {})})
            answer = connection.getresponse()
            if answer.status < 400:
                return connection, answer
            raw = answer.read(100_000)
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        connection.close()
        wait = answer.headers.get("Retry-After", "0")
        raise ServerError(answer.status, _problem(raw), int(wait) if wait.isdigit() else 0)


def _problem(raw: bytes) -> dict[str, Any]:
    """The problem in an answer; empty where something else than anyform answered."""
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _form(boundary: str, prompt: Mapping[str, Any], files: Mapping[str, str | Path]) -> bytes:
    """multipart/form-data (RFC 7578) of the prompt and the files; of a name only the suffix is sent."""
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{json.dumps(prompt)}\r\n'.encode()]
    for field, path in files.items():
        name = f"{field}{Path(path).suffix.lower()}"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        parts += [head.encode(), Path(path).read_bytes(), b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])
