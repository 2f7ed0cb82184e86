"""The retriever that judges pictures: recall by hand, and that it learns to tell colours by their words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyform.evaluation.picture_judge import JudgeLoss, PictureJudge, recall


class Fixed(PictureJudge):
    """Pictures are their own vectors."""

    def see(self, pictures: Tensor) -> Tensor:
        return nn.functional.normalize(pictures.flatten(1)[:, :3], dim=-1)

    def read(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1)


def test_recall_counts_ties_against_the_picture() -> None:
    words = torch.eye(3)
    pictures = torch.stack([torch.tensor(v)[:, None, None] for v in ([1.0, 0, 0], [0.5, 1, 0.4], [1.0, 1, 1])])
    found = recall(Fixed(), pictures, words, np.array([0, 0, 2]), at=(1, 2))
    # the first is best; the second is second; the third ties with both others, so its rank is 3
    assert found == pytest.approx({"R@1": 1 / 3, "R@2": 2 / 3, "chance@1": 1 / 3, "chance@2": 2 / 3})


def test_it_learns_colours() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    colours = np.array([[220, 20, 20], [20, 220, 20], [20, 20, 220], [200, 200, 20]], np.uint8)
    rgba = np.zeros((4, 2, 16, 16, 4), np.uint8)
    rgba[:, :, 4:12, 4:12, :3], rgba[:, :, 4:12, 4:12, 3] = colours[:, None, None, None], 255
    vectors = rng.normal(size=(4, 6)).astype(np.float16)
    judge = PictureJudge(text_width=6, widths=(8, 16), dim=8)
    loss_of = JudgeLoss(rgba, vectors, [[[o]] for o in range(4)], np.arange(4), batch=4)
    optimiser, losses = torch.optim.Adam(judge.parameters(), lr=5e-3), []
    for _ in range(40):
        loss, numbers = loss_of(judge, rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0] and numbers["right"] == 1.0
