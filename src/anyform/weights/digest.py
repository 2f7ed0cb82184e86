"""SHA-256 of weight files, computed once per (path, size, modification time)."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from anyform.device import home
from anyform.errors import WeightsError

# Below this, hashing anew in each process (under 0.1 s) is cheaper than a file in the user's home.
_REMEMBER_BYTES = 64 * 2**20
_known: dict[str, str] = {}


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file; remembered while its size and modification time stay, across processes if it is large.

    Raises WeightsError where the file cannot be read.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise WeightsError(f"the weights {path.name!r} cannot be read: {error.strerror}") from error
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    if key not in _known and status.st_size >= _REMEMBER_BYTES:
        _known.update(_remembered())
    if key not in _known:
        try:
            with path.open("rb") as file:
                _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise WeightsError(f"the weights {path.name!r} cannot be read: {error.strerror}") from error
        if status.st_size >= _REMEMBER_BYTES:
            _remember(key, _known[key])
    return _known[key]


def verify(path: Path, expected: str) -> None:
    """Raise WeightsError unless the file's SHA-256 is `expected`; the file is left alone either way."""
    found = sha256(path)
    if found != expected:
        raise WeightsError(
            f"the hash of {path.name!r} differs: expected {expected[:12]}…, found {found[:12]}…; "
            "the file is damaged or was changed: move it away and fetch or install it again"
        )


def _cache_file() -> Path:
    return home() / "verified.json"


def _remembered() -> dict[str, str]:
    try:
        known = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent or damaged: only a cache, the hash is computed again
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def _remember(key: str, digest: str) -> None:
    """Add one line to the cache; a home that cannot be written only costs the next process its time."""
    target = _cache_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=target.parent, suffix=".partial")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({**_remembered(), key: digest}, file, indent=1)
        Path(partial).replace(target)
    except OSError:
        return
