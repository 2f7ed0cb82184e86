"""The paint network's parts by closed forms, and the shipped weights by what a user asks: colour words are obeyed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anyform.encoders.embedded import load as load_text
from anyform.errors import BadInput
from anyform.systems.wala.colour import TYPICAL, dominant, srgb_to_lab
from anyform.systems.wala.paint import (
    LAB_MEAN,
    SIZE,
    ColorGrid,
    Paint,
    depth_to_space,
    diffused,
    load_paint,
    paint,
    reference_features,
    shape_features,
    splat,
)
from anyform.weights import embedded_file, read_header

CENTRES = (np.arange(64) + 0.5) / 32 - 1


def mug() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Distances of an open cylinder standing up, and points on its outside."""
    x, y, z = np.meshgrid(CENTRES, CENTRES, CENTRES, indexing="ij")
    outer = np.maximum(np.hypot(x, z) - 0.6, np.abs(y) - 0.8)
    inner = np.maximum(np.hypot(x, z) - 0.45, -0.65 - y)
    angle, height = (g.ravel() for g in np.meshgrid(np.linspace(0, 2 * np.pi, 60), np.linspace(-0.75, 0.75, 30)))
    points = np.stack([0.6 * np.sin(angle), height, 0.6 * np.cos(angle)], -1)
    return np.maximum(outer, -inner).astype(np.float32), points


def test_depth_to_space_places_children_by_axis() -> None:
    x = torch.zeros(1, 16, 3, 3, 3)
    x[0, 8 + 4, 1, 0, 2] = 1  # second channel, child (1, 0, 0) of cell (1, 0, 2)
    assert torch.nonzero(depth_to_space(x)).tolist() == [[0, 1, 3, 0, 4]]


def test_shape_features_pack_by_axis_and_clip() -> None:
    sdf = torch.full((1, 64, 64, 64), 9.0)
    sdf[0, 2:4, :2, 8:10] = -0.0625  # one cell of 32³: (1, 0, 4), child (1, 0, 0) of (0, 0, 2)
    features = shape_features(sdf)
    assert features.shape == (1, 8, SIZE, SIZE, SIZE)
    assert features[0, 4, 0, 0, 2] == -0.5
    assert (features == 1).sum() == features.numel() - 1


def test_splat_means_colours_and_marks_black() -> None:
    points = np.array([[-0.99, -0.99, 0.99], [-0.95, -0.9, 0.9], [0.5, 0.5, 0.5]])
    grid = splat(points, np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0.0]]))
    assert grid.any(-1).sum() == 2
    assert tuple(grid[12, 12, 12]) == (1, 1, 1)  # black, yet a surface
    np.testing.assert_allclose(srgb_to_lab(grid[0, 0, 15] / 255)[0], 50, atol=0.5)  # the mean in Lab


def test_diffusion_fills_everything_and_keeps_the_surface() -> None:
    grid = np.zeros((SIZE, SIZE, SIZE, 3), np.uint8)
    grid[2, 3, 4], grid[14, 12, 13] = (200, 20, 20), (20, 20, 200)
    lab = diffused(grid)
    np.testing.assert_allclose(lab[2, 3, 4], srgb_to_lab(np.array([200, 20, 20]) / 255))
    np.testing.assert_allclose(lab[0, 0, 0], lab[2, 3, 4])
    np.testing.assert_allclose(lab[15, 15, 15], lab[14, 12, 13])
    assert np.isfinite(lab).all()
    np.testing.assert_allclose(diffused(np.zeros_like(grid))[7, 7, 7], LAB_MEAN)


def test_reference_features_of_none_are_zero() -> None:
    grid = np.zeros((SIZE, SIZE, SIZE, 3), np.uint8)
    assert reference_features(None).abs().max() == 0
    grid[1, 2, 3] = 128
    features = reference_features(grid)
    assert features[3].sum() == 1 and features[3, 1, 2, 3] == 1 and (features[4] == 1).all()


def test_color_at_is_trilinear_on_the_axes_of_the_world() -> None:
    centres = (np.arange(8) + 0.5) / 4 - 1
    rgb = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), -1).astype(np.float32)
    points = np.random.default_rng(0).uniform(-0.87, 0.87, (100, 3))
    np.testing.assert_allclose(ColorGrid(rgb).color_at(points), points, atol=1e-5)  # linear in, linear out
    np.testing.assert_allclose(ColorGrid(rgb).color_at(np.array([[5.0, 0, -5]])), [[0.875, 0, -0.875]], atol=1e-5)


def test_the_reference_can_be_copied_exactly() -> None:
    model = Paint()
    with torch.no_grad():
        model.base.bias[3] = 50.0  # gate open
    reference = torch.randn(1, 5, SIZE, SIZE, SIZE)
    reference[:, 4] = 1
    shape, text = torch.zeros(1, 8, SIZE, SIZE, SIZE), torch.zeros(1, 384)
    torch.testing.assert_close(model(shape, text, reference)[..., ::2, 1::2, ::2], reference[:, :3])
    reference[:, 4] = 0  # without a reference there is nothing to copy
    assert (model(shape, text, reference)[..., ::2, ::2, ::2] - reference[:, :3]).abs().mean() > 0.1


@pytest.mark.parametrize("name", ["red", "blue", "green", "yellow", "black", "white", "brown"])
def test_the_colour_asked_for_is_painted_whatever_the_reference(name: str) -> None:
    sdf, points = mug()
    vector = load_text().text([f"a {name} mug"])[0][0]
    other = splat(points, np.tile(TYPICAL["blue" if name != "blue" else "red"], (len(points), 1)))
    for reference in (None, other):
        assert dominant(paint(sdf, vector, reference).color_at(points)) == name


def test_without_words_the_reference_decides() -> None:
    sdf, points = mug()
    target = srgb_to_lab(np.array(TYPICAL["turquoise"]))
    reference = splat(points, np.tile(TYPICAL["turquoise"], (len(points), 1)))
    distance = [
        float(np.median(np.linalg.norm(srgb_to_lab(paint(sdf, None, given).color_at(points)) - target, axis=1)))
        for given in (None, reference)
    ]
    assert distance[1] < 0.6 * distance[0]


def test_painting_is_repeatable_and_bounded() -> None:
    sdf, points = mug()
    first, second = paint(sdf), paint(sdf)
    assert (first.rgb == second.rgb).all() and first.rgb.shape == (32, 32, 32, 3)
    assert first.rgb.min() >= 0 and first.rgb.max() <= 1 and np.isfinite(first.color_at(points * 3)).all()
    assert load_paint() is load_paint()


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(BadInput, match="multiple of 32"):
        paint(np.zeros((48, 48, 48), np.float32))
    with pytest.raises(BadInput, match="16, 16, 16, 3"):
        paint(mug()[0], None, np.zeros((8, 8, 8, 3), np.uint8))


def test_the_shipped_file_carries_its_figures() -> None:
    tensors, metadata = read_header(embedded_file("paint"))
    assert {entry["dtype"] for entry in tensors.values()} == {"F16"}
    assert sum(p.numel() for p in Paint().parameters()) <= 1_500_000
    measured = json.loads(metadata["val"])
    assert measured["dE_text_nearest"] < measured["dE_nearest_copied"] < measured["dE_global_constant"]
    assert measured["dE_text_own_grid"] < measured["dE_best_constant_per_object"]
    assert measured["obeys_reference_none"] > 0.9 and measured["obeys_reference_nearest"] > 0.85
