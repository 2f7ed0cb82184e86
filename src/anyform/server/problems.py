"""Refusals as RFC 9457 problem JSON: one sentence, a hint, a code for programs, the field where one is to blame."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from anyform.errors import AnyformError

MEDIA_TYPE = "application/problem+json"
_HINTS = {
    "bad_input": "correct the request and send it again",
    "bad_setting": "correct the setting and send it again",
    "too_large": "send a smaller one; GET v1/limits says how large",
    "unsupported_media": "GET v1/limits says which kinds are read",
    "queue_full": "wait as long as Retry-After says and send it again",
    "not_found": "GET v1/jobs lists what there is",
    "conflict": "ask for the state of the job first",
    "unauthorized": "send the header Authorization: Bearer TOKEN, or sign in on the page",
    "forbidden": "call from the server's own page, or without an Origin header",
    "storage_full": "whoever runs this server has to make room on its disk",
    "timeout": "send it again over a faster connection",
    "internal": "please report it",
}


class Problem(AnyformError):
    """An answer other than what was asked for. retry_after: seconds, for 429 and 503."""

    def __init__(self, status: int, code: str, detail: str, *, field: str = "", retry_after: int = 0) -> None:
        super().__init__(detail)
        self.status, self.code, self.field, self.retry_after = status, code, field, retry_after


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of a refusal."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer(problem: Problem) -> Answer:
    """The problem as HTTP."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": str(problem)[:1000],
        "hint": _HINTS.get(problem.code, ""),
        "code": problem.code,
    }
    if problem.field:
        body["field"] = problem.field
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
    if problem.retry_after:
        headers["retry-after"] = str(problem.retry_after)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Answer(problem.status, headers, json.dumps(body).encode())
