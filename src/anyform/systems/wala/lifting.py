"""Prompts that carry geometry, turned into a crude distance field on the codec's own grid.

Ours, for the embedded family: the field goes through the frozen codec, and the denoiser gets its latent as grid
condition, in the space it works in. Measured on this corpus, conditions on the latent grid are learned within minutes
where attention tokens alone are ignored for hours (specs/embedded.md §6).

Every function returns float32 (N, N, N) in [-1, 1], axes x, y, z, negative inside, at "unit scale": 1 is `REACH`
voxels. Sample i of an axis sits at -1 + (2i + 1)/N (cell centres).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anyform.types.camera import Cameras

REACH = 4  # voxels of truncation; CodecConfig.truncation · N / 2 of the embedded codec
SIZE = 64

Field = NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)


def squared_distance(inside: NDArray[np.bool_], reach: int = REACH) -> NDArray[np.uint8]:
    """Squared voxel distance to the nearest True cell, exact up to `reach`, capped at (reach + 1)²; separable."""
    cap = (reach + 1) ** 2
    best = np.where(inside, 0, cap).astype(np.uint8)
    for axis in range(inside.ndim):
        source = np.moveaxis(best, axis, 0)
        result = source.copy()
        for shift in range(1, reach + 1):
            step = np.minimum(source, cap - shift**2) + np.uint8(shift**2)
            np.minimum(result[shift:], step[:-shift], out=result[shift:])
            np.minimum(result[:-shift], step[shift:], out=result[:-shift])
        best = np.moveaxis(result, 0, axis)
    return best


def field_of_solid(inside: NDArray[np.bool_]) -> Field:
    """Signed field of a solid given cell by cell; the surface runs half a voxel outside its outermost cells."""
    outer = np.sqrt(squared_distance(inside).astype(np.float32))
    inner = np.sqrt(squared_distance(~inside).astype(np.float32))
    signed = np.where(inside, 0.5 - inner, outer - 0.5)
    return np.clip(signed / REACH, -1, 1).astype(np.float32)


def from_voxels(occupancy: NDArray[np.bool_]) -> Field:
    """A cubic occupancy (R, R, R) that divides 64, blown up smoothly: the surface is where the interpolant is half."""
    factor = SIZE // occupancy.shape[0]
    padded = np.pad(occupancy, 1).astype(np.float32)
    along = (np.arange(SIZE) + 0.5) / factor + 0.5
    for axis in range(3):
        low = np.clip(np.floor(along).astype(int), 0, padded.shape[axis] - 2)
        part = (along - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        padded = np.take(padded, low, axis) * (1 - part) + np.take(padded, low + 1, axis) * part
    return np.clip((0.5 - padded) * 2 * factor / REACH, -1, 1).astype(np.float32)


def from_points(points: NDArray[np.floating]) -> Field:
    """Surface points (N, 3) in [-1, 1]: the space they enclose after closing the gaps between them.

    What cannot be reached from the border without passing within r of a point is inside, taken back by r; sheets of
    points that enclose nothing keep a thin shell.
    """
    cells = np.clip(((points + 1) * (SIZE / 2)).astype(np.int64), 0, SIZE - 1)
    occupied = np.zeros((SIZE,) * 3, bool)
    occupied[cells[:, 0], cells[:, 1], cells[:, 2]] = True
    radius = _closing_radius(points)
    near = squared_distance(occupied)
    outside = _reached_from_border(near > radius**2)
    back = np.sqrt(squared_distance(outside).astype(np.float32))
    solid = radius - back
    shell = np.sqrt(near.astype(np.float32)) - 0.7
    return np.clip(np.minimum(solid, shell) / REACH, -1, 1).astype(np.float32)


def _closing_radius(points: NDArray[np.floating]) -> float:
    """Voxels: the largest gap to expect between points scattered at random, between 1.5 and 4.

    With λ points a unit area the median distance to a neighbour is √(ln 2 / πλ), and the largest empty disc among some
    5,000 voxels of surface has radius about √(ln 5000 / πλ), 3.5 times as much; one more for safety (measured).
    """
    from scipy.spatial import KDTree

    some = points[:: max(1, len(points) // 1024)]
    distance = KDTree(points).query(some, k=2)[0][:, 1]
    return float(np.clip(4.5 * np.median(distance) * SIZE / 2, 1.5, REACH))


def _reached_from_border(free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The free cells connected to the border of the grid (by faces)."""
    labels = np.empty(tuple(side + 2 for side in free.shape), np.int32)
    ndimage.label(np.pad(free, 1, constant_values=True), output=labels)
    return (labels == labels[0, 0, 0])[1:-1, 1:-1, 1:-1]


def cell_centres() -> NDArray[np.float64]:
    """(64³, 3) world positions of the samples."""
    along = -1 + (2 * np.arange(SIZE) + 1) / SIZE
    return np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)


class Projection:
    """Where each sample of the grid falls in V views: made once for fixed cameras, used for many objects."""

    def __init__(self, cameras: Cameras) -> None:
        self.cameras = cameras
        where = cameras.project(cell_centres())
        column, row = (np.floor(where[..., k]).astype(np.int64) for k in (0, 1))
        self.depth = where[..., 2].astype(np.float32)
        self.visible = (column >= 0) & (column < cameras.width) & (row >= 0) & (row < cameras.height)
        clipped = np.clip(row, 0, cameras.height - 1) * cameras.width + np.clip(column, 0, cameras.width - 1)
        self.pixel = clipped.astype(np.int32)
        self.footprint = 2 * np.tan(cameras.fov_y / 2)[:, None].astype(np.float32) * self.depth / cameras.height

    def carve(self, free: list[Field]) -> Field:
        """The union of what each view knows to be free: the largest of per-view signed distances (world units)."""
        signed = free[0]
        for other in free[1:]:
            signed = np.maximum(signed, other)
        return np.clip(signed.reshape((SIZE,) * 3) * (SIZE / 2) / REACH, -1, 1).astype(np.float32)


def from_depths(depth: NDArray[np.floating], projection: Projection) -> Field:
    """Depth maps (V, H, W), inf where nothing is seen: free is what lies before a seen surface or on a free ray."""
    free = []
    for view, image in enumerate(depth):
        around = _signed_pixels(np.isfinite(image)).ravel()[projection.pixel[view]] * projection.footprint[view]
        seen = image.astype(np.float32).ravel()[projection.pixel[view]]
        ahead = np.where(np.isfinite(seen), seen - projection.depth[view], np.inf)
        signed = np.where(around > 0, around, np.maximum(np.minimum(ahead, 1.0), around))
        free.append(np.where(projection.visible[view], signed, 1.0).astype(np.float32))
    return projection.carve(free)


def from_masks(masks: NDArray[np.bool_], projection: Projection) -> Field:
    """Silhouettes (V, H, W): the visual hull."""
    free = []
    for view, mask in enumerate(masks):
        around = _signed_pixels(mask).ravel()[projection.pixel[view]] * projection.footprint[view]
        free.append(np.where(projection.visible[view], around, 1.0).astype(np.float32))
    return projection.carve(free)


def _signed_pixels(mask: NDArray[np.bool_]) -> Field:
    """Pixels to the silhouette's edge, negative inside; exact up to 8 pixels."""
    outer = np.sqrt(squared_distance(mask, 8).astype(np.float32))
    inner = np.sqrt(squared_distance(~mask, 8).astype(np.float32))
    return np.where(mask, 0.5 - inner, outer - 0.5).astype(np.float32)


def from_silhouette(mask: NDArray[np.bool_], ratio: float = 0.85) -> Field:
    """One framed square mask (see `types.framing`), extruded along z through the object's box [-0.9, 0.9].

    The longest side of the mask is taken for the object's longest side, 1.8; the picture's rows run down, y up.
    """
    size = mask.shape[0]
    scale = 1.8 / (ratio * size)  # world units a pixel
    along = -1 + (2 * np.arange(SIZE) + 1) / SIZE
    pixel = np.clip(np.floor(along / scale + size / 2).astype(int), 0, size - 1)
    flat = _signed_pixels(mask)[::-1].T[np.ix_(pixel, pixel)] * (scale * SIZE / 2)
    slab = (np.abs(along) - 0.9) * (SIZE / 2)
    signed = np.maximum(flat[:, :, None], slab[None, None, :])
    return np.clip(signed / REACH, -1, 1).astype(np.float32)


def turn(volume: NDArray[Scalar], quarters: int) -> NDArray[Scalar]:
    """The object turned by −90° · quarters about +y: a camera at azimuth 90° · quarters comes to the front (+z).

    The last three axes are x, y, z.
    """
    for _ in range(quarters % 4):  # new (x, z) = old (−z, x)
        volume = np.flip(np.swapaxes(volume, -1, -3), -3)
    return volume


def turn_points(points: NDArray[np.floating], quarters: int) -> NDArray[np.floating]:
    """`turn` for points (..., 3)."""
    for _ in range(quarters % 4):
        points = np.stack([-points[..., 2], points[..., 1], points[..., 0]], -1)
    return points
