"""From a distance field to what is saved: upsampling, surface, bodies, faces, colours, texture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anyform.geometry.coloring import Colors, with_colors
from anyform.geometry.marching_cubes import keep_bodies, surface
from anyform.geometry.mesh import Mesh
from anyform.geometry.simplify import with_fewer_faces
from anyform.geometry.smoothing import smooth
from anyform.systems.wala.config import WalaSettings
from anyform.types.progress import Progress, Report


@lru_cache(maxsize=8)
def _cubic(size: int, wanted: int) -> NDArray[np.float32]:
    """(wanted, size) Catmull-Rom weights between cell-centred grids over the same edge; clamped at the border."""
    where = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    base = np.floor(where).astype(int)
    t = where - base
    weights = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    matrix = np.zeros((wanted, size), np.float32)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        np.add.at(matrix, (np.arange(wanted), np.clip(base + offset, 0, size - 1)), weight)
    return matrix


def upsample(sdf: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(N, N, N) -> (size, size, size) by tricubic interpolation on cell-centred grids."""
    matrix = _cubic(sdf.shape[0], size)
    along_z = sdf @ matrix.T
    along_y = matrix @ along_z
    return np.einsum("ma,abc->mbc", matrix, along_y, optimize=True)


def shape(
    sdf: NDArray[np.float32], settings: WalaSettings, first: float, report: Report
) -> tuple[Mesh, tuple[str, ...]]:
    """The surface of a field whose sample 0 lies at `first`, at the settings' resolution and number of faces.

    Cell-centred fields (ours) are upsampled to `mesh_resolution`; corner-sampled ones (released, 256³) are meshed as
    they are. Returns what the user should know beside the mesh. Raises GateFailed for an empty or non-finite field.
    """
    spacing = 2.0 / sdf.shape[0]
    if first != -1.0 and settings.mesh_resolution > sdf.shape[0] and np.isfinite(sdf).all():
        report(Progress("mesh", message=f"{settings.mesh_resolution}³"))
        sdf = upsample(sdf, settings.mesh_resolution)
        spacing = 2.0 / sdf.shape[0]
        first = -1.0 + spacing / 2
    mesh = smooth(keep_bodies(surface(sdf, first, spacing)), settings.smoothing)
    return with_fewer_faces(mesh, settings.max_faces)


def coloured(mesh: Mesh, colors: Colors, settings: WalaSettings, report: Report) -> tuple[Mesh, tuple[str, ...]]:
    """Colours on vertices, or baked into a texture of `settings.texture` pixels; and what the user should know."""
    return with_colors(mesh, colors, settings.texture, report)
