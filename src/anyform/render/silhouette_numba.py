"""Silhouette edges and their blending, compiled by numba: `silhouette` says what is computed.

No argument is checked: `rasteriser` is the door.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from anyform.render.raster import MIN_W

BOUNDARY, NON_MANIFOLD, SEEN = -1, -2, -3
_MIX = -7046029254386353131  # 2^64 / golden ratio, as a signed number


@njit(cache=True, nogil=True)
def neighbours(faces: NDArray[np.int32], num_vertices: int) -> NDArray[np.int32]:
    """(F, 3): for the edge from corner k to k + 1, the third vertex of the other face; one of the marks above else.

    Of the two faces of an edge the later one is marked SEEN, so that every edge is visited once.
    """
    size = 1
    while size < 6 * len(faces):
        size *= 2
    key, owner = np.full(size, -1, np.int64), np.empty(size, np.int32)
    opposite = np.full((len(faces), 3), BOUNDARY, np.int32)
    for f in range(len(faces)):
        for k in range(3):
            a, b = faces[f, k], faces[f, (k + 1) % 3]
            edge = np.int64(min(a, b)) * num_vertices + max(a, b)
            slot = (edge * _MIX >> 20) & (size - 1)
            while key[slot] != -1 and key[slot] != edge:
                slot = (slot + 1) & (size - 1)
            if key[slot] == -1:
                key[slot], owner[slot] = edge, 3 * f + k
                continue
            first = owner[slot]
            if opposite[first // 3, first % 3] == BOUNDARY:
                opposite[first // 3, first % 3] = faces[f, (k + 2) % 3]
                opposite[f, k] = SEEN
            else:
                opposite[first // 3, first % 3] = NON_MANIFOLD
                opposite[f, k] = NON_MANIFOLD
    return opposite


@njit(cache=True, nogil=True)
def pairs(
    position: NDArray[np.float64],
    faces: NDArray[np.int32],
    opposite: NDArray[np.int32],
    face: NDArray[np.int32],
    depth: NDArray[np.float64],
) -> NDArray[np.int32]:
    """(P, 6) as `silhouette.pairs`: inside pixel, outside pixel, vertices a and b, axis, sign."""
    height, width = face.shape
    screen = np.empty((len(position), 3))
    for v in range(len(position)):
        w = position[v, 3] if position[v, 3] > MIN_W else np.nan
        screen[v, 0] = (position[v, 0] / w + 1) * width * 0.5 - 0.5
        screen[v, 1] = (position[v, 1] / w + 1) * height * 0.5 - 0.5
        screen[v, 2] = position[v, 2] / w
    nearest = np.full((2, height * width), np.inf)
    owner = np.full((2, height * width), -1, np.int32)
    flipped = np.zeros((2, height * width), np.bool_)
    for f in range(len(faces)):
        for k in range(3):
            if opposite[f, k] < BOUNDARY:
                continue
            a, b = screen[faces[f, k]], screen[faces[f, (k + 1) % 3]]
            side = _side(a, b, screen[faces[f, (k + 2) % 3]])
            if opposite[f, k] >= 0 and not side * _side(a, b, screen[opposite[f, k]]) > 0:
                continue
            if side != 0:
                _walk(a, b, side, 3 * f + k, face, depth, nearest, owner, flipped)
    return _listed(faces, owner, flipped, width)


@njit(inline="always")
def _side(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> float:
    """Twice the signed area of a, b, c on the screen."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


@njit(cache=True, nogil=True)
def _walk(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    side: float,
    edge: int,
    face: NDArray[np.int32],
    depth: NDArray[np.float64],
    nearest: NDArray[np.float64],
    owner: NDArray[np.int32],
    flipped: NDArray[np.bool_],
) -> None:
    """Claim the pixel pairs that a silhouette edge crosses on the lines of pixel centres along its dominant axis."""
    height, width = face.shape
    axis = 0 if abs(b[1] - a[1]) >= abs(b[0] - a[0]) else 1
    across, lines = (width, height) if axis == 0 else (height, width)
    xa, ya, xb, yb = a[axis], a[1 - axis], b[axis], b[1 - axis]
    # whether the surface lies at larger x (axis 0) or larger y (axis 1) than the edge
    larger = side * (ya - yb) > 0 if axis == 0 else side * (yb - ya) > 0
    low, high = min(ya, yb), max(ya, yb)
    if not (high > 0 and low < lines):
        return
    for line in range(max(0, int(np.ceil(low))), min(lines - 1, int(np.ceil(min(high, lines))) - 1) + 1):
        t = (line - ya) / (yb - ya)
        x = xa + t * (xb - xa)
        if not 0 <= x < across - 1:
            continue
        z = a[2] + t * (b[2] - a[2])
        row, column = (line, int(x)) if axis == 0 else (int(x), line)
        next_row, next_column = (row, column + 1) if axis == 0 else (row + 1, column)
        if larger:
            inner, inner_z, outer_z = face[next_row, next_column], depth[next_row, next_column], depth[row, column]
        else:
            inner, inner_z, outer_z = face[row, column], depth[row, column], depth[next_row, next_column]
        place = row * width + column
        if inner >= 0 and outer_z > inner_z and outer_z >= z and z < nearest[axis, place]:
            nearest[axis, place], owner[axis, place], flipped[axis, place] = z, edge, larger


@njit(cache=True, nogil=True)
def _listed(
    faces: NDArray[np.int32], owner: NDArray[np.int32], flipped: NDArray[np.bool_], width: int
) -> NDArray[np.int32]:
    found = np.empty(((owner >= 0).sum(), 6), np.int32)
    n = 0
    for axis in range(2):
        for place in range(owner.shape[1]):
            edge = owner[axis, place]
            if edge >= 0:
                beside = place + (1 if axis == 0 else width)
                f, k = edge // 3, edge % 3
                turned = flipped[axis, place]
                found[n, 0], found[n, 1] = (beside, place) if turned else (place, beside)
                found[n, 2], found[n, 3] = faces[f, k], faces[f, (k + 1) % 3]
                found[n, 4], found[n, 5] = axis, -1 if turned else 1
                n += 1
    return found


@njit(inline="always")
def _ends(
    pair: NDArray[np.int32], position: NDArray[np.float64], height: int, width: int
) -> tuple[float, float, float, float]:
    """(xa, ya, xb, yb) of the edge in pixels from the inside pixel's centre, x along the pair."""
    p, a, b, axis = pair[0], pair[2], pair[3], pair[4]
    row, column = p // width, p % width
    x, y = (column, row) if axis == 0 else (row, column)
    along, lines = (width, height) if axis == 0 else (height, width)
    return (
        (position[a, axis] / position[a, 3] + 1) * along * 0.5 - 0.5 - x,
        (position[a, 1 - axis] / position[a, 3] + 1) * lines * 0.5 - 0.5 - y,
        (position[b, axis] / position[b, 3] + 1) * along * 0.5 - 0.5 - x,
        (position[b, 1 - axis] / position[b, 3] + 1) * lines * 0.5 - 0.5 - y,
    )


@njit(cache=True, nogil=True)
def blend(pairs: NDArray[np.int32], position: NDArray[np.float64], color: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (H, W, C) after the pairs have been blended."""
    height, width, channels = color.shape
    blended, flat = color.copy(), color.reshape(-1, channels)
    out = blended.reshape(-1, channels)
    for pair in pairs:
        xa, ya, xb, yb = _ends(pair, position, height, width)
        share = pair[5] * (xa * yb - xb * ya) / (yb - ya) - 0.5
        p, q = pair[0], pair[1]
        target = q if share >= 0 else p
        for c in range(channels):
            out[target, c] += share * (flat[p, c] - flat[q, c])
    return blended


@njit(cache=True, nogil=True)
def blend_backward(
    pairs: NDArray[np.int32],
    position: NDArray[np.float64],
    color: NDArray[np.float64],
    gradient: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradients of position (V, 4) and color (H, W, C)."""
    height, width, channels = color.shape
    g_position, g_color = np.zeros_like(position), gradient.copy()
    flat, pull, g_flat = color.reshape(-1, channels), gradient.reshape(-1, channels), g_color.reshape(-1, channels)
    for pair in pairs:
        xa, ya, xb, yb = _ends(pair, position, height, width)
        run = yb - ya
        share = pair[5] * (xa * yb - xb * ya) / run - 0.5
        p, q, a, b, axis = pair[0], pair[1], pair[2], pair[3], pair[4]
        target = q if share >= 0 else p
        g_share = 0.0
        for c in range(channels):
            g = pull[target, c]
            g_share += g * (flat[p, c] - flat[q, c])
            g_flat[p, c] += share * g
            g_flat[q, c] -= share * g
        # the edge crosses the line of centres at X = xa − ya (xb − xa) / (yb − ya)
        slope = (xb - xa) / run
        g_xa, g_xb = g_share * pair[5] * yb / run, -g_share * pair[5] * ya / run
        along, lines = (width * 0.5, height * 0.5) if axis == 0 else (height * 0.5, width * 0.5)
        for v, g in ((a, g_xa), (b, g_xb)):
            w = position[v, 3]
            gx, gy = g * along / w, -g * slope * lines / w
            g_position[v, axis] += gx
            g_position[v, 1 - axis] += gy
            g_position[v, 3] -= (gx * position[v, axis] + gy * position[v, 1 - axis]) / w
    return g_position, g_color
