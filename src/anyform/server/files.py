"""Files of a job, opened so that no link can lead out of its folder, and the byte ranges of RFC 9110 §14."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
MEDIA_TYPES = {
    "glb": "model/gltf-binary",
    "obj": "model/obj",
    "obj.zip": "application/zip",
    "ply": "application/octet-stream",
    "stl": "model/stl",
    "3mf": "model/3mf",
    "usdz": "model/vnd.usdz+zip",
    "webp": "image/webp",
    "json": "application/json",
}


class Unsatisfiable(ValueError):
    """The range asked for has no byte of the file in it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open regular file: whoever gets it closes `descriptor`."""

    descriptor: int
    size: int
    changed: int  # ns since 1970


def open_inside(root: Path, *names: str) -> Opened | None:
    """Open root/names…, each name one of our own; None where it is missing, a link, or no regular file.

    Walks down by folder descriptors with O_NOFOLLOW, so that neither a link nor a race leads elsewhere.
    """
    if any(name in {"", ".", ".."} or "/" in name or "\0" in name for name in names):
        return None
    try:
        descriptor = _walk(root, names)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return Opened(descriptor, status.st_size, status.st_mtime_ns)


def _walk(root: Path, names: tuple[str, ...]) -> int:
    if os.open not in os.supports_dir_fd:  # Windows: no descriptors of folders
        path = root.joinpath(*names)
        if path.resolve() != root.resolve().joinpath(*names):
            raise OSError("a link")
        return os.open(path, os.O_RDONLY | _NO_LINK)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(names[-1], os.O_RDONLY | os.O_NONBLOCK | _NO_LINK, dir_fd=folder)
    finally:
        os.close(folder)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(first, end) of a single byte range; None = the whole file (no header, several ranges, another unit).

    Raises Unsatisfiable.
    """
    found = re.fullmatch(r"bytes=(\d{0,19})-(\d{0,19})", (header or "").strip().replace(" ", ""))
    if found is None or found.group(0) == "bytes=-":
        return None
    first, last = found.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= end:
        raise Unsatisfiable(f"the file has {size} bytes")
    return start, end
