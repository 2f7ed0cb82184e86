"""The weights shipped inside the package, and what is pinned about them in `embedded/index.json`.

The index is written by `runs/index_weights.py` from the files' own metadata: one entry a name with `file`, `sha256`,
`bytes`, `parameters`, `licence`, `commercial_use`, `data` and `measured`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from anyform.errors import WeightsError

EMBEDDED = {
    "wala": "wala.safetensors",
    "text": "text.safetensors",
    "cutout": "cutout.safetensors",
    "paint": "paint.safetensors",
    "retrieval": "retrieval.safetensors",
    "joint": "joint.safetensors",
}
_FOLDER = Path(__file__).resolve().parent.parent / "embedded"


@cache
def embedded_index() -> dict[str, dict[str, Any]]:
    """Everything pinned about the embedded weights, by name. Raises WeightsError where the package is incomplete."""
    try:
        return json.loads((_FOLDER / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError("embedded/index.json is missing or damaged: install anyform again") from error


def embedded_path(name: str) -> Path:
    """Where the file of an embedded model belongs, whether it is there or not. Raises WeightsError for another name."""
    if name not in EMBEDDED:
        raise WeightsError(f"no embedded weights are called {name!r}; there are {', '.join(EMBEDDED)}")
    return _FOLDER / EMBEDDED[name]


def embedded_file(name: str) -> Path:
    """The file of an embedded model. Raises WeightsError for an unknown name or a file that is not there."""
    path = embedded_path(name)
    if not path.is_file():
        raise WeightsError(f"the embedded weights {path.name!r} are missing: install anyform again")
    return path


def pinned_hash(path: Path) -> str | None:
    """The SHA-256 pinned for a file of the embedded folder; None for any other file.

    Raises WeightsError for a safetensors file in that folder which the index does not list.
    """
    if path.resolve().parent != _FOLDER:
        return None
    for entry in embedded_index().values():
        if entry["file"] == path.name:
            return str(entry["sha256"])
    raise WeightsError(f"{path.name!r} is not listed in embedded/index.json: run runs/index_weights.py")
