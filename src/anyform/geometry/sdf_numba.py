"""Distance to the nearest triangle on an integer lattice, compiled by numba: exact band, then sweeps.

Everything here is in lattice units: sample (i, j, k) sits at the point (i, j, k). No argument is checked (numba does
not bound-check); `geometry.sdf` is the door. The readable twin is `sdf.unsigned_distance_reference`.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from anyform.geometry.compiled import LAUNCH

BAND = 3.0  # cells around the surface in which the distance is exact
UNKNOWN = np.float32(1e30)
SWEEP_ROUNDS = 2

# Columns of a packed triangle: corner a, edges ab and ac, their dot products, unit normal (0 if degenerate) and
# bounding sphere.
A, AB, AC, AB_AB, AB_AC, AC_AC, NORMAL, CENTRE, RADIUS, WIDTH = 0, 3, 6, 9, 10, 11, 12, 15, 18, 19


def nearest_triangles(corners: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Distances (N, N, N) float32 of the lattice points to triangles (F, 3, 3) float64 in lattice units."""
    packed = _pack(corners)
    boxes = np.empty((len(corners), 6), np.int32)
    boxes[:, :3] = np.clip(np.ceil(corners.min(1) - BAND), 0, size)
    boxes[:, 3:] = np.clip(np.floor(corners.max(1) + BAND) + 1, 0, size)
    distance = np.full((size, size, size), BAND, np.float32)
    nearest = np.full((size, size, size), -1, np.int32)
    with LAUNCH:
        # A slab owns its voxels and sees the faces in order: the number of slabs does not change a bit of the result.
        threads = numba.get_num_threads()
        _band(packed, boxes, 1 if threads == 1 else min(size, 8 * threads), distance, nearest)
        distance[nearest < 0] = UNKNOWN
        for _ in range(SWEEP_ROUNDS):
            for axis in range(3):
                _sweep(packed, np.moveaxis(distance, axis, 2), np.moveaxis(nearest, axis, 2), axis)
    return distance


def _pack(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, WIDTH) float64, what the kernels need of each triangle."""
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    packed = np.empty((len(corners), WIDTH))
    packed[:, A : A + 3], packed[:, AB : AB + 3], packed[:, AC : AC + 3] = a, ab, ac
    packed[:, AB_AB], packed[:, AB_AC], packed[:, AC_AC] = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    normal = np.cross(ab, ac)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    # A sliver's normal is mostly rounding; without a normal the plane test below never rejects it.
    trusted = length > 1e-6 * np.sqrt(packed[:, AB_AB] * packed[:, AC_AC])[:, None]
    packed[:, NORMAL : NORMAL + 3] = np.where(trusted, normal / np.where(trusted, length, 1), 0)
    centre = (corners.min(1) + corners.max(1)) / 2
    packed[:, CENTRE : CENTRE + 3] = centre
    packed[:, RADIUS] = np.linalg.norm(corners - centre[:, None], axis=2).max(1)
    return packed


@njit(inline="always")
def _distance(x: float, y: float, z: float, packed: NDArray[np.float64], face: int) -> float:
    """Exact distance of a point to a triangle: to its plane if the foot lies inside, else to the nearest edge."""
    t = packed[face]
    px, py, pz = x - t[A], y - t[A + 1], z - t[A + 2]
    aa, bb, cc = t[AB_AB], t[AB_AC], t[AC_AC]
    d1 = t[AB] * px + t[AB + 1] * py + t[AB + 2] * pz
    d2 = t[AC] * px + t[AC + 1] * py + t[AC + 2] * pz
    determinant = aa * cc - bb * bb
    u, v = cc * d1 - bb * d2, aa * d2 - bb * d1
    if determinant > 1e-12 * aa * cc and u >= 0 and v >= 0 and u + v <= determinant:
        u /= determinant
        v /= determinant
    else:
        s = min(max(d1 / aa, 0.0), 1.0) if aa > 0 else 0.0
        best, u, v = aa * s * s - 2 * d1 * s, s, 0.0
        s = min(max(d2 / cc, 0.0), 1.0) if cc > 0 else 0.0
        value = cc * s * s - 2 * d2 * s
        if value < best:
            best, u, v = value, 0.0, s
        e = aa - 2 * bb + cc
        s = min(max((aa - bb - d1 + d2) / e, 0.0), 1.0) if e > 0 else 0.0
        w = 1 - s
        if aa * w * w + 2 * bb * w * s + cc * s * s - 2 * d1 * w - 2 * d2 * s < best:
            u, v = w, s
    rx = px - u * t[AB] - v * t[AC]
    ry = py - u * t[AB + 1] - v * t[AC + 1]
    rz = pz - u * t[AB + 2] - v * t[AC + 2]
    return np.sqrt(rx * rx + ry * ry + rz * rz)


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _band(
    packed: NDArray[np.float64],
    boxes: NDArray[np.int32],
    slabs: int,
    distance: NDArray[np.float32],
    nearest: NDArray[np.int32],
) -> None:
    """Every lattice point within BAND of a triangle: `distance` (filled with BAND) and the id of the `nearest` face.

    Two lower bounds, the distances to the triangle's plane and to its bounding sphere, spare most exact evaluations.
    Ties fall to the lower face id.
    """
    size = distance.shape[0]
    for slab in prange(slabs):
        first, last = size * slab // slabs, size * (slab + 1) // slabs
        for face in range(len(packed)):
            t, box = packed[face], boxes[face]
            radius = t[RADIUS]
            for i in range(max(first, box[0]), min(last, box[3])):
                dx2, hx = (i - t[CENTRE]) ** 2, t[NORMAL] * (i - t[A])
                for j in range(box[1], box[4]):
                    dxy2 = dx2 + (j - t[CENTRE + 1]) ** 2
                    room = (BAND + radius) ** 2 - dxy2
                    if room <= 0:
                        continue
                    half, hxy = np.sqrt(room), hx + t[NORMAL + 1] * (j - t[A + 1])
                    low, high = int(np.ceil(t[CENTRE + 2] - half)), int(np.floor(t[CENTRE + 2] + half)) + 1
                    for k in range(max(box[2], low), min(box[5], high)):
                        limit = distance[i, j, k]
                        if abs(hxy + t[NORMAL + 2] * (k - t[A + 2])) >= limit:
                            continue
                        if dxy2 + (k - t[CENTRE + 2]) ** 2 >= (limit + radius) ** 2:
                            continue
                        exact = np.float32(_distance(i, j, k, packed, face))
                        if exact < limit:
                            distance[i, j, k], nearest[i, j, k] = exact, face


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _sweep(packed: NDArray[np.float64], distance: NDArray[np.float32], nearest: NDArray[np.int32], axis: int) -> None:
    """Hand the nearest face on along one lattice axis, both ways, wherever its exact distance is smaller.

    `distance` and `nearest` are views whose last dimension is `axis`, the other two in their order. Points inside the
    band keep what they have.
    """
    size = distance.shape[0]
    for p in prange(size):
        for q in range(size):
            for way in range(2):
                previous = -1
                for step in range(size):
                    m = step if way == 0 else size - 1 - step
                    current, limit = nearest[p, q, m], distance[p, q, m]
                    if previous >= 0 and previous != current and limit > BAND:
                        x, y, z = (m, p, q) if axis == 0 else ((p, m, q) if axis == 1 else (p, q, m))
                        exact = np.float32(_distance(x, y, z, packed, previous))
                        if exact < limit:
                            distance[p, q, m], nearest[p, q, m] = exact, previous
                            current = previous
                    previous = current
