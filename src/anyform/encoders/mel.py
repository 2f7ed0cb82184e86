"""Sound -> log mel bands, as Kaldi computes them. numpy only; mono waves (N,) float, rates in Hz.

Frames of 25 ms every 10 ms, whole frames only; each loses its mean, is pre-emphasised and weighted by a symmetric Hann
window; the power of a 512-point spectrum is gathered by triangles that are linear in mel(f) = 1127 ln(1 + f/700)
between 20 Hz and half the rate; natural logarithm, floored at the float32 epsilon.
Sources: Kaldi's feature-fbank; ImageBind's settings (specs/encoders.md §1); resampling as torchaudio's default, a sinc
under a squared cosine of 6 zero crossings, cut at .99 of the lower half rate.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz, of everything after `resample`
FRAME, HOP, SPECTRUM = 400, 160, 512  # samples at RATE
_FLOOR = 1.1920929e-7
_PREEMPHASIS = 0.97
_CROSSINGS, _ROLLOFF = 6, 0.99
_BLOCK = 1 << 14  # output samples resampled at a time: bounds the memory of long sounds


def resample(wave: NDArray[np.floating], rate: int, target: int = RATE) -> NDArray[np.float32]:
    """wave (N,) at `rate` -> (⌈N · target/rate⌉,) float32 at `target`."""
    if rate == target:
        return wave.astype(np.float32)
    offsets, weights = _kernel(rate, target)
    reach = offsets[-1] - 1
    padded = np.pad(wave.astype(np.float32), (reach, reach + 1))
    phases = len(weights)
    length = -(-len(wave) * target // rate)
    out = np.empty(length, np.float32)
    for start in range(0, length, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, length), dtype=np.int64)
        taps = padded[(index * rate // target)[:, None] + reach + offsets]
        out[index] = np.einsum("nt,nt->n", taps, weights[index % phases])
    return out


@lru_cache(4)
def _kernel(rate: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(offsets (T,) of the input samples that an output sample sees, their weights (P, T) for its P phases)."""
    cutoff = min(rate, target) * _ROLLOFF  # twice the pass band's edge, Hz
    reach = math.ceil(_CROSSINGS * rate / cutoff)
    offsets = np.arange(-reach, reach + 2)
    phase = np.arange(target // math.gcd(rate, target)) * rate % target / target
    t = np.clip((offsets - phase[:, None]) * (cutoff / rate), -_CROSSINGS, _CROSSINGS)
    weights = np.sinc(t) * np.cos(t * (np.pi / 2 / _CROSSINGS)) ** 2 * (cutoff / rate)
    return offsets, weights.astype(np.float32)


@cache
def mel_filters(num_bands: int) -> NDArray[np.float64]:
    """Triangles (257, num_bands): weight of each bin of a 512-point power spectrum at `RATE` in each band."""

    def mel(frequency: NDArray[np.floating]) -> NDArray[np.float64]:
        return 1127 * np.log1p(frequency / 700)

    low, high = mel(np.array([20.0, RATE / 2]))
    edges = np.linspace(low, high, num_bands + 2)
    bins = mel(np.arange(SPECTRUM // 2 + 1) * (RATE / SPECTRUM))[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))


def log_mel(wave: NDArray[np.floating], num_bands: int) -> NDArray[np.float32]:
    """wave (N,) at `RATE`, N >= 400 -> (F, num_bands) float32 with F = 1 + (N − 400) // 160 frames."""
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), FRAME)[::HOP]
    frames = frames - frames.mean(1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    frames = (frames - _PREEMPHASIS * before) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames, SPECTRUM)) ** 2
    return np.log(np.maximum(power @ mel_filters(num_bands), _FLOOR)).astype(np.float32)
