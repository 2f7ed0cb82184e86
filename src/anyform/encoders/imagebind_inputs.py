"""Sound -> the tensors that ImageBind was trained on, value by value (specs/encoders.md §1; imagebind/data.py).

numpy only. Clips whose bounds are cut off in floating point and padding before normalising are part of the weights.
Pictures: `clip_pictures.py`; text: `clip_tokens.py`.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from anyform.encoders.mel import FRAME, RATE, log_mel, resample
from anyform.types.prompt import Audio

CLIPS, CLIP_SECONDS = 3, 2
BANDS, FRAMES = 128, 204
_MEL_MEAN, _MEL_STD = -4.268, 9.138


def sound(audio: Audio, channels: str) -> NDArray[np.float32]:
    """(3, 1, 128, 204): three clips of 2 s, evenly spaced, equal where the sound is shorter; normalised log mel.

    channels: "left" is what the public code feeds, "mix" the mean of the channels that sound.
    """
    first = audio.left is not None and channels == "left"
    wave = resample(audio.left if first and audio.left is not None else audio.samples, audio.sample_rate)
    return np.stack([_clip_mel(wave[start:stop]) for start, stop in clip_bounds(len(wave))])[:, None]


def clip_bounds(length: int) -> list[tuple[int, int]]:
    """First and last sample of each clip of a wave at `RATE`.

    The duration is a float in the public sampler; what it lacks to the true quotient is cut off with the fraction.
    """
    duration = length / RATE
    latest = Fraction(max(duration - CLIP_SECONDS, 0))
    starts = [latest / (CLIPS - 1) * clip for clip in range(CLIPS)]
    return [(int(start * RATE), int((start + CLIP_SECONDS) * RATE)) for start in starts]


def _clip_mel(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    """(128, 204). Differs: the public code takes each clip's mean away in place, on clips that overlap; this copies."""
    clip = np.pad(clip - clip.mean(), (0, max(0, FRAME - len(clip))))
    mel = log_mel(clip, BANDS)[:FRAMES].T
    padded = np.pad(mel, ((0, 0), (0, FRAMES - mel.shape[1])))
    return ((padded - _MEL_MEAN) / _MEL_STD).astype(np.float32)
