"""Reading a sketch: any drawing of lines becomes ink in [0, 1], whether it is dark on light or light on dark."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.readers.image import read_image
from anyform.types.readers.limits import shown

MIN_CONTRAST = 0.15  # between paper and the strongest stroke, of the range black..white
LUMA = np.array([0.299, 0.587, 0.114], np.float32) / 255


def read_sketch(path: str | Path) -> NDArray[np.float32]:
    """ink (H, W) float32: 0 on the paper, 1 on the strongest strokes.

    The paper is what most of the border shows. On a transparent drawing it is the transparency: dark ink is laid on
    white, light ink on black. Raises BadInput where nothing stands out by `MIN_CONTRAST`.
    """
    rgba, name = read_image(path), shown(path)
    luma = rgba[..., :3].astype(np.float32) @ LUMA
    alpha = rgba[..., 3].astype(np.float32) / 255
    if alpha.min() < 1:
        if alpha.max() < MIN_CONTRAST:
            raise BadInput(f"the sketch {name} is fully transparent: there is no stroke in it")
        light = float((luma * alpha).sum() / alpha.sum()) > 0.5
        luma = luma * alpha + (1 - alpha) * (0.0 if light else 1.0)
    border = np.concatenate([luma[0], luma[-1], luma[:, 0], luma[:, -1]])
    paper = float(np.median(border))
    ink = (paper - luma if paper > 0.5 else luma - paper).clip(0)
    if ink.size >= 64 and float(strongest := np.partition(ink.ravel(), -16)[-16]) >= MIN_CONTRAST:
        ink = (ink / strongest).clip(0, 1)
        ink[ink < 0.05] = 0  # paper grain
    else:
        raise BadInput(
            f"the sketch {name} has no stroke: nothing differs from the paper by {MIN_CONTRAST:.0%} of the range from"
            " black to white; draw dark lines on light paper, or light lines on dark"
        )
    if float((ink > 0.5).mean()) > 0.5:
        warnings.warn(
            f"{name} is mostly filled: for a photo or a painting use an image prompt", UserWarning, stacklevel=2
        )
    return ink.astype(np.float32)
