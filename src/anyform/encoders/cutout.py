"""Background removal: which pixels of an image prompt belong to the object.

Three ways, in this order: the picture's own alpha; a flood from the border where the border is of one colour; the
embedded cut-out network (`encoders/u2net.py`), whose weights are `anyform/embedded/cutout.safetensors`.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadSetting
from anyform.types.prompt import Image

if TYPE_CHECKING:
    from anyform.encoders.u2net import U2Net

SIZE = 320  # pixels, the square the network was trained on
FLOOD_SIDE = 1024  # longest side at which the flood runs: bounds its memory, finer edges come from the resize
TOLERANCE = 8.0  # CIE76 ΔE in Lab: what still counts as the background's colour
PLAIN = 0.9  # share of the border that has to be of one colour for the flood
LEAST, MOST = 0.005, 0.98  # share of the picture that an object can cover
# statistics of the network's training pictures, as its authors normalise (ImageNet)
_MEAN, _SPREAD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def cut_out(image: Image, mode: Literal["auto", "keep"] = "auto") -> Image:
    """The image with its object in alpha. "keep" returns it as it is, as does "auto" where it has a mask already.

    Warns, and keeps the whole picture, where no object stands out.
    """
    if mode not in ("auto", "keep"):
        raise BadSetting(f"the background is 'auto' or 'keep', not {mode!r}")
    if mode == "keep" or image.has_mask:
        return image
    rgb = image.rgba[..., :3]
    alpha = flood(rgb)
    if alpha is None:
        alpha = salient(rgb)
    if not LEAST <= float(alpha.mean()) / 255 <= MOST:
        warnings.warn("no object stands out from its background: the whole picture is used", UserWarning, stacklevel=2)
        return image
    return Image(np.concatenate([rgb, alpha[..., None]], -1))


def flood(rgb: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Coverage (H, W) uint8 of what a plain background, followed from the border inwards, does not reach.

    None where the border is not of one colour, or where nothing or everything would be left.
    """
    from scipy import ndimage
    from skimage.color import rgb2lab
    from skimage.measure import label

    lab = rgb2lab(_resized(rgb, FLOOD_SIDE)).astype(np.float32)
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    ground = np.median(border, axis=0)
    if float((np.linalg.norm(border - ground, axis=-1) <= TOLERANCE).mean()) < PLAIN:
        return None
    regions = np.asarray(label(np.linalg.norm(lab - ground, axis=-1) <= TOLERANCE, connectivity=1))
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    outside = np.isin(regions, np.unique(edge[edge > 0]))
    # specks of dust and compression are no objects: an opening drops what is thinner than 3 pixels of a large picture
    inside = ndimage.binary_opening(~outside, np.ones((3, 3))) if min(lab.shape[:2]) >= 128 else ~outside
    if not LEAST <= float(inside.mean()) <= MOST:
        return None
    return _enlarged(inside.astype(np.float32), rgb.shape[:2])


def salient(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Coverage (H, W) uint8 of the main object by the embedded network, stretched to 0..255 as its authors do.

    Differs: not stretched where the network is sure of nothing (maximum under one half), which then stays faint.
    """
    import PIL.Image
    import torch

    small = np.asarray(PIL.Image.fromarray(rgb).resize((SIZE, SIZE), PIL.Image.Resampling.LANCZOS), np.float32)
    pixels = (small / max(1.0, float(small.max())) - _MEAN) / _SPREAD
    with torch.inference_mode():
        saliency = _network()(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))[0, 0].numpy()
    low, high = float(saliency.min()), float(saliency.max())
    if high >= 0.5:
        saliency = (saliency - low) / (high - low)
    return _enlarged(saliency, rgb.shape[:2])


@cache
def _network() -> U2Net:
    """The embedded network, read once a process. Raises WeightsError where its file is missing or damaged."""
    from anyform.encoders.u2net import U2Net
    from anyform.weights.embedded import embedded_file
    from anyform.weights.tensors import read_safetensors

    model = U2Net()
    tensors, _ = read_safetensors(embedded_file("cutout"))
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def _resized(rgb: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    import PIL.Image

    height, width = rgb.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return rgb
    size = max(8, round(width * scale)), max(8, round(height * scale))
    return np.asarray(PIL.Image.fromarray(rgb).resize(size, PIL.Image.Resampling.BOX))


def _enlarged(coverage: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Coverage in [0, 1] brought to the picture's size, as 0..255."""
    import PIL.Image

    values = PIL.Image.fromarray((coverage.clip(0, 1) * 255).round().astype(np.uint8))
    return np.asarray(values.resize((shape[1], shape[0]), PIL.Image.Resampling.BILINEAR))
