"""The child process that reads files from strangers, with limits on memory, processor time, files and time.

stdin: one JSON line {"files": {field: path}, "folder": where the NPZ files go}. stdout: one JSON line, {"notes": […]}
or {"code", "field", "message"}. It has no network need, no secrets in its environment, and nothing to lose.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADDRESS_SPACE = 3 << 30  # bytes
CPU_SECONDS = 60
FILE_BYTES = 2 << 30


def limit() -> None:
    """Lay the limits on this process, where the system has them (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    for name, value in (
        (resource.RLIMIT_AS, ADDRESS_SPACE),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        _, hard = resource.getrlimit(name)
        lowered = value if hard < 0 else min(value, hard)
        resource.setrlimit(name, (lowered, lowered))


def read(files: Mapping[str, str], folder: Path) -> list[str]:
    """Read every file and store its arrays in `folder`; what was converted or guessed comes back as notes."""
    from anyform.server.prompt_arrays import write_prompt
    from anyform.types.prompt import Audio, Image, Points, Sketch, Views, Voxels

    opened: dict[str, Any] = {
        "image": lambda path: Image.open(path, files.get("mask")),
        "sketch": Sketch.open,
        "audio": Audio.open,
        "points": Points.open,
        "voxels": Voxels.open,
        "views": lambda path: Views.open(path, kind="rgb"),
        "depths": lambda path: Views.open(path, kind="depth"),
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for field, path in files.items():
            if field != "mask":
                write_prompt(opened[field](path), folder / f"{field}.npz")
    return [str(warning.message)[:300] for warning in caught if warning.category is UserWarning]


def answer(order: Mapping[str, Any]) -> dict[str, Any]:
    """What goes back to the server."""
    from anyform.errors import BadInput, MissingDependency
    from anyform.types.readers.picture import read_header

    files: dict[str, str] = order["files"]
    try:
        for field in ("image", "mask", "sketch"):
            if field in files:
                with Path(files[field]).open("rb") as file:
                    start = file.read(1 << 16)
                if not start:
                    raise BadInput(f"{field} is cut off: it has 0 bytes")
                read_header(start, field)
    except BadInput as error:  # told apart before any decoder runs: too many pixels, or another kind of file
        is_size = " declares " in str(error)
        code = "too_large" if is_size else "bad_input" if "cut off" in str(error) else "unsupported_media"
        return {"code": code, "message": str(error)}
    try:
        return {"notes": read(files, Path(order["folder"]))}
    except MissingDependency as error:
        return {"code": "missing_dependency", "message": str(error)}
    except MemoryError:
        return {"code": "too_large", "message": "the file needs more memory than a file may: make it smaller"}
    except BadInput as error:
        return {"code": "bad_input", "message": str(error)}


if __name__ == "__main__":
    limit()
    print(json.dumps(answer(json.loads(sys.stdin.readline()))), flush=True)
