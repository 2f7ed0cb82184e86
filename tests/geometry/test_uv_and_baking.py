"""Texture coordinates that do not overlap, a deadline that holds, and colours that land where they belong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from anyform.errors import BadInput, GateFailed
from anyform.geometry import uv as uv_module
from anyform.geometry.baking import bake, cover
from anyform.geometry.color import sample_texture
from anyform.geometry.gate import gate
from anyform.geometry.mesh import Mesh
from anyform.geometry.uv import face_atlas, unwrap


def torus() -> Mesh:
    root = trimesh.creation.torus(0.6, 0.25, major_sections=32, minor_sections=16)
    return Mesh(np.asarray(root.vertices), np.asarray(root.faces))


def paint(points: NDArray[np.float32]) -> NDArray[np.floating]:
    return (points + 1) / 2


def surface_error(mesh: Mesh) -> NDArray[np.float64]:
    """Largest channel error of the texture against `paint` at random points of the surface."""
    assert mesh.uv is not None and mesh.material is not None and mesh.material.base_color is not None
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], (4, len(mesh.faces)))
    points = np.einsum("rfk,fkc->rfc", weights, mesh.vertices[mesh.faces]).reshape(-1, 3)
    spots = np.einsum("rfk,fkc->rfc", weights, mesh.uv[mesh.faces]).reshape(-1, 2)
    return np.abs(sample_texture(mesh.material.base_color, spots) - paint(points)).max(1)


def doubly_covered(mesh: Mesh, size: int) -> int:
    """Texels whose centre lies well inside two faces."""
    assert mesh.uv is not None
    texels = cover(mesh.uv, mesh.faces, size)
    deep = texels.barycentric.min(1) > 0.02
    _, counts = np.unique(texels.row[deep] * size + texels.column[deep], return_counts=True)
    return int((counts > 1).sum())


def test_xatlas_makes_charts_without_overlap() -> None:
    found = unwrap(torus(), 256, 120)
    assert (found.method, found.note) == ("xatlas", "")
    mesh = found.mesh
    np.testing.assert_array_equal(mesh.vertices[mesh.faces], torus().vertices[torus().faces])
    assert mesh.uv is not None and mesh.uv.min() >= 0 and mesh.uv.max() <= 1
    assert doubly_covered(mesh, 256) == 0
    painted = bake(mesh, paint, 256)
    assert gate(painted).ok and np.percentile(surface_error(painted), 99.5) < 0.02


def test_past_its_deadline_the_atlas_is_plain_and_says_so() -> None:
    found = unwrap(torus(), 256, 0.01)
    assert found.method == "faces" and "took more than 0.01 s and was stopped" in found.note
    assert gate(bake(found.mesh, paint, 256)).ok


def test_a_crash_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv_module.sys, "executable", "/bin/false")
    found = unwrap(torus(), 256, 60)
    assert found.method == "faces" and "ended with code 1" in found.note


def test_too_many_faces_skip_xatlas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv_module, "MAX_XATLAS_FACES", 100)
    found = unwrap(torus(), 256, 60)
    assert found.method == "faces" and "1024 faces are more than the 100" in found.note


def test_the_plain_atlas_is_valid_and_its_texture_right() -> None:
    mesh = face_atlas(replace(torus(), vertex_color=paint(torus().vertices)), 256)
    assert doubly_covered(mesh, 256) == 0 and mesh.vertex_color is not None
    np.testing.assert_allclose(mesh.vertex_color, paint(mesh.vertices))
    painted = bake(mesh, paint, 256)
    assert gate(painted).ok and painted.vertex_color is None
    assert surface_error(painted).max() < 0.08


def test_the_plain_atlas_needs_room() -> None:
    with pytest.raises(BadInput, match="too small for 1024 faces: simplify to 512 or use --texture-size 92"):
        face_atlas(torus(), 64)


def test_cover_is_exact_on_a_right_triangle() -> None:
    uv = np.array([[0, 1], [1, 1], [0, 0]], np.float32)
    texels = cover(uv, np.array([[0, 1, 2]]), 8)
    inside = np.zeros((8, 8), np.bool_)
    exact = texels.barycentric.min(1) > 1e-6
    inside[texels.row[exact], texels.column[exact]] = True
    row, column = np.mgrid[:8, :8]
    np.testing.assert_array_equal(inside, row + column < 7)
    centre = texels.barycentric @ uv[[0, 1, 2]]
    np.testing.assert_allclose(centre[exact, 0] * 8 - 0.5, texels.column[exact], atol=1e-6)
    np.testing.assert_allclose((1 - centre[exact, 1]) * 8 - 0.5, texels.row[exact], atol=1e-6)


def test_a_face_smaller_than_a_texel_still_gets_its_colour() -> None:
    uv = np.array([[0.5, 0.5], [0.501, 0.5], [0.5, 0.501]], np.float32)
    mesh = Mesh(np.eye(3), np.array([[0, 1, 2]]), uv=uv)
    painted = bake(mesh, lambda points: np.full((len(points), 3), 0.2), 16)
    assert painted.material is not None and painted.material.base_color is not None
    assert (painted.material.base_color == [51, 51, 51, 255]).all()


def test_refusals() -> None:
    with pytest.raises(BadInput, match="unwrap it first"):
        bake(torus(), paint, 64)
    with pytest.raises(GateFailed, match="not finite"):
        bake(face_atlas(torus(), 256), lambda points: np.full((len(points), 3), np.nan), 256)
