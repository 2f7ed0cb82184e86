"""The corpus as the evaluation protocol wants it: held-out objects with a prompt of every kind, and training shapes.

All random choices hang on an object's id, so every run of every machine asks the same questions.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyform.data.corpus import Collection, Item, Shape
from anyform.data.sketches import draw, line_art
from anyform.data.views import DISTANCE, FOV_Y, Light, render_views, surface_points
from anyform.errors import BadInput
from anyform.evaluation.protocol import Target, quarter_of
from anyform.evaluation.reference import Reference
from anyform.geometry.sdf import mesh_to_sdf, normalise
from anyform.types.camera import Cameras, wala_cameras
from anyform.types.progress import Progress, Report
from anyform.types.prompt import Image, Points, Prompt, Sketch, Text, Views, Voxels

VIEW_IDS = (3, 6, 10, 26)  # WaLa's four fixed views
PICTURE, VIEW = 256, 128  # pixels of a picture or sketch, and of a fixed view
POINTS, VOXELS = 2500, 16  # WaLa's own sizes
PEN = 2.5  # thickness of sketched lines in pixels


def targets(collection: Collection, items: Sequence[Item], size: int, report: Report) -> list[Target]:
    """Held-out objects with all their prompts; about 0.5 s each."""
    made = []
    for item in items:
        made.append(target(item, collection.read(item), size))
        report(Progress("render held-out objects", len(made), len(items)))
    return made


def target(item: Item, shape: Shape, size: int = 64) -> Target:
    """One object: prompts of every kind, pictures and sketches from anywhere between −5° and 40° of elevation."""
    vertices, _, _ = normalise(shape.vertices, shape.faces)
    shape = Shape(vertices, shape.faces, shape.face_rgb)
    digest = hashlib.sha256(f"held out {item.id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    sdf = mesh_to_sdf(vertices, shape.faces, size)
    if not (sdf < 0).any():
        raise BadInput(
            f"no cell of the {size}³ grid lies inside object {item.id}; its parts are far thinner than a cell"
        )
    light, fixed = Light.random(rng), wala_cameras(VIEW_IDS, VIEW, DISTANCE, FOV_Y)
    seen = render_views(shape, fixed, light=light)
    azimuth, elevation = rng.uniform(0, 2 * np.pi, 2), np.radians(rng.uniform(-5, 40, 2))
    around = Cameras.orbit(azimuth, elevation, DISTANCE, FOV_Y, PICTURE)
    shown = render_views(shape, around, light=light)
    ink = draw(line_art(vertices, shape.faces, around, shown.depth)[1], PICTURE, PICTURE, PEN)
    prompts: dict[str, Prompt] = {
        "voxels": Voxels(np.ascontiguousarray(blocks(sdf < 0, VOXELS))),
        "points": Points(surface_points(shape, POINTS, rng)[0]),
        "depth": Views("depth", seen.depth[..., None], fixed, VIEW_IDS),
        "views": Views("rgb", seen.rgba, fixed, VIEW_IDS),
        "image": Image.from_rgba(shown.rgba[0]),
        "sketch": Sketch(ink),
        "text": Text(item.caption),
    }
    quarters = {"image": quarter_of(azimuth[0]), "sketch": quarter_of(azimuth[1])}
    return Target(item.id, item.caption, sdf, prompts, quarters)


def blocks(inside: NDArray[np.bool_], resolution: int) -> NDArray[np.bool_]:
    """(N, N, N) -> (R, R, R): a voxel is occupied where any of its cells is."""
    step = len(inside) // resolution
    return np.asarray(inside.reshape(resolution, step, resolution, step, resolution, step).any((1, 3, 5)))


def reference(collection: Collection, items: Sequence[Item], cache: Path, size: int, report: Report) -> Reference:
    """Strict insides of the training shapes; kept in the folder `cache`, since making them takes 0.2 s each.

    A cache of other objects or another size has another name. Objects without any inside cell are left out.
    """
    digest = hashlib.sha256("\n".join(item.id for item in items).encode()).hexdigest()[:16]
    path = cache / f"training-shapes-{digest}-{size}.npz"
    captions = {item.id: item.caption for item in items}
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                ids = [str(name) for name in stored["ids"]]
                return Reference(ids, [captions[name] for name in ids], stored["packed"], size)
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise BadInput(f"{path.name} in the evaluation's cache is damaged: remove it") from error
    ids, packed = [], []
    for done, item in enumerate(items):
        shape = collection.read(item)
        vertices, _, _ = normalise(shape.vertices, shape.faces)
        inside = mesh_to_sdf(vertices, shape.faces, size) < 0
        if inside.any():
            ids.append(item.id)
            packed.append(np.packbits(inside))
        report(Progress("measure training shapes (once)", done + 1, len(items)))
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, ids=np.array(ids), packed=np.stack(packed))
    partial.replace(path)
    return Reference(ids, [captions[name] for name in ids], np.stack(packed), size)
