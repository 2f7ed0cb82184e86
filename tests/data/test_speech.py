"""Spoken training data: what is said by whom, the programs' wave files, sounds without words, arrays on disk."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from anyform.data import spoken
from anyform.data.speech import UNSEEN, Voice, no_speech, say, training_voice
from anyform.encoders.speech import BANDS, WINDOW
from anyform.errors import BadInput, MissingDependency
from anyform.types.progress import silent

pytest.importorskip("soundfile")
ROWS = [
    {"caption": "mug", "split": "train"}, {"caption": "car", "split": "train"}, {"caption": "mug", "split": "train"},
    {"caption": "boat", "split": "val"}, {"caption": "tree", "split": "test"},
]  # fmt: skip
SPEAKER = """
import struct, sys
out = sys.argv[sys.argv.index("-o" if "-o" in sys.argv else "-w") + 1]
sys.exit(3) if "fail" in sys.argv else None
loud = 0 if "hush" in sys.argv else 9000
data = struct.pack("<11025h", *[loud * (-1) ** (i // 20) for i in range(11025)])
form = struct.pack("<HHIIHH", 1, 1, 22050, 44100, 2, 16)
head = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data))
open(out, "wb").write(b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data)
"""


@pytest.fixture
def speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs named like the two speakers, which write half a second of a buzz."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("flite", "espeak-ng"):
        (folder / f"{name}.py").write_text(SPEAKER, encoding="utf-8")
        # by way of sh: a first line that names python ends at the first space of its path
        script = f'#!/bin/sh\nexec "{sys.executable}" "{folder / name}.py" "$@"\n'
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_both_programs_become_waves_of_one_rate_and_peak(speakers: None) -> None:
    for voice in (Voice(program="flite", name="slt"), Voice(program="espeak-ng", name="en-us", speed=150)):
        wave = say("a red chair", voice)
        assert wave.dtype == np.float32 and len(wave) == 8000
        assert 0.4 < np.abs(wave[500:-500]).max() < 0.7
        for text in ("fail", "hush"):
            with pytest.raises(BadInput, match=voice.program):
                say(text, voice)


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="flite"):
        say("a chair", Voice(program="flite", name="slt"))


def test_unseen_voices_never_train() -> None:
    rng = np.random.default_rng(0)
    names = {training_voice(rng).name for _ in range(400)}
    assert len(names) > 30 and not names & {voice.name for voice in UNSEEN}
    assert not any(voice.name.split("+")[-1] in {name.split("+")[-1] for name in names} for voice in UNSEEN)


def test_sounds_without_words_are_finite_loud_and_different() -> None:
    waves = [no_speech(np.random.default_rng(seed), 0.5) for seed in range(20)]
    assert all(wave.shape == (8000,) and np.isfinite(wave).all() for wave in waves)
    assert all(abs(float(np.abs(wave).max()) - 0.5) < 1e-3 for wave in waves)
    assert np.array_equal(waves[3], no_speech(np.random.default_rng(3), 0.5))
    assert len({wave.tobytes() for wave in waves}) == 20


def test_the_script_says_every_caption_and_keeps_splits_apart() -> None:
    said = list(spoken.script(ROWS, ["apple"], np.random.default_rng(0)))
    train = [one for one in said if one.split == "train" and one.text]
    assert {"mug", "car", "a apple"} <= {one.text for one in train}
    assert sum(one.text.endswith(" mug") for one in train) == 2  # every other object in a random colour
    assert not any("boat" in one.text or "tree" in one.text for one in train)
    assert all(one.voice not in UNSEEN for one in train)
    for split, text in (("val", "boat"), ("test", "tree")):
        own = [one for one in said if one.split == split]
        assert sum(one.text == text for one in own) == 1 + len(UNSEEN)
        assert sum(one.voice is None for one in own) == 100


def test_recordings_on_disk(speakers: None, tmp_path: Path) -> None:
    said = [
        spoken.Utterance("mug", "train", UNSEEN[0], "make {}"),
        spoken.Utterance("", "val", None),
        spoken.Utterance("car", "val", Voice(program="espeak-ng", name="en-us")),
    ]
    with pytest.raises(BadInput, match="'speech' first"):
        spoken.read_spoken(tmp_path)
    spoken.record(said, tmp_path, 0, silent)
    mel, rows = spoken.read_spoken(tmp_path)
    assert mel.shape == (3, WINDOW, BANDS) and [row["text"] for row in rows] == ["mug", "", "car"]
    assert [row["seen"] for row in rows] == [False, True, True] and rows[0]["voice"] == "flite slt"
    for one, row in zip(mel, rows, strict=True):
        assert one[: row["length"]].any(1).all() and not one[row["length"] :].any()


def test_common_words_come_from_the_vocabulary() -> None:
    from tokenizers import Tokenizer

    from anyform.weights import embedded_file

    tokenizer = Tokenizer.from_file(str(embedded_file("text").with_name("tokenizer.json")))
    words = spoken.common_words(tokenizer, 50, np.random.default_rng(0))
    assert len(set(words)) == 50 and all(word.isalpha() and 3 <= len(word) <= 10 for word in words)
