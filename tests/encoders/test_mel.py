"""Log mel frames against the definition written out, and resampling against tones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anyform.encoders.mel import RATE, log_mel, mel_filters, resample


def test_a_frame_is_the_definition() -> None:
    wave = np.random.default_rng(0).standard_normal(900) * 0.1
    found = log_mel(wave, 12)
    assert found.shape == (4, 12)
    frame = wave[320:720] - wave[320:720].mean()
    frame = np.array([frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(400)])
    frame *= [0.5 - 0.5 * math.cos(2 * math.pi * i / 399) for i in range(400)]
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    power = np.abs(turns @ frame) ** 2
    edges = np.linspace(*(1127 * math.log(1 + f / 700) for f in (20, 8000)), 14)
    for band in range(12):
        total = 0.0
        for k in range(257):
            mel = 1127 * math.log(1 + k * 31.25 / 700)
            left, centre, right = edges[band : band + 3]
            up, down = (mel - left) / (centre - left), (right - mel) / (right - centre)
            total += max(0.0, min(up, down)) * power[k]
        assert found[2, band] == pytest.approx(math.log(total), abs=1e-5)


def test_frames_of_two_seconds_and_of_silence() -> None:
    assert log_mel(np.zeros(32_000), 128).shape == (198, 128)
    assert np.allclose(log_mel(np.zeros(400), 128), math.log(1.1920929e-7))


def test_filters_overlap_to_one_between_the_first_and_last_centre() -> None:
    weights = mel_filters(40)
    inside = slice(np.flatnonzero(weights[:, 0] > 0)[-1] + 1, np.flatnonzero(weights[:, -1] > 0)[0])
    assert np.allclose(weights[inside].sum(1), 1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 44_101])
def test_a_tone_keeps_its_pitch_and_phase_at_any_rate(rate: int) -> None:
    length = rate // 4
    tone = np.sin(2 * np.pi * 440 * np.arange(length) / rate)
    found = resample(tone, rate)
    assert len(found) == -(-length * RATE // rate) and found.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / RATE)
    assert np.abs(found - expected)[100:-100].max() < 2e-3


def test_what_the_lower_rate_cannot_hold_is_taken_out() -> None:
    high = np.sin(2 * np.pi * 15_000 * np.arange(11_025) / 44_100)
    assert np.abs(resample(high, 44_100)[100:-100]).max() < 0.02
    assert np.array_equal(resample(high, RATE), high.astype(np.float32))
