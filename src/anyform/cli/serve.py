"""`anyform serve`: the page and the REST API over durable jobs, on loopback unless a token guards it."""

from __future__ import annotations

import argparse
import os
import webbrowser

from anyform.cli.terminal import say
from anyform.errors import BadInput, BadSetting

_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9}


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    verb.add_argument("--open", action="store_true", help="open the page in the browser")
    verb.add_argument("--host", default="127.0.0.1", help="address to listen on; any but loopback needs a token")
    verb.add_argument("--port", type=int, default=7860, help="default 7860; 0 = any free one")
    verb.add_argument("--token", metavar="T", help="ask every client for it (better: ANYFORM_TOKEN)")
    verb.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help="a host name clients may use")
    verb.add_argument("--root-path", default="", metavar="/PATH", help="sub-path behind a reverse proxy")
    verb.add_argument("--workers", type=int, metavar="N", help="processes that work; default one a device")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; commas for several")
    verb.add_argument("--max-queue", type=int, default=500, metavar="N", help="jobs that may wait (default 500)")
    verb.add_argument("--keep", type=int, default=1000, metavar="N", help="finished jobs to keep (default 1000)")
    verb.add_argument("--max-upload", default="256MB", metavar="SIZE", help="of one submission (default 256MB)")


def run(arguments: argparse.Namespace) -> int:
    """The verb: serves until stopped. Returns 0; raises BadInput, MissingDependency, Interrupted."""
    from anyform.device import home
    from anyform.server.jobs import Settings
    from anyform.server.serving import Address, check_address, serve

    token = arguments.token if arguments.token is not None else os.environ.get("ANYFORM_TOKEN", "")
    address = Address(
        host=arguments.host,
        port=arguments.port,
        token=token,
        allowed_hosts=tuple(arguments.allowed_host),
        root_path=arguments.root_path,
    )
    check_address(address)
    settings = Settings(
        home=home(),
        devices=_devices(arguments.device, arguments.workers),
        max_queue=_positive(arguments.max_queue, "--max-queue"),
        keep=_positive(arguments.keep, "--keep"),
        max_upload=parse_bytes(arguments.max_upload),
    )

    def ready(url: str) -> None:
        say(f"anyform: serving on {url}" + ("  (a token is asked for)" if token else ""))
        if arguments.open:
            webbrowser.open(url)

    return serve(settings, address, ready)


def parse_bytes(text: str) -> int:
    """ "500kB", "256MB", "1GB" -> bytes, between 1 kB and 10 GB. Raises BadSetting."""
    number, unit = text.strip().lower()[:-2], text.strip().lower()[-2:]
    if unit not in _UNITS or not number.strip().isascii() or not number.strip().isdigit():
        raise BadSetting(f"{text[:40]!r} is no size: write a whole number and kB, MB or GB, such as 256MB")
    size = int(number) * _UNITS[unit]
    if not 1000 <= size <= 10**10:
        raise BadSetting(f"a size lies between 1kB and 10GB, got {text[:40]!r}")
    return size


def _devices(named: str, workers: int | None) -> tuple[str, ...]:
    """One device a worker: those named, in turn, for as many workers as asked for."""
    devices = [device.strip() for device in named.split(",") if device.strip()]
    count = len(devices) if workers is None else workers
    if not devices or not 1 <= count <= 64:
        raise BadInput(f"there are between 1 and 64 workers, got {count}")
    return tuple(devices[i % len(devices)] for i in range(count))


def _positive(value: int, name: str) -> int:
    if value < 1:
        raise BadSetting(f"{name} is at least 1, got {value}")
    return value
