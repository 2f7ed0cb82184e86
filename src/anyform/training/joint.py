"""Training the embedded joint space: random prompts of one object must lie together, speech beside its words.

Each step draws objects with a picture, a sketch, points and a caption each, and sounds with their sentences. Pictures,
sketches and points are pulled to the caption and to each other; speech to the vector of what was said, with two more
tasks: is there speech at all, and which words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from anyform.encoders.joint import Joint
from anyform.training import joint_augmentation as augmentation
from anyform.training.contrastive import info_nce

_POINTS = 320  # a cloud in training
_TEXT_NOISE = 0.01  # deviation added to each of the 384 values, about 0.05 large, of a sentence vector


@dataclass(frozen=True, slots=True, kw_only=True)
class JointArrays:
    """O objects and U sounds. framed (O, V, 64, 64, 4) uint8, sketch (O, V, 64, 64) uint8 ink, points (O, P, 3),
    text (O, T, 384), group (O,) equal for equal captions; mel (U, F, BANDS), length (U,) frames, said (U,) row of
    `sentences` (S, 384) or -1 without words, words (S, W) bool: which words each sentence holds.
    """

    framed: NDArray[np.uint8]
    sketch: NDArray[np.uint8]
    points: NDArray[np.floating]
    text: NDArray[np.floating]
    group: NDArray[np.int64]
    mel: NDArray[np.floating]
    length: NDArray[np.int64]
    said: NDArray[np.int64]
    sentences: NDArray[np.floating]
    words: NDArray[np.bool_]


def vocabulary(sentences: Sequence[str], at_least: int = 2) -> tuple[str, ...]:
    """Words that at least so many sentences hold, sorted; no digits, no single letters."""
    counts: dict[str, int] = {}
    for sentence in sentences:
        for word in sorted(set(sentence.lower().split())):
            counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(word for word, count in counts.items() if count >= at_least and len(word) > 1))


class JointLoss:
    """`training.loop.Loss` over the objects and sounds that train."""

    def __init__(
        self,
        arrays: JointArrays,
        objects: NDArray[np.int64],
        sounds: NDArray[np.int64],
        batch: int = 64,
        spoken: int = 48,
    ) -> None:
        self.arrays, self.objects, self.batch, self.spoken = arrays, objects, batch, spoken
        self.speech = sounds[arrays.said[sounds] >= 0]
        self.noise = sounds[arrays.said[sounds] < 0]

    def __call__(self, model: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        assert isinstance(model, Joint)
        scale = model.scale.exp().clamp(max=50.0)
        shown, numbers = self._objects(model, rng, scale)
        heard, more = self._sounds(model, rng, scale)
        return shown + heard, {**numbers, **more}

    def _objects(self, model: Joint, rng: np.random.Generator, scale: Tensor) -> tuple[Tensor, dict[str, float]]:
        arrays = self.arrays
        rows = rng.choice(self.objects, self.batch, replace=False)
        views = rng.integers(0, arrays.framed.shape[1], (2, self.batch))
        words = arrays.text[rows, rng.integers(0, arrays.text.shape[1], self.batch)].astype(np.float32)
        text = model.text(torch.from_numpy(words + _TEXT_NOISE * rng.standard_normal(words.shape, np.float32)))
        image = model.image(augmentation.pictures(arrays.framed[rows, views[0]], rng))
        sketch = model.sketch(augmentation.sketches(arrays.sketch[rows, views[1]], rng))
        points = model.points(augmentation.clouds(arrays.points[rows], _POINTS, rng))
        same = torch.from_numpy(arrays.group[rows][:, None] == arrays.group[rows][None])
        pairs = {
            "image_text": (image, text, 1.0),
            "sketch_text": (sketch, text, 1.0),
            "points_text": (points, text, 1.0),
            "image_points": (image, points, 0.5),
            "sketch_points": (sketch, points, 0.5),
            "image_sketch": (image, sketch, 0.5),
        }
        losses = {name: weight * info_nce(a, b, scale, same) for name, (a, b, weight) in pairs.items()}
        return torch.stack([*losses.values()]).sum() / 3, {name: float(loss.detach()) for name, loss in losses.items()}

    def _sounds(self, model: Joint, rng: np.random.Generator, scale: Tensor) -> tuple[Tensor, dict[str, float]]:
        arrays, without = self.arrays, max(1, self.spoken // 6)
        rows = np.concatenate([rng.choice(self.speech, self.spoken - without, replace=False),
                               rng.choice(self.noise, without, replace=False)])  # fmt: skip
        mel = augmentation.sounds(arrays.mel[rows], arrays.length[rows], rng)
        vectors, spoken, words = model.speech(torch.from_numpy(mel))
        said = arrays.said[rows[: self.spoken - without]]
        text = model.text(torch.from_numpy(arrays.sentences[said].astype(np.float32)))
        same = torch.from_numpy(said[:, None] == said[None])
        pull = info_nce(vectors[: len(said)], text, scale, same)
        target = torch.zeros(len(rows), len(model.config.words))
        target[: len(said)] = torch.from_numpy(arrays.words[said]).float()
        named = functional.binary_cross_entropy_with_logits(words, target, reduction="sum") / len(rows)
        is_speech = (torch.arange(len(rows)) < len(said)).float()
        any_speech = functional.binary_cross_entropy_with_logits(spoken, is_speech)
        numbers = {
            "speech_text": float(pull.detach()),
            "words": float(named.detach()),
            "any": float(any_speech.detach()),
        }
        return pull + 0.2 * named + any_speech, numbers


def read_text(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """A number for each catalogue row, equal where captions are."""
    return np.unique([str(row["caption"]).lower() for row in rows], return_inverse=True)[1]
