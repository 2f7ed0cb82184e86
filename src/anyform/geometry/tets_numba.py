"""The topology of a level set on a Kuhn grid, compiled by numba: count, then fill, slab by slab.

`column` holds the four signs of a z-line's cross-section; a cube whose two cross-sections are uniform and alike is left
at once. No argument is checked: `tets.crossings` is the door. The readable twin is `marching_tets_reference` of
`fields.marching_tets`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from anyform.geometry.compiled import LAUNCH
from anyform.geometry.tets import EDGES, KUHN, NUM_TRIANGLES, TRIANGLES


def crossings(outside: NDArray[np.uint8], resolution: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """`tets.crossings` of signs ((R + 1)³,), 1 = outside."""
    side = resolution + 1
    number = np.zeros(side, np.int64)
    with LAUNCH:
        edge_id = _scratch(7 * side**3)
        _edges(outside, side, edge_id, np.empty((0, 2), np.int64), np.empty(0, np.int64), number)
        first = np.concatenate([[0], np.cumsum(number)])
        pairs = np.empty((first[-1], 2), np.int64)
        _edges(outside, side, edge_id, pairs, first, number)
        _faces(outside, side, edge_id, np.empty((0, 3), np.int32), np.empty(0, np.int64), number)
        first = np.concatenate([[0], np.cumsum(number)])
        faces = np.empty((first[-1], 3), np.int32)
        _faces(outside, side, edge_id, faces, first, number)
    return pairs, faces


@lru_cache(maxsize=1)
def _scratch(size: int) -> NDArray[np.int32]:
    """Ids of edges, kept between calls: written only where an edge crosses, and read only there."""
    return np.empty(size, np.int32)


@njit(inline="always")
def _column(outside: NDArray[np.uint8], side: int, x: int, y: int, z: int) -> int:
    """Signs of (x, y), (x, y + 1), (x + 1, y), (x + 1, y + 1) at z as 4 bits; beyond the grid its last line counts."""
    right, up = min(x + 1, side - 1), min(y + 1, side - 1)
    return (
        outside[(x * side + y) * side + z]
        | outside[(x * side + up) * side + z] << 1
        | outside[(right * side + y) * side + z] << 2
        | outside[(right * side + up) * side + z] << 3
    )


@njit(parallel=True, cache=True, nogil=True)
def _edges(
    outside: NDArray[np.uint8],
    side: int,
    edge_id: NDArray[np.int32],
    pairs: NDArray[np.int64],
    first: NDArray[np.int64],
    number: NDArray[np.int64],
) -> None:
    """Crossing edges that start in each x-slab: counted into `number`, and written from first[x] on if it is given."""
    fill = len(first) > 0
    for x in prange(side):
        found = 0
        start = first[x] if fill else 0
        for y in range(side):
            here = _column(outside, side, x, y, 0)
            for z in range(side):
                above = _column(outside, side, x, y, min(z + 1, side - 1))
                if here != above or (here != 0 and here != 15):
                    vertex = (x * side + y) * side + z
                    for kind in range(1, 8):
                        dx, dy, dz = kind >> 2, kind >> 1 & 1, kind & 1
                        if x + dx == side or y + dy == side or z + dz == side:
                            continue
                        other = vertex + (dx * side + dy) * side + dz
                        if outside[vertex] != outside[other]:
                            if fill:
                                edge_id[7 * vertex + kind - 1] = start + found
                                pairs[start + found, 0] = vertex
                                pairs[start + found, 1] = other
                            found += 1
                here = above
        number[x] = found


@njit(parallel=True, cache=True, nogil=True)
def _faces(
    outside: NDArray[np.uint8],
    side: int,
    edge_id: NDArray[np.int32],
    faces: NDArray[np.int32],
    first: NDArray[np.int64],
    number: NDArray[np.int64],
) -> None:
    """Triangles of the cubes of each x-slab, counted or written as in `_edges`."""
    fill = len(first) > 0
    for x in prange(side):
        found = 0
        start = first[x] if fill else 0
        for y in range(side - 1 if x < side - 1 else 0):
            here = _column(outside, side, x, y, 0)
            for z in range(side - 1):
                above = _column(outside, side, x, y, z + 1)
                if here != above or (here != 0 and here != 15):
                    vertex = (x * side + y) * side + z
                    for tet in range(6):
                        case = 0
                        for k in range(4):
                            code = KUHN[tet, k]
                            case |= ((above if code & 1 else here) >> (code >> 1) & 1) << k
                        if fill:
                            for n in range(3 * NUM_TRIANGLES[case]):
                                edge = TRIANGLES[case, n]
                                a, b = KUHN[tet, EDGES[edge, 0]], KUHN[tet, EDGES[edge, 1]]
                                low = a & b
                                lower = vertex + ((low >> 2) * side + (low >> 1 & 1)) * side + (low & 1)
                                faces[start + found + n // 3, n % 3] = edge_id[7 * lower + (a ^ b) - 1]
                        found += NUM_TRIANGLES[case]
                here = above
        number[x] = found
