"""The rasteriser of `raster`, tile by tile, and its interpolation with gradients, compiled by numba.

Every face is sorted, in order, into the 16 × 16 tiles that its bounding box touches; a tile belongs to one thread, sees
its faces in order and keeps the nearest (ties: the lower face id), so the bits do not depend on the number of threads.
Faces whose box covers no pixel centre die at once. Everything is evaluated in float64.

Gradient of an interpolation: with q_k, e_k, s and b_k of `raster`, g_bk = ⟨g, a_k − a_2⟩, m = Σ g_bk b_k and
h_k = (g_bk − m) / s it is d q0 = h1 (−q2y, q2x) + h2 (q1y, −q1x) and so on around; d X += d q_x, d Y += d q_y,
d W −= x d q_x + y d q_y, and d a_k += b_k g. Pixels are scattered in raster order. No argument is checked.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from anyform.geometry.compiled import LAUNCH
from anyform.render.raster import MIN_W, Fragments

TILE = 16


def rasterise(position: NDArray[np.float64], faces: NDArray[np.int32], height: int, width: int) -> Fragments:
    """`raster.rasterise` of contiguous float64 clip positions (V, 4) and int32 faces (F, 3), without its checks."""
    uv, z = np.zeros((height, width, 2)), np.ones((height, width))
    face = np.full((height, width), -1, np.int32)
    start, order, boxes = _bin(position, faces, height, width)
    with LAUNCH:
        _tiles(position, faces, boxes, start, order, uv, z, face)
    return Fragments(uv, z, face)


@njit(cache=True, nogil=True)
def _bin(
    position: NDArray[np.float64], faces: NDArray[np.int32], height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Faces of every tile: order[start[tile] : start[tile + 1]]; boxes (F, 4) of pixels, left > right = none."""
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    boxes = np.empty((len(faces), 4), np.int32)
    start = np.zeros(across * down + 1, np.int64)
    sx, sy = np.empty(len(position)), np.empty(len(position))
    for v in range(len(position)):
        w = max(position[v, 3], MIN_W)
        # far outside the picture any place will do, as long as it fits an integer
        sx[v] = min(max((position[v, 0] / w + 1) * width * 0.5 - 0.5, -4.0), width + 4.0)
        sy[v] = min(max((position[v, 1] / w + 1) * height * 0.5 - 0.5, -4.0), height + 4.0)
    for f in range(len(faces)):
        a, b, c = faces[f]
        left = max(int(np.ceil(min(sx[a], sx[b], sx[c]))), 0)
        right = min(int(np.floor(max(sx[a], sx[b], sx[c]))), width - 1)
        low = max(int(np.ceil(min(sy[a], sy[b], sy[c]))), 0)
        high = min(int(np.floor(max(sy[a], sy[b], sy[c]))), height - 1)
        behind = position[a, 3] <= MIN_W or position[b, 3] <= MIN_W or position[c, 3] <= MIN_W
        if low > high or behind:
            right = left - 1
        boxes[f, 0], boxes[f, 1], boxes[f, 2], boxes[f, 3] = left, right, low, high
        if left <= right:
            for row in range(low // TILE, high // TILE + 1):
                for column in range(left // TILE, right // TILE + 1):
                    start[row * across + column + 1] += 1
    for tile in range(across * down):
        start[tile + 1] += start[tile]
    order, filled = np.empty(start[-1], np.int32), start[:-1].copy()
    for f in range(len(faces)):
        left, right, low, high = boxes[f]
        if left <= right:
            for row in range(low // TILE, high // TILE + 1):
                for column in range(left // TILE, right // TILE + 1):
                    order[filled[row * across + column]] = f
                    filled[row * across + column] += 1
    return start, order, boxes


@njit(parallel=True, cache=True, nogil=True)
def _tiles(
    position: NDArray[np.float64],
    faces: NDArray[np.int32],
    boxes: NDArray[np.int32],
    start: NDArray[np.int64],
    order: NDArray[np.int32],
    uv: NDArray[np.float64],
    depth: NDArray[np.float64],
    face: NDArray[np.int32],
) -> None:
    height, width = depth.shape
    across = (width + TILE - 1) // TILE
    for tile in prange(len(start) - 1):
        top, side = tile // across * TILE, tile % across * TILE
        for n in range(start[tile], start[tile + 1]):
            f = order[n]
            a, b, c = faces[f]
            ax, ay, az, aw = position[a]
            bx, by, bz, bw = position[b]
            cx, cy, cz, cw = position[c]
            # e_k(x, y) = A_k x + B_k y + C_k
            A0, B0, C0 = by * cw - bw * cy, bw * cx - bx * cw, bx * cy - by * cx
            A1, B1, C1 = cy * aw - cw * ay, cw * ax - cx * aw, cx * ay - cy * ax
            A2, B2, C2 = ay * bw - aw * by, aw * bx - ax * bw, ax * by - ay * bx
            determinant = A0 * ax + B0 * ay + C0 * aw
            if determinant == 0:
                continue
            sign = 1.0 if determinant > 0 else -1.0
            for i in range(max(boxes[f, 2], top), min(boxes[f, 3], top + TILE - 1) + 1):
                y = (2 * i + 1) / height - 1
                for j in range(max(boxes[f, 0], side), min(boxes[f, 1], side + TILE - 1) + 1):
                    x = (2 * j + 1) / width - 1
                    e0 = sign * (A0 * x + B0 * y + C0)
                    e1 = sign * (A1 * x + B1 * y + C1)
                    e2 = sign * (A2 * x + B2 * y + C2)
                    total = e0 + e1 + e2
                    if e0 >= 0 and e1 >= 0 and e2 >= 0 and total > 0:
                        z = (e0 * az + e1 * bz + e2 * cz) / (e0 * aw + e1 * bw + e2 * cw)
                        if -1 <= z < depth[i, j]:
                            depth[i, j], face[i, j] = z, f
                            uv[i, j, 0], uv[i, j, 1] = e0 / total, e1 / total


@njit(cache=True, nogil=True)
def interpolate(
    attributes: NDArray[np.float64], faces: NDArray[np.int32], uv: NDArray[np.float64], face: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Attributes (V, C) at every pixel, (H, W, C); 0 where nothing is seen."""
    height, width = face.shape
    values = np.zeros((height, width, attributes.shape[1]))
    for i in range(height):
        for j in range(width):
            if face[i, j] >= 0:
                a, b, c = faces[face[i, j]]
                u, v = uv[i, j]
                for k in range(attributes.shape[1]):
                    values[i, j, k] = u * attributes[a, k] + v * attributes[b, k] + (1 - u - v) * attributes[c, k]
    return values


@njit(cache=True, nogil=True)
def interpolate_backward(
    position: NDArray[np.float64],
    attributes: NDArray[np.float64],
    faces: NDArray[np.int32],
    uv: NDArray[np.float64],
    face: NDArray[np.int32],
    gradient: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradients of position (V, 4) and attributes (V, C) from that of the interpolated values (H, W, C)."""
    height, width = face.shape
    g_position, g_attributes = np.zeros_like(position), np.zeros_like(attributes)
    q, d = np.empty((3, 2)), np.empty((3, 2))
    for i in range(height):
        y = (2 * i + 1) / height - 1
        for j in range(width):
            if face[i, j] < 0:
                continue
            x = (2 * j + 1) / width - 1
            a, b, c = faces[face[i, j]]
            u, v = uv[i, j]
            gu, gv = 0.0, 0.0
            for k in range(attributes.shape[1]):
                g = gradient[i, j, k]
                g_attributes[a, k] += u * g
                g_attributes[b, k] += v * g
                g_attributes[c, k] += (1 - u - v) * g
                gu += g * (attributes[a, k] - attributes[c, k])
                gv += g * (attributes[b, k] - attributes[c, k])
            for n in range(3):
                corner = faces[face[i, j], n]
                q[n, 0] = position[corner, 0] - x * position[corner, 3]
                q[n, 1] = position[corner, 1] - y * position[corner, 3]
            total = (
                q[1, 0] * q[2, 1] - q[1, 1] * q[2, 0]
                + q[2, 0] * q[0, 1] - q[2, 1] * q[0, 0]
                + q[0, 0] * q[1, 1] - q[0, 1] * q[1, 0]
            )  # fmt: skip
            m = gu * u + gv * v
            h0, h1, h2 = (gu - m) / total, (gv - m) / total, -m / total
            d[0, 0], d[0, 1] = h2 * q[1, 1] - h1 * q[2, 1], h1 * q[2, 0] - h2 * q[1, 0]
            d[1, 0], d[1, 1] = h0 * q[2, 1] - h2 * q[0, 1], h2 * q[0, 0] - h0 * q[2, 0]
            d[2, 0], d[2, 1] = h1 * q[0, 1] - h0 * q[1, 1], h0 * q[1, 0] - h1 * q[0, 0]
            for n in range(3):
                corner = faces[face[i, j], n]
                g_position[corner, 0] += d[n, 0]
                g_position[corner, 1] += d[n, 1]
                g_position[corner, 3] -= x * d[n, 0] + y * d[n, 1]
    return g_position, g_attributes
