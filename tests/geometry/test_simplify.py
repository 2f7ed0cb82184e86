"""Fewer faces, still closed: on smooth shapes, on ones full of handles, and where two sheets share an edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.ndimage import gaussian_filter

from anyform.errors import BadInput, BadSetting
from anyform.geometry.gate import gate
from anyform.geometry.marching_cubes import keep_bodies, surface
from anyform.geometry.mesh import Mesh
from anyform.geometry.simplify import separate, simplify


def ball() -> Mesh:
    root = trimesh.creation.icosphere(subdivisions=4)
    return Mesh(np.asarray(root.vertices), np.asarray(root.faces))


def sponge(seed: int) -> Mesh:
    """One body with many handles and thin parts."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((20, 20, 20)), 1.3).astype(np.float32)
    return keep_bodies(surface(noise / noise.std() - 0.2, -1, 2 / 19), single=True)


@pytest.mark.parametrize("faces", [2000, 500, 60])
def test_a_ball_stays_a_ball(faces: int) -> None:
    mesh = simplify(ball(), faces)
    report = gate(mesh)
    assert report.ok and 0.8 * faces <= report.faces <= faces
    assert report.volume == pytest.approx(gate(ball()).volume, rel=8 / faces)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("faces", [4000, 1500])
def test_a_sponge_stays_closed_and_whole(seed: int, faces: int) -> None:
    before = sponge(seed)
    after = gate(simplify(before, faces))
    assert after.ok, after.failures
    assert 0.8 * faces <= after.faces <= faces
    assert after.volume == pytest.approx(gate(before).volume, rel=0.05)


def test_colours_follow_their_place() -> None:
    mesh = replace(ball(), vertex_color=(ball().vertices + 1) / 2)
    smaller = simplify(mesh, 1000)
    assert smaller.vertex_color is not None
    np.testing.assert_allclose(smaller.vertex_color, (smaller.vertices + 1) / 2, atol=0.06)


def test_a_small_mesh_is_left_alone() -> None:
    mesh = ball()
    assert simplify(mesh, len(mesh.faces)) is mesh


def test_refusals() -> None:
    with pytest.raises(BadSetting, match="at least 4 faces, not 3"):
        simplify(ball(), 3)
    with pytest.raises(BadInput, match="before its texture"):
        simplify(replace(ball(), uv=np.zeros((2562, 2), np.float32)), 100)
    with pytest.raises(BadInput, match="stay closed"):
        simplify(sponge(0), 10)


def test_an_open_mesh_needs_no_closing() -> None:
    mesh = ball()
    half = Mesh(mesh.vertices, mesh.faces[mesh.vertices[mesh.faces][:, :, 1].mean(1) > 0])
    assert 400 <= len(simplify(half, 500).faces) <= 500


def test_cubes_that_share_an_edge_are_drawn_apart() -> None:
    cube = trimesh.creation.box((1, 1, 1))
    vertices = np.concatenate([cube.vertices, cube.vertices + np.array([1, 1, 0])])
    touching = Mesh(vertices, np.concatenate([cube.faces, cube.faces + 8]))
    assert gate(touching).open_edges == 1
    apart = separate(touching)
    assert apart is not None
    report = gate(apart, allow_parts=True)
    assert report.ok and report.bodies == 2 and report.volume == pytest.approx(2, rel=1e-3)


def test_a_hole_cannot_be_drawn_shut() -> None:
    assert separate(Mesh(ball().vertices, ball().faces[1:])) is None
