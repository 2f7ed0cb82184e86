"""From a distance field to what is saved: upsampling, surface, bodies, faces, colours, texture."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.geometry.marching_cubes import keep_bodies, surface
from anyform.geometry.mesh import Mesh
from anyform.geometry.smoothing import smooth
from anyform.systems.wala.config import WalaSettings
from anyform.types.progress import Progress, Report

ONE_COLOUR = 2 / 255  # spread below which a texture would hold one colour only: the vertices carry it then


@runtime_checkable
class Colors(Protocol):
    """Anything with a colour for every point of [-1, 1]³."""

    def color_at(self, points: NDArray[np.floating]) -> NDArray[np.float32]: ...


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
    return _with_fewer_faces(mesh, settings.max_faces)


def _with_fewer_faces(mesh: Mesh, wanted: int) -> tuple[Mesh, tuple[str, ...]]:
    """At most `wanted` triangles; a rugged surface that so few cannot close gets the least doubling that can."""
    from anyform.geometry.simplify import simplify

    target = wanted
    while target < len(mesh.faces):
        try:
            smaller = simplify(mesh, target)
        except BadInput:  # the only refusal of `simplify` for a closed mesh: too few faces to stay closed
            target *= 2
            continue
        return smaller, () if target == wanted else (f"{target} faces instead of {wanted}: fewer would leave holes",)
    return mesh, () if target == wanted else (f"{len(mesh.faces)} faces instead of {wanted}: fewer would leave holes",)


def coloured(mesh: Mesh, colors: Colors, settings: WalaSettings, report: Report) -> tuple[Mesh, tuple[str, ...]]:
    """Colours on vertices, or baked into a texture of `settings.texture` pixels; and what the user should know."""
    on_vertices = colors.color_at(mesh.vertices)
    if settings.texture == 0 or on_vertices.std(0).max() < ONE_COLOUR:
        return replace(mesh, vertex_color=on_vertices), ()
    from anyform.geometry.baking import bake
    from anyform.geometry.uv import unwrap

    report(Progress("texture", message=f"{settings.texture} pixels"))
    unwrapped = unwrap(mesh, settings.texture)
    notes = (f"texture atlas: {unwrapped.note}",) if unwrapped.note else ()
    return bake(unwrapped.mesh, colors.color_at, settings.texture), notes
