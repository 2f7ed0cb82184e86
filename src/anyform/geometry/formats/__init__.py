"""File formats: one file each, one table that maps suffixes to them, one door out (`save_asset`) and one in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from anyform.errors import BadInput
from anyform.geometry.asset import Asset
from anyform.geometry.formats.files import write_files
from anyform.geometry.formats.glb import write_glb

# A writer maps an asset and the name of its main file to the content of every file it needs, the main one last.
Writer = Callable[[Asset, str], dict[str, bytes]]

FORMATS: dict[str, Writer] = {
    ".glb": write_glb,
}


def format_of(path: Path) -> str:
    """The key of FORMATS that a file name ends with. Raises BadInput naming the known ones."""
    for suffix in sorted(FORMATS, key=len, reverse=True):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return suffix
    raise BadInput(f"{path.name!r} has no known 3D format: end the name with one of {', '.join(FORMATS)}")


def save_asset(asset: Asset, path: Path, force: bool = False) -> Path:
    """Write an asset to a file whose suffix chooses the format.

    Atomic: the files appear whole or not at all, and what was there before stays where writing fails. Raises BadInput,
    one sentence, for an unknown suffix, an existing file without `force`, and everything the file system refuses.
    Warns of what the format cannot hold.
    """
    writer = FORMATS[format_of(path)]
    write_files(path, lambda: writer(asset, path.name), force=force)
    return path
