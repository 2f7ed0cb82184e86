"""Where an asset stands in a file: real size, origin under its middle, and which axis is up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from anyform.errors import BadInput
from anyform.geometry.mesh import Mesh

MILLIMETRES = 1000.0


def standing(mesh: Mesh, longest: float) -> Mesh:
    """The mesh with its longest side at `longest`, its lowest point on y = 0 and its middle over x = z = 0; +y up."""
    low, high = mesh.bounds.astype(np.float64)
    extent = float((high - low).max())
    if not (np.isfinite(extent) and extent > 0):
        raise BadInput(f"a mesh {extent:g} long cannot be given a size; run `anyform check` on it")
    if not (np.isfinite(longest) and longest > 0):
        raise BadInput(f"the size of an asset must be a positive length, not {longest:g} m")
    anchor = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return replace(mesh, vertices=((mesh.vertices.astype(np.float64) - anchor) * (longest / extent)).astype(np.float32))


def y_up_to_z_up(mesh: Mesh) -> Mesh:
    """(x, y, z) -> (x, −z, y): +y up, front +z becomes +z up, front −y, as printers and Blender have it."""
    x, y, z = mesh.vertices.T
    return replace(mesh, vertices=np.stack([x, -z, y], 1))


def z_up_to_y_up(mesh: Mesh) -> Mesh:
    """(x, y, z) -> (x, z, −y): the inverse of `y_up_to_z_up`."""
    x, y, z = mesh.vertices.T
    return replace(mesh, vertices=np.stack([x, z, -y], 1))


def on_the_plate(mesh: Mesh, metres: float) -> Mesh:
    """The mesh as printers want it: millimetres, +z up, standing on z = 0, its middle over x = y = 0."""
    return y_up_to_z_up(standing(mesh, metres * MILLIMETRES))
