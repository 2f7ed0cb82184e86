"""What routes answer with: JSON, nothing, files with ranges, problems. The adapter to Starlette, the extra `serve`."""

from __future__ import annotations

import os
from typing import Any

from anyform.errors import AnyformError, BadInput
from anyform.server.files import Opened, Unsatisfiable, byte_range
from anyform.server.jobs import QueueFull
from anyform.server.problems import Problem, answer
from anyform.server.prompts import FILES, BadField
from anyform.server.reading import Unreadable
from anyform.server.store import KeyReused, StoreFull

_CHUNK = 1 << 18
_UNREADABLE = {"too_large": 413, "unsupported_media": 415, "missing_dependency": 415}


def answers() -> tuple[Any, Any, Any]:
    """(json(value, status, headers), empty(status, headers), file(opened, headers, request)): responses."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, Response

    class FileSend(Response):
        """Sends a part of an open file and closes it, whatever happens on the way."""

        def __init__(self, opened: Opened, part: tuple[int, int], status: int, headers: dict[str, str]) -> None:
            super().__init__(b"", status, headers)
            self.opened, self.part = opened, part
            self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
            self.raw_headers.append((b"content-length", str(part[1] - part[0]).encode()))

        async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
            at, end = self.part
            try:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                while at < end and scope["method"] != "HEAD":
                    read = (self.opened.descriptor, min(_CHUNK, end - at), at)
                    data = await run_in_threadpool(os.pread, *read)
                    if not data:
                        break
                    at += len(data)
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                os.close(self.opened.descriptor)

    def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
        return JSONResponse(value, status, {"cache-control": "no-store", **(headers or {})})

    def empty(status: int, headers: dict[str, str] | None = None) -> Any:
        return Response(None, status, headers)

    def file(opened: Opened, headers: dict[str, str], request: Any) -> Any:
        return _part(opened, headers, request, FileSend, empty)

    return as_json, empty, file


def _part(opened: Opened, headers: dict[str, str], request: Any, send: Any, empty: Any) -> Any:
    """The file, the part of it that was asked for (206), or word that it has not changed (304)."""
    headers = {"accept-ranges": "bytes", **headers}
    known = request.headers.get("if-none-match", "")
    if headers["etag"] in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
        os.close(opened.descriptor)
        return empty(304, headers)
    wanted = request.headers.get("range")
    if request.headers.get("if-range", headers["etag"]) != headers["etag"]:
        wanted = None
    try:
        part = byte_range(wanted, opened.size)
    except Unsatisfiable:
        os.close(opened.descriptor)
        return empty(416, {"content-range": f"bytes */{opened.size}"})
    if part is None:
        return send(opened, (0, opened.size), 200, headers)
    headers["content-range"] = f"bytes {part[0]}-{part[1] - 1}/{opened.size}"
    return send(opened, part, 206, headers)


def add_failures(app: Any, invalid_request: type[Exception]) -> None:
    """Every exception as problem JSON; nothing of a mistake of ours but that there was one."""
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.responses import Response

    def reply(_: Any, error: Exception) -> Any:
        told = answer(problem_of(error))
        return Response(told.body, told.status, told.headers)

    def routing(_: Any, error: Any) -> Any:
        code = {404: "not_found", 405: "bad_input"}.get(error.status_code, "bad_input")
        told = answer(Problem(error.status_code, code, {404: "there is no such page"}.get(error.status_code, "no")))
        return Response(told.body, told.status, {**told.headers, **(error.headers or {})})

    def invalid(_: Any, error: Any) -> Any:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])[:80]
        told = answer(Problem(422, "bad_input", f"{place}: {str(first['msg'])[:200]}", field=place))
        return Response(told.body, told.status, told.headers)

    def gone(_: Any, _error: Exception) -> Any:
        return Response(None, 400)

    app.add_exception_handler(AnyformError, reply)
    app.add_exception_handler(HTTPException, routing)
    app.add_exception_handler(invalid_request, invalid)
    app.add_exception_handler(ClientDisconnect, gone)


def problem_of(error: Exception) -> Problem:
    """An error of anyform as the API tells it."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, QueueFull):
        return Problem(429, "queue_full", str(error), retry_after=error.seconds)
    if isinstance(error, StoreFull):
        return Problem(503, "storage_full", str(error), retry_after=60)
    if isinstance(error, KeyReused):
        return Problem(409, "conflict", str(error))
    if isinstance(error, BadField):
        return Problem(422, "bad_setting" if "settings" in error.field else "bad_input", str(error), field=error.field)
    if isinstance(error, Unreadable):
        code = "unsupported_media" if error.code == "missing_dependency" else error.code
        return Problem(_UNREADABLE.get(error.code, 422), code, str(error), field=_blamed(str(error)))
    if isinstance(error, BadInput):
        return Problem(422, "bad_input", str(error))
    return Problem(500, "internal", "a mistake of ours")


def _blamed(message: str) -> str:
    """The file field that a reader's sentence names, such as 'image.png'."""
    return next((name for name in FILES if message.startswith(name) or f"'{name}." in message), "")
