"""Prompts -> what the joint network's trunks read, framed as in its training. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anyform.encoders.joint import PICTURE
from anyform.encoders.speech import windows
from anyform.types.framing import frame
from anyform.types.prompt import Audio, Image, Points, Sketch

MAX_POINTS = 1024
_BOX = 1.8  # longest side of a cloud's bounding box
_INK = 40 / 255  # above which a pixel belongs to a stroke


def picture(prompt: Image) -> NDArray[np.float32]:
    """(3, 64, 64) in [0, 1]: the object framed, on white; without a mask the whole picture, as it is."""
    rgba = frame(prompt.rgba, PICTURE, 0.85 if prompt.has_mask else 1.0).astype(np.float32) / 255
    alpha = rgba[..., 3:]
    return np.ascontiguousarray((rgba[..., :3] * alpha + 1 - alpha).transpose(2, 0, 1), np.float32)


def sketch(prompt: Sketch) -> NDArray[np.float32]:
    """(1, 64, 64) ink in [0, 1], framed by what the strokes enclose."""
    ink = np.rint(prompt.ink * 255).astype(np.uint8)
    body = ndimage.binary_fill_holes(prompt.ink > _INK)
    assert body is not None
    framed = frame(np.dstack([ink, ink, ink, body.astype(np.uint8) * 255]), PICTURE)
    return np.where(framed[..., 3] > 0, framed[..., 0] / np.float32(255), np.float32(0))[None]


def points(prompt: Points) -> NDArray[np.float32]:
    """(N, 3), N at most `MAX_POINTS` chosen by a fixed permutation; centred, the longest side of their box `_BOX`."""
    cloud = prompt.points
    if len(cloud) > MAX_POINTS:
        cloud = cloud[np.random.default_rng(0).permutation(len(cloud))[:MAX_POINTS]]
    low, high = cloud.min(0), cloud.max(0)
    return ((cloud - (low + high) / 2) * (_BOX / float((high - low).max()))).astype(np.float32)


def speech(prompt: Audio) -> NDArray[np.float32]:
    """(W, WINDOW, BANDS) windows of a sound."""
    return windows(prompt.samples, prompt.sample_rate)
