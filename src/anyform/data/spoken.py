"""The spoken part of the joint space's training data: which sentences are said by whom, and their mel frames on disk.

| file | content, U sounds |
|---|---|
| `mel.npy` | (U, WINDOW, BANDS) float16: log mel frames (`encoders.speech.frames`), zero after `length` |
| `spoken.json` | rows: text, split, voice, length (frames), seen (voice trains); text "" is a sound without words |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from anyform.data.captions import COLOURS
from anyform.data.speech import UNSEEN, Voice, no_speech, say, training_voice
from anyform.encoders.speech import BANDS, WINDOW, frames
from anyform.errors import BadInput
from anyform.types.progress import Progress, Report

_LEADS = ("make {}", "i want {}", "please make {}", "show me {}", "{} please")
_COMMON = slice(2000, 8000)  # a BERT vocabulary names its words about in order of frequency, after single signs


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is said, of which split, by whom; voice None is a sound without words. lead wraps the sentence."""

    text: str
    split: str
    voice: Voice | None
    lead: str = "{}"


def script(rows: Sequence[dict[str, str]], words: Sequence[str], rng: np.random.Generator) -> Iterator[Utterance]:
    """Everything to record, shuffled where it trains.

    rows: catalogue rows with caption and split. Train: every different caption, every other object's with a random
    colour, every word of `words`; some inside a request; and a fifth as many sounds without words. val and test: every
    different caption in one training voice and in every unseen one, and 100 sounds without words.
    """
    train = [row["caption"] for row in rows if row["split"] == "train"]
    colours = list(COLOURS)
    coloured = [f"a {rng.choice(colours)} {name}" for name in train[::2]]
    said = [*sorted(set(train)), *coloured, *(f"a {word}" for word in words)]
    for text in rng.permutation(np.array(said)):
        lead = str(rng.choice(_LEADS)) if rng.random() < 0.15 else "{}"
        yield Utterance(str(text), "train", training_voice(rng), lead)
        if rng.random() < 0.2:
            yield Utterance("", "train", None)
    for split in ("val", "test"):
        for text in sorted({row["caption"] for row in rows if row["split"] == split}):
            for voice in (training_voice(rng), *UNSEEN):
                yield Utterance(text, split, voice)
        yield from (Utterance("", split, None) for _ in range(100))


def common_words(tokenizer: Tokenizer, count: int, rng: np.random.Generator) -> list[str]:
    """`count` whole English words of the sentence encoder's vocabulary, of 3 to 10 letters."""
    ranked = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])[_COMMON]
    whole = [word for word, _ in ranked if word.isascii() and word.isalpha() and 3 <= len(word) <= 10]
    return [str(word) for word in rng.permutation(np.array(whole))[:count]]


def record(utterances: Sequence[Utterance], out: Path, seed: int, report: Report) -> None:
    """Say everything and write `mel.npy` and `spoken.json` (last) into `out`. Raises BadInput, MissingDependency."""
    mel = np.lib.format.open_memmap(out / "mel.npy", "w+", np.float16, (len(utterances), WINDOW, BANDS))
    rows = []
    for at, spoken in enumerate(utterances):
        rng = np.random.default_rng((seed, at))
        found = frames(no_speech(rng) if spoken.voice is None else _spoken(spoken), 16_000)[:WINDOW]
        mel[at, : len(found)] = found
        rows.append(
            {
                "text": spoken.text,
                "split": spoken.split,
                "voice": "" if spoken.voice is None else f"{spoken.voice.program} {spoken.voice.name}",
                "seen": spoken.voice not in UNSEEN,
                "length": len(found),
            }
        )
        if at % 200 == 0:
            report(Progress("speech", at, len(utterances), spoken.text))
    mel.flush()
    (out / "spoken.json").write_text(json.dumps(rows), encoding="utf-8")


def read_spoken(folder: Path) -> tuple[np.ndarray, list[dict[str, object]]]:
    """(mel memory-mapped, rows). Raises BadInput where `record` has not finished there."""
    try:
        rows = json.loads((folder / "spoken.json").read_text(encoding="utf-8"))
        return np.load(folder / "mel.npy", mmap_mode="r"), rows
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder.name} holds no spoken captions: run the recipe's step 'speech' first") from error


def _spoken(spoken: Utterance) -> np.ndarray:
    assert spoken.voice is not None
    return say(spoken.lead.format(spoken.text), spoken.voice)
