"""Views to a folder: one PNG each and a `transforms.json`, as NeRF and Gaussian-splatting tools read them.

`Views.open` reads the folder back. Poses are OpenGL camera-to-world in a +y-up world (`"up": "y"`).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np

from anyform.errors import BadInput
from anyform.types.prompt import Views

TABLE = "transforms.json"


def check_view_folder(folder: Path, *, force: bool) -> None:
    """Raises BadInput unless `folder` can be written: new, empty, or one of ours to replace with `force`."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadInput(f"{folder.name!r} is no folder: choose another place for the views")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not force:
        raise BadInput(f"the folder {folder.name!r} is not empty; pass --force to replace its views")
    if not (folder / TABLE).is_file():
        raise BadInput(f"the folder {folder.name!r} holds other things than views: choose another one")


def write_view_folder(views: Views, folder: Path, *, force: bool = False) -> None:
    """Write colour views (kind "rgb") whole or not at all. Raises BadInput."""
    from PIL import Image

    check_view_folder(folder, force=force)
    if views.kind != "rgb":
        raise BadInput(f"{views.kind} views are not written as pictures: only rgb views are")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        frames = []
        for number, (picture, pose) in enumerate(zip(views.pixels, views.cameras.camera_to_world, strict=True)):
            name = f"view_{number:02d}.png"
            Image.fromarray(np.rint(picture * 255).astype(np.uint8), "RGBA").save(partial / name)
            fov = float(views.cameras.fov_y[number])
            frames.append({"file_path": name, "transform_matrix": pose.tolist(), "fov_y": fov})
        aspect = views.cameras.width / views.cameras.height
        angle_x = 2 * float(np.arctan(np.tan(views.cameras.fov_y[0] / 2) * aspect))
        size = {"w": views.cameras.width, "h": views.cameras.height}
        table = {"up": "y", "camera_angle_x": angle_x, **size, "frames": frames}
        (partial / TABLE).write_text(json.dumps(table, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    except OSError as error:
        raise BadInput(f"cannot write the views to {folder.name!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
