"""Colours of the surface into the texels of an atlas: scanline rasterising of uv triangles, then filled seams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput, GateFailed
from anyform.geometry.mesh import Material, Mesh

_MARGIN = 0.75  # texels


@dataclass(frozen=True, slots=True)
class Texels:
    """Covered texels: row and column (N,), face (N,), barycentric (N, 3) of the texel centre in that face."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    face: NDArray[np.int64]
    barycentric: NDArray[np.float64]


def bake(mesh: Mesh, color_at: Callable[[NDArray[np.float32]], NDArray[np.floating]], texture_size: int) -> Mesh:
    """The mesh with a base-colour texture (texture_size², RGBA) in place of vertex colours.

    color_at: (N, 3) points on the surface -> (N, 3) sRGB in [0, 1]; called once, with the centres of covered texels.
    Texels outside the charts take the colour of the nearest covered one, so that filtering shows no seams.
    Raises GateFailed where color_at gives non-finite colours.
    """
    if mesh.uv is None:
        raise BadInput("a mesh without texture coordinates cannot take a texture; unwrap it first")
    texels = cover(mesh.uv, mesh.faces, texture_size)
    corners = mesh.vertices[mesh.faces[texels.face]]
    points = np.einsum("nk,nkc->nc", texels.barycentric.astype(np.float32), corners)
    colors = np.asarray(color_at(points))
    bad = int((~np.isfinite(colors)).any(1).sum())
    if colors.shape != (len(points), 3) or bad:
        raise GateFailed(f"the colours of {bad} of {len(points)} texels are not finite RGB triples; try another seed")
    image = np.zeros((texture_size, texture_size, 4), np.uint8)
    image[..., 3] = 255
    image[texels.row, texels.column, :3] = np.round(np.clip(colors, 0, 1) * 255)
    covered = np.zeros((texture_size, texture_size), np.bool_)
    covered[texels.row, texels.column] = True
    material = replace(mesh.material or Material(), base_color=_spread(image, covered))
    return replace(mesh, vertex_color=None, material=material)


def cover(uv: NDArray[np.floating], faces: NDArray[np.integer], size: int) -> Texels:
    """Texels whose centre lies in a face or up to _MARGIN texels beside it, where the nearest point of the face counts.

    uv: (V, 2) in [0, 1], v up; row 0 is v = 1. Work is one step per texel and per row of a face, not per bounding box.
    The margin serves filtering and faces too small to hold a centre. Texels come ordered so that, written one after the
    other, a face that holds a centre wins over one beside it.
    """
    x = uv[:, 0].astype(np.float64)[faces] * size - 0.5
    y = (1 - uv[:, 1].astype(np.float64)[faces]) * size - 0.5
    face, row = _spans(np.ceil(y.min(1) - _MARGIN), np.floor(y.max(1) + _MARGIN), size)
    left, right = _crossings(x, y, face, row)
    span, column = _spans(np.ceil(left - _MARGIN), np.floor(right + _MARGIN), size)
    face, row = face[span], row[span]
    barycentric = _barycentric(x, y, face, column, row)
    beside = barycentric.min(1) < -1e-9
    order = np.concatenate([np.flatnonzero(beside), np.flatnonzero(~beside)])
    inside = np.clip(barycentric, 0, 1)
    inside /= inside.sum(1, keepdims=True)
    return Texels(row[order], column[order], face[order], inside[order])


def _spans(
    first: NDArray[np.float64], last: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Owner and value of every integer in [first_i, last_i], clipped to [0, size)."""
    begin = np.clip(first, 0, size).astype(np.int64)
    length = np.maximum(np.clip(last, -1, size - 1).astype(np.int64) - begin + 1, 0)
    owner = np.repeat(np.arange(len(begin)), length)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length) + begin[owner]


def _crossings(
    x: NDArray[np.float64], y: NDArray[np.float64], face: NDArray[np.int64], row: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) where the lines y = row enter and leave triangles; rows beside a triangle see its nearest corner."""
    at = np.clip(row, y.min(1)[face], y.max(1)[face])
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for k in range(3):
        x0, y0, x1, y1 = (axis[:, c][face] for c in (k, (k + 1) % 3) for axis in (x, y))
        height = y1 - y0
        share = np.divide(at - y0, height, out=np.zeros(len(row)), where=height != 0)
        hit = np.where(
            (share >= -1e-9) & (share <= 1 + 1e-9) & ((height != 0) | (at == y0)), x0 + share * (x1 - x0), np.nan
        )
        left, right = np.fmin(left, hit), np.fmax(right, hit)
    return left, right


def _barycentric(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    face: NDArray[np.int64],
    column: NDArray[np.int64],
    row: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(N, 3) weights of the corners of the faces at texel centres; thirds where a face has no area."""
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    flat = np.abs(area) < 1e-9
    scale = 1 / np.where(flat, 1, area)
    weights = np.empty((len(row), 3))
    for k in range(2):
        a, b = (k + 1) % 3, (k + 2) % 3
        # One linear function of column and row for each face, so that texels cost three look-ups.
        down, across = (x[:, b] - x[:, a]) * scale, -(y[:, b] - y[:, a]) * scale
        constant = -down * y[:, a] - across * x[:, a]
        constant, down, across = (np.where(flat, f, v) for f, v in ((1 / 3, constant), (0, down), (0, across)))
        weights[:, k] = constant[face] + down[face] * row + across[face] * column
    weights[:, 2] = 1 - weights[:, 0] - weights[:, 1]
    return weights


def _spread(image: NDArray[np.uint8], covered: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with every uncovered texel like the nearest covered one."""
    from scipy.ndimage import distance_transform_edt

    if covered.all() or not covered.any():
        return image
    row, column = np.asarray(distance_transform_edt(~covered, return_distances=False, return_indices=True))
    return image[row, column]
