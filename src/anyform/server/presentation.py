"""Jobs, models and limits as the API shows them."""

from __future__ import annotations

import datetime
import importlib.util
from typing import Any

from anyform import api
from anyform.server import store as states
from anyform.server.jobs import Service
from anyform.server.prompts import FILES, KINDS
from anyform.server.store import Job
from anyform.types.prompt import MAX_TEXT

_PROGRESS = {"stage": "", "step": 0, "steps": 0, "eta_s": None, "message": "", "preview": 0}


def job_json(service: Service, job: Job, root: str) -> dict[str, Any]:
    """One job; links begin with the sub-path `root`."""
    is_finished = job.state in states.FINISHED
    hidden = {"kinds", "text"} if job.request.get("keep_prompt") is False else {"kinds"}
    return {
        "id": job.id,
        "state": job.state,
        "created": _time(job.created),
        "started": _time(job.started),
        "finished": _time(job.finished),
        "attempts": job.attempts,
        "position": service.store.position(job),
        **_PROGRESS,
        **(job.progress if not is_finished else {"preview": job.progress.get("preview", 0)}),
        "request": {key: value for key, value in job.request.items() if key not in hidden},
        "result": job.result,
        "error": job.error,
        "links": _links(job, root),
    }


def models_json() -> dict[str, Any]:
    """The systems with their settings, and every set of weights."""
    import dataclasses

    from anyform.cli.models import embedded_rows, released_rows
    from anyform.geometry.asset import Asset

    systems = []
    for name, entry in api.SYSTEMS.items():
        settings = entry.settings("standard")
        systems.append(
            {
                "name": name,
                "accepts": [kind for kind, its in KINDS.items() if its in entry.accepts],
                "refines": Asset in entry.accepts,
                "qualities": list(api.QUALITIES),
                "settings": [
                    {"name": one.name, "type": str(one.type), "default": _plain(getattr(settings, one.name))}
                    for one in dataclasses.fields(settings)
                ],
            }
        )
    optional = {"audio": "soundfile", "usdz": "pxr", "matting": "rembg", "h5df": "h5py"}
    found = {name: importlib.util.find_spec(package) is not None for name, package in optional.items()}
    return {"systems": systems, "models": embedded_rows() + released_rows(), "optional": found}


def limits_json(service: Service) -> dict[str, Any]:
    """What a client may send."""
    return {
        "max_upload_bytes": service.settings.max_upload,
        "max_queue": service.settings.max_queue,
        "max_text": MAX_TEXT,
        "keep": service.settings.keep,
        "formats": {name: [suffix[1:] for suffix in suffixes] for name, suffixes in FILES.items()},
    }


def ready_json(service: Service) -> dict[str, Any]:
    """Whether a job sent now would begin: a worker has started."""
    workers = service.crew.states()
    return {
        "ready": any(worker["state"] != "starting" for worker in workers),
        "workers": workers,
        "queued": service.store.count(states.QUEUED),
        "max_queue": service.settings.max_queue,
    }


def _links(job: Job, root: str) -> dict[str, Any]:
    here = f"{root}/v1/jobs/{job.id}"
    formats = (job.result or {}).get("formats", {})
    return {
        "self": here,
        "events": f"{here}/events",
        "cancel": f"{here}/cancel",
        "preview": f"{here}/preview.webp",
        "provenance": f"{here}/provenance.json",
        "asset": {name: f"{here}/asset.{name}" for name in formats},
    }


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
