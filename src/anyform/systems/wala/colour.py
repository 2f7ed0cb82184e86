"""Colours as people see and name them: sRGB <-> CIE Lab (D65), and the everyday word of a colour. numpy only.

sRGB in [0, 1]; Lab with L in [0, 100] and a, b about [-110, 110]. Sources: IEC 61966-2-1 (transfer curve and
primaries), CIE 15 (Lab). The words are ours: hue sectors of LCh, split by lightness and chroma.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = RGB_TO_XYZ.sum(1)
LAB = np.array([[0, 1.16, 0], [5, -5, 0], [0, 2, -2]]) * 100  # rows: L + 16, a, b from the cube-rooted XYZ
LIFT = np.array([16, 0, 0])
KNEE = 6 / 29

# A typical sRGB of each word, for recolouring and for tests; `words` maps every one of them to its own name.
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
    return root @ LAB.T - LIFT


def lab_to_srgb(lab: ArrayLike) -> NDArray[np.float64]:
    """Lab (..., 3) -> sRGB (..., 3), clipped to [0, 1] where the colour is outside sRGB."""
    root = (np.asarray(lab, np.float64) + LIFT) @ np.linalg.inv(LAB).T
    xyz = np.where(root > KNEE, root**3, 3 * KNEE**2 * (root - 4 / 29))
    linear = np.clip(xyz * WHITE @ np.linalg.inv(RGB_TO_XYZ).T, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def words(rgb: ArrayLike) -> NDArray[Any]:
    """sRGB (..., 3) in [0, 1] -> the everyday name of each colour (...): a key of `TYPICAL`."""
    lightness, a, b = np.moveaxis(srgb_to_lab(rgb), -1, 0)
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
    reddish, warm = (hue >= 345) | (hue < 50), (hue >= 50) & (hue < 112)
    grey = (chroma < 10) | ((lightness < 15) & (chroma < 18))
    rules = [  # the first that holds
        (grey & (lightness < 25), "black"),
        (grey & (lightness > 82), "white"),
        (grey, "grey"),
        (reddish & ((hue < 38) | (hue >= 345)) & (lightness > 65) & (chroma < 65), "pink"),
        ((hue >= 28) & (hue < 50) & (chroma < 38) & (lightness < 55), "brown"),
        ((hue >= 38) & (hue < 50) & (lightness > 75), "beige"),
        (reddish, "red"),
        (warm & (lightness > 68) & (chroma < 34), "beige"),
        (warm & ((lightness < 58) | (chroma < 34)) & (hue < 98), "brown"),
        (warm & ((lightness < 58) | (chroma < 34)), "green"),
        (warm & (hue < 76), "orange"),
        (warm, "yellow"),
        (hue < 182, "green"),
        (hue < 225, "turquoise"),
        (hue < 308, "blue"),
        ((hue < 335) | (lightness < 50), "purple"),
    ]
    return np.select([rule for rule, _ in rules], [name for _, name in rules], "pink")


def dominant(rgb: ArrayLike) -> str:
    """The word that names most of the colours (N, 3)."""
    names, counts = np.unique(words(rgb), return_counts=True)
    return str(names[counts.argmax()])
