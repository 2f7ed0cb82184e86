"""Which triangle does each pixel see? A rasteriser in plain numpy: exact definition, no compiler, no GPU.

Visibility (homogeneous rasterisation, Olano and Greer 1997). For clip positions (X, Y, Z, W) of the corners and a pixel
centre (x, y) in normalised device coordinates: q_k = (X_k − x W_k, Y_k − y W_k), e0 = q1 × q2, e1 = q2 × q0,
e2 = q0 × q1 and s their sum. A pixel is covered where no e has the sign opposite to s and s is not 0; b_k = e_k / s are
the barycentric coordinates, correct in perspective. Of the covering triangles the smallest z = Σ e_k Z_k / Σ e_k W_k in
[−1, 1) wins, among equals the lower face id. Both sides of a triangle are visible. A pixel centre exactly on a shared
edge belongs to both triangles, so there are no cracks.

Pixel (i, j) has its centre at x = (2j + 1)/W − 1, y = (2i + 1)/H − 1: **row 0 is the bottom** of the picture; who shows
it flips it once. Triangles with any W <= 1e-8 (a corner beside or behind the camera) are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput

MIN_W = 1e-8
CHUNK = 1 << 19  # fragments at a time: about 100 MB of float64 intermediates
_SLACK = 1e-6  # pixels by which spans are widened before the exact test, against rounding of their ends


@dataclass(frozen=True, slots=True)
class Fragments:
    """What an image of H × W pixels sees.

    uv (H, W, 2) float64: barycentric weights of the first two corners. z (H, W) float64: normalised depth in [−1, 1),
    1 where nothing is seen. face (H, W) int32: triangle, −1 = none.
    """

    uv: NDArray[np.float64]
    z: NDArray[np.float64]
    face: NDArray[np.int32]


def rasterise(pos_clip: NDArray[np.floating], faces: NDArray[np.integer], height: int, width: int) -> Fragments:
    """Visibility of triangles faces (F, 3) over clip positions pos_clip (V, 4); memory grows with the image alone.

    Raises BadInput where every triangle is dropped for its W.
    """
    position = np.asarray(pos_clip, np.float64)
    kept = np.flatnonzero((position[faces, 3] > MIN_W).all(1))
    if len(faces) and not len(kept):
        raise BadInput(f"all {len(faces)} triangles reach behind the camera: move it back")
    z = np.full(height * width, 1.0)
    uv = np.zeros((height * width, 2))
    face = np.full(height * width, -1, np.int32)
    edges, inverse = _edge_functions(position[faces[kept]])
    corner_z, corner_w = position[faces[kept], 2], position[faces[kept], 3]
    for index, row, column in _spans(position, faces[kept], edges, inverse, (height, width)):
        x, y = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
        e = [edges[index, k, 0] * x + edges[index, k, 1] * y + edges[index, k, 2] for k in range(3)]
        total = e[0] + e[1] + e[2]
        covered = (np.minimum(np.minimum(e[0], e[1]), e[2]) >= 0) & (total > 0)
        weight = np.stack([part[covered] for part in e], 1)
        index, pixel = index[covered], row[covered] * width + column[covered]
        here = (weight * corner_z[index]).sum(1) / (weight * corner_w[index]).sum(1)
        nearer = (here >= -1) & (here < z[pixel])
        np.minimum.at(z, pixel[nearer], here[nearer])
        # Faces come in ascending order and the last of equal pixels is kept: backwards, the lowest face id wins ties.
        shown = np.flatnonzero(nearer & (here == z[pixel]))[::-1]
        face[pixel[shown]] = kept[index[shown]]
        uv[pixel[shown]] = weight[shown, :2] / total[covered][shown, None]
    shape = height, width
    return Fragments(uv.reshape(*shape, 2), z.reshape(shape), face.reshape(shape))


def interpolate(
    attributes: NDArray[np.floating], faces: NDArray[np.integer], fragments: Fragments
) -> NDArray[np.float64]:
    """Attributes (V, C) of the vertices at each pixel, (H, W, C); 0 where nothing is seen."""
    return interpolate_corners(np.asarray(attributes, np.float64)[faces], fragments)


def interpolate_corners(corners: NDArray[np.floating], fragments: Fragments) -> NDArray[np.float64]:
    """As `interpolate`, of values (F, 3, C) that each face has for itself."""
    seen = fragments.face >= 0
    values = np.zeros((*fragments.face.shape, corners.shape[-1]))
    values[seen] = at_seen(corners, fragments, seen)
    return values


def at_seen(corners: NDArray[np.floating], fragments: Fragments, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values (F, 3, C) at the P pixels of the mask `seen` (H, W), (P, C): nothing is spent on the background."""
    face, uv = fragments.face[seen], fragments.uv[seen]
    b0, b1 = uv[:, :1], uv[:, 1:]
    return corners[face, 0] * b0 + corners[face, 1] * b1 + corners[face, 2] * (1 - b0 - b1)


def _edge_functions(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Clip corners (F, 3, 4) -> coefficients (F, 3, 3) of e_k = A x + B y + C, and which faces are flat (F,).

    The sign is turned so that a covered pixel has every e >= 0. With p_k = (X_k, Y_k, W_k), e_0 is the triple product
    of (x, y, 1) with p_1 and p_2.
    """
    p = corners[..., [0, 1, 3]]
    edges = np.cross(p[:, [1, 2, 0]], p[:, [2, 0, 1]])
    determinant = (p[:, 0] * edges[:, 0]).sum(-1)
    return edges * np.sign(determinant)[:, None, None], determinant == 0


def _spans(
    position: NDArray[np.float64],
    faces: NDArray[np.integer],
    edges: NDArray[np.float64],
    flat: NDArray[np.bool_],
    size: tuple[int, int],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Candidate pixels as (face index, row, column), at most about CHUNK at a time, faces in ascending order.

    A triangle is expanded to the rows that it touches, each row to the columns between its outermost edges.
    """
    height, width = size
    corner_row = (position[:, 1] / np.maximum(position[:, 3], MIN_W) + 1) * height / 2 - 0.5
    corner_row = np.clip(corner_row, -1, height)[faces]
    first = np.maximum(np.ceil(corner_row.min(1) - _SLACK), 0).astype(np.int64)
    last = np.minimum(np.floor(corner_row.max(1) + _SLACK), height - 1).astype(np.int64)
    rows = np.where(flat, 0, np.maximum(last - first + 1, 0))
    for block in _blocks(rows):
        index, offset = _expand(rows[block])
        index += block.start
        row = first[index] + offset
        left, right = _columns(edges[index], (2 * row + 1) / height - 1, width)
        count = np.maximum(right - left + 1, 0)
        for part in _blocks(count):
            which, step = _expand(count[part])
            which += part.start
            yield index[which], row[which], left[which] + step


def _columns(
    edges: NDArray[np.float64], y: NDArray[np.float64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last column (P,) whose centre may satisfy all three edge functions (P, 3, 3) on the line y (P,)."""
    slope, rest = edges[..., 0], edges[..., 1] * y[:, None] + edges[..., 2]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        crossing = ((-rest / slope) + 1) * width / 2 - 0.5
    left = np.where(slope > 0, crossing, -np.inf).max(1)
    right = np.where(slope < 0, crossing, np.inf).min(1)
    first = np.ceil(np.clip(left - _SLACK, 0, width)).astype(np.int64)
    last = np.floor(np.clip(right + _SLACK, -1, width - 1)).astype(np.int64)
    return first, last


def _blocks(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Consecutive slices whose counts add up to at most CHUNK, or hold one entry."""
    end = np.cumsum(counts)
    start, done = 0, 0
    while start < len(counts):
        stop = max(int(np.searchsorted(end, done + CHUNK, side="right")), start + 1)
        if end[stop - 1] > done:
            yield slice(start, stop)
        start, done = stop, int(end[stop - 1])


def _expand(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entry i repeated counts[i] times: the entry and the running number within it."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
