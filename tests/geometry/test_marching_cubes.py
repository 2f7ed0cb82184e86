"""Iso-surfaces: closed forms of spheres, closure at the border and on noise, and clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from anyform.errors import GateFailed
from anyform.geometry.gate import gate
from anyform.geometry.marching_cubes import keep_bodies, surface, winding_number
from anyform.geometry.mesh import Mesh


def grid(size: int) -> NDArray[np.float32]:
    """(N, N, N, 3) positions of a grid on [-1, 1]³."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)


def ball(size: int, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> NDArray[np.float32]:
    return (np.linalg.norm(grid(size) - np.asarray(centre, np.float32), axis=-1) - radius).astype(np.float32)


def test_sphere_has_its_volume_area_place_and_faces_outwards() -> None:
    mesh = surface(ball(48, 0.6, (0.2, -0.1, 0.05)), -1.0, 2 / 47)
    report = gate(mesh)
    assert report.ok and report.bodies == 1
    assert report.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.01)
    assert report.area == pytest.approx(4 * np.pi * 0.6**2, rel=0.01)
    np.testing.assert_allclose(mesh.bounds.mean(0), [0.2, -0.1, 0.05], atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - np.float32([0.2, -0.1, 0.05]), axis=1), 0.6, atol=2e-3)


def test_level_moves_the_surface() -> None:
    mesh = surface(ball(32, 0.5), -1.0, 2 / 31, level=0.2)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.7, atol=5e-3)


@pytest.mark.parametrize("centre", [(0, 0, 0), (1, 0, 0), (0, -1, 1)])
def test_a_shape_that_crosses_the_border_is_closed_and_stays_near_the_box(centre: tuple[float, float, float]) -> None:
    mesh = surface(ball(24, 1.2, centre), -1.0, 2 / 23)
    report = gate(mesh)
    assert report.ok, report.failures
    assert np.abs(mesh.vertices).max() <= 1 + 2 / 23


@pytest.mark.parametrize("seed", range(3))
def test_noise_with_samples_exactly_on_the_level_is_closed_after_keep_bodies(seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal((20, 20, 20)).astype(np.float32)
    noise[np.abs(noise) < 0.1] = 0
    mesh = surface(noise, -1.0, 0.1)
    rough = gate(mesh, allow_parts=True)
    assert rough.watertight and rough.winding_consistent and rough.volume > 0 and rough.degenerate_faces == 0
    single = keep_bodies(mesh, single=True)
    assert gate(single).ok
    assert single.bounds.min() >= -1.1 - 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_fail_the_gate_by_name(value: float) -> None:
    field = ball(8, 0.5)
    field[1, 2, 3] = value
    with pytest.raises(GateFailed, match="NaN or infinity in 1 of 512 samples"):
        surface(field, -1.0, 2 / 7)


@pytest.mark.parametrize("value", [0.0, 1e-9, 3.0])
def test_a_field_without_inside_fails_the_gate(value: float) -> None:
    with pytest.raises(GateFailed, match="empty"):
        surface(np.full((8, 8, 8), value, np.float32), -1.0, 2 / 7)


def test_a_field_all_inside_becomes_the_box() -> None:
    report = gate(surface(np.full((8, 8, 8), -1, np.float32), -1.0, 2 / 7))
    assert report.watertight and report.bodies == 1 and min(report.extents) > 2


def test_keep_bodies_drops_specks_voids_and_swallowed_bodies_but_keeps_parts() -> None:
    two = np.minimum(ball(40, 0.35, (-0.5, 0, 0)), ball(40, 0.3, (0.5, 0, 0)))
    speck = ball(40, 0.08, (0, 0.8, 0))
    onion = np.minimum(np.maximum(two, -ball(40, 0.25, (-0.5, 0, 0))), ball(40, 0.15, (-0.5, 0, 0)))
    rough = surface(np.minimum(onion, speck), -1.0, 2 / 39)
    before = gate(rough, allow_parts=True)
    assert (before.bodies, before.voids) == (5, 1) and not before.ok
    parts = gate(keep_bodies(rough), allow_parts=True)
    assert (parts.bodies, parts.voids) == (2, 0) and parts.ok
    single = gate(keep_bodies(rough, single=True))
    assert single.ok and single.volume == pytest.approx(4 / 3 * np.pi * 0.35**3, rel=0.02)


def test_keep_bodies_refuses_an_inverted_mesh() -> None:
    mesh = surface(ball(16, 0.5), -1.0, 2 / 15)
    with pytest.raises(GateFailed, match="encloses a volume"):
        keep_bodies(Mesh(mesh.vertices, mesh.faces[:, ::-1]))


def test_winding_number_is_one_inside_and_zero_outside() -> None:
    mesh = surface(ball(16, 0.5), -1.0, 2 / 15)
    every = np.ones(len(mesh.faces), np.bool_)
    assert winding_number(np.array([0.1, 0.2, -0.1]), mesh, every) == pytest.approx(1, abs=1e-6)
    assert winding_number(np.array([0.9, 0.2, -0.1]), mesh, every) == pytest.approx(0, abs=1e-6)
