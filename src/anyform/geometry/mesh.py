"""A triangle mesh as plain arrays. World axes: +y up, front +z, right-handed; faces wind counter-clockwise outside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Material:
    """Metallic-roughness material of glTF. Textures are (H, W, C) uint8, row 0 at v = 1 (top); None = the factor alone.

    base_color is sRGB RGB or RGBA; metallic_roughness is linear, roughness in G and metallic in B; normal is in
    tangent space.
    """

    base_color: NDArray[np.uint8] | None = None
    metallic_roughness: NDArray[np.uint8] | None = None
    normal: NDArray[np.uint8] | None = None
    base_color_factor: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    metallic_factor: float = 0.0
    roughness_factor: float = 0.9


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles with optional colours.

    vertices (V, 3) float32, faces (F, 3) int32; uv (V, 2) float32 with v up; vertex_color (V, 3) float32 sRGB, 0 to 1.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    uv: NDArray[np.float32] | None = None
    vertex_color: NDArray[np.float32] | None = None
    material: Material | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", np.ascontiguousarray(self.vertices, np.float32).reshape(-1, 3))
        object.__setattr__(self, "faces", np.ascontiguousarray(self.faces, np.int32).reshape(-1, 3))

    def moved(self, scale: float | NDArray[np.floating] = 1.0, offset: NDArray[np.floating] | float = 0.0) -> Mesh:
        """The mesh with vertices · scale + offset (scale positive, so the winding keeps)."""
        return replace(self, vertices=(self.vertices * scale + offset).astype(np.float32))

    @property
    def bounds(self) -> NDArray[np.float32]:
        """(2, 3): smallest and largest corner of the vertices that faces use."""
        used = np.zeros(len(self.vertices), np.bool_)
        used[self.faces.ravel()] = True
        corners = self.vertices[used]
        return np.stack([corners.min(0), corners.max(0)])
