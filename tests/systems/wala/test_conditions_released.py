"""Pictures, depth and points as released WaLa was trained on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyform.systems.wala.conditions_released import (
    MAX_POINTS,
    box_points,
    depth_picture,
    image_tensor,
    over_black,
    sketch_picture,
)


def test_alpha_fades_to_black() -> None:
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)
    assert over_black(rgba).tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_near_is_bright_and_the_background_black() -> None:
    depth = np.array([[1.0, 2.0, 1.5], [np.inf, 1.25, 2.0]], np.float32)
    assert depth_picture(depth)[..., 0].tolist() == [[255, 0, 128], [0, 191, 0]]
    flat = np.array([[3.0, np.inf]], np.float32)
    assert depth_picture(flat)[..., 1].tolist() == [[255, 0]]
    assert not depth_picture(np.full((2, 2), np.inf, np.float32)).any()


def test_strokes_are_black_on_white() -> None:
    assert sketch_picture(np.array([[0.0, 1.0, 0.5]], np.float32))[0, :, 2].tolist() == [255, 0, 128]


def test_an_image_of_the_right_size_is_only_scaled() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    found = image_tensor(picture, 28)
    assert torch.allclose(found, torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(56, 84), (84, 56), (57, 56), (300, 31)])
def test_the_middle_is_kept_and_the_sides_are_lost(height: int, width: int) -> None:
    """A ramp along the long side: the crop is centred within half a pixel of the result."""
    ramp = np.linspace(0, 255, max(height, width)).astype(np.uint8)
    picture = np.broadcast_to(ramp[:, None, None] if height > width else ramp[None, :, None], (height, width, 3))
    found = image_tensor(np.ascontiguousarray(picture), 28)
    assert found.shape == (3, 28, 28)
    step = 2 / max(height, width) * min(height, width) / 28  # one pixel of the result along the ramp
    assert abs(found.mean().item()) < step / 2 + 0.01


def test_points_in_the_box_stay_and_others_are_fitted() -> None:
    rng = np.random.default_rng(0)
    inside = rng.uniform(-0.9, 0.9, (500, 3)).astype(np.float32)
    assert box_points(inside) is inside
    elsewhere = (inside * [3.0, 1.0, 1.0] * 0.01 + [5.0, -2.0, 0.0]).astype(np.float32)
    fitted = box_points(elsewhere)
    low, high = fitted.min(0), fitted.max(0)
    assert np.allclose(low + high, 0, atol=2e-4)
    assert (high - low).max() == pytest.approx(1.8, abs=2e-4)
    ratio = (high - low) / (elsewhere.max(0) - elsewhere.min(0))
    assert np.allclose(ratio, ratio[0], rtol=1e-3)
    many = rng.uniform(-0.9, 0.9, (MAX_POINTS + 11, 3)).astype(np.float32)
    thinned = box_points(many)
    assert len(thinned) == MAX_POINTS
    assert np.array_equal(thinned[[0, -1]], many[[0, -1]])
