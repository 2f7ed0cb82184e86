"""Colour spaces and the colour of a surface point. All colours are sRGB in [0, 1] unless a name says linear."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyform.geometry.mesh import Mesh


def srgb_to_linear(srgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """sRGB in [0, 1] -> linear light in [0, 1], any shape (IEC 61966-2-1)."""
    value = np.clip(np.asarray(srgb, np.float64), 0, 1)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: NDArray[np.floating]) -> NDArray[np.float64]:
    """Linear light in [0, 1] -> sRGB in [0, 1], any shape; the inverse of `srgb_to_linear`."""
    value = np.clip(np.asarray(linear, np.float64), 0, 1)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


def sample_texture(texture: NDArray[np.uint8], uv: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colours (N, 3) in [0, 1] at uv (N, 2), v up, bilinear between texel centres, repeating outside [0, 1]."""
    height, width = texture.shape[:2]
    uv = np.asarray(uv, np.float64)
    column, row = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    across, down = (column - left)[:, None], (row - top)[:, None]
    left, right, top, bottom = left % width, (left + 1) % width, top % height, (top + 1) % height
    pixels = texture[..., :3] if texture.ndim == 3 else np.repeat(texture[..., None], 3, -1)
    upper = pixels[top, left] * (1 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1 - across) + pixels[bottom, right] * across
    return (upper * (1 - down) + lower * down) / 255


def vertex_colors(mesh: Mesh) -> NDArray[np.float64] | None:
    """One sRGB colour (V, 3) a vertex out of vertex colours, texture and base colour; None where the mesh has none."""
    linear = None
    if mesh.vertex_color is not None:
        linear = srgb_to_linear(mesh.vertex_color)
    material = mesh.material
    if material is None:
        return None if linear is None else linear_to_srgb(linear)
    if material.base_color is not None and mesh.uv is not None:
        seen = srgb_to_linear(sample_texture(material.base_color, mesh.uv))
        linear = seen if linear is None else linear * seen
    factor = np.asarray(material.base_color_factor[:3])
    if linear is None:
        if bool((factor == 1).all()):
            return None
        linear = np.ones((len(mesh.vertices), 3))
    return linear_to_srgb(linear * factor)
