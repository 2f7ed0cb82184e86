"""Iso-surfaces of sampled distance fields, and the tidying that turns them into one solid.

Marching cubes is scikit-image's (Lewiner's tables, closed on any input); this file guarantees what callers rely on:
closed surfaces even where the shape touches the border of the grid, outward winding, no face without area, and a
`GateFailed` that says why when there is no surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyform.errors import GateFailed
from anyform.geometry.mesh import Mesh
from anyform.geometry.topology import submesh, topology

# A sample nearer to the level than this share of the typical step between samples is pushed away from it: a surface
# exactly through a sample would make faces without area and pinch the surface to a point.
_NUDGE = 1e-3


def surface(sdf: NDArray[np.float32], first: float, spacing: float, level: float = 0.0) -> Mesh:
    """The closed surface sdf = level, facing from smaller to larger values.

    sdf: (N, N, N) float32 indexed [x, y, z], negative inside, all sizes >= 2. Sample i of each axis sits at
    first + i · spacing in world units. Raises GateFailed where samples are not finite or none is inside.
    """
    from skimage.measure import marching_cubes

    values = np.asarray(sdf, np.float32)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise GateFailed(
            f"the distance field holds NaN or infinity in {bad} of {values.size} samples; try another seed"
        )
    values = values - np.float32(level)
    if not (values < 0).any():
        raise GateFailed(
            f"the distance field is empty: its smallest sample is {values.min() + level:.3g}, not below {level:g};"
            " try another seed or a clearer prompt"
        )
    border = max(float(np.take(values < 0, (0, -1), axis).max()) for axis in range(3))
    if border:
        values = np.pad(values, 1, constant_values=max(float(np.abs(values).max()), spacing))
        first -= spacing
    values = _off_level(values)
    vertices, faces, _, _ = marching_cubes(values, 0.0)
    return Mesh(vertices * np.float32(spacing) + np.float32(first), faces)


def _off_level(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Samples at (almost) zero move to a small value of their own sign; exact zero counts as outside."""
    step = float(np.mean(np.abs(np.diff(values[:: max(1, len(values) // 32)], axis=1))))
    nudge = np.float32(_NUDGE * step)
    near = np.abs(values) < nudge
    if near.any():
        values = values.copy()
        values[near] = np.where(values[near] < 0, -nudge, nudge)
    return values


def keep_bodies(mesh: Mesh, min_share: float = 0.02, single: bool = False) -> Mesh:
    """Drops floating specks, inner voids and bodies swallowed by a larger one.

    A body stays when it encloses at least min_share of the volume of the largest; `single` keeps the largest alone.
    Needs a watertight mesh. Raises GateFailed when nothing encloses a volume.
    """
    facts = topology(mesh)
    if not len(facts.volumes) or facts.volumes.max() <= 0:
        raise GateFailed("no body of the mesh encloses a volume; try another seed")
    keep = facts.volumes >= max(min_share * facts.volumes.max(), np.finfo(np.float32).tiny)
    if single:
        keep = np.arange(len(keep)) == facts.volumes.argmax()
    for small in np.flatnonzero(keep):
        larger = np.flatnonzero(keep & (facts.volumes > facts.volumes[small]))
        point = mesh.vertices[mesh.faces[np.argmax(facts.body == small), 0]]
        if any(winding_number(point, mesh, facts.body == other) > 0.5 for other in larger):
            keep[small] = False
    if keep.all():
        return mesh
    return submesh(mesh, (facts.body >= 0) & keep[facts.body])


def winding_number(point: NDArray[np.floating], mesh: Mesh, faces: NDArray[np.bool_]) -> float:
    """How often the selected faces (F,) bool wrap around a point (3,): 1 inside an outward closed surface, 0 outside.

    Sum of the solid angles of the triangles over 4π (Van Oosterom and Strackee, 1983).
    """
    corners = mesh.vertices.astype(np.float64)[mesh.faces[faces]] - point
    length = np.linalg.norm(corners, axis=2)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    la, lb, lc = length.T
    numerator = np.einsum("fi,fi->f", a, np.cross(b, c))
    dots = np.einsum("fi,fi->f", a, b) * lc + np.einsum("fi,fi->f", b, c) * la + np.einsum("fi,fi->f", c, a) * lb
    return float(np.arctan2(numerator, la * lb * lc + dots).sum() / (2 * np.pi))
