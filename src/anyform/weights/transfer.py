"""One file of a released checkpoint, from the Hugging Face cache or the hub, with progress, patience and refusals.

huggingface_hub does the transfer: partial files resume, and a file appears in the cache whole or not at all. Added
here: back-off on "too many requests" and server errors only, no step from https down to http, and one sentence for
anything else that a hub may answer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from anyform.device import is_offline
from anyform.errors import WeightsError
from anyform.types.progress import Progress, Report
from anyform.weights.released import Released

_PAUSES_S = (1.0, 4.0, 15.0)  # before the second, third and fourth attempt


def fetch_file(released: Released, file: str, report: Report) -> Path:
    """The cached path of one file. Raises WeightsError for whatever the hub answers instead of it."""
    _environment()
    from huggingface_hub.errors import HfHubHTTPError

    # The base of its errors is the one of its transport, whose library has changed between its versions.
    transport_error: type[Exception] = HfHubHTTPError.__bases__[0]
    for pause in (*_PAUSES_S, None):
        try:
            path = _transfer(released, file, report)
            break
        except (OSError, transport_error, ValueError) as error:
            status = _status(error)
            if pause is None or status is None or not (status == 429 or status >= 500):
                raise WeightsError(f"{released.id}: {_advice(released, file, error)}") from error
            report(Progress(f"fetching {file}", message=f"the hub answered HTTP {status}; again in {pause:g} s"))
            time.sleep(pause)
    with path.open("rb") as opened:
        start = opened.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise WeightsError(
            f"{released.id}: the hub sent a web page instead of {file}: sign in (HF_TOKEN), check the proxy, "
            "and delete this model from the Hugging Face cache before trying again"
        )
    return path


def _environment() -> None:
    """huggingface_hub reads its environment when it is imported, so it is imported only inside calls, after this.

    Without the first it also asks its hub for a list of coding agents, even for files that are cached.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if is_offline():
        os.environ["HF_HUB_OFFLINE"] = "1"


def _transfer(released: Released, file: str, report: Report) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import tqdm

    offline = is_offline()
    if not offline and not isinstance(try_to_load_from_cache(released.id, file), str):
        url = hf_hub_url(released.id, file)
        _refuse_downgrade(url, get_hf_file_metadata(url, library_name="anyform").location)

    class Bar(tqdm):
        """The library's progress bar, silent, with its bytes as our progress."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.bytes_total, self.bytes_here = int(options.get("total") or 0), int(options.get("initial") or 0)
            super().__init__(*arguments, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.bytes_here += int(n or 0)
            report(Progress(f"fetching {file}", self.bytes_here, self.bytes_total))
            return super().update(n)

    kept = hf_hub_download(
        released.id, file, local_files_only=offline, library_name="anyform", tqdm_class=Bar
    )  # fmt: skip
    return Path(kept)


def _refuse_downgrade(asked: str, location: str) -> None:
    """A redirect may leave the hub for a content network, but never https for http."""
    if urlsplit(asked).scheme == "https" and urlsplit(location).scheme != "https":
        _downgrade(urlsplit(location).hostname)


def _downgrade(host: str | None) -> NoReturn:
    raise WeightsError(f"the hub redirects to {str(host)[:80]} without https: nothing was fetched; check the proxy")


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return int(status)
        cause = cause.__cause__ or cause.__context__
    return None


def _advice(released: Released, file: str, error: Exception) -> str:
    """One sentence for what the hub answered; never its body, which may echo tokens or be a page of HTML."""
    page, status = f"https://huggingface.co/{released.id}", _status(error)
    if status in {401, 403}:
        gate = "this model is gated: " if released.gated else ""
        return f"access was refused (HTTP {status}): {gate}ask for access at {page} and set HF_TOKEN"
    if status == 404:
        return f"{file} was not found (HTTP 404): the model may have moved; look at {page} or give a folder"
    if status == 429:
        return "the hub asks for a pause (HTTP 429): try again in some minutes"
    if status is not None:
        files = ", ".join(released.files[:3])
        return f"the hub failed (HTTP {status}): try again later, or give a folder that holds {files}"
    if is_offline():
        return f"{file} is not in the cache and the network is off (ANYFORM_OFFLINE): fetch it once online"
    return f"{file} could not be fetched completely ({type(error).__name__}): check the network and try again"
