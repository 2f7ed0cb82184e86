"""Smoothing: ripples go, size and topology stay."""

from __future__ import annotations

import numpy as np
import trimesh

from anyform.geometry.gate import gate
from anyform.geometry.mesh import Mesh
from anyform.geometry.smoothing import smooth


def ball(ripple: float) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=4)
    radius = 1 + ripple * np.random.default_rng(0).standard_normal(len(sphere.vertices))
    return Mesh(sphere.vertices * radius[:, None], sphere.faces)


def radii(mesh: Mesh) -> np.ndarray:
    return np.linalg.norm(mesh.vertices, axis=1)


def test_noise_goes_and_the_radius_stays():
    rough = ball(0.02)
    fair = smooth(rough, 10)
    assert radii(fair).std() < 0.5 * radii(rough).std()
    assert abs(radii(fair).mean() - 1) < 0.004
    assert gate(fair).ok
    assert np.array_equal(fair.faces, rough.faces)


def test_volume_is_kept_where_averaging_would_shrink():
    plain = ball(0.0)
    assert abs(gate(smooth(plain, 20)).volume / gate(plain).volume - 1) < 0.005


def test_no_rounds_is_no_change():
    rough = ball(0.02)
    assert smooth(rough, 0) is rough
