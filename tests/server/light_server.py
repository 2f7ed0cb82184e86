"""`anyform serve` with the light worker, as its own process: python light_server.py HOME PORT [WORKERS] [KEEP]."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from anyform import api, cli
from anyform.server import jobs, serving
from anyform.types.prompt import Image, Text

WORKER = Path(__file__).parent / "light_worker.py"


@dataclass(frozen=True, kw_only=True)
class LightSettings:
    quality: str = "standard"


def serve(home: Path, port: int, workers: int, keep: int) -> int:
    """Serve until a signal; prints the address."""
    entry = api.Entry(
        load=lambda weights, device, settings: sys.exit("the server itself never loads a system"),
        settings=lambda quality: LightSettings(quality=quality),
        smaller=lambda settings: None,
        accepts=(Text, Image),
    )
    api.SYSTEMS.clear()
    api.SYSTEMS["light"] = entry
    command = (sys.executable, "-S", "-E", str(WORKER))
    settings = jobs.Settings(home=home, devices=("cpu",) * workers, keep=keep, max_queue=1000, command=command)
    return serving.serve(settings, serving.Address(port=port), lambda url: print(url, flush=True))


if __name__ == "__main__":
    assert importlib.util.find_spec("torch") is None or "torch" not in sys.modules, "the server has loaded torch"
    _, home, port, *more = sys.argv
    workers, keep = (int(value) for value in [*more, "1", "1000"][:2])
    with cli._stoppable():
        try:
            sys.exit(serve(Path(home), int(port), workers, keep))
        except (cli.AnyformError, KeyboardInterrupt) as error:
            failure = cli._explain(error)
            assert failure is not None
            sys.exit(cli._fail(failure, as_json=False))
