"""From what the user wrote after `--weights` to a path on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from anyform.errors import WeightsError
from anyform.types.progress import Report, silent
from anyform.weights.embedded import EMBEDDED, embedded_file
from anyform.weights.hub import download
from anyform.weights.released import RELEASED


def resolve(weights: str | Path, report: Report = silent) -> Path:
    """A folder or file that exists, an embedded name, or a released id (then fetched) -> its path.

    Raises WeightsError where it is none of these, LicenceNotAccepted where the id's licence is not accepted yet.
    """
    text = str(weights)
    if "\0" in text:
        raise WeightsError("the name of the weights holds a NUL character")
    if text in RELEASED:
        return download(text, report)
    if text in EMBEDDED:
        return embedded_file(text)
    path = Path(weights).expanduser()
    try:
        found = path.exists()
    except OSError as error:
        raise WeightsError(f"the weights {path.name[:80]!r} cannot be read: {error.strerror}") from error
    if found:
        return path
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise WeightsError(f"{text!r} is neither here nor a released checkpoint that is known: see `anyform models`")
    name = path.name[:80]
    raise WeightsError(f"there are no weights at {name!r}: give a folder, a file or an id of `anyform models`")
