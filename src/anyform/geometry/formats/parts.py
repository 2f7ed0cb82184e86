"""A file of several pieces becomes one mesh: `Part` is what a reader finds, `join` what the rest of anyform sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.geometry.color import vertex_colors
from anyform.geometry.mesh import Material, Mesh

MAX_FACES = 5_000_000
MAX_VERTICES = 20_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """One piece with one material. material is compared by identity: pieces of one material share the object."""

    vertices: NDArray[np.floating]
    faces: NDArray[np.integer]
    uv: NDArray[np.floating] | None = None
    vertex_color: NDArray[np.floating] | None = None
    material: Material | None = None


def check_counts(vertices: int, faces: int) -> None:
    """Raises BadInput where a file declares more than anyform reads."""
    if faces > MAX_FACES:
        raise BadInput(f"the mesh has {faces} faces; up to {MAX_FACES} are read: simplify it first")
    if vertices > MAX_VERTICES:
        raise BadInput(f"the mesh has {vertices} vertices; up to {MAX_VERTICES} are read: simplify it first")


def join(parts: Sequence[Part]) -> Mesh:
    """One mesh of all parts. Raises BadInput where nothing is left, an index is out of range or a position not finite.

    A texture survives where every part wears the same material; pieces of different materials become vertex colours.
    """
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise BadInput("it holds no triangles")
    check_counts(sum(len(p.vertices) for p in parts), sum(len(p.faces) for p in parts))
    for part in parts:
        if part.faces.min() < 0 or part.faces.max() >= len(part.vertices):
            wrong = part.faces.min() if part.faces.min() < 0 else part.faces.max()
            raise BadInput(f"a face names vertex {wrong}, but there are {len(part.vertices)} vertices")
    offsets = np.cumsum([0] + [len(p.vertices) for p in parts[:-1]])
    with np.errstate(over="ignore"):
        vertices = np.concatenate([p.vertices for p in parts]).astype(np.float32)
    faces = np.concatenate([p.faces + offset for p, offset in zip(parts, offsets, strict=True)]).astype(np.int32)
    bad = int((~np.isfinite(vertices)).any(1).sum())
    if bad:
        raise BadInput(f"{bad} of its {len(vertices)} vertices are not finite numbers")
    material = parts[0].material
    if all(p.material is material for p in parts):
        return Mesh(vertices, faces, _all_or_none([p.uv for p in parts]), _colors(parts), material)
    return Mesh(vertices, faces, vertex_color=_baked(parts))


def _all_or_none(arrays: Sequence[NDArray[np.floating] | None]) -> NDArray[np.float32] | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present).astype(np.float32) if len(present) == len(arrays) else None


def _colors(parts: Sequence[Part]) -> NDArray[np.float32] | None:
    """Vertex colours of parts that share a material; parts without any are white where others have some."""
    if all(p.vertex_color is None for p in parts):
        return None
    filled = [np.ones((len(p.vertices), 3)) if p.vertex_color is None else p.vertex_color for p in parts]
    return np.concatenate(filled).astype(np.float32)


def _baked(parts: Sequence[Part]) -> NDArray[np.float32] | None:
    """Vertex colours that include each part's texture and base colour."""
    found = [_part_colors(part) for part in parts]
    if all(color is None for color in found):
        return None
    filled = [np.ones((len(p.vertices), 3)) if c is None else c for p, c in zip(parts, found, strict=True)]
    return np.concatenate(filled).astype(np.float32)


def _part_colors(part: Part) -> NDArray[np.float64] | None:
    uv = None if part.uv is None else part.uv.astype(np.float32)
    color = None if part.vertex_color is None else part.vertex_color.astype(np.float32)
    return vertex_colors(Mesh(part.vertices.astype(np.float32), part.faces.astype(np.int32), uv, color, part.material))
