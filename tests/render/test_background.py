"""Backgrounds, and world points in clip coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyform.errors import BadInput
from anyform.render.background import augmented, over, per_pixel
from anyform.render.projection import clip
from anyform.render.shading import clip_positions
from anyform.types.camera import Cameras


def test_every_shape_of_background_fills_the_pictures() -> None:
    one = torch.tensor([0.1, 0.2, 0.3])
    assert torch.equal(per_pixel(one, 2, 3, 4), one.expand(2, 3, 4, 3))
    two = torch.rand(2, 3)
    assert torch.equal(per_pixel(two, 2, 3, 4)[1, 2, 3], two[1])
    full = torch.rand(2, 3, 4, 3)
    assert torch.equal(per_pixel(full, 2, 3, 4), full)
    with pytest.raises(BadInput, match="a background is"):
        per_pixel(torch.rand(3, 3), 2, 3, 4)


def test_half_of_the_augmented_backgrounds_are_plain() -> None:
    torch.manual_seed(0)
    colors = augmented(2000, plain=1.0)
    plain = (colors == 1).all(1).float().mean().item()
    assert abs(plain - 0.5) < 0.05
    assert (augmented(20, probability=0.0, plain=0.25) == 0.25).all()
    assert colors.min() >= 0


def test_a_reference_is_composed_over_the_same_colour() -> None:
    rgba = torch.tensor([1.0, 0, 0, 0.25]).expand(1, 2, 2, 4)
    torch.testing.assert_close(over(rgba, torch.tensor([0.0, 0, 1]))[0, 0, 0], torch.tensor([0.25, 0, 0.75]))


def test_clip_coordinates_are_those_of_the_pictures_for_people_and_of_the_camera() -> None:
    cameras = Cameras.orbit(np.array([0.4]), np.array([0.3]), 2.5, np.deg2rad(40), 10)
    world = np.random.default_rng(0).uniform(-0.8, 0.8, (20, 3))
    position = clip(torch.from_numpy(world), cameras, 0)
    np.testing.assert_allclose(position, clip_positions(world, cameras, 0), atol=1e-12)
    pixel = cameras.project(world)[0]
    np.testing.assert_allclose((position[:, 0] / position[:, 3] + 1) * 5, pixel[:, 0], atol=1e-9)
    np.testing.assert_allclose((1 - position[:, 1] / position[:, 3]) * 5, pixel[:, 1], atol=1e-9)
    np.testing.assert_allclose(position[:, 3], pixel[:, 2], atol=1e-12)
