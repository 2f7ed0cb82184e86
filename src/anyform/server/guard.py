"""What stands before every route: hosts, origins, tokens, sizes, deadlines, and the headers of every answer.

A page on another site can make a browser send requests to a local server (CSRF, DNS rebinding), so being on loopback
is no protection by itself: the Host has to be one of ours, and every method but GET, HEAD and OPTIONS is refused when
a browser says that it comes from elsewhere. ASGI: https://asgi.readthedocs.io
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from anyform.cli.terminal import clean
from anyform.server.problems import Answer, Problem, answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
COOKIE = "anyform_session"
OPEN_ROUTES = frozenset({"/v1/health", "/v1/ready", "/v1/session"})  # of /v1/, without a token
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32_768
PATIENCE = 30.0  # seconds that a body may take …
BYTES_PER_SECOND = 16_384  # … and a second more for each of these many bytes that came
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self' blob:; font-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=(), usb=(), payment=()"),
)
log = logging.getLogger("anyform.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """hosts: names a Host header may have, without a port. root_path: the sub-path behind a proxy, "" or "/x"."""

    hosts: tuple[str, ...] = LOOPBACK
    token: str = ""
    root_path: str = ""
    max_body: int = 300 << 20

    @property
    def session(self) -> str:
        """The value of the page's cookie: proves that its holder knew the token, without being it."""
        return hmac.new(self.token.encode(), b"anyform session", hashlib.sha256).hexdigest()


class Guard:
    """The ASGI application around the routes. description: the OpenAPI document of those."""

    def __init__(self, app: App, rules: Rules, description: dict[str, Any]) -> None:
        self._app, self._rules, self.description = app, rules, description

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or let the request through with a bounded body and the headers every answer has."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ours = {name for name, _ in HEADERS}
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in ours]
                message = {**message, "headers": [*kept, *HEADERS]}
            await send(message)

        scope = self._placed(scope)
        try:
            self._check(scope)
            await self._app(scope, _Body(receive, self._rules.max_body), tell)
        except Problem as problem:
            if status == 0:
                await _reply(answer(problem), tell)
        finally:
            took = (time.monotonic() - start) * 1000
            path = clean(scope["path"], 200)  # never the query, which could hold anything
            log.info("%s %s %d %.0f ms", clean(scope["method"], 20), path, status, took)

    def _placed(self, scope: Scope) -> Scope:
        """The scope under our sub-path, whether or not the proxy took it off."""
        root, path = self._rules.root_path, scope["path"]
        if root and path != root and not path.startswith(root + "/"):
            path = root + path
        return {**scope, "path": path, "root_path": root}

    def _check(self, scope: Scope) -> None:
        """Raise Problem for what is refused before any route is looked at."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        named = dict(headers)
        size = sum(len(name) + len(value) for name, value in headers)
        if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
            limit = f"at most {MAX_HEADERS} of {MAX_HEADER_BYTES} bytes together are read"
            raise Problem(431, "bad_input", f"there are {len(headers)} headers of {size} bytes: {limit}")
        if "transfer-encoding" in named and "content-length" in named:
            raise Problem(400, "bad_input", "a body has either a length or a transfer encoding")
        host = [value for name, value in headers if name == "host"]
        if len(host) != 1 or _bare(host[0]) not in self._rules.hosts:
            raise Problem(421, "forbidden", "this server does not answer to that host name: see --allowed-host")
        if named.get("upgrade", "").lower() == "websocket":
            raise Problem(426, "bad_input", "there is no web socket here: events come by GET v1/jobs/ID/events")
        if named.get("content-encoding", "identity").lower() != "identity":
            raise Problem(415, "unsupported_media", "the body is sent as it is, without Content-Encoding")
        length = named.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > self._rules.max_body:
            raise Problem(413, "too_large", f"the body has more than {self._rules.max_body} bytes")
        if scope["method"] not in SAFE:
            _check_origin(named, host[0])
        self._check_token(scope, named)

    def _check_token(self, scope: Scope, headers: dict[str, str]) -> None:
        path, rules = scope["path"].removeprefix(self._rules.root_path), self._rules
        if not rules.token or not path.startswith("/v1/") or path in OPEN_ROUTES:
            return
        asked = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if any(name.lower() in {"token", "access_token"} for name, _ in asked):
            raise Problem(401, "unauthorized", "a token in the address would end up in logs: send it as a header")
        if not is_authorized(headers, rules):
            raise Problem(401, "unauthorized", "this server asks for its token")


def is_authorized(headers: MutableMapping[str, str] | dict[str, str], rules: Rules) -> bool:
    """Whether the bearer token or the session cookie is right, compared in constant time."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    by_token = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), rules.token.encode())
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        cookie = None
    by_cookie = cookie is not None and hmac.compare_digest(cookie.value.encode(), rules.session.encode())
    return not rules.token or by_token or by_cookie


def _check_origin(headers: dict[str, str], host: str) -> None:
    """A browser says where a request comes from: only our own page, or no page at all, may change anything."""
    site = headers.get("sec-fetch-site", "none").lower()
    if site not in {"same-origin", "none"}:
        raise Problem(403, "forbidden", "a page of another site may not do this")
    origin = headers.get("origin")
    if origin is None:
        return
    try:
        parts = urlsplit(origin)
    except ValueError:
        parts = urlsplit("")
    ports = {"http": ":80", "https": ":443"}
    if parts.scheme in ports:
        port = ports[parts.scheme]
        if parts.netloc.lower().removesuffix(port) == host.lower().removesuffix(port):
            return
    raise Problem(403, "forbidden", "a page of another site may not do this")


def _bare(host: str) -> str:
    """A Host header without its port, lower case; "" where it is none."""
    name, colon, port = host.strip().lower().rpartition(":")
    if colon and port.isdigit() and not name.endswith(":"):
        return name
    return host.strip().lower()


class _Body:
    """A `receive` that ends a body too long or too slow."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._start, self._came, self._whole = time.monotonic(), 0, False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        left = self._start + PATIENCE + self._came / BYTES_PER_SECOND - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except TimeoutError as error:
            raise Problem(408, "timeout", "the body came too slowly") from error
        self._came += len(message.get("body", b""))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        if self._came > self._most:
            raise Problem(413, "too_large", f"the body has more than {self._most} bytes")
        return message


async def _reply(reply: Answer, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    headers += [(b"content-length", str(len(reply.body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
