"""The pictures that CLIP and ImageBind were trained on: (3, 224, 224), normalised (specs/encoders.md §1).

numpy and PIL. 8-bit bicubic and a centre crop whose offset rounds halves to even are part of the weights: transformers'
own processors round down, which moves the crop by a pixel where the remainder is 3 mod 4.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anyform.types.prompt import Image

SIZE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def picture(image: Image, size: int = SIZE) -> NDArray[np.float32]:
    """(3, size, size) normalised: alpha dropped as it is, the short side resized, the centre cut out."""
    from PIL import Image as Pillow

    rgb = Pillow.fromarray(np.ascontiguousarray(image.rgba[..., :3]))
    width, height = rgb.size
    short = min(width, height)
    resized = (size * width // short, size * height // short)
    if resized != rgb.size:
        rgb = rgb.resize(resized, Pillow.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in resized)
    pixels = np.asarray(rgb)[top : top + size, left : left + size].astype(np.float32) / 255
    return ((pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1).astype(np.float32)


def normalised(pictures: Tensor, size: int = SIZE) -> Tensor:
    """Square pictures (B, 3, H, H) in [0, 1] -> (B, 3, size, size) normalised, differentiable: renders in XBind Eq. 2.

    Differs from `picture` by not rounding to 8 bits.
    """
    if pictures.shape[-2:] != (size, size):
        pictures = functional.interpolate(pictures, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values, device=pictures.device).reshape(3, 1, 1) for values in (MEAN, STD))
    return (pictures - mean) / std
