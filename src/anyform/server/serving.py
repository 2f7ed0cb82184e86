"""`anyform serve` at work: one process with the API, its workers, and an orderly end. The adapter to uvicorn."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from anyform.cli.terminal import clean
from anyform.errors import BadInput, Interrupted, MissingDependency
from anyform.server.guard import LOOPBACK, MAX_HEADER_BYTES, Rules, log
from anyform.server.http import create_app
from anyform.server.jobs import Service, Settings

HEADER_SECONDS = 20.0  # a connection that has not sent a whole request by then is closed
KEEP_ALIVE = 10  # seconds that an idle connection stays
BACKLOG = 512  # connections that wait to be taken
# Routes run in threads that take turns at one interpreter: few of them and short turns keep the event loop answering.
THREADS, SWITCH_SECONDS = 8, 0.0005
STOP_SECONDS = 5  # that open answers get to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen, and under which names and sub-path; token: "" only on loopback."""

    host: str = "127.0.0.1"
    port: int = 7860
    token: str = ""
    allowed_hosts: tuple[str, ...] = ()
    root_path: str = ""


def check_address(address: Address) -> None:
    """Raises BadInput for an address that others could reach without a token, and for a malformed one."""
    if not 0 <= address.port <= 65535:
        raise BadInput(f"the port lies between 0 and 65535, got {address.port}")
    if address.root_path and not address.root_path.startswith("/"):
        raise BadInput("the sub-path begins with a slash, such as /anyform")
    if address.token and len(address.token) < 8:
        raise BadInput("the token has under 8 characters: choose a longer one, e.g. from `openssl rand -hex 16`")
    if address.token and not address.token.isascii():
        raise BadInput("the token has characters that a header cannot carry: use letters and digits")
    if not address.token and not _is_loopback(address.host):
        raise BadInput(
            f"{clean(address.host, 60)!r} can be reached from other machines: give --token (or ANYFORM_TOKEN), "
            "or stay on 127.0.0.1"
        )


def serve(settings: Settings, address: Address, ready: Callable[[str], None]) -> int:
    """Serve until a signal. `ready(url)` is called once the port is open. Returns 0; raises Interrupted where a job
    was broken off (it goes on at the next start), BadInput where the port or the data folder is taken."""
    check_address(address)
    with closing(_listen(address)) as listener:
        service = Service(settings)
        rules = _rules(settings, address)
        _log_to_stderr()
        server = http_server(service, rules)
        service.start()
        try:
            port, name = listener.getsockname()[1], address.host
            shown = (
                "127.0.0.1" if name == "0.0.0.0" else "[::1]" if name == "::" else f"[{name}]" if ":" in name else name
            )
            ready(f"http://{shown}:{port}{rules.root_path}/")
            server.run([listener])
        except KeyboardInterrupt:  # uvicorn has ended in order and passes the signal on
            log.info("stopping")
        finally:
            interrupted = service.stop()
    if interrupted:
        raise Interrupted("stopped while a job ran; it goes on when the server starts again")
    return 0


def http_server(service: Service, rules: Rules) -> Any:
    """The uvicorn server of a service, not running yet. Raises MissingDependency without the extra `serve`."""
    try:
        import uvicorn
        from anyio.to_thread import current_default_thread_limiter
    except ImportError as error:
        raise MissingDependency("uvicorn", extra="serve") from error

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            current_default_thread_limiter().total_tokens = THREADS
            await super().startup(sockets)

    sys.setswitchinterval(SWITCH_SECONDS)
    config = uvicorn.Config(
        create_app(service, rules), http=_protocol(), ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE, backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES, timeout_graceful_shutdown=STOP_SECONDS,
    )  # fmt: skip
    return Server(config)


def _rules(settings: Settings, address: Address) -> Rules:
    """What the guard goes by. An address that stands for all of this machine's is no host name."""
    own = () if address.host in {"0.0.0.0", "::"} else (f"[{address.host}]" if ":" in address.host else address.host,)
    return Rules(
        hosts=tuple(host.lower() for host in (*LOOPBACK, *own, *address.allowed_hosts)),
        token=address.token,
        root_path=address.root_path.rstrip("/"),
        max_body=settings.max_upload + (1 << 20),  # the form around the files
    )


def _listen(address: Address) -> socket.socket:
    """The bound socket; BadInput where the port is taken or the address is not of this machine."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)  # from here on a client waits instead of being refused
    except OSError as error:
        listener.close()
        raise BadInput(
            f"port {address.port} of {clean(address.host, 60)} cannot be used ({error.strerror}): give another --port, "
            "or --port 0 for any free one"
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _protocol() -> Any:
    """uvicorn's HTTP/1.1, closing connections that do not send a request in time (slow headers, idle sockets)."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Timed(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._close_if_silent)

        def connection_lost(self, exc: Exception | None) -> None:
            self._deadline.cancel()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._deadline.cancel()
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._close_if_silent)

        def _close_if_silent(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Timed


def _log_to_stderr() -> None:
    """Requests and warnings, one clean line each, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("anyform.server", logging.INFO), ("uvicorn.error", logging.CRITICAL)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


class _OneLine(logging.Formatter):
    """A record on one line: no control characters, no traceback (which could name paths), at most 500 characters."""

    def format(self, record: logging.LogRecord) -> str:
        record.exc_info = record.exc_text = record.stack_info = None
        return clean(super().format(record), 500)
