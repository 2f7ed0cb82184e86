"""Pictures on a mesh: which texel each of them saw, and how sure it is of its colour.

Where several pictures see a point their colours are averaged by how squarely they look at it, which fades one into the
next instead of leaving a seam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.geometry.mesh import Mesh
from anyform.render.raster import rasterise
from anyform.types.camera import Cameras

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


def project(rgba: NDArray[np.uint8], cameras: Cameras, mesh: Mesh) -> Projection:
    """Pictures (V, H, W, 4) or (H, W, 4) uint8 with straight alpha, taken by `cameras` of their size, onto a mesh."""
    pictures = np.atleast_1d(rgba).reshape(-1, *rgba.shape[-3:]).astype(np.float32) / np.float32(255)
    pictures[..., 3] = np.stack([_eroded(alpha, max(1, alpha.shape[0] // 96)) for alpha in pictures[..., 3]])
    depth, facing = zip(*(_seen_surface(mesh, cameras, view) for view in range(len(cameras))), strict=True)
    return Projection(pictures, cameras, np.stack(depth), np.stack(facing))


def _seen_surface(mesh: Mesh, cameras: Cameras, view: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depth along the axis (H, W) and cosine of the seen face towards the camera (H, W) of one view."""
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
