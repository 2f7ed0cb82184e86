"""One object's training sample: distance grid, pictures, sketches, surface points, captions."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.data.captions import captions, colour_word
from anyform.data.corpus import Item, Shape
from anyform.data.shards import TRUNCATION, Sample
from anyform.data.sketches import canny_strokes, draw, line_art
from anyform.data.views import DISTANCE, FOV_Y, Light, render_views, ring_cameras, surface_points
from anyform.errors import BadInput, BadSetting
from anyform.geometry.sdf import mesh_to_sdf, normalise
from anyform.types.camera import Cameras, wala_cameras

WEBP_SIDE = 16383
_LINE_ART_SHARE = 0.7  # of the sketches; the others are Canny edges


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPlan:
    """Which pictures an object gets: `ring` random views around it, then WaLa's fixed ones, `size` pixels square."""

    ring: int = 12
    wala_ids: tuple[int, ...] = (3, 6, 10, 26, 49, 50)
    size: int = 96
    points: int = 4096

    def __post_init__(self) -> None:
        count = self.ring + len(self.wala_ids)
        if count < 1 or self.size < 16 or count * self.size > WEBP_SIDE:
            raise BadSetting(
                f"{count} views of {self.size} pixels were asked for; there must be one or more, of 16 pixels or more,"
                f" and all of them stacked at most {WEBP_SIDE} pixels high"
            )

    def cameras(self, rng: np.random.Generator) -> Cameras:
        """The ring's random cameras, then the fixed ones, at the distance and angle of `data.views`."""
        ring = ring_cameras(rng, self.ring, self.size)
        fixed = wala_cameras(self.wala_ids, self.size, DISTANCE, FOV_Y)
        return Cameras(
            np.concatenate([ring.camera_to_world, fixed.camera_to_world]),
            np.concatenate([ring.fov_y, fixed.fov_y]),
            self.size,
            self.size,
        )


def make_sample(item: Item, shape: Shape, size: int, views: ViewPlan) -> Sample:
    """Everything training needs of one object; the random choices hang on its id alone.

    Raises BadInput with the reason where the object is of no use.
    """
    vertices, _, _ = normalise(shape.vertices, shape.faces)
    shape = Shape(vertices, shape.faces, shape.face_rgb)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(item.id.encode("utf-8")).digest()[:8], "big"))
    sdf = mesh_to_sdf(vertices, shape.faces, size)
    if not (sdf < 0).any():
        raise BadInput(f"no cell of the {size}³ grid lies inside; its parts are far thinner than a cell")
    cameras = views.cameras(rng)
    pictures = render_views(shape, cameras, light=Light.random(rng))
    points, rgb = surface_points(shape, views.points, rng)
    a, b, c = np.moveaxis(vertices[shape.faces], 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    colour, extents = colour_word(shape.face_rgb, areas), np.ptp(vertices[np.unique(shape.faces)], axis=0)
    row = {
        **asdict(item),
        "tags": list(item.tags),
        "captions": list(captions(item, colour, extents)),
        "colour": colour,
        "extents": extents.round(4).tolist(),
        "wala_ids": list(views.wala_ids),
        "camera_to_world": cameras.camera_to_world[:, :3].round(6).tolist(),
        "fov_y": round(FOV_Y, 6),
    }
    return Sample(
        row=row,
        sdf=np.clip(sdf, -TRUNCATION, TRUNCATION),
        rgba=pictures.rgba,
        depth=pictures.depth,
        sketch=_sketches(shape, cameras, pictures.depth, rng),
        points=points,
        rgb=rgb,
    )


def _sketches(
    shape: Shape, cameras: Cameras, depth: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """One sketch (H, W) a view: the technique and the pen's thickness at random."""
    lines = line_art(shape.vertices, shape.faces, cameras, depth)
    ink = np.empty(depth.shape, np.float32)
    for view, strokes in enumerate(lines):
        if rng.random() >= _LINE_ART_SHARE:
            strokes = canny_strokes(depth[view])
        ink[view] = draw(strokes, cameras.height, cameras.width, rng.uniform(0.8, 2.2))
    return ink
