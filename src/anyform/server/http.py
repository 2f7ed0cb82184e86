"""The routes, in FastAPI. Everything they decide lies in the other files; this one is the adapter to the framework.

FastAPI, Starlette and sse-starlette are the extra `serve`: they are imported where the application is made. Parameters
are annotated with built-in types only, so that the framework can read them; a handler's `request` comes by `Depends`.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from anyform import __version__
from anyform.errors import MissingDependency
from anyform.server import store as states
from anyform.server.answers import add_failures, answers
from anyform.server.files import MEDIA_TYPES, open_inside
from anyform.server.guard import COOKIE, Guard, Rules, is_authorized
from anyform.server.jobs import QueueFull, Service, stage
from anyform.server.presentation import job_json, limits_json, models_json, ready_json
from anyform.server.problems import Problem
from anyform.server.prompts import check_request
from anyform.server.reading import AT_ONCE, read_files
from anyform.server.schema import COMPONENTS, content, responses
from anyform.server.store import FINISHED, STATES, Job, is_id
from anyform.server.uploads import receive, strict_json
from anyform.server.worker import LIVE_PREVIEW, OUT

STATIC = Path(__file__).parent / "static"
PING = 15  # seconds between comments that keep an event stream alive
LOOK_AGAIN = 2.0  # seconds after which a stream looks at the queue position
_JOB = {"description": "the job", **content("Job")}
_OBJECT = {"description": "as said in docs/serve.md", "content": {"application/json": {"schema": {"type": "object"}}}}


def create_app(service: Service, rules: Rules) -> Guard:
    """The whole application: the routes inside the guard. Raises MissingDependency without the extra `serve`."""
    try:
        import fastapi
        import fastapi.concurrency
        from fastapi.openapi.utils import get_openapi
        from fastapi.routing import APIRouter
        from sse_starlette import EventSourceResponse
    except ImportError as error:
        raise MissingDependency(error.name or "fastapi", extra="serve") from error

    app = fastapi.FastAPI(title="anyform", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    request = fastapi.Depends(_request_of(fastapi.Request))
    tools = _Tools(service, rules, fastapi.concurrency.run_in_threadpool, answers(), request)
    router = APIRouter(default_response_class=fastapi.responses.JSONResponse)
    _add_submission(router, tools, fastapi)
    _add_jobs(router, tools, fastapi)
    _add_changes(router, tools)
    _add_events(router, tools, EventSourceResponse)
    _add_files(router, tools)
    _add_facts(router, tools)
    _add_session(router, tools)
    app.include_router(router)
    schema = get_openapi(title="anyform", version="1", description=_ABOUT, routes=app.routes)
    schema.setdefault("components", {})["schemas"] = COMPONENTS
    _add_page(app, tools, schema)
    add_failures(app, fastapi.exceptions.RequestValidationError)
    return Guard(app, rules, schema)


_ABOUT = "A prompt of any modality in, a checked 3D asset out. docs/serve.md explains every route."


class _Tools:
    """What the groups of routes share."""

    def __init__(self, service: Service, rules: Rules, in_thread: Any, answers: Any, request: Any) -> None:
        self.service, self.rules, self.in_thread, self.request = service, rules, in_thread, request
        self.json, self.empty, self.file = answers

    def job(self, job_id: str) -> Job:
        """The job of that id. Raises Problem 404 with the same words for every id that is none."""
        found = self.service.store.get(job_id) if is_id(job_id) else None
        if found is None:
            raise Problem(404, "not_found", "there is no such job")
        return found

    def show(self, job: Job, status: int = 200) -> Any:
        """The job as a response."""
        shown = job_json(self.service, job, self.rules.root_path)
        return self.json(shown, status, {"location": shown["links"]["self"]} if status == 202 else {})


def _request_of(kind: type) -> Any:
    """A dependency that hands a handler its request."""

    def request_of(request: Any) -> Any:
        return request

    request_of.__annotations__ = {"request": kind}
    return request_of


def _add_submission(router: Any, tools: _Tools, fastapi: Any) -> None:
    """Submit."""
    service, in_thread = tools.service, tools.in_thread
    reading = asyncio.Semaphore(AT_ONCE)
    key_header = fastapi.Header(default=None, alias="Idempotency-Key", max_length=200)
    body = {"content": {**content("Prompt")["content"], **content("Form", "multipart/form-data")["content"]}}

    @router.post(
        "/v1/jobs", response_model=None, status_code=202, openapi_extra={"requestBody": {"required": True, **body}},
        responses=responses({202: {**_JOB, "description": "queued"}, 200: _JOB}),
    )  # fmt: skip
    async def submit(request: Any = tools.request, key: str | None = key_header) -> Any:
        """Queue a job: JSON, or a form with the field `prompt` and files."""
        if await in_thread(service.store.count, states.QUEUED) >= service.settings.max_queue:
            raise QueueFull(service.settings.max_queue, service.patience())
        job, folder = stage(service)
        try:
            upload = await receive(request.headers.get("content-type", ""), request.stream(), folder)
            checked = check_request(upload.prompt, tuple(upload.files))
            if "job" in checked:
                await in_thread(_take_asset, tools, checked["job"], folder)
            if upload.files:
                async with reading:
                    checked["notes"] = await in_thread(read_files, upload.files, folder)
                for path in upload.files.values():
                    path.unlink()
            found, is_new = await in_thread(service.submit, job, checked, key, upload.digest)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return await in_thread(tools.show, found, 202 if is_new else 200)


def _add_jobs(router: Any, tools: _Tools, fastapi: Any) -> None:
    """List, look."""
    service = tools.service
    limit_query = fastapi.Query(default=50, ge=1, le=200)
    state_query = fastapi.Query(default=None, json_schema_extra={"enum": list(STATES)})

    @router.get(
        "/v1/jobs", response_model=None, responses=responses({200: {"description": "newest first", **content("Jobs")}})
    )
    def list_jobs(state: str | None = state_query, limit: int = limit_query, cursor: str | None = None) -> Any:
        """The jobs, newest first; `next` is the cursor of the page after this one."""
        if state is not None and state not in STATES:
            raise Problem(422, "bad_input", f"the states are {', '.join(STATES)}", field="state")
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise Problem(422, "bad_input", "that is no cursor of ours", field="cursor")
        found = service.store.list(state, limit + 1, None if cursor is None else int(cursor))
        shown = [job_json(service, job, tools.rules.root_path) for job in found[:limit]]
        after = str(found[limit - 1].number) if len(found) > limit else None
        return tools.json({"jobs": shown, "next": after, "counts": service.store.counts()})

    @router.get("/v1/jobs/{job_id}", response_model=None, responses=responses({200: _JOB}))
    def show_job(job_id: str) -> Any:
        """One job."""
        return tools.show(tools.job(job_id))


def _add_changes(router: Any, tools: _Tools) -> None:
    """Cancel, delete."""
    service = tools.service

    @router.post("/v1/jobs/{job_id}/cancel", response_model=None, responses=responses({200: _JOB}))
    def cancel_job(job_id: str) -> Any:
        """Cancel a live job; 409 for one that has ended otherwise."""
        if tools.job(job_id).state in (states.DONE, states.FAILED):
            raise Problem(409, "conflict", "the job has ended already")
        return tools.show(service.cancel(job_id) or tools.job(job_id))

    @router.delete(
        "/v1/jobs/{job_id}",
        response_model=None,
        responses=responses({200: _JOB, 204: {"description": "a finished job is deleted"}}),
    )
    def delete_job(job_id: str) -> Any:
        """Cancel a live job (200), delete a finished one with its files (204)."""
        if is_id(job_id) and service.store.was_deleted(job_id):
            return tools.empty(204)
        job = tools.job(job_id)
        if job.state in FINISHED:
            service.delete(job_id)
            return tools.empty(204)
        return tools.show(service.cancel(job_id) or job)


def _add_events(router: Any, tools: _Tools, event_stream: Any) -> None:
    """Follow."""
    service, in_thread = tools.service, tools.in_thread
    stream = {"description": "server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}

    @router.get(
        "/v1/jobs/{job_id}/events",
        response_model=None,
        responses=responses({200: stream, 204: {"description": "all were read"}}),
    )
    async def follow(job_id: str, request: Any = tools.request) -> Any:
        """What happens to a job, from the event after Last-Event-ID on, to its end."""
        job = await in_thread(tools.job, job_id)
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0
        if job.state in FINISHED and not await in_thread(service.store.events, job_id, after):
            return tools.empty(204)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return event_stream(_events(tools, job_id, after), headers=headers, ping=PING)


async def _events(tools: _Tools, job_id: str, after: int) -> AsyncIterator[dict[str, str]]:
    """Server-sent events of a job until its last one."""
    service, changed, loop = tools.service, asyncio.Event(), asyncio.get_running_loop()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(changed.set)

    end, position = service.listen(job_id, wake), None
    try:
        while True:
            changed.clear()
            for event in await tools.in_thread(service.store.events, job_id, after):
                after = event.id
                job = await tools.in_thread(service.store.get, job_id)
                if event.name in FINISHED and job is not None:
                    whole = await tools.in_thread(job_json, service, job, tools.rules.root_path)
                    yield {"id": str(event.id), "event": event.name, "data": json.dumps(whole)}
                    return
                position = event.data.get("position", position)
                yield {"id": str(event.id), "event": event.name, "data": json.dumps(event.data)}
            job = await tools.in_thread(service.store.get, job_id)
            if job is None:
                return
            now = await tools.in_thread(service.store.position, job)
            if now is not None and now != position:
                position = now
                yield {"event": "position", "data": json.dumps({"position": now})}
            try:
                await asyncio.wait_for(changed.wait(), LOOK_AGAIN)
            except TimeoutError:
                continue
    finally:
        end()


def _take_asset(tools: _Tools, job_id: str, folder: Path) -> None:
    """Copy the asset of a finished job into a new one that refines it. Raises Problem."""
    found = tools.service.store.get(job_id) if is_id(job_id) else None
    opened = open_inside(tools.service.jobs, job_id, OUT, "asset.glb") if found is not None else None
    if opened is None:
        raise Problem(422, "bad_input", "there is no finished job of that id to refine", field="prompt.job")
    with os.fdopen(opened.descriptor, "rb") as source, (folder / "asset.glb").open("xb") as target:
        shutil.copyfileobj(source, target)


def _add_files(router: Any, tools: _Tools) -> None:
    """Assets in every format, previews, provenance."""
    root = tools.service.jobs
    binary = {"schema": {"type": "string", "format": "binary"}}

    def documented(media: str) -> dict[int | str, dict[str, Any]]:
        whole = {"description": "the file", "content": {media: binary}}
        return responses({200: whole, 206: {**whole, "description": "a range of it"}, 304: {"description": "the same"}})

    def send(job: Job, name: str, suffix: str, etag: str, request: Any, *path: str) -> Any:
        opened = open_inside(root, job.id, *path)
        if opened is None:
            raise Problem(404, "not_found", "the job has no such file")
        headers = {"etag": f'"{etag or f"{opened.changed:x}-{opened.size:x}"}"', "content-type": MEDIA_TYPES[suffix]}
        headers["cache-control"] = "private, no-cache"
        if name:
            headers["content-disposition"] = f'attachment; filename="{name}"'
        return tools.file(opened, headers, request)

    def add_asset(suffix: str) -> None:
        def asset(job_id: str, request: Any = tools.request) -> Any:
            job = tools.job(job_id)
            row = (job.result or {}).get("formats", {}).get(suffix)
            if row is None:
                raise Problem(404, "not_found", "the job has no such file (yet)")
            name = f"anyform-{job.id[:10]}-{job.request.get('seed', 0)}.{suffix}"
            return send(job, name, suffix, row["sha256"], request, OUT, f"asset.{suffix}")

        asset.__doc__ = f"The asset of a finished job as {suffix.upper()}."
        found = documented(MEDIA_TYPES[suffix])
        name = f"asset_{suffix.replace('.', '_')}"
        router.get(f"/v1/jobs/{{job_id}}/asset.{suffix}", response_model=None, responses=found, name=name)(asset)

    for each in ("glb", "obj", "obj.zip", "ply", "stl", "3mf", "usdz"):
        add_asset(each)

    @router.get("/v1/jobs/{job_id}/preview.webp", response_model=None, responses=documented("image/webp"))
    def preview(job_id: str, request: Any = tools.request) -> Any:
        """The newest live preview of a running job, four sides of a finished one."""
        job = tools.job(job_id)
        path = (OUT, "preview.webp") if job.state == states.DONE else (LIVE_PREVIEW,)
        return send(job, "", "webp", "", request, *path)

    @router.get("/v1/jobs/{job_id}/provenance.json", response_model=None, responses=documented("application/json"))
    def provenance(job_id: str, request: Any = tools.request) -> Any:
        """How a finished asset was made, and on what machine."""
        return send(tools.job(job_id), "", "json", "", request, OUT, "provenance.json")


def _add_facts(router: Any, tools: _Tools) -> None:
    """Models, limits, health."""
    service = tools.service

    @router.get("/v1/models", response_model=None, responses=responses({200: _OBJECT}))
    def models() -> Any:
        """The systems with their settings, and every set of weights with its licence."""
        return tools.json(models_json())

    @router.get("/v1/limits", response_model=None, responses=responses({200: _OBJECT}))
    def limits() -> Any:
        """How much and what may be sent."""
        return tools.json(limits_json(service))

    @router.get("/v1/health", response_model=None, responses=responses({200: _OBJECT}))
    async def health() -> Any:
        """The server lives; looks at nothing."""
        return tools.json({"status": "ok", "version": __version__})

    waiting = {**_OBJECT, "description": "no worker has started yet"}

    @router.get("/v1/ready", response_model=None, responses=responses({200: _OBJECT, 503: waiting}))
    def ready() -> Any:
        """Whether a worker has started (503 until then)."""
        found = ready_json(service)
        return tools.json(found, 200 if found["ready"] else 503)


def _add_session(router: Any, tools: _Tools) -> None:
    """Is a token needed; sign in; sign out."""
    rules = tools.rules
    token = {"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]}
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": token}}}}

    @router.get("/v1/session", response_model=None, responses=responses({200: _OBJECT}))
    async def session(request: Any = tools.request) -> Any:
        """Whether a token is needed, and whether this client has shown it."""
        return tools.json({"required": bool(rules.token), "authorized": is_authorized(dict(request.headers), rules)})

    @router.post(
        "/v1/session",
        response_model=None,
        status_code=204,
        openapi_extra=body,
        responses=responses({204: {"description": "in"}}),
    )
    async def sign_in(request: Any = tools.request) -> Any:
        """Exchange the token for a cookie that scripts cannot read."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Problem(415, "unsupported_media", "a token is sent as application/json")
        given = strict_json((await request.body())[:10_000])
        word = given.get("token") if isinstance(given, dict) else None
        if not isinstance(word, str):
            raise Problem(422, "bad_input", 'send {"token": …}', field="token")
        if not is_authorized({"authorization": f"Bearer {word}"}, rules):
            raise Problem(401, "unauthorized", "that is not the token")
        secure = "; Secure" if request.url.scheme == "https" else ""
        place = f"Path={rules.root_path or '/'}; HttpOnly; SameSite=Strict{secure}"
        return tools.empty(204, {"set-cookie": f"{COOKIE}={rules.session}; {place}"})

    @router.delete(
        "/v1/session", response_model=None, status_code=204, responses=responses({204: {"description": "out"}})
    )
    async def sign_out() -> Any:
        """Forget the cookie."""
        gone = f"{COOKIE}=; Path={rules.root_path or '/'}; HttpOnly; SameSite=Strict; Max-Age=0"
        return tools.empty(204, {"set-cookie": gone})


def _add_page(app: Any, tools: _Tools, schema: dict[str, Any]) -> None:
    """openapi.json, and the files of static/ by the names found there at the start: no path of a client is opened."""
    found = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}

    @app.get("/openapi.json", response_model=None, include_in_schema=False)
    async def openapi() -> Any:
        return tools.json(schema)

    @app.get("/{name:path}", response_model=None, include_in_schema=False)
    def page(name: str, request: Any = tools.request) -> Any:
        path = found.get(name or "index.html")
        opened = None if path is None else open_inside(path.parent, path.name)
        if path is None or opened is None:
            raise Problem(404, "not_found", "there is no such page")
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        lasting = name.startswith("assets/")
        cache = "public, max-age=31536000, immutable" if lasting else "no-cache"
        etag = f'"{opened.changed:x}-{opened.size:x}"'
        charset = "; charset=utf-8" if kind.startswith("text/") or kind.endswith("javascript") else ""
        return tools.file(opened, {"etag": etag, "content-type": kind + charset, "cache-control": cache}, request)
