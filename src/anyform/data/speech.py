"""Spoken captions and sounds that are no speech, made offline: training data of the embedded speech encoder.

Speech comes from two programs of the Debian archive, found on PATH: flite (CMU, a permissive licence, voices included)
and espeak-ng (GPL-3.0-or-later; formant synthesis, no MBROLA voices). Neither ships with anyform; a program's licence
does not reach the sound it makes of our own captions. Voices in `UNSEEN` never train anything: they are the test.
Waves are mono float32 in [-1, 1] at 16 kHz (`encoders.mel.RATE`).
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyform.encoders.mel import RATE, resample
from anyform.errors import BadInput, MissingDependency
from anyform.types.readers.audio import read_audio

_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One speaker. speed: words a minute, about 175 is usual (espeak-ng); pitch: 0..99 (espeak-ng)."""

    program: str
    name: str
    speed: int = 165
    pitch: int = 50


_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029")
_SPEAKERS = ("m1", "m2", "m3", "m4", "m5", "m8", "f1", "f2", "f3", "f5", "klatt2", "klatt4", "Andy", "Annie", "Lee")
UNSEEN = (
    Voice(program="flite", name="slt"),
    Voice(program="espeak-ng", name="en-gb-scotland+f4", speed=155, pitch=55),
    Voice(program="espeak-ng", name="en-us+m7", speed=175, pitch=40),
)


def training_voice(rng: np.random.Generator) -> Voice:
    """A random speaker for training: three in five flite, else espeak-ng with random accent, speaker, speed, pitch."""
    if rng.random() < 0.6:
        return Voice(program="flite", name=str(rng.choice(["kal16", "awb", "rms"])))
    name = f"{rng.choice(_ACCENTS)}+{rng.choice(_SPEAKERS)}"
    return Voice(program="espeak-ng", name=name, speed=int(rng.integers(130, 200)), pitch=int(rng.integers(30, 75)))


def say(text: str, voice: Voice) -> NDArray[np.float32]:
    """The sentence spoken, peak 0.5.

    Raises MissingDependency where the program is not installed, BadInput where it fails or says nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "say.wav"
        try:
            done = subprocess.run(_command(text, voice, out), capture_output=True, timeout=_TIMEOUT_S, check=False)
        except FileNotFoundError as error:
            raise MissingDependency(voice.program, extra="audio") from error
        if done.returncode != 0 or not out.is_file():
            raise BadInput(f"{voice.program} could not say {text[:80]!r} with the voice {voice.name!r}")
        wave, rate, _ = read_audio(out)
    peak = float(np.abs(wave).max(initial=0))
    if peak < 1e-3:
        raise BadInput(f"{voice.program} said nothing for {text[:80]!r}")
    return resample(wave * (0.5 / peak), rate)


def _command(text: str, voice: Voice, out: Path) -> list[str]:
    if voice.program == "flite":
        return ["flite", "-voice", voice.name, "-t", text, "-o", str(out)]
    options = ["-s", str(voice.speed), "-p", str(voice.pitch), "-w", str(out)]
    return ["espeak-ng", "-v", voice.name, *options, text]


def no_speech(rng: np.random.Generator, seconds: float = 2.0) -> NDArray[np.float32]:
    """A sound without words: noise, hum, tones, chirps, knocks, barks or chords; peak 0.5."""
    t = np.arange(int(seconds * RATE)) / RATE
    wave = _SOUNDS[rng.integers(len(_SOUNDS))](rng, t)
    gate = np.ones_like(t)
    if rng.random() < 0.5:  # bursts with silence between them
        period, duty, phase = rng.uniform(0.2, 1.2), rng.uniform(0.2, 0.8), rng.random()
        inside = (t / period + phase) % 1
        gate = np.clip(np.minimum(inside, duty - inside) * period / 0.01, 0, 1)
    wave = wave * gate + _noise(rng, t) * 10 ** rng.uniform(-4, -1.5)
    return (0.5 * wave / max(1e-6, float(np.abs(wave).max()))).astype(np.float32)


def _noise(rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise whose spectrum falls as frequency^-a, a random, with a random band cut out of it."""
    frequency = np.fft.rfftfreq(len(t), 1 / RATE)
    spectrum = rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency))
    spectrum *= np.maximum(frequency, 30.0) ** -rng.uniform(0, 1.5)
    low, high = np.sort(rng.uniform(20, 8000, 2))
    if rng.random() < 0.5:
        spectrum *= (frequency > low) & (frequency < max(high, low + 200))
    wave = np.fft.irfft(spectrum, len(t))
    return wave / max(1e-9, float(np.abs(wave).max()))


def _tones(rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Steady partials: hums, beeps, chords."""
    base, count = rng.uniform(50, 1500), int(rng.integers(1, 8))
    ratios = np.arange(1, count + 1) if rng.random() < 0.5 else rng.uniform(1, 4, count)
    return sum((np.sin(2 * np.pi * base * r * t + rng.uniform(0, 6)) / r for r in ratios), np.zeros_like(t))


def _sweeps(rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sirens and birds: harmonics of a pitch that swings."""
    base, depth, rate = rng.uniform(150, 3000), rng.uniform(0.05, 0.6), rng.uniform(0.3, 12)
    phase = 2 * np.pi * np.cumsum(base * (1 + depth * np.sin(2 * np.pi * rate * t + rng.uniform(0, 6)))) / RATE
    return np.sin(phase) + rng.uniform(0, 0.7) * np.sin(2 * phase) + rng.uniform(0, 0.4) * np.sin(3 * phase)


def _knocks(rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Knocks, claps and bells: decaying resonances or noise at random times."""
    wave = np.zeros_like(t)
    for start in rng.uniform(0, t[-1], int(rng.integers(1, 9))):
        after = np.maximum(t - start, 0)
        envelope = (t >= start) * np.exp(-after * rng.uniform(4, 120))
        ringing = np.sin(2 * np.pi * rng.uniform(80, 5000) * after)
        wave += envelope * (ringing if rng.random() < 0.6 else _noise(rng, t))
    return wave


def _barks(rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Barks, growls and engines: rough harmonic bursts of one vowel-like colour whose pitch rises and falls."""
    wave, length = np.zeros_like(t), rng.uniform(0.08, 0.4)
    pitch, formant, width = rng.uniform(60, 700), rng.uniform(400, 1800), rng.uniform(200, 900)
    for start in np.arange(rng.uniform(0, 0.4), t[-1], length + rng.uniform(0.05, 0.8)):
        inside = np.clip((t - start) / length, 0, 1)
        glide = pitch * (1 + rng.uniform(0, 0.8) * np.sin(np.pi * inside) + 0.1 * rng.standard_normal(len(t)))
        phase = 2 * np.pi * np.cumsum(glide) / RATE
        voice = sum(
            (np.sin(k * phase) * np.exp(-(((k * pitch - formant) / width) ** 2)) for k in range(1, 16)),
            np.zeros_like(t),
        )
        wave += np.sin(np.pi * inside) ** 0.5 * (voice + rng.uniform(0.05, 0.6) * _noise(rng, t))
    return wave


_SOUNDS = (_noise, _tones, _sweeps, _knocks, _barks, _barks)
