"""A spoken sentence as the speech trunk sees it: log mel frames of 10 ms, silence cut off, windows of one length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyform.encoders.mel import FRAME, log_mel, resample

BANDS = 64
WINDOW = 320  # frames: 3.2 s
_QUIET = 8.0  # nats of mean log power under the loudest frame at which a frame counts as silence
_MARGIN = 6  # frames kept on both sides of what is loud


def frames(wave: NDArray[np.floating], rate: int) -> NDArray[np.float32]:
    """Mono wave (N,) at `rate` Hz -> (F, BANDS) log mel of the wave at peak 1, quiet ends cut off, F >= 1."""
    wave = resample(wave, rate)
    wave = wave / max(1e-6, float(np.abs(wave).max(initial=0)))
    mel = log_mel(np.pad(wave, (0, max(0, FRAME - len(wave)))), BANDS)
    power = mel.mean(1)
    loud = np.flatnonzero(power > power.max() - _QUIET)
    return mel[max(0, loud[0] - _MARGIN) : loud[-1] + 1 + _MARGIN]


def window(mel: NDArray[np.floating], start: int = 0) -> NDArray[np.float32]:
    """(F, BANDS), F <= WINDOW -> (WINDOW, BANDS): zero mean and unit deviation over the frames, zeros around them."""
    out = np.zeros((WINDOW, BANDS), np.float32)
    mel = mel.astype(np.float32)
    start = min(start, WINDOW - len(mel))
    out[start : start + len(mel)] = (mel - mel.mean()) / (mel.std() + 1e-3)
    return out


def windows(wave: NDArray[np.floating], rate: int) -> NDArray[np.float32]:
    """Mono wave -> (W, WINDOW, BANDS): one window, or several that overlap by half where the sound is longer."""
    mel = frames(wave, rate)
    starts = range(0, max(1, len(mel) - WINDOW // 2), WINDOW // 2)
    return np.stack([window(mel[start : start + WINDOW]) for start in starts])
