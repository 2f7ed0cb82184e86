"""Released checkpoints: the licence the user accepts once, their download, and the hash that every file must keep.

The hub is touched only where one of these ids is named and nothing forbids the network. Files land in the usual
Hugging Face cache (`HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, read when a download begins), whole or not at
all. The SHA-256 of a file is the pinned one, else the one the hub states, else the one found at its first use; it is
compared at every use after (hashed again only where size or modification time changed).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyform.device import home
from anyform.errors import LicenceNotAccepted, WeightsError
from anyform.types.progress import Report, silent
from anyform.weights.digest import sha256, verify
from anyform.weights.released import RELEASED, Released
from anyform.weights.transfer import fetch_file


def accepted_licences() -> dict[str, str]:
    """{id: licence name} of every licence accepted on this machine."""
    try:
        accepted = json.loads(_licence_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError("licences.json in ANYFORM_HOME is damaged: delete it and accept again") from error
    return accepted if isinstance(accepted, dict) else {}


def accept_licence(name: str) -> Released:
    """Record under ANYFORM_HOME that the licence of a released id is accepted. Unknown id: WeightsError.

    What it needs under the very same licence is accepted with it.
    """
    released = RELEASED.get(name)
    if released is None:
        raise WeightsError(f"{name!r} is no released checkpoint that anyform knows: see `anyform models`")
    same = [one for one in released.needs if RELEASED[one].licence == released.licence]
    accepted = {**accepted_licences(), **dict.fromkeys([name, *same], released.licence)}
    _write_json(_licence_file(), accepted, "the licence")
    return released


def _licence_file() -> Path:
    return home() / "licences.json"


def download(name: str, report: Report = silent) -> Path:
    """The local folder of a released checkpoint with all its files, fetched if they are not cached yet.

    Raises LicenceNotAccepted before the first byte, WeightsError for anything the hub answers but the files.
    """
    released = RELEASED[name]
    if accepted_licences().get(name) != released.licence:
        raise LicenceNotAccepted(
            f"{name} is under the licence {released.licence} (commercial use: {released.commercial_use}); "
            f"read {released.licence_url} and repeat with --accept-licence {name}"
        )
    if not released.files:
        raise WeightsError(
            f"{name} is on no hub: get its file from its authors ({released.licence_url}), give its path"
        )
    with _lock(name):
        paths = [fetch_file(released, file, report) for file in released.files]
        for file, path in zip(released.files, paths, strict=True):
            _check(released, file, path)
    return paths[0].parents[released.files[0].count("/")]


def published_as(path: Path) -> Released | None:
    """The released checkpoint whose folder in a Hugging Face cache this is; None for any other place."""
    for part in path.absolute().parts:
        if part.startswith("models--"):
            return RELEASED.get(part.removeprefix("models--").replace("--", "/", 1))
    return None


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """One process fetches, the others wait and then find the files."""
    from filelock import FileLock

    folder = home() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"ANYFORM_HOME cannot be written ({error.strerror}), so {name} cannot be fetched") from error
    with FileLock(folder / f"{name.replace('/', '--')}.lock"):
        yield


def _check(released: Released, file: str, path: Path) -> None:
    """Compare a cached file with its pinned hash, the one the hub stated, and the one recorded at its first use."""
    pinned, stated = released.sha256.get(file), path.resolve().name
    if pinned is None and re.fullmatch(r"[0-9a-f]{64}", stated):
        pinned = stated  # the cache names a large file by the hash that the hub stated for it
    if pinned is not None:
        verify(path, pinned)
    record = home() / "recorded" / f"{released.id.replace('/', '--')}.json"
    known = _read_record(record)
    found = sha256(path)
    if known.get(file, found) != found:
        raise WeightsError(
            f"the hash of {file!r} of {released.id} differs from the one recorded at its first use: expected "
            f"{known[file][:12]}…, found {found[:12]}…; if its authors published a new version that you trust, delete "
            f"{record.name} in the folder recorded of ANYFORM_HOME"
        )
    if file not in known:
        _write_json(record, {**known, file: found}, "the hash of a weights file")


def _read_record(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path.name} in ANYFORM_HOME is damaged: delete it to record the hashes again") from error
    return known if isinstance(known, dict) else {}


def _write_json(target: Path, content: dict[str, str], what: str) -> None:
    """Replace a small file of ANYFORM_HOME in one step."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        raise WeightsError(f"{what} cannot be recorded in ANYFORM_HOME: {error.strerror}") from error
