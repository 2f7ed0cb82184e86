"""The gate: every broken mesh fails with its own reason, and the numbers agree with trimesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from anyform.errors import GateFailed
from anyform.geometry.gate import gate
from anyform.geometry.mesh import Material, Mesh
from anyform.geometry.topology import submesh, topology, weld

ROOT = trimesh.creation.icosphere(subdivisions=2, radius=0.7)
BALL = Mesh(np.asarray(ROOT.vertices), np.asarray(ROOT.faces))


def joined(*meshes: Mesh) -> Mesh:
    offsets = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    faces = [m.faces + o for m, o in zip(meshes, offsets, strict=True)]
    return Mesh(np.concatenate([m.vertices for m in meshes]), np.concatenate(faces))


def flipped(mesh: Mesh) -> Mesh:
    return replace(mesh, faces=mesh.faces[:, ::-1])


def textured(texture: np.ndarray, uv: np.ndarray | None = None) -> Mesh:
    around = np.random.default_rng(0).random((len(BALL.vertices), 2)) if uv is None else uv
    return replace(BALL, uv=around.astype(np.float32), material=Material(base_color=texture))


NOISE = np.random.default_rng(1).integers(0, 255, (32, 32, 4), np.uint8)
NOISE[..., 3] = 255
FLAT = Mesh(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1]]), np.array([[0, 1, 2], [0, 2, 1]]))
BAD_INDEX = Mesh(BALL.vertices[:40], BALL.faces)
NAN = replace(BALL, vertices=np.where(np.arange(len(BALL.vertices))[:, None] == 5, np.nan, BALL.vertices))
HALF_FLIPPED = replace(BALL, faces=np.r_[BALL.faces[:100], BALL.faces[100:, ::-1]])
PINCHED = Mesh(BALL.vertices, np.r_[BALL.faces, np.tile([[0, 0, 1]], (40, 1))])

BROKEN = {
    "no faces": (Mesh(BALL.vertices, np.zeros((0, 3))), "empty"),
    "nothing": (Mesh(np.zeros((0, 3)), np.zeros((0, 3))), "empty"),
    "index": (BAD_INDEX, "faces refer to vertex 161"),
    "negative index": (replace(BALL, faces=BALL.faces - 1), "below 0"),
    "nan": (NAN, "1 of 162 vertices are not finite"),
    "flat": (FLAT, "flat"),
    "point": (replace(BALL, vertices=BALL.vertices * 0), "flat"),
    "hole": (submesh(BALL, np.arange(320) > 0), "not watertight: 3 edges"),
    "inside out": (flipped(BALL), "inside out"),
    "half flipped": (HALF_FLIPPED, "wind in opposite ways"),
    "two bodies": (joined(BALL, BALL.moved(0.3, np.array([2, 0, 0]))), "falls into 2 bodies"),
    "void": (joined(BALL, flipped(BALL.moved(0.5))), "1 inner voids"),
    "degenerate": (PINCHED, "40 of 360 faces have no area"),
    "nan colour": (replace(BALL, vertex_color=np.full((162, 3), np.nan, np.float32)), "vertex colours"),
    "short colour": (replace(BALL, vertex_color=np.ones((3, 3), np.float32)), "vertex colours"),
    "black texture": (textured(np.zeros((8, 8, 3), np.uint8)), "one constant colour"),
    "no uv": (replace(BALL, material=Material(base_color=NOISE)), "no texture coordinates"),
    "unwritten texture": (textured(NOISE * np.uint8([1, 1, 1, 0])), "covers 0.0%"),
    "uv outside": (textured(NOISE, np.full((162, 2), 3.0)), "covers 0.0%"),
    "nan uv": (textured(NOISE, np.full((162, 2), np.nan)), "covers 0.0%"),
}


@pytest.mark.parametrize(("mesh", "reason"), BROKEN.values(), ids=BROKEN)
def test_each_fault_is_named(mesh: Mesh, reason: str) -> None:
    report = gate(mesh)
    assert not report.ok and any(reason in failure for failure in report.failures), report.failures
    with pytest.raises(GateFailed, match="did not pass its gate"):
        report.require()


def test_a_good_mesh_passes_with_the_numbers_of_trimesh() -> None:
    report = gate(BALL)
    assert report.ok and report.to_json()["ok"] is True
    report.require()
    assert report.volume == pytest.approx(ROOT.volume, rel=1e-6)
    assert report.area == pytest.approx(ROOT.area, rel=1e-6)
    np.testing.assert_allclose(report.extents, ROOT.extents, rtol=1e-6)
    assert (report.bodies, report.voids, report.open_edges) == (ROOT.body_count, 0, 0)


def test_parts_pass_only_when_allowed() -> None:
    parts = joined(BALL, BALL.moved(0.3, np.array([2, 0, 0])))
    assert gate(parts, allow_parts=True).ok and not gate(parts).ok
    assert not gate(joined(BALL, flipped(BALL.moved(0.5))), allow_parts=True).ok


def test_a_mesh_cut_along_texture_seams_still_counts_as_closed() -> None:
    cut = Mesh(BALL.vertices[BALL.faces.ravel()], np.arange(BALL.faces.size))
    assert gate(cut).ok
    assert weld(cut.vertices).max() + 1 == len(BALL.vertices)


def test_bodies_that_touch_in_one_vertex_are_two() -> None:
    cube = trimesh.creation.box((1, 1, 1))
    one = Mesh(cube.vertices, cube.faces)
    assert gate(joined(one, one.moved(offset=np.ones(3)))).bodies == 2


def test_a_written_texture_covers_everything() -> None:
    report = gate(textured(NOISE))
    assert report.ok and report.texture_coverage == 1.0


def test_volumes_are_per_body_and_signed() -> None:
    facts = topology(joined(BALL, flipped(BALL.moved(0.5))))
    np.testing.assert_allclose(facts.volumes, [ROOT.volume, -ROOT.volume / 8], rtol=1e-5)
