"""Colours onto a mesh: on its vertices, or baked into a texture where one pays."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from anyform.geometry.mesh import Mesh
from anyform.types.progress import Progress, Report

ONE_COLOUR = 2 / 255  # spread below which a texture would hold one colour only: the vertices carry it then


@runtime_checkable
class Colors(Protocol):
    """Anything with a colour for every point of [-1, 1]³."""

    def color_at(self, points: NDArray[np.floating]) -> NDArray[np.float32]: ...


def with_colors(mesh: Mesh, colors: Colors, texture: int, report: Report) -> tuple[Mesh, tuple[str, ...]]:
    """Colours on vertices, or in a texture of `texture`² pixels (0 = on vertices); and what the user should know."""
    on_vertices = colors.color_at(mesh.vertices)
    if texture == 0 or on_vertices.std(0).max() < ONE_COLOUR:
        return replace(mesh, vertex_color=on_vertices), ()
    from anyform.geometry.baking import bake
    from anyform.geometry.uv import unwrap

    report(Progress("texture", message=f"{texture} pixels"))
    unwrapped = unwrap(mesh, texture)
    notes = (f"texture atlas: {unwrapped.note}",) if unwrapped.note else ()
    return bake(unwrapped.mesh, colors.color_at, texture), notes
