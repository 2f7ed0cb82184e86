from __future__ import annotations

import numpy as np
import torch

from anyform.systems.xbind import augmentation
from anyform.systems.xbind.augmentation import homography, part, plain, whole

WHITE = torch.ones(3)


def test_a_homography_takes_its_four_points_along() -> None:
    source = np.array([[-1.0, -1.0], [1.0, -0.8], [0.9, 1.0], [-1.0, 0.7]])
    target = np.array([[0.0, 0.0], [2.0, 0.1], [2.5, 3.0], [-0.5, 2.0]])
    moved = np.c_[source, np.ones(4)] @ homography(source, target).T
    assert np.allclose(moved[:, :2] / moved[:, 2:], target)


def test_every_augmentation_has_the_encoder_s_size_and_stays_in_range() -> None:
    picture = torch.rand(2, 3, 48, 48)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        for shown in (
            whole(picture, 32, WHITE, rng), part(picture, 32, WHITE, rng, (0.1, 0.4)), plain(picture, 32),
        ):  # fmt: skip
            assert shown.shape == (2, 3, 32, 32)
            assert float(shown.min()) >= -1e-5 and float(shown.max()) <= 1 + 1e-5


def test_a_perspective_shrinks_the_picture_and_fills_with_the_background() -> None:
    black, red = torch.zeros(1, 3, 32, 32), torch.tensor([1.0, 0.0, 0.0])
    shown = [whole(black, 32, red, np.random.default_rng(seed)) for seed in range(40)]
    kept = [float((picture[:, 0] < 0.5).float().mean()) for picture in shown]
    straight = sum(share == 1.0 for share in kept)
    assert 0 < straight < 20  # one in five stays as it is
    assert min(kept) > 0.25  # corners move by at most a quarter of an edge
    assert all(float(picture[:, 1:].abs().max()) < 1e-6 for picture in shown)


def test_the_same_generator_shows_the_same_part() -> None:
    picture = torch.rand(1, 3, 40, 40)
    first, second = (part(picture, 16, WHITE, np.random.default_rng(3), (0.3, 0.6)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_part_is_of_the_asked_area() -> None:
    """Of a horizontal ramp a part of area a shows a range of about √a."""
    ramp = torch.linspace(0, 1, 200).expand(1, 3, 200, 200)
    original = augmentation.PROBABILITY
    spans = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        shown = part(ramp, 64, torch.full((3,), 0.5), rng, (0.25, 0.25))
        spans.append(float(shown.max() - shown.min()))
    assert original == 0.8 and abs(np.median(spans) - 0.5) < 0.06


def test_gradients_reach_the_picture() -> None:
    picture = torch.rand(1, 3, 24, 24, requires_grad=True)
    whole(picture, 16, WHITE, np.random.default_rng(1)).sum().backward()
    assert picture.grad is not None and float(picture.grad.abs().sum()) > 0
