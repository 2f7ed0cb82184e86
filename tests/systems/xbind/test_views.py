from __future__ import annotations

import math

import numpy as np
import pytest

from anyform.systems.xbind.config import ViewSettings
from anyform.systems.xbind.presets import CLOSE_UPS
from anyform.systems.xbind.views import framing_scale, reference_view, sample, turntable


def many(settings: ViewSettings, part: float = 1.0, count: int = 4) -> list[np.ndarray]:
    points = [sample(settings, count, 8, part, np.random.default_rng(seed)) for seed in range(300)]
    return [np.stack([getattr(p, name) for p in points]) for name in ("azimuth", "elevation", "distance", "fov_y")]


def test_phase_one_looks_as_published() -> None:
    azimuth, elevation, distance, fov_y = many(ViewSettings())
    assert np.allclose(distance, 2.5) and np.allclose(fov_y, math.radians(40))
    assert np.abs(elevation).max() <= math.pi / 4 and np.abs(elevation).max() > 0.75
    assert np.abs(azimuth).max() <= math.pi
    quarter = np.floor((azimuth + math.pi) / (math.pi / 2))  # stratified: each of 4 views has its own quarter
    assert (quarter == np.arange(4)).all()


def test_phase_two_looks_as_published() -> None:
    azimuth, elevation, distance, fov_y = many(CLOSE_UPS)
    for values, low, high in (
        (np.degrees(azimuth), -135, 225),
        (np.degrees(elevation), -10, 45),
        (distance, 1.5, 2),
        (np.degrees(fov_y), 30, 45),
    ):
        assert low <= values.min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < values.max() <= high


def test_half_of_the_elevations_are_uniform_on_the_sphere() -> None:
    flat = many(ViewSettings(on_sphere=0.0, elevation_deg=(0.0, 90.0)))[1]
    ball = many(ViewSettings(on_sphere=1.0, elevation_deg=(0.0, 90.0)))[1]
    assert flat.mean() == pytest.approx(math.pi / 4, abs=0.03)
    assert np.sin(ball).mean() == pytest.approx(0.5, abs=0.02)


def test_azimuths_widen_from_the_front() -> None:
    narrow, middle = many(ViewSettings(), part=0.0)[0], many(ViewSettings(), part=0.05)[0]
    assert math.radians(28) < np.abs(narrow).max() <= math.radians(30) + 1e-9
    assert math.radians(95) < np.abs(middle).max() <= math.radians(105) + 1e-9


def test_a_turntable_leaves_its_endpoint_out() -> None:
    points = turntable(120, 8)
    assert len(points) == 120 and points.azimuth[0] == 0
    assert np.allclose(np.diff(points.azimuth), math.radians(3))
    assert points.azimuth[-1] == pytest.approx(math.radians(357))


def test_the_reference_view_is_told_as_no_difference() -> None:
    assert np.allclose(reference_view(8).told(0), [0, 0, 1, 0])


def test_what_the_3d_prior_is_told_has_zero_1_to_3_s_signs() -> None:
    """A camera to the +x side is at a positive azimuth; a higher camera has a smaller polar angle."""
    side = ViewSettings(elevation_deg=(30.0, 30.0), azimuth_deg=(90.0, 90.0), widened_at=0.0)
    points = sample(side, 1, 8, 0.5, np.random.default_rng(0))
    assert points.cameras.camera_to_world[0, 0, 3] > 2
    assert np.allclose(points.told(0), [-math.radians(30), 1, 0, 0], atol=1e-9)


def test_nearer_views_are_told_as_the_distance_that_frames_alike() -> None:
    near = ViewSettings(distance=(1.5, 1.5), widened_at=0.0)
    told = sample(near, 1, 8, 0.5, np.random.default_rng(0)).told(0)
    assert told[3] == pytest.approx(-0.7)  # (1.5 − 2.5) · 0.74, limited
    wide = ViewSettings(distance=(2.0, 2.0), fov_y_deg=(45.0, 45.0), widened_at=0.0)
    told = sample(wide, 1, 8, 0.5, np.random.default_rng(0)).told(0)
    same = 2.0 * math.tan(math.radians(22.5)) / math.tan(math.radians(20))
    assert told[3] == pytest.approx((same - 2.5) * 0.74)


def test_close_ups_step_back_from_a_large_object_only() -> None:
    assert framing_scale(CLOSE_UPS, 0.3) == 1.0
    factor = framing_scale(CLOSE_UPS, 0.7)
    points = [sample(CLOSE_UPS, 8, 8, 1.0, np.random.default_rng(k), factor) for k in range(60)]
    holds = np.concatenate([p.distance * np.sin(p.fov_y / 2) * 0.9 >= 0.7 for p in points])
    assert 0.4 < holds.mean() < 0.6
