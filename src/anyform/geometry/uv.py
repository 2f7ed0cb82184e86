"""Texture coordinates: xatlas in a child process that can be killed, and a plain atlas for when it has to be.

xatlas can run for hours on large or noisy meshes, so it sees simplified meshes only, with a deadline. Past the deadline
every face gets its own spot in a grid of triangles: valid for any mesh, with a seam at every edge. Which of the two was
used is part of the answer.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.geometry.mesh import Mesh

MAX_XATLAS_FACES = 50_000
_SMALLEST_CELL = 4  # texels: two triangles with a texel between them need this many


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A mesh with uv. method: "xatlas" or "faces" (one spot a face); note: why it is not xatlas, "" when it is."""

    mesh: Mesh
    method: str
    note: str = ""


def unwrap(mesh: Mesh, texture_size: int, timeout_s: float = 60.0, max_iterations: int = 1) -> Unwrapped:
    """The mesh cut along seams, with uv (V', 2) in [0, 1] that do not overlap on a texture of texture_size² texels.

    Faces keep their order and winding; vertices on seams are repeated, with their colours. max_iterations: 1 is quick,
    4 makes fewer and rounder charts. Raises BadInput where the texture is too small for even the plain atlas.
    """
    if len(mesh.faces) > MAX_XATLAS_FACES:
        note = f"{len(mesh.faces)} faces are more than the {MAX_XATLAS_FACES} that are unwrapped into charts"
        return Unwrapped(face_atlas(mesh, texture_size), "faces", note + "; simplify with --faces")
    command = [sys.executable, "-m", "anyform.geometry.uv_xatlas", str(texture_size), str(max_iterations)]
    package = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    request = io.BytesIO()
    np.savez(request, vertices=mesh.vertices, faces=mesh.faces)
    try:
        answer = subprocess.run(
            command,
            input=request.getvalue(),
            capture_output=True,
            timeout=timeout_s,
            check=True,
            env={**os.environ, "PYTHONPATH": search},
        ).stdout
    except subprocess.TimeoutExpired:
        note = f"unwrapping {len(mesh.faces)} faces into charts took more than {timeout_s:g} s and was stopped"
        return Unwrapped(face_atlas(mesh, texture_size), "faces", note)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        note = f"unwrapping into charts ended with code {error.returncode}: {last[:200]}"
        return Unwrapped(face_atlas(mesh, texture_size), "faces", note)
    with np.load(io.BytesIO(answer), allow_pickle=False) as found:
        return Unwrapped(_cut(mesh, found["origin"], found["faces"], found["uv"]), "xatlas")


def _cut(mesh: Mesh, origin: NDArray[np.integer], faces: NDArray[np.integer], uv: NDArray[np.floating]) -> Mesh:
    """The mesh with vertices origin (V',) repeated along seams."""
    color = None if mesh.vertex_color is None else mesh.vertex_color[origin]
    vertices = mesh.vertices[origin]
    return replace(mesh, vertices=vertices, faces=faces.astype(np.int32), uv=uv.astype(np.float32), vertex_color=color)


def face_atlas(mesh: Mesh, texture_size: int) -> Mesh:
    """Every face on its own half of a square cell, two faces a cell, at least a texel apart from each other."""
    columns = int(np.ceil(np.sqrt((len(mesh.faces) + 1) // 2)))
    cell = texture_size // columns
    if cell < _SMALLEST_CELL:
        raise BadInput(
            f"a texture of {texture_size}² is too small for {len(mesh.faces)} faces: simplify to"
            f" {2 * (texture_size // _SMALLEST_CELL) ** 2} or use --texture-size {columns * _SMALLEST_CELL}"
        )
    number = np.arange(len(mesh.faces))
    corner = np.stack([number // 2 % columns, number // 2 // columns], 1)[:, None] * cell
    lower = np.array([[0.5, 0.5], [cell - 2.0, 0.5], [0.5, cell - 2.0]])
    upper = np.array([[cell - 0.5, cell - 0.5], [2.0, cell - 0.5], [cell - 0.5, 2.0]])
    texel = corner + np.where((number % 2 == 0)[:, None, None], lower, upper)
    flat = np.arange(mesh.faces.size)
    return _cut(mesh, mesh.faces.ravel(), flat.reshape(-1, 3), texel.reshape(-1, 2) / texture_size)
