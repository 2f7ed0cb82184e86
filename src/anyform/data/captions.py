"""Captions from catalogue rows: templates, a colour word, a proportion word; and recolouring an object to match a word.

Colour words are the nearest of sixteen named colours in CIE Lab, taken over the surface by area.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyform.data.corpus import Item
from anyform.errors import BadInput

# sRGB anchors, several for a name that covers a wide range.
COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((12, 12, 12), (38, 38, 40)),
    "grey": ((95, 95, 95), (128, 128, 128), (165, 165, 165)),
    "white": ((245, 245, 245), (222, 222, 220)),
    "red": ((200, 30, 30), (150, 25, 30)),
    "orange": ((235, 125, 30),),
    "brown": ((120, 72, 35), (80, 50, 28), (150, 100, 60)),
    "beige": ((215, 190, 150), (195, 165, 125)),
    "yellow": ((240, 210, 50),),
    "golden": ((185, 140, 40),),
    "green": ((50, 140, 50), (25, 85, 30), (115, 165, 80)),
    "olive": ((110, 110, 40),),
    "turquoise": ((60, 180, 170),),
    "light blue": ((145, 190, 230),),
    "blue": ((40, 80, 190), (25, 45, 110), (70, 120, 175)),
    "purple": ((110, 50, 140),),
    "pink": ((235, 130, 175), (230, 80, 150)),
}
TEMPLATES = (
    "{name}",
    "a {name}",
    "a {colour} {name}",
    "a {proportion} {name}",
    "{name}, {tag}",
    "a low-poly {name}",
    "a 3d model of {name}",
)
_FLAT, _LONG = 0.35, 0.45  # a side under this share of the next longer one makes an object flat, tall or long


def captions(item: Item, colour: str, extents: NDArray[np.floating]) -> tuple[str, ...]:
    """Every template that this object can fill, in a fixed order and without doubles.

    colour: from `colour_word`; extents: side lengths (3,) of the bounding box. Templates whose word is missing (no tag,
    no striking proportion) are left out.
    """
    words = {
        "name": item.caption,
        "colour": colour,
        "proportion": proportion_word(extents),
        "tag": item.tags[0].lower() if item.tags else item.category.lower(),
    }
    filled = [t.format(**words) for t in TEMPLATES if all(words[key] for key in words if f"{{{key}}}" in t)]
    return tuple(dict.fromkeys(_article(text) for text in filled))


def proportion_word(extents: NDArray[np.floating]) -> str:
    """The word "tall", "flat" or "long", or "" where no side of the box (x, y, z; y up) stands out."""
    across, up, deep = (float(side) for side in extents)
    wide, narrow = max(across, deep), min(across, deep)
    if up < _FLAT * wide:
        return "flat" if narrow > _LONG * wide else "long"
    if wide < _LONG * up:
        return "tall"
    return "long" if narrow < _FLAT * wide else ""


def colour_word(face_rgb: NDArray[np.uint8], areas: NDArray[np.floating]) -> str:
    """The colour name that covers most of the surface; face_rgb (F, 3) sRGB, areas (F,) in any unit."""
    names, share = _named_area(face_rgb, areas)
    return names[int(share.argmax())]


def recolour(
    face_rgb: NDArray[np.uint8], areas: NDArray[np.floating], word: str, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The faces (F, 3) with the dominant colour turned into a random shade of `word`, all others kept.

    Differences of lightness and hue within the dominant colour survive, so that "a red mug" keeps its pattern.
    """
    if word not in COLOURS:
        raise BadInput(f"{word!r} is no colour word; there are {', '.join(COLOURS)}")
    from skimage.color import lab2rgb, rgb2lab

    _, share = _named_area(face_rgb, areas)
    chosen = _nearest_name(face_rgb) == int(share.argmax())
    lab = rgb2lab(face_rgb / 255)
    weight = np.maximum(areas[chosen], 1e-12)
    middle = (lab[chosen] * weight[:, None]).sum(0) / weight.sum()
    shades = COLOURS[word]
    target = rgb2lab(np.array(shades[rng.integers(len(shades))]) / 255)
    lab[chosen] += target - middle
    changed = np.round(np.clip(lab2rgb(lab), 0, 1) * 255).astype(np.uint8)
    return np.where(chosen[:, None], changed, face_rgb)


def _named_area(
    face_rgb: NDArray[np.uint8], areas: NDArray[np.floating]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """All colour names, and the area each covers; faces without area share the vote only if there is nothing else."""
    weight = np.asarray(areas, np.float64)
    if not weight.sum() > 0:
        weight = np.ones(len(face_rgb))
    return tuple(COLOURS), np.bincount(_nearest_name(face_rgb), weight, len(COLOURS)).astype(np.float64)


def _nearest_name(rgb: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Index into COLOURS of each colour (N, 3), by Euclidean distance in Lab (ΔE 1976) to the nearest anchor."""
    from skimage.color import rgb2lab

    anchors = np.array([anchor for shades in COLOURS.values() for anchor in shades])
    owner = np.repeat(np.arange(len(COLOURS)), [len(shades) for shades in COLOURS.values()])
    distinct, back = np.unique(rgb, axis=0, return_inverse=True)
    gap = rgb2lab(distinct[:, None] / 255) - rgb2lab(anchors[None] / 255)
    return owner[(gap**2).sum(-1).argmin(1)][back.reshape(-1)]


def _article(text: str) -> str:
    """Mend "a orange" to "an orange"."""
    return f"an {text[2:]}" if text.startswith("a ") and text[2:3].lower() in "aeiou" else text
