"""The JSON of the API as JSON Schema, for `openapi.json`: https://json-schema.org/draft/2020-12/schema"""

from __future__ import annotations

from typing import Any

from anyform.api import MAX_SEED, QUALITIES
from anyform.server.prompts import FILES
from anyform.server.store import STATES
from anyform.types.prompt import MAX_TEXT

ID = {"type": "string", "pattern": "^[0-9a-z]{26}$", "description": "an id of ours"}
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}


def _maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _table(
    properties: dict[str, Any], *, required: tuple[str, ...] | None = None, more: bool = False
) -> dict[str, Any]:
    needed = list(properties) if required is None else list(required)
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": more}


PROMPT = {
    **_table(
        {
            "text": _maybe({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}),
            "job": _maybe({**ID, "description": "a finished job whose asset is the prompt, to be refined"}),
            "system": _maybe({"type": "string", "description": "absent = the fastest that accepts the prompt"}),
            "refine": _maybe({"type": "string", "description": "the system that continues from the asset"}),
            "quality": _maybe({"enum": list(QUALITIES)}),
            "seed": _maybe({"type": "integer", "minimum": 0, "maximum": MAX_SEED}),
            "settings": _maybe({"type": "object", "description": "settings of the system by dotted name"}),
            "faces": _maybe({"type": "integer", "minimum": 1}),
            "texture_size": _maybe(_COUNT),
            "size": _maybe({"type": "string", "description": "of the longest side: 80mm, 8cm, 0.5m, 3in"}),
            "print": _maybe({"type": "boolean", "description": "one closed body, flat on the plate"}),
            "background": _maybe({"enum": ["auto", "keep"]}),
            "keep_prompt": _maybe({"type": "boolean", "description": "false leaves the prompt out of the file"}),
        },
        required=(),
    ),
    "examples": [{"text": "a wooden chair", "quality": "draft", "seed": 7}],
}
FORM = _table(
    {
        "prompt": {"$ref": "#/components/schemas/Prompt"},
        **{name: {"type": "string", "format": "binary", "description": ", ".join(FILES[name])} for name in FILES},
    },
    required=(),
)
PROBLEM = _table(
    {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "hint": _TEXT,
        "code": _TEXT,
        "field": _TEXT,
    },
    required=("type", "title", "status", "detail", "hint", "code"),
)
RESULT = _table(
    {
        "system": _TEXT,
        "seed": _COUNT,
        "quality": _TEXT,
        "vertices": _COUNT,
        "faces": _COUNT,
        "size_mm": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
        "watertight": {"type": "boolean"},
        "bodies": _COUNT,
        "commercial_use": {"enum": ["yes", "no", "unknown"]},
        "reasons": {"type": "array", "items": _TEXT},
        "credits": {"type": "array", "items": _TEXT},
        "licences": {"type": "array", "items": _TEXT},
        "notes": {"type": "array", "items": _TEXT},
        "citations": {"type": "array", "items": _TEXT},
        "seconds": {"type": "number"},
        "formats": {
            "type": "object",
            "additionalProperties": _table(
                {"bytes": _COUNT, "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}
            ),
        },
    },
    more=True,
)
JOB = _table(
    {
        "id": ID,
        "state": {"enum": list(STATES)},
        "created": _TIME,
        "started": _maybe(_TIME),
        "finished": _maybe(_TIME),
        "attempts": _COUNT,
        "position": _maybe({**_COUNT, "description": "1 = the next to run; null unless queued"}),
        "stage": _TEXT,
        "step": _COUNT,
        "steps": {**_COUNT, "description": "0 = unknown"},
        "eta_s": _maybe({"type": "number"}),
        "message": _TEXT,
        "preview": {**_COUNT, "description": "number of the newest live preview, 0 = none yet"},
        "request": {"type": "object"},
        "result": _maybe({"$ref": "#/components/schemas/Result"}),
        "error": _maybe(_table({"code": _TEXT, "message": _TEXT, "hint": _TEXT})),
        "links": {"type": "object"},
    }
)
JOBS = _table(
    {
        "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}},
        "next": _maybe(_TEXT),
        "counts": {"type": "object", "additionalProperties": _COUNT},
    }
)
COMPONENTS = {"Prompt": PROMPT, "Form": FORM, "Problem": PROBLEM, "Result": RESULT, "Job": JOB, "Jobs": JOBS}


def content(name: str, media: str = "application/json") -> dict[str, Any]:
    """A response or request body that refers to one of COMPONENTS."""
    return {"content": {media: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def responses(success: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """What a route answers: its successes, and problems for everything else."""
    refused = {"description": "refused", **content("Problem", "application/problem+json")}
    unable = {"description": "not now: see Retry-After", **content("Problem", "application/problem+json")}
    return {**success, "4XX": refused, "5XX": unable}
