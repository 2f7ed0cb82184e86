from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from anyform.systems.xbind import reference
from anyform.systems.xbind.reference import ReferenceView, imagined, of_image, repainted, wholeness
from anyform.types.progress import Progress, silent
from anyform.types.prompt import Image


def disc(radius: float = 0.5, size: int = 32) -> ReferenceView:
    along = (torch.arange(size) + 0.5) * 2 / size - 1
    mask = ((along[:, None] ** 2 + along**2) < radius**2).float()[None, None]
    return ReferenceView(picture=0.5 * mask + (1 - mask).expand(1, 3, -1, -1), mask=mask)


def test_the_user_s_picture_is_centred_over_white(fixtures: Path) -> None:
    view = of_image(Image.open(fixtures / "image.png"))
    assert view.picture.shape == (1, 3, 256, 256) and view.mask.shape == (1, 1, 256, 256)
    rows, columns = np.nonzero(view.mask[0, 0].numpy() > 0.5)
    longest = max(np.ptp(rows), np.ptp(columns)) / 256
    assert longest == pytest.approx(0.78, abs=0.03)
    assert abs((rows.min() + rows.max()) / 2 - 127.5) < 3 and abs((columns.min() + columns.max()) / 2 - 127.5) < 3
    assert torch.allclose(view.picture[0, :, 0, 0], torch.ones(3))
    again = view.as_image()
    assert again.has_mask and again.rgba.shape == (256, 256, 4)


def test_wholeness_prefers_one_object_inside_the_picture() -> None:
    along = (np.arange(64) + 0.5) / 32 - 1
    radius = np.hypot(*np.meshgrid(along, along))
    ball = (radius < 0.6).astype(np.uint8) * 255
    two = np.concatenate([ball[:, 16:48], ball[:, 16:48]], 1)
    two[:, 30:34] = 0
    cut = np.roll(ball, 30, 1)
    cut[:, :30] = 0
    speck = (radius < 0.1).astype(np.uint8) * 255
    scores = [wholeness(mask) for mask in (ball, two, cut, speck)]
    assert scores[0] == 1.0 and all(score < 0.9 for score in scores[1:])


def test_the_best_candidate_is_the_one_most_like_the_prompt(toys: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    colors = torch.tensor([[0.1, 0.1, 0.9], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1]])
    mask = disc(0.6, 32).mask
    pictures = mask * colors[:, :, None, None] + (1 - mask)
    asked: list[list[int]] = []

    def fake(prior: object, condition: object, seeds: list[int], **_: object) -> torch.Tensor:
        asked.append(seeds)
        return pictures

    monkeypatch.setattr(reference, "sample", fake)
    prior = toys.gaussian_prior()
    view = imagined(
        prior, prior.condition(), torch.tensor([1.0, -1.0, -1.0]), (toys.embed, 16),
        candidates=3, steps=4, seed=7, report=silent,
    )  # fmt: skip
    assert asked == [[7, 8, 9]]
    middle = view.picture[0, :, 128, 128]
    assert middle[0] > 0.8 and middle[1:].max() < 0.2
    assert view.candidates is not None and view.candidates.shape == (3, 32, 32, 3)


def test_candidates_really_come_from_the_prior(toys: ModuleType) -> None:
    """The Gaussian prior draws pictures of one red: still a picture and a mask come out."""
    prior, told = toys.gaussian_prior(), list[Progress]()
    view = imagined(
        prior, prior.condition(), torch.tensor([1.0, -1.0, -1.0]), (toys.embed, 16),
        candidates=2, steps=3, seed=0, report=told.append,
    )  # fmt: skip
    assert torch.isfinite(view.picture).all() and float(view.mask.max()) > 0.5
    assert [progress.step for progress in told] == [1, 2, 3]


def test_a_repainted_shape_keeps_its_mask_and_takes_the_prior_s_colour(toys: ModuleType) -> None:
    prior, shape = toys.gaussian_prior(), disc()
    view = repainted(prior, prior.condition(), shape, steps=10, seed=1, report=silent)
    assert torch.equal(view.mask, shape.mask)
    inside = view.picture[0, :, 14:18, 14:18].mean((1, 2))
    assert inside[0] > inside[1:].max() + 0.2
    assert torch.allclose(view.picture[0, :, 0, 0], torch.ones(3))
