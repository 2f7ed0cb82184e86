"""An image prompt's own pixels on the mesh: where the camera saw the surface, the picture wins over the painted grid.

`fit_view` finds the camera of a picture that came without one, by its outline; `project` prepares what every pixel saw;
`blend_image` joins it with a `ColorGrid`. Differs: the paper's meshes have no colour; this is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.geometry.mesh import Mesh
from anyform.systems.wala.paint import ColorGrid, paint, splat
from anyform.types.camera import Cameras
from anyform.types.framing import frame

FOV_Y, DISTANCE = np.radians(40.0), 4.4  # the cameras of the training renders
OUTLINE = 48  # pixels: edge of the outlines that `fit_view` compares
TOLERANCE = 0.04  # world units between a point and the depth map within which the point counts as seen
GRAZING, FACING = 0.15, 0.5  # cosines between which the weight of a pixel rises from 0 to 1


@dataclass(frozen=True, slots=True)
class Projection:
    """V pictures and what they see of one mesh.

    rgba (V, H, W, 4) in [0, 1], alpha eroded by a pixel or two so that no background bleeds in; depth (V, H, W) along
    the camera axis, inf where no surface; facing (V, H, W): cosine between the surface normal there and the direction
    to the camera, 0 where no surface.
    """

    rgba: NDArray[np.float32]
    cameras: Cameras
    depth: NDArray[np.float64]
    facing: NDArray[np.float64]

    def sample(self, points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """World points (N, 3) -> sRGB (N, 3) and the confidence (N,) in [0, 1] with which a picture shows them."""
        total, mixed = np.zeros(len(points)), np.zeros((len(points), 3))
        for view, where in enumerate(self.cameras.project(np.asarray(points, np.float64))):
            rgba, weight = self._view(view, where)
            total += weight
            mixed += weight[:, None] * rgba
        return mixed / np.maximum(total, 1e-9)[:, None], np.minimum(total, 1.0)

    def _view(self, view: int, where: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Colours (N, 3) and weights (N,) of one picture at projected points (N, 3): column, row, depth."""
        height, width = self.depth.shape[1:]
        inside = (where[:, 2] > 0) & (where[:, :2] >= 0).all(1) & (where[:, 0] < width) & (where[:, 1] < height)
        pixel = np.where(inside[:, None], where[:, :2], 0.0)
        column, row = pixel.astype(np.int64).T
        seen = inside & (where[:, 2] < self.depth[view, row, column] + TOLERANCE)
        ramp = np.clip((self.facing[view, row, column] - GRAZING) / (FACING - GRAZING), 0, 1)
        rgba = _bilinear(self.rgba[view], pixel[:, 0] - 0.5, pixel[:, 1] - 0.5)
        return rgba[:, :3], seen * rgba[:, 3] * ramp**2 * (3 - 2 * ramp)


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


def project(rgba: NDArray[np.uint8], cameras: Cameras, mesh: Mesh) -> Projection:
    """Pictures (V, H, W, 4) or (H, W, 4) uint8 with straight alpha, taken by `cameras` of their size, onto a mesh."""
    pictures = np.atleast_1d(rgba).reshape(-1, *rgba.shape[-3:]).astype(np.float32) / np.float32(255)
    pictures[..., 3] = np.stack([_eroded(alpha, max(1, alpha.shape[0] // 96)) for alpha in pictures[..., 3]])
    depth, facing = zip(*(_seen_surface(mesh, cameras, view) for view in range(len(cameras))), strict=True)
    return Projection(pictures, cameras, np.stack(depth), np.stack(facing))


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


def _seen_surface(mesh: Mesh, cameras: Cameras, view: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depth along the axis (H, W) and cosine of the seen face towards the camera (H, W) of one view."""
    from anyform.render.raster import rasterise

    vertices = mesh.vertices.astype(np.float64)
    column, row, depth = cameras.project(vertices)[view].T
    near = max(float(depth.min()) * 0.5, 1e-3)
    # z / w = 1 - 2 near / depth: linear in depth before the division, so the raster's z gives the depth back exactly.
    x, y = 2 * column / cameras.width - 1, 2 * row / cameras.height - 1
    clip = np.stack([x * depth, y * depth, depth - 2 * near, depth], -1)
    fragments = rasterise(clip, mesh.faces, cameras.height, cameras.width)
    hit = fragments.face >= 0
    corners = vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = cameras.camera_to_world[view, :3, 3] - corners.mean(1)
    length = np.linalg.norm(normals, axis=1) * np.linalg.norm(towards, axis=1)
    cosine = (normals * towards).sum(1) / np.maximum(length, 1e-12)
    face = np.where(hit, fragments.face, 0)
    return np.where(hit, 2 * near / (1 - np.where(hit, fragments.z, 0)), np.inf), np.where(hit, cosine[face], 0.0)


def _eroded(alpha: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Smallest alpha (H, W) in the square of `radius` pixels around each pixel; outside the image counts as 0."""
    for axis in (0, 1):
        padded = np.pad(alpha, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)])
        size = alpha.shape[axis]
        alpha = np.min([padded.take(range(s, s + size), axis) for s in range(2 * radius + 1)], 0)
    return alpha


def _bilinear(image: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Image (H, W, C) at pixel-centre coordinates x, y (N,) -> (N, C); clamped at the border."""
    height, width = image.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    u, v = (x - left)[:, None], (y - top)[:, None]
    above = image[top, left] * (1 - u) + image[top, left + 1] * u
    below = image[top + 1, left] * (1 - u) + image[top + 1, left + 1] * u
    return above * (1 - v) + below * v
