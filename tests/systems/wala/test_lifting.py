"""Lifted prompts: closed forms, and frames that agree with the cameras."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from anyform.systems.wala import lifting
from anyform.types.camera import Cameras

AXIS = -1 + (2 * np.arange(64) + 1) / 64
X, Y, Z = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
BALL = np.sqrt((X - 0.1) ** 2 + Y**2 + Z**2) - 0.6  # off centre in x, so that axes cannot be swapped unseen
CAMERAS = Cameras.orbit(np.radians([20.0, 110.0, 200.0, 290.0]), np.radians([15.0] * 4), 4.4, np.radians(40.0), 96)


def iou(field: np.ndarray, sdf: np.ndarray) -> float:
    inside, truth = field < 0, sdf < 0
    return float((inside & truth).sum() / (inside | truth).sum())


def test_squared_distance_equals_scipy_up_to_its_reach():
    mask = np.random.default_rng(0).random((20, 20, 20)) < 0.01
    exact = ndimage.distance_transform_edt(~mask) ** 2
    mine = lifting.squared_distance(mask, reach=4)
    near = exact <= 16
    np.testing.assert_array_equal(mine[near], np.rint(exact[near]))
    assert (mine[~near] > 16).all()


def test_field_of_a_solid_is_its_distance():
    field = lifting.field_of_solid(BALL < 0)
    assert iou(field, BALL) == 1
    truth = np.clip(BALL * 32 / lifting.REACH, -1, 1)
    assert np.abs(field - truth).max() < 0.2


def test_voxels_are_blown_up_to_the_same_solid():
    coarse = (BALL < 0).reshape(16, 4, 16, 4, 16, 4).mean((1, 3, 5)) > 0.5
    assert iou(lifting.from_voxels(coarse), BALL) > 0.9


def test_points_enclose_the_solid_they_were_taken_from():
    rng = np.random.default_rng(1)
    direction = rng.standard_normal((2500, 3))
    points = 0.6 * direction / np.linalg.norm(direction, axis=1, keepdims=True) + [0.1, 0, 0]
    assert iou(lifting.from_points(points), BALL) > 0.85


def test_an_open_sheet_of_points_keeps_a_thin_shell():
    rng = np.random.default_rng(2)
    sheet = np.stack([rng.uniform(-0.8, 0.8, 6000), np.zeros(6000), rng.uniform(-0.8, 0.8, 6000)], 1)
    field = lifting.from_points(sheet)
    inside = np.argwhere(field < 0)
    assert len(inside) > 500
    assert set(inside[:, 1]) <= {30, 31, 32, 33}


def depths_of_ball() -> np.ndarray:
    """Exact depth maps of the ball by intersecting rays with the sphere."""
    origins, directions = CAMERAS.rays()
    to_centre = origins - np.array([0.1, 0, 0])
    b = (to_centre * directions).sum(-1)
    discriminant = b**2 - (to_centre**2).sum(-1) + 0.36
    reach = -b - np.sqrt(np.maximum(discriminant, 0))
    along = np.einsum("vhwi,vi->vhw", directions, -CAMERAS.camera_to_world[:, :3, 2])
    return np.where(discriminant > 0, reach * along, np.inf)


def test_depths_and_masks_carve_the_solid_in_the_right_place():
    projection = lifting.Projection(CAMERAS)
    depth = depths_of_ball()
    assert iou(lifting.from_depths(depth, projection), BALL) > 0.85
    hull = lifting.from_masks(np.isfinite(depth), projection)
    assert iou(hull, BALL) > 0.75
    assert (hull < 0)[BALL < -0.05].all()  # a hull contains its object


def test_a_framed_silhouette_is_extruded_upright():
    row, column = np.mgrid[:64, :64]
    wide = (np.abs(column - 31.5) < 0.85 * 32) & (row > 40)  # a bar along the lower edge
    field = lifting.from_silhouette(wide & (row < 52))
    inside = np.argwhere(field < 0)
    assert AXIS[inside[:, 0]].min() == pytest.approx(-0.9, abs=0.05)
    assert AXIS[inside[:, 1]].max() < 0  # rows run down, y up
    assert AXIS[inside[:, 2]].min() == pytest.approx(-0.9, abs=0.05)


@pytest.mark.parametrize("quarters", range(4))
def test_turning_brings_the_camera_of_that_azimuth_to_the_front(quarters):
    angle = np.pi / 2 * quarters
    marker = np.array([np.sin(angle), 0.3, np.cos(angle)]) * 0.7  # what that camera has in front of it
    volume = np.zeros((8, 8, 8))
    volume[tuple(((marker + 1) * 4).astype(int))] = 1
    turned = np.argwhere(lifting.turn(volume, quarters))[0]
    moved = lifting.turn_points(marker, quarters)
    np.testing.assert_allclose(moved, [0, 0.21, 0.7], atol=1e-12)
    np.testing.assert_array_equal(turned[1:], ((moved + 1) * 4).astype(int)[1:])
    assert turned[0] in (3, 4)
