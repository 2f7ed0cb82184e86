"""Reading sound: WAV, FLAC, OGG and MP3 through soundfile, counted before and while it is decoded.

WAV chunks: https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput, MissingDependency
from anyform.types.prompt import MAX_SECONDS, SAMPLE_RATES
from anyform.types.readers.limits import MEBI, read_bytes, shown

MAX_AUDIO_BYTES = 256 * MEBI
MAX_CHANNELS = 32
MAX_VALUES = 60_000_000  # frames x channels
ADVICE = "give a WAV, FLAC, OGG or MP3 file"
_STREAMED = 0xFFFFFFFF  # the data length that programs write when they do not know it yet
SILENT = 1e-4  # peak below which a channel is silent: -80 dB
_BLOCK = 1 << 16  # frames decoded at a time


def read_audio(path: str | Path) -> tuple[NDArray[np.float32], int, NDArray[np.float32] | None]:
    """(samples (N,) float32, the mean of the channels that sound; rate in Hz; the first channel where there are more).

    Raises BadInput where the header promises more than the file holds or than is read (`MAX_SECONDS`, `MAX_CHANNELS`,
    `MAX_VALUES`), where decoding gives more than the header promised, and for damaged files.
    """
    name = shown(path)
    data = read_bytes(path, MAX_AUDIO_BYTES, ADVICE)
    if not _known(data):
        raise BadInput(f"{name} is no sound that can be read: {ADVICE}")
    if data.startswith(b"RIFF"):
        _check_wav(data, name)
    try:
        import soundfile
    except ImportError as error:
        raise MissingDependency("soundfile", extra="audio") from error
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            _check_counts(sound, name)
            samples, left = _mono(sound, name)
            return samples, int(sound.samplerate), left
    except soundfile.SoundFileError as error:
        raise BadInput(f"{name} is cut off or damaged and cannot be decoded: {ADVICE}") from error


def _known(data: bytes) -> bool:
    wav = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    mp3 = data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2)
    return wav or mp3 or data[:4] in (b"fLaC", b"OggS")


def _check_wav(data: bytes, name: str) -> None:
    """Compare the length of the `data` chunk with the bytes that are there."""
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack("<4sI", data[at : at + 8])
        present = len(data) - at - 8
        if kind == b"data":
            if size > present and size != _STREAMED:
                raise BadInput(
                    f"{name} promises {size} bytes of sound and holds {present}: it is cut off, save it again"
                )
            return
        at += 8 + size + size % 2
    raise BadInput(f"{name} has no sound data: {ADVICE}")


def _check_counts(sound: Any, name: str) -> None:
    frames, channels, rate = sound.frames, sound.channels, sound.samplerate
    if not 1 <= channels <= MAX_CHANNELS:
        raise BadInput(f"{name} has {channels} channels, between 1 and {MAX_CHANNELS} are read: mix it to mono")
    if not SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]:
        raise BadInput(f"{name} has {rate} samples a second, between {SAMPLE_RATES[0]} and {SAMPLE_RATES[1]} are read")
    if frames < 1:
        raise BadInput(f"{name} holds no samples: record it again")
    if frames > MAX_SECONDS * rate or frames * channels > MAX_VALUES:
        raise BadInput(
            f"{name} holds {frames} frames of {channels} channels ({frames / rate:.0f} s): at most {MAX_SECONDS} s and"
            f" {MAX_VALUES // 10**6} million values are read, so cut it shorter"
        )


def _mono(sound: Any, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Decode block by block; a stream that goes on after the promised frames is refused, not followed.

    A silent channel, such as the right one of a mono microphone, would only halve the others; which are silent is known
    at the end, so sums of all channels and their peaks are kept, and the sum is divided then.
    """
    promised, total, left, count = sound.frames, [], [], 0
    peaks = np.zeros(sound.channels)
    while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
        count += len(block)
        if count > promised:
            raise BadInput(f"{name} decodes to more than the {promised} frames it promises: save it again")
        total.append(block.sum(1, dtype=np.float64))
        left.append(block[:, 0].copy())
        peaks = np.fmax(peaks, np.abs(block).max(0))
    if not total:
        raise BadInput(f"{name} holds no samples: record it again")
    sounding = max(1, int((peaks > SILENT).sum()))
    first = np.concatenate(left) if sound.channels > 1 else None
    return (np.concatenate(total) / sounding).astype(np.float32), first
