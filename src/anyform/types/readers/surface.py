"""Points from the surface of a mesh file, spread by area."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.readers.limits import shown

if TYPE_CHECKING:
    from anyform.geometry.mesh import Mesh

SAMPLES = 25_000  # as many as WaLa's own example cloud has (specs/wala.md §5.2)


def sample_mesh_file(path: Path) -> tuple[NDArray[np.floating], NDArray[np.uint8] | None]:
    """(points (`SAMPLES`, 3), colours or None) of a mesh file, the same every time. Raises BadInput."""
    # the mesh readers live a layer above the types; only this door knows them, and only while it is open
    from anyform.geometry.formats import read_mesh

    mesh = read_mesh(path)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    if not np.isfinite(corners).all():
        raise BadInput(f"{shown(path)} has vertices that are NaN or infinite: repair the mesh first")
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    total = float(area.sum())
    if not 0 < total < np.inf:
        raise BadInput(f"{shown(path)} has a surface of no area: there is nothing to sample")
    random = np.random.default_rng(0)
    face = np.searchsorted(area.cumsum() / total, random.random(SAMPLES)).clip(max=len(area) - 1)
    # a uniform point of a triangle: Osada et al., Shape Distributions, 2002, Eq. 1
    root, along = np.sqrt(random.random(SAMPLES)), random.random(SAMPLES)
    weights = np.stack([1 - root, root * (1 - along), root * along], 1)
    points = np.einsum("nk,nkc->nc", weights, corners[face])
    return points, _colours(mesh, face, weights)


def _colours(mesh: Mesh, face: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.uint8] | None:
    """Vertex colours, else the nearest texels of the base colour; None for a mesh without either."""
    if mesh.vertex_color is not None:
        mixed = np.einsum("nk,nkc->nc", weights, mesh.vertex_color[mesh.faces[face]].astype(np.float64))
        return np.rint(mixed.clip(0, 1) * 255).astype(np.uint8)
    if mesh.uv is None or mesh.material is None or mesh.material.base_color is None:
        return None
    texture = mesh.material.base_color
    uv = np.einsum("nk,nkc->nc", weights, mesh.uv[mesh.faces[face]].astype(np.float64))
    column = np.floor(uv[:, 0] % 1 * texture.shape[1]).astype(np.int64).clip(max=texture.shape[1] - 1)
    row = np.floor((-uv[:, 1]) % 1 * texture.shape[0]).astype(np.int64).clip(max=texture.shape[0] - 1)
    return np.ascontiguousarray(texture[row, column, :3])
