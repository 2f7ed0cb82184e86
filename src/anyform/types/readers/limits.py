"""What every reader checks before it looks inside a file: a regular file of a size that can be read whole."""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePath
from typing import Any, NoReturn

from anyform.errors import BadInput

MEBI = 2**20


def shown(name: str | PurePath) -> str:
    """A file's name for a message: no folders, no control characters, at most 80 characters."""
    text = "".join(letter if letter.isprintable() else "?" for letter in PurePath(name).name)
    return repr(text if len(text) <= 80 else text[:77] + "...")


def regular_file(path: str | Path, max_bytes: int, advice: str) -> Path:
    """The path of a non-empty regular file of at most max_bytes. `advice` ends the message: what to give instead."""
    path = Path(path)
    try:
        if not path.exists():
            raise BadInput(f"the file {shown(path)} does not exist: {advice}")
        if not path.is_file():
            raise BadInput(f"{shown(path)} is not a regular file: {advice}")
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise BadInput(f"the file {shown(path)} cannot be read: {advice}") from error
    if size == 0:
        raise BadInput(f"the file {shown(path)} is empty (0 bytes): {advice}")
    if size > max_bytes:
        limit = f"at most {max_bytes // MEBI} MiB are read"
        raise BadInput(f"the file {shown(path)} has {size / MEBI:.0f} MiB, {limit}: {advice}")
    return path


def read_bytes(path: str | Path, max_bytes: int, advice: str) -> bytes:
    """All bytes of a regular file of at most max_bytes."""
    path = regular_file(path, max_bytes, advice)
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise BadInput(f"the file {shown(path)} cannot be read: {error.strerror}") from error


def parse_json(data: bytes, name: str) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN or infinity, no nesting beyond the parser's stack."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise BadInput(f"{name} has the same key twice in one object: keep one")
        return table

    def refuse(constant: str) -> NoReturn:
        raise BadInput(f"{name} holds {constant}, which is not a number: remove it")

    def finite(digits: str) -> float:
        return value if math.isfinite(value := float(digits)) else refuse(digits[:20])

    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
    except RecursionError as error:
        raise BadInput(f"{name} is nested too deeply to be a prompt") from error
    except ValueError as error:
        raise BadInput(f"{name} is not valid JSON: {str(error)[:120]}") from error
