"""Reading an image prompt: one picture, and optionally a second one that says where the object is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.readers.limits import read_bytes, shown
from anyform.types.readers.picture import ADVICE, MAX_PICTURE_BYTES, decode, to_rgba

MAX_SIDE = 4096  # larger pictures are scaled down once read: no model sees more, and memory stays bounded


def read_image(path: str | Path, mask: str | Path | None = None) -> NDArray[np.uint8]:
    """(H, W, 4) uint8 sRGB, straight alpha. `mask` (white, or opaque, = object) replaces the alpha of the picture.

    Pictures above `MAX_SIDE` are scaled down with a warning. Raises BadInput for anything but a readable still picture.
    """
    name = shown(path)
    rgba = to_rgba(decode(read_bytes(path, MAX_PICTURE_BYTES, ADVICE), name), name)
    if mask is not None:
        rgba[..., 3] = _read_mask(mask, rgba.shape[:2])
    return _bounded(rgba, name)


def _read_mask(path: str | Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Coverage (H, W) from the alpha of the mask file where it has one, else from its brightness."""
    name = shown(path)
    mask = to_rgba(decode(read_bytes(path, MAX_PICTURE_BYTES, ADVICE), name), name)
    if mask.shape[:2] != shape:
        raise BadInput(
            f"the mask {name} has {mask.shape[1]} x {mask.shape[0]} pixels, the image {shape[1]} x {shape[0]}:"
            " give a mask of the image's size"
        )
    coverage = mask[..., 3] if mask[..., 3].min() < 255 else mask[..., :3].max(-1)
    if coverage.max() < 128:
        raise BadInput(f"the mask {name} marks nothing: paint the object white on black")
    return coverage


def _bounded(rgba: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    import PIL.Image

    height, width = rgba.shape[:2]
    if max(height, width) <= MAX_SIDE:
        return rgba
    scale = MAX_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    warnings.warn(f"{name}: {width} x {height} pixels scaled down to {size[0]} x {size[1]}", UserWarning, stacklevel=2)
    return np.array(PIL.Image.fromarray(rgba).resize(size, PIL.Image.Resampling.BOX, reducing_gap=None))
