"""Adapter to DracoPy, the decoder of KHR_draco_mesh_compression, an optional package of the `data` extra."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput, MissingDependency


def decode_draco(
    content: bytes, max_vertices: int
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Positions (V, 3), indices (3F,), texture coordinates with v up or None, linear colours in [0, 1] or None."""
    try:
        import DracoPy
    except ImportError as error:
        raise MissingDependency("DracoPy", extra="data") from error
    if content[:5] != b"DRACO":
        raise BadInput("its compressed part is not Draco")
    try:
        mesh = DracoPy.decode(content)
    except (ValueError, RuntimeError, DracoPy.FileTypeException, DracoPy.EncodingFailedException) as error:
        raise BadInput("its Draco data is damaged") from error
    if len(mesh.points) > max_vertices:
        raise BadInput(f"its Draco data holds {len(mesh.points)} vertices; up to {max_vertices} are read")
    positions = np.asarray(mesh.points, np.float64).reshape(-1, 3)
    uv = getattr(mesh, "tex_coord", None)
    rgba = getattr(mesh, "colors", None)
    if uv is not None and len(uv) == len(positions):
        uv = np.asarray(uv, np.float64) * [1, -1] + [0, 1]
    if rgba is not None and len(rgba) == len(positions):
        scale = 255.0 if np.asarray(rgba).dtype.kind in "ui" else 1.0
        rgba = np.asarray(rgba, np.float64) / scale
    return positions, np.asarray(mesh.faces, np.int64).ravel(), uv, rgba
