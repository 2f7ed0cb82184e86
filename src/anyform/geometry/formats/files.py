"""Files written whole or not at all, and read with a limit; every refusal of the file system becomes one sentence."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anyform.errors import BadInput

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EACCES: "permission was denied",
    errno.EPERM: "permission was denied",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "it is a folder",
}


@contextmanager
def _in_one_sentence(action: str) -> Iterator[None]:
    """Turns an OSError into BadInput that starts with `action`."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{action}: {_REASONS.get(error.errno or 0, error.strerror or 'unknown reason')}") from error


def write_files(path: Path, build: Callable[[], dict[str, bytes]], *, force: bool) -> None:
    """Write files into the folder of `path` atomically; `path` itself is one of them.

    build() -> {file name: content}, called only once the target has been found writable. Existing files are refused
    unless `force`. Content goes to `<name>.<pid>.partial` beside the target and is renamed once all of it is on disk.
    """
    shown = path.name if len(path.name) <= 80 else path.name[:77] + "…"
    with _in_one_sentence(f"cannot write {shown!r}"):
        check_target(path, force)
        content = build()
        for name in content:
            check_target(path.parent / name, force)
        partial = {path.parent / name: path.parent / f"{name[:56]}.{os.getpid()}.partial" for name in content}
        try:
            for temporary, data in zip(partial.values(), content.values(), strict=True):
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            for target, temporary in partial.items():
                temporary.replace(target.resolve())
        finally:
            for temporary in partial.values():
                temporary.unlink(missing_ok=True)


def check_target(path: Path, force: bool) -> None:
    """Raises BadInput where a file cannot be created or replaced at `path`; OSError passes through."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        folder = path.parent
        if not folder.is_dir():
            raise BadInput(f"the folder {str(folder)!r} for {path.name!r} does not exist; create it first") from None
        if not os.access(folder, os.W_OK):
            raise BadInput(f"cannot write {path.name!r}: the folder is read-only") from None
        return
    if stat.S_ISDIR(mode):
        raise BadInput(f"{path.name!r} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise BadInput(f"{path.name!r} is not a regular file and cannot hold an asset")
    if not force:
        raise BadInput(f"{path.name!r} exists already; pass --force to replace it")
    if not os.access(path, os.W_OK):
        raise BadInput(f"{path.name!r} is read-only; choose another name or make it writable")


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; nothing is read from a larger one.

    Raises BadInput with the reason alone: the caller says which file it was.
    """
    with _in_one_sentence("it cannot be read"):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadInput("it is a folder or a device, not a file")
        if status.st_size > limit:
            raise BadInput(f"it has {status.st_size >> 20} MiB; files of this kind are read up to {limit >> 20} MiB")
        with path.open("rb") as file:
            return file.read(status.st_size)  # a larger count would be allocated at once
