"""Colours as people see and name them: sRGB <-> CIE Lab (D65), and the everyday word of a colour. numpy only.

sRGB in [0, 1]; Lab with L in [0, 100] and a, b about [-110, 110]. Sources: IEC 61966-2-1 (transfer curve and primaries),
CIE 15 (Lab). The words are ours: hue sectors of LCh, split by lightness and chroma.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

RGB_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
WHITE = RGB_TO_XYZ.sum(1)
LAB = np.array([[0, 1.16, 0], [5, -5, 0], [0, 2, -2]]) * 100  # rows: L + 16, a, b from the cube-rooted XYZ
KNEE = 6 / 29

# A typical sRGB of each word, for recolouring and for tests; `word` maps every one of them to its own name.
TYPICAL: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.10, 0.10),
    "orange": (0.93, 0.50, 0.12),
    "yellow": (0.95, 0.83, 0.15),
    "green": (0.20, 0.55, 0.20),
    "turquoise": (0.15, 0.65, 0.65),
    "blue": (0.15, 0.30, 0.75),
    "purple": (0.45, 0.20, 0.60),
    "pink": (0.95, 0.60, 0.70),
    "brown": (0.42, 0.26, 0.15),
    "beige": (0.87, 0.78, 0.62),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.50, 0.50, 0.50),
    "black": (0.07, 0.07, 0.07),
}


def srgb_to_lab(rgb: ArrayLike) -> NDArray[np.float64]:
    """sRGB (..., 3) in [0, 1] -> Lab (..., 3)."""
    rgb = np.asarray(rgb, np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ RGB_TO_XYZ.T / WHITE
    root = np.where(xyz > KNEE**3, np.cbrt(xyz), xyz / (3 * KNEE**2) + 4 / 29)
    return root @ LAB.T - (16, 0, 0)


def lab_to_srgb(lab: ArrayLike) -> NDArray[np.float64]:
    """Lab (..., 3) -> sRGB (..., 3), clipped to [0, 1] where the colour is outside sRGB."""
    root = (np.asarray(lab, np.float64) + (16, 0, 0)) @ np.linalg.inv(LAB).T
    xyz = np.where(root > KNEE, root**3, 3 * KNEE**2 * (root - 4 / 29))
    linear = np.clip(xyz * WHITE @ np.linalg.inv(RGB_TO_XYZ).T, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def word(rgb: ArrayLike) -> str:
    """The everyday name of one sRGB colour (3,) in [0, 1]: one of the keys of `TYPICAL`."""
    lightness, a, b = srgb_to_lab(rgb)
    chroma, hue = float(np.hypot(a, b)), float(np.degrees(np.arctan2(b, a)) % 360)
    if chroma < 10 or (lightness < 15 and chroma < 18):
        return "black" if lightness < 25 else "white" if lightness > 82 else "grey"
    if hue >= 345 or hue < 50:
        if lightness > 65 and (hue < 38 or hue >= 345) and chroma < 65:
            return "pink"
        return "brown" if 28 <= hue < 50 and chroma < 38 and lightness < 55 else "beige" if 38 <= hue < 50 and lightness > 75 else "red"
    if hue < 112:
        if lightness > 68 and chroma < 34:
            return "beige"
        if lightness < 58 or chroma < 34:
            return "brown" if hue < 98 else "green"
        return "orange" if hue < 76 else "yellow"
    if hue < 182:
        return "green"
    if hue < 225:
        return "turquoise"
    if hue < 308:
        return "blue"
    return "purple" if hue < 335 or lightness < 50 else "pink"
