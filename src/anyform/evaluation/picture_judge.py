"""A small independent retriever: which caption does a picture show? (specs/embedded.md §4)

It knows nothing of the models it judges: a convolutional network of its own, trained contrastively from renders of the
training objects to frozen sentence vectors. Its recall on true renders of test objects is the ceiling, 1/n is chance.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional


class PictureJudge(nn.Module):
    """Pictures (B, 3, 64, 64) in [0, 1] and sentence vectors (B, T) -> unit vectors of one space. 0.8 M parameters."""

    def __init__(self, text_width: int = 384, widths: tuple[int, ...] = (32, 64, 128, 224), dim: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(8, width), nn.SiLU()]
            before = width
        self.pictures = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * before, dim))
        self.words = nn.Linear(text_width, dim)
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(10))))

    def see(self, pictures: Tensor) -> Float[Tensor, "b d"]:
        """Unit vectors of pictures."""
        return functional.normalize(self.pictures(pictures * 2 - 1), dim=-1)

    def read(self, vectors: Tensor) -> Float[Tensor, "b d"]:
        """Unit vectors of sentences."""
        return functional.normalize(self.words(vectors), dim=-1)


class JudgeLoss:
    """Symmetric InfoNCE of a batch of (picture, sentence); a `training.loop.Loss`.

    rgba (N, V, 64, 64, 4) uint8, straight alpha; vectors (S, T); captions[n][g]: sentences of object n's group g; rows:
    the objects trained on. Colours of the background vary, pictures are mirrored and shifted by up to 4 pixels.
    """

    def __init__(
        self,
        rgba: NDArray[np.uint8],
        vectors: NDArray[np.float16],
        captions: list[list[list[int]]],
        rows: NDArray[np.int64],
        batch: int = 64,
    ) -> None:
        self.rgba, self.vectors, self.captions, self.rows, self.batch = rgba, vectors, captions, rows, batch

    def __call__(self, model: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        assert isinstance(model, PictureJudge)
        rows = rng.choice(self.rows, self.batch, replace=False)
        pictures, sentences = [], []
        for row in rows:
            view = int(rng.integers(self.rgba.shape[1]))
            group = self.captions[row][view * len(self.captions[row]) // self.rgba.shape[1]]
            sentences.append(self.vectors[int(rng.choice(group))])
            pictures.append(self._varied(self.rgba[row, view], rng))
        seen = model.see(torch.from_numpy(np.stack(pictures)).to(model.words.weight.device))
        read = model.read(torch.from_numpy(np.stack(sentences)).float().to(model.words.weight.device))
        scores = model.log_scale.exp().clamp(max=100) * seen @ read.mT
        truth = torch.arange(len(rows), device=scores.device)
        loss = (functional.cross_entropy(scores, truth) + functional.cross_entropy(scores.mT, truth)) / 2
        return loss, {"right": float((scores.argmax(1) == truth).float().mean())}

    def _varied(self, rgba: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
        """(3, H, W) in [0, 1]."""
        shift = tuple(int(one) for one in rng.integers(-4, 5, 2))
        moved = np.roll(rgba[:, ::-1] if rng.random() < 0.5 else rgba, shift, (0, 1)).astype(np.float32) / 255
        background = 1.0 if rng.random() < 0.7 else rng.random(3)
        mixed = moved[..., :3] * moved[..., 3:] + background * (1 - moved[..., 3:])
        return mixed.transpose(2, 0, 1).astype(np.float32)


@torch.inference_mode()
def recall(
    judge: PictureJudge, pictures: Tensor, vectors: Tensor, truth: NDArray[np.int64], at: tuple[int, ...] = (1, 5)
) -> dict[str, float]:
    """Shares of pictures (P, 3, H, W) whose own sentence truth[p] is among the best k of all S sentences (S, T).

    Ties go against the picture. Chance, k / S, stands beside each.
    """
    scores = torch.cat([judge.see(some) for some in pictures.split(256)]) @ judge.read(vectors).mT
    own = scores[torch.arange(len(truth)), torch.from_numpy(truth)]
    rank = (scores >= own[:, None]).sum(1)  # 1 = best; its own score is counted
    found = {f"R@{k}": float((rank <= k).float().mean()) for k in at}
    return {**found, **{f"chance@{k}": min(1.0, k / len(vectors)) for k in at}}
