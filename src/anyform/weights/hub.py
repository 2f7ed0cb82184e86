"""Released checkpoints: what is known about them, the licence the user accepts once, and their download.

The hub is touched only where one of these ids is named and nothing forbids the network. Files land in the usual
Hugging Face cache (`HF_HOME`, `HF_HUB_CACHE`); a large file's cache name is the SHA-256 that the hub states for it, and
it is compared with the bytes at every use (remembered per size and modification time).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anyform.device import home, is_offline
from anyform.errors import LicenceNotAccepted, WeightsError
from anyform.weights.digest import verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A checkpoint that others published. commercial_use: "yes", "no" or "unknown", about what is made with it."""

    id: str
    system: str
    prompt: str
    licence: str
    licence_url: str
    commercial_use: str
    files: tuple[str, ...]


def _wala(name: str, prompt: str, *files: str) -> Released:
    return Released(
        id=f"ADSKAILab/WaLa-{name}",
        system="wala",
        prompt=prompt,
        licence="Autodesk Non-Commercial (3D Generative) v1.0, covers outputs",
        licence_url="https://github.com/AutodeskAILab/WaLa/blob/main/LICENSE.md",
        commercial_use="no",
        files=files or ("checkpoint.ckpt", "args.json"),
    )


RELEASED: dict[str, Released] = {
    entry.id: entry
    for entry in (
        _wala("SV-1B", "image"),
        _wala("SK-1B", "sketch"),
        _wala("VX16-1B", "voxels 16³"),
        _wala("PC-1B", "points"),
        _wala("DM1-1B", "1 depth map"),
        _wala("DM4-1B", "4 depth maps"),
        _wala("DM6-1B", "6 depth maps"),
        _wala("RGB4-1B", "4 views"),
        _wala("MVDream-DM6", "text to 6 depth maps", "checkpoint.ckpt"),
        _wala("MVDream-RGB4", "text to 4 views", "checkpoint.ckpt"),
    )
}


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
    """Record under ANYFORM_HOME that the licence of a released id is accepted. Unknown id: WeightsError."""
    released = RELEASED.get(name)
    if released is None:
        raise WeightsError(f"{name!r} is no released checkpoint that anyform knows: see `anyform models`")
    accepted = {**accepted_licences(), name: released.licence}
    target = _licence_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(accepted, indent=1), encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        raise WeightsError(f"the licence cannot be recorded in ANYFORM_HOME: {error.strerror}") from error
    return released


def _licence_file() -> Path:
    return home() / "licences.json"


def download(name: str) -> Path:
    """The local folder of a released checkpoint with all its files, fetched if they are not cached yet.

    Raises LicenceNotAccepted before the first byte, WeightsError for anything the hub answers but the files.
    """
    released = RELEASED[name]
    if accepted_licences().get(name) != released.licence:
        raise LicenceNotAccepted(
            f"{name} is under the licence {released.licence} (commercial use: {released.commercial_use}); "
            f"read {released.licence_url} and repeat with --accept-licence {name}"
        )
    with _lock(name):
        paths = [_fetch(released, file) for file in released.files]
    return paths[0].parent


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


def _fetch(released: Released, file: str) -> Path:
    # huggingface_hub reads its environment when it is imported, so this import stays inside the call. Without these
    # two it also asks its hub for a list of coding agents, even for files that are cached.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if is_offline():
        os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    # The base of its errors is the one of its transport, whose library has changed between its versions.
    transport_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        path = Path(hf_hub_download(released.id, file, local_files_only=is_offline(), library_name="anyform"))
    except (OSError, transport_error, ValueError) as error:
        raise WeightsError(f"{released.id}: {_advice(released, file, error)}") from error
    with path.open("rb") as opened:
        start = opened.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise WeightsError(
            f"{released.id}: the hub sent a web page instead of {file}: sign in (HF_TOKEN), check the proxy, "
            "and delete this model from the Hugging Face cache before trying again"
        )
    stated = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", stated):
        verify(path, stated)
    return path


def _advice(released: Released, file: str, error: Exception) -> str:
    """One sentence for what the hub answered; never its body, which may echo tokens or be a page of HTML."""
    page = f"https://huggingface.co/{released.id}"
    cause: BaseException | None = error
    status = None
    while cause is not None and status is None:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        cause = cause.__cause__ or cause.__context__
    if status in {401, 403}:
        return f"access was refused (HTTP {status}): ask for access at {page} and set HF_TOKEN"
    if status == 404:
        return f"{file} was not found (HTTP 404): the model may have moved; look at {page} or give a folder"
    if status == 429:
        return "the hub asks for a pause (HTTP 429): try again in some minutes"
    if status is not None:
        files = ", ".join(released.files)
        return f"the hub failed (HTTP {status}): try again later, or give a folder that holds {files}"
    if is_offline():
        return f"{file} is not in the cache and the network is off (ANYFORM_OFFLINE): fetch it once online"
    return f"{file} could not be fetched completely ({type(error).__name__}): check the network and try again"
