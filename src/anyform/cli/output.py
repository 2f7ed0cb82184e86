"""Where `generate` writes: a file, or a folder with everything; settled first, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyform.errors import BadInput

if TYPE_CHECKING:
    from anyform.geometry.asset import Asset
    from anyform.types.prompt import Views

_REASON_BYTES = 200  # of a file name; file systems end at 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """file: the asset's path. folder: the folder that is written as a whole, None where only the file is wanted."""

    file: Path
    folder: Path | None
    force: bool


def settle(given: str | None, name: str, *, force: bool, inputs: list[Path], exists_ok: bool) -> Target:
    """Decide and check the target; name: "<slug>-<seed>", used for a folder and where nothing was given.

    Raises BadInput for an unknown suffix, a place that cannot be written, an existing target without `force` (or
    `exists_ok`), and a target that is one of the inputs.
    """
    from anyform.geometry.formats import format_of
    from anyform.geometry.formats.files import check_target

    if given is not None and "\0" in given:
        raise BadInput("the output path holds a NUL character")
    if given is not None and (given.endswith(("/", os.sep)) or Path(given).is_dir()):
        folder = Path(given) / name
        _check_folder(folder, force or exists_ok)
        return Target(file=folder / "asset.glb", folder=folder, force=force)
    file = Path(given if given is not None else f"{name}.glb")
    format_of(file)
    try:
        check_target(file, force or exists_ok)
        same = [path.name for path in inputs if file.exists() and path.exists() and file.samefile(path)]
    except OSError as error:
        raise BadInput(f"cannot write {file.name[:80]!r}: {error.strerror}") from error
    if same:
        raise BadInput(f"the output {same[0]!r} is also the input: choose another name")
    return Target(file=file, folder=None, force=force)


def slug(text: str) -> str:
    """A short plain file name for a prompt: lower case letters, digits and dashes, at most 40 characters."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return words or "asset"


def write(target: Target, asset: Asset, *, log: list[str], host: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Save the asset; for a folder also the inputs, a preview, the provenance with host facts, and the log."""
    if target.folder is None:
        asset.save(target.file, force=target.force)
        return
    partial = target.folder.with_name(f".{target.folder.name[:_REASON_BYTES]}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        asset.save(partial / "asset.glb")
        _copy_inputs(partial, inputs)
        preview(asset, partial / "preview.webp")
        record = {**asset.provenance.to_json(), "host": dict(host)}
        (partial / "provenance.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        (partial / "log.txt").write_text("\n".join([*log, ""]), encoding="utf-8")
        if target.force and target.folder.exists():
            shutil.rmtree(target.folder)
        partial.replace(target.folder)
    except OSError as error:
        raise BadInput(f"cannot write the folder {target.folder.name!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_turntable(target: Target, asset: Asset) -> None:
    """One turn around the asset next to it: chair.glb -> chair-turntable.webp, replaced where it is there."""
    from anyform.render.shading import turntable

    path = target.file.with_name(f"{target.file.stem}-turntable.webp")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.webp")
    try:
        turntable(asset.mesh, partial)
        partial.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path.name!r}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_views(asset: Asset, folder: Path, *, force: bool) -> None:
    """The views that the asset was made from, or eight pictures of it, with their cameras (transforms.json)."""
    from anyform.types.view_folder import write_view_folder

    write_view_folder(asset.views or _rendered(asset), folder, force=force)


def _rendered(asset: Asset) -> Views:
    """Eight pictures of an asset, 512 pixels each, background transparent."""
    import numpy as np

    from anyform.render.shading import picture
    from anyform.types.camera import Cameras, alternating_orbit
    from anyform.types.prompt import Views

    reach = float(np.linalg.norm(asset.mesh.bounds, axis=1).max())
    angles = alternating_orbit(8)
    cameras = Cameras.orbit(angles[:, 0], angles[:, 1], 3.2 * reach, np.radians(40.0), 512)
    return Views("rgb", picture(asset.mesh, cameras, "transparent").astype(np.float32) / np.float32(255), cameras)


def _check_folder(folder: Path, may_exist: bool) -> None:
    """A folder that can be made, its parents included."""
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise BadInput(f"{folder.name!r} exists and is no folder of ours: choose another -o")
        if folder.exists() and not may_exist:
            raise BadInput(f"the folder {folder.name!r} exists already; pass --force to replace it")
        parent = folder.parent
        while not parent.exists():
            parent = parent.parent
    except OSError as error:
        raise BadInput(f"cannot write the folder {folder.name[:80]!r}: {error.strerror}") from error
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise BadInput(f"cannot write into {parent.name!r}: it is no folder that can be written")


def _copy_inputs(folder: Path, inputs: Mapping[str, Any]) -> None:
    """The prompt beside its result: text as input.txt, files as input.<suffix>, folders of views as input/."""
    for name, value in inputs.items():
        if isinstance(value, str):
            (folder / f"{name}.txt").write_text(value, encoding="utf-8")
        elif value.is_dir():
            shutil.copytree(value, folder / name, ignore=_links)
        else:
            shutil.copyfile(value, folder / f"{name}{value.suffix.lower()}")


def _links(folder: str, names: list[str]) -> list[str]:
    """A link in a folder of views is not followed out of it."""
    return [name for name in names if Path(folder, name).is_symlink()]


def preview(asset: Asset, path: Path) -> None:
    """Four sides of the asset, 256 pixels each, in one WebP."""
    import numpy as np
    from PIL import Image

    from anyform.render.shading import picture
    from anyform.types.camera import Cameras

    azimuth = np.radians([30.0, 120.0, 210.0, 300.0])
    cameras = Cameras.orbit(azimuth, np.full(4, np.radians(20.0)), 3.2, np.radians(40.0), 256)
    views = picture(asset.mesh, cameras)
    Image.fromarray(np.concatenate(list(views), 1)).convert("RGB").save(path, "WEBP", quality=85)
