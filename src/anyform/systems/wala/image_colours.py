"""An image prompt's own pixels on the mesh: where the camera saw the surface, the picture wins over the painted grid.

`fit_view` finds the camera of a picture that came without one, by its outline; `blend_image` joins what every pixel saw
(`render.backprojection`) with a `ColorGrid`. Differs: the paper's meshes have no colour; this is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.geometry.mesh import Mesh
from anyform.render.backprojection import Projection, project
from anyform.systems.wala.paint import ColorGrid, paint, splat
from anyform.types.camera import Cameras
from anyform.types.framing import frame

FOV_Y, DISTANCE = np.radians(40.0), 4.4  # the cameras of the training renders
OUTLINE = 48  # pixels: edge of the outlines that `fit_view` compares


@dataclass(frozen=True, slots=True)
class BlendedColors:
    """A grid with pictures over it; `color_at` is what texture baking calls."""

    grid: ColorGrid
    projection: Projection

    def color_at(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points (N, 3) in [-1, 1] -> sRGB (N, 3): the pictures' colours where they are sure, the grid's elsewhere."""
        shown, confidence = self.projection.sample(points)
        confidence = confidence[:, None]
        return (confidence * shown + (1 - confidence) * self.grid.color_at(points)).astype(np.float32)


def blend_image(grid: ColorGrid, rgba: NDArray[np.uint8], cameras: Cameras, mesh: Mesh) -> BlendedColors:
    """The grid's colours with those of the pictures wherever these see the surface, feathered by the normal's angle."""
    return BlendedColors(grid, project(rgba, cameras, mesh))


def paint_from_images(
    sdf: NDArray[np.floating],
    rgba: NDArray[np.uint8],
    cameras: Cameras,
    mesh: Mesh,
    fallback: NDArray[np.uint8] | None = None,
) -> BlendedColors:
    """Paint a shape from its pictures: the seen side is given to the network as reference, which continues it behind.

    sdf as for `paint`; `fallback` is the reference grid when the pictures show nearly nothing of the surface.
    """
    projection = project(rgba, cameras, mesh)
    points = np.concatenate([mesh.vertices, mesh.vertices[mesh.faces].mean(1)])
    shown, confidence = projection.sample(points)
    sure = confidence > 0.5
    reference = splat(points[sure], shown[sure]) if sure.mean() > 0.02 else fallback
    return BlendedColors(paint(sdf, None, reference), projection)


def fit_view(rgba: NDArray[np.uint8], mesh: Mesh, size: int = 256) -> tuple[NDArray[np.uint8], Cameras, float]:
    """The likeliest view of a picture (H, W, 4) of the mesh, by its outline.

    Tries 36 azimuths × 6 elevations at the training distance. Returns the picture resampled to (size, size, 4) so that
    its object lies where that camera sees the mesh, the camera, and the outlines' IoU in [0, 1]: below about 0.6 the
    picture shows another shape and should not be projected. Outlines cannot tell front from back, so views from the
    front are preferred by a hair.
    """
    points = np.concatenate([mesh.vertices, mesh.vertices[mesh.faces].mean(1)])
    points = points[:: max(1, len(points) // 5000)].astype(np.float64)
    wanted = frame(rgba, OUTLINE)[..., 3] > 127
    azimuth, elevation = (np.radians(g.ravel()) for g in np.meshgrid(np.arange(0, 360, 10), np.arange(-5, 46, 10)))
    cameras = Cameras.orbit(azimuth, elevation, DISTANCE, FOV_Y, size)
    scores = []
    for view in range(len(cameras)):
        single = Cameras(cameras.camera_to_world[view : view + 1], cameras.fov_y[view : view + 1], size, size)
        shown = _outline(single.project(points)[0, :, :2])
        overlap = (shown & wanted).sum() / max(1, (shown | wanted).sum())
        scores.append(overlap - 0.02 * (1 - np.cos(azimuth[view])) / 2)
    best = int(np.argmax(scores))
    camera = Cameras.orbit(azimuth[best], elevation[best], DISTANCE, FOV_Y, size)
    where = camera.project(points)[0, :, :2]
    overlap = scores[best] + 0.02 * (1 - np.cos(azimuth[best])) / 2
    return _placed(rgba, where.min(0), where.max(0), size), camera, float(overlap)


def draped(rgba: NDArray[np.uint8], mesh: Mesh) -> NDArray[np.uint8]:
    """A sparse reference grid: the picture's object (H, W, 4) stretched over the mesh's front by their bounding boxes.

    For pictures whose outline fits no view of the mesh: the colours are then those of the picture, roughly in place.
    """
    from scipy.ndimage import distance_transform_edt

    opaque = rgba[..., 3] > 127
    rows, columns = np.nonzero(opaque)
    window = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    nearest = distance_transform_edt(~opaque[window], return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    filled = rgba[window][nearest[0], nearest[1], :3]
    points = np.concatenate([mesh.vertices, mesh.vertices[mesh.faces].mean(1)])
    low, high = points.min(0), points.max(0)
    share = np.clip((points - low) / np.maximum(high - low, 1e-6), 0, 1 - 1e-6)
    column = (share[:, 0] * filled.shape[1]).astype(np.int64)
    row = ((1 - 1e-6 - share[:, 1]) * filled.shape[0]).astype(np.int64)
    return splat(points, filled[row, column] / 255)


def _outline(where: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Projected points (N, 2) -> their mask, framed like `frame` does: centred, the longer side 0.85 of the square."""
    low, high = where.min(0), where.max(0)
    cells = ((where - (low + high) / 2) / (high - low).max() * 0.85 + 0.5) * OUTLINE
    column, row = np.clip(cells.astype(np.int64), 0, OUTLINE - 1).T
    mask = np.zeros((OUTLINE, OUTLINE), bool)
    mask[row, column] = True
    return mask


def _placed(
    rgba: NDArray[np.uint8], low: NDArray[np.float64], high: NDArray[np.float64], size: int
) -> NDArray[np.uint8]:
    """The picture's object moved and scaled to the box from `low` to `high` (column, row) of a square image."""
    ratio = float((high - low).max()) / size
    square = frame(rgba, size, ratio)
    shift = np.rint((low + high) / 2 - size / 2).astype(int)
    placed = np.zeros_like(square)
    rows, columns = np.mgrid[:size, :size]
    from_row, from_column = rows - shift[1], columns - shift[0]
    inside = (from_row >= 0) & (from_row < size) & (from_column >= 0) & (from_column < size)
    placed[inside] = square[from_row[inside], from_column[inside]]
    return placed
