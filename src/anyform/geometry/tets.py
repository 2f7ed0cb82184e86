"""Tetrahedral grids of our own, and where a level set crosses them.

The cube is cut into R³ cubes with (R + 1)³ vertices in C order [x, y, z]; a cube splits into six tetrahedra, one for
each order in which its axes can be walked from corner 0 to corner 7 (Kuhn, Freudenthal); all have positive volume.
Corner codes are x · 4 + y · 2 + z. Two corners of such a tetrahedron are nested bit sets, so the edge between the codes
a and b starts at vertex a & b and has the type a ^ b in 1 .. 7: no table of edges is stored.

A sample is outside where sdf > 0; exact 0 counts as inside. Bit k of a tetrahedron's case is set where its vertex k is
outside. Triangles wind so that they face from inside to outside.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput

EDGES = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]], np.int64)
MAX_RESOLUTION = 400  # 7 · 401³ edges still fit 32 bits


def _kuhn() -> NDArray[np.int64]:
    """(6, 4) corner codes of a cube's tetrahedra; odd permutations have their middle corners swapped."""
    tets = []
    for order in itertools.permutations(range(3)):
        codes = np.cumsum([0, *(4 >> axis for axis in order)])
        odd = np.linalg.det(np.eye(3)[list(order)]) < 0
        tets.append(codes[[0, 2, 1, 3]] if odd else codes)
    return np.array(tets, np.int64)


def _cases() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges of up to two triangles (16, 6), −1 = none, and their number (16,), for every case.

    One vertex apart from three: the triangle of its edges. Two and two: a quadrilateral, split along its first corner.
    """
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    edge_of = {(a, b): n for n, (a, b) in enumerate(EDGES.tolist())}
    triangles, number = np.full((16, 6), -1, np.int64), np.zeros(16, np.int64)
    for case in range(1, 15):
        outside = [k for k in range(4) if case >> k & 1]
        inside = [k for k in range(4) if not case >> k & 1]
        if len(outside) == 2:
            pairs = [(outside[i], inside[j]) for i, j in ((0, 0), (0, 1), (1, 1), (1, 0))]
        else:
            pairs = list(itertools.product(outside, inside))
        polygon = [edge_of[min(pair), max(pair)] for pair in pairs]
        middle = corner[EDGES[polygon]].mean(1)
        normal = np.cross(middle[1] - middle[0], middle[2] - middle[0])
        if normal @ (corner[outside].mean(0) - corner[inside].mean(0)) < 0:
            polygon.reverse()
        found = polygon if len(polygon) == 3 else [polygon[k] for k in (0, 1, 2, 0, 2, 3)]
        triangles[case, : len(found)], number[case] = found, len(found) // 3
    return triangles, number


KUHN = _kuhn()
TRIANGLES, NUM_TRIANGLES = _cases()


def grid_vertices(resolution: int) -> NDArray[np.float32]:
    """((R + 1)³, 3) in [0, 1]³, C order."""
    axis = np.arange(resolution + 1) / resolution
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


def grid_tets(resolution: int) -> NDArray[np.int64]:
    """(6 R³, 4) vertices of every tetrahedron."""
    side = resolution + 1
    x, y, z = np.meshgrid(*(np.arange(resolution),) * 3, indexing="ij")
    first = ((x * side + y) * side + z).reshape(-1, 1, 1)
    step = (KUHN >> 2) * side * side + (KUHN >> 1 & 1) * side + (KUHN & 1)
    return (first + step).reshape(-1, 4)


def crossings(sdf: NDArray[np.floating], resolution: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Edges that the level 0 crosses, (E, 2) vertices each, and triangles (F, 3) of indices into them.

    sdf: ((R + 1)³,). Ordered by the lower vertex, so equal signs give equal bits. Raises BadInput for what does not fit
    or is not finite.
    """
    if not 1 <= resolution <= MAX_RESOLUTION or sdf.shape != ((resolution + 1) ** 3,):
        raise BadInput(
            f"a grid of {resolution} cubes a side (1 to {MAX_RESOLUTION}) has {(resolution + 1) ** 3} samples,"
            f" not {sdf.shape}"
        )
    bad = sdf.size - int(np.isfinite(sdf).sum())
    if bad:
        raise BadInput(f"{bad} of {sdf.size} signed distances are not finite; the step before has diverged")
    from anyform.geometry import tets_numba

    return tets_numba.crossings(np.ascontiguousarray(sdf > 0).view(np.uint8), resolution)
