"""Bad sound files (expectations.md §4.3 rows 7, 8): counted before and while they are decoded."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyform.errors import BadInput, MissingDependency
from anyform.types.prompt import Audio
from anyform.types.readers import audio

soundfile = pytest.importorskip("soundfile")
TONE = np.sin(np.arange(8000) * 0.3).astype(np.float32) * np.float32(0.5)


def wav(channels: int = 1, rate: int = 16_000, body: bytes = b"", claimed: int | None = None, kind: int = 1) -> bytes:
    """A WAV file of 16-bit (kind 1) or float (kind 3) samples whose data chunk claims `claimed` bytes."""
    width = {1: 2, 3: 4}[kind]
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * width, channels * width, 8 * width)
    claimed = len(body) if claimed is None else claimed
    inner = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", claimed) + body
    return b"RIFF" + struct.pack("<I", len(inner) & 0xFFFFFFFF) + inner


PCM = (TONE * 32767).astype("<i2").tobytes()


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(BadInput) as caught:
        Audio.open(path)
    message = str(caught.value)
    assert "\n" not in message and str(path.parent) not in message
    return message


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"not a sound", "no sound"),
        (b"FORM\0\0\0\0AIFF" + bytes(50), "no sound"),
        (wav(body=PCM, claimed=2 * 10**9), "promises 2000000000 bytes"),
        (wav(body=PCM, claimed=0xFFFFFFF0), "promises"),
        (wav(body=b""), "no samples"),
        (wav(body=PCM)[:30], "no sound data"),
        (wav(channels=96, body=PCM), "96 channels"),
        (wav(channels=0, body=PCM), "damaged"),
        (wav(rate=7, body=PCM), "7 samples a second"),
        (wav(rate=8000, body=bytes(2 * 8000 * 601)), "601 s"),
        (wav(body=PCM[:400]), "0.01 s"),
        (wav(body=bytes(16000)), "silent"),
        (wav(kind=3, body=np.full(8000, np.nan, "<f4").tobytes()), "8000 of the 8000 values"),
        (wav(kind=3, body=np.where(TONE > 0.4, np.inf, TONE).astype("<f4").tobytes()), "NaN or infinite"),
        (b"fLaC" + bytes(200), "damaged"),
        (b"OggS" + bytes(200), "damaged"),
        (b"ID3" + bytes(200), "damaged"),
    ],
)
def test_refused(data: bytes, says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path / "say.wav", data)


def test_three_hours_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoder(*arguments: object) -> None:
        raise AssertionError("samples were decoded")

    monkeypatch.setattr(audio, "_mono", decoder)
    file = io.BytesIO()
    soundfile.write(file, np.zeros(3 * 3600 * 1000, np.int16), 1000, format="FLAC")
    assert "10800 s" in refused(tmp_path / "long.flac", file.getvalue())


def test_a_stream_that_outlasts_its_promise_is_not_followed(tmp_path: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, TONE.repeat(4), 16_000, format="FLAC")
    data = bytearray(file.getvalue())
    place = 4 + 4 + 13  # the 36-bit count of samples ends STREAMINFO (RFC 9639 §8.2); its last 32 bits
    assert int.from_bytes(data[place + 1 : place + 5], "big") == 32_000
    data[place + 1 : place + 5] = (3_200).to_bytes(4, "big")
    (tmp_path / "lie.flac").write_bytes(data)
    try:
        assert len(Audio.open(tmp_path / "lie.flac").samples) == 3_200
    except BadInput as error:
        assert "3200" in str(error) or "damaged" in str(error)


@pytest.mark.parametrize(("kind", "exact"), [("WAV", 1e-4), ("FLAC", 1e-4), ("OGG", 0.1), ("MP3", 0.2)])
def test_formats_and_channels_become_one_mono_wave(kind: str, exact: float, tmp_path: Path) -> None:
    other = np.sin(np.arange(len(TONE)) * 0.11).astype(np.float32) / 2
    soundfile.write(tmp_path / "tone", np.stack([TONE, other], 1), 44_100, format=kind)
    sound = Audio.open(tmp_path / "tone")
    assert sound.sample_rate == 44_100 and sound.samples.dtype == np.float32 and sound.samples.ndim == 1
    assert np.abs(sound.samples[500:7000] - (TONE + other)[500:7000] / 2).max() < exact
    assert sound.left is not None and np.abs(sound.left[500:7000] - TONE[500:7000]).max() < 2 * exact


def test_a_silent_channel_does_not_halve_the_others(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "right.wav", np.stack([np.zeros_like(TONE), TONE], 1), 16_000)
    sound = Audio.open(tmp_path / "right.wav")
    assert np.abs(sound.samples - TONE).max() < 1e-4 and sound.left is not None and not sound.left.any()
    soundfile.write(tmp_path / "mono.wav", TONE, 16_000)
    assert Audio.open(tmp_path / "mono.wav").left is None
    with pytest.raises(BadInput, match="as long as"):
        Audio(TONE, 16_000, TONE[:5])


def test_a_streamed_wav_without_a_length_is_read(tmp_path: Path) -> None:
    (tmp_path / "streamed.wav").write_bytes(wav(body=PCM, claimed=0xFFFFFFFF))
    assert len(Audio.open(tmp_path / "streamed.wav").samples) == len(TONE)


def test_loud_floats_are_scaled_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "loud.wav").write_bytes(wav(kind=3, body=(TONE * 8).astype("<f4").tobytes()))
    with pytest.warns(UserWarning, match=r"peaks at 4\.00"):
        assert np.abs(Audio.open(tmp_path / "loud.wav").samples).max() == 1


def test_without_soundfile_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "tone.wav").write_bytes(wav(body=PCM))
    with pytest.raises(MissingDependency, match=r"anyform\[audio\]"):
        Audio.open(tmp_path / "tone.wav")


@pytest.mark.parametrize(
    ("samples", "rate", "says"),
    [
        (np.stack([TONE, TONE]), 16_000, "mono"),
        (TONE, 16_000.5, "whole number"),
        (TONE, True, "whole number"),
        (TONE, 0, "0 Hz"),
        (TONE[:0], 16_000, "non-empty"),
        (np.array(["a"] * 8000), 16_000, "numbers"),
    ],
)
def test_the_constructor_checks_too(samples: np.ndarray, rate: float, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Audio(samples, rate)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["WAV", "FLAC", "OGG"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
)
def test_damaged_bytes_never_raise_anything_else(kind: str, changes: list[tuple[int, int]], tmp_path: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, TONE[:2000], 16_000, format=kind)
    data = bytearray(file.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    (tmp_path / "damaged").write_bytes(data)
    try:
        samples, rate, _ = audio.read_audio(tmp_path / "damaged")
    except BadInput as error:
        assert "damaged" in str(error)
    else:
        assert samples.ndim == 1 and 1_000 <= rate <= 384_000
