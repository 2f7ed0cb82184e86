"""Printable means: closed, one body, no void, flat base, walls known. Checked on shapes whose answers are known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from anyform.errors import BadSetting, GateFailed
from anyform.geometry.asset import Asset
from anyform.geometry.gate import gate
from anyform.geometry.mesh import Mesh
from anyform.geometry.printing import prepare_for_print, print_report, wall_thickness


def of(*solids: trimesh.Trimesh) -> Mesh:
    both = trimesh.util.concatenate(list(solids))
    return Mesh(np.asarray(both.vertices), np.asarray(both.faces))


def box(size: tuple[float, float, float], at: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    solid = trimesh.creation.box(size)
    solid.apply_translation(at)
    return solid


def hollow_ball() -> Mesh:
    outer, inner = trimesh.creation.icosphere(subdivisions=4), trimesh.creation.icosphere(subdivisions=4, radius=0.9)
    inner.invert()
    return of(outer, inner)


def test_a_box_is_measured_exactly() -> None:
    report = print_report(of(box((1, 2, 0.5))), 80)
    assert report.ok and report.notes == ()
    assert report.size_mm == pytest.approx((40, 80, 20), rel=1e-6)
    assert report.base_area_mm2 == pytest.approx(800, rel=1e-5)
    assert report.thinnest_wall_mm == pytest.approx(20, rel=1e-4)
    assert report.overhang_share == 0


def test_a_thin_wall_names_the_size_that_would_do() -> None:
    report = print_report(of(box((1, 1, 0.005))), 80)
    assert report.thinnest_wall_mm == pytest.approx(0.4, rel=1e-3)
    assert len(report.notes) == 1
    assert re.fullmatch(r"the thinnest wall is 0.40 mm, under 0.8 mm: use --size 16[01]mm or more", report.notes[0])


def test_an_overhang_is_its_share_of_the_surface() -> None:
    mushroom = of(box((0.2, 1, 0.2), (0, 0.5, 0)))
    table, _ = prepare_for_print(of(box((0.2, 1, 0.2), (0, 0.5, 0)), box((1, 0.2, 1), (0, 1.0, 0))), 100)
    assert print_report(mushroom, 100).overhang_share == 0
    report = print_report(table, 100)
    assert report.overhang_share == pytest.approx(0.96 / (4 * 0.2 * 0.9 + 0.04 + 0.8 + 1 + 0.96), rel=1e-3)


def test_a_void_is_filled_and_the_ball_gets_a_base() -> None:
    mesh = hollow_ball()
    assert gate(mesh).voids == 1
    printable, report = prepare_for_print(mesh, 80)
    assert gate(printable).ok and report.ok
    assert report.base_area_mm2 > 100 and max(report.size_mm) == pytest.approx(80)
    assert any("cut off the underside" in note for note in report.notes)
    assert report.thinnest_wall_mm > 60


def test_overlapping_bodies_are_united_and_loose_ones_dropped() -> None:
    mesh = of(box((1, 1, 1)), box((1, 1, 1), (0.5, 0.3, 0.2)), box((0.1, 0.1, 0.1), (3, 0, 0)))
    printable, report = prepare_for_print(mesh, 50)
    facts = gate(printable)
    assert facts.ok and facts.volume == pytest.approx(2 - 0.5 * 0.7 * 0.8, rel=1e-4)
    assert any("loose bodies with 0.1% of the volume" in note for note in report.notes)


def test_a_flat_shape_is_not_cut() -> None:
    printable, report = prepare_for_print(of(box((1, 0.5, 1))), 80)
    assert not report.notes and gate(printable).volume == pytest.approx(0.5)


def test_colours_come_along(painted_l: Asset) -> None:
    printable, _ = prepare_for_print(painted_l.mesh, 80)
    assert printable.vertex_color is not None and painted_l.mesh.vertex_color is not None
    known = {tuple(color) for color in painted_l.mesh.vertex_color.tolist()}
    assert {tuple(color) for color in printable.vertex_color.tolist()} <= known


def test_thickness_of_a_ball_is_its_diameter() -> None:
    ball = of(trimesh.creation.icosphere(subdivisions=3))
    np.testing.assert_allclose(wall_thickness(ball, 200), 2, atol=0.02)


def test_an_80_mm_print_measures_80_mm_in_the_file(painted_l: Asset, tmp_path: Path) -> None:
    printable, _ = prepare_for_print(painted_l.mesh, 80)
    path = replace(painted_l, mesh=printable, metres=0.08).save(tmp_path / "l.3mf")
    found = trimesh.load(path, force="mesh")
    assert found.is_watertight and found.is_winding_consistent and found.volume > 0 and found.body_count == 1
    assert found.extents.max() == pytest.approx(80, rel=1e-5) and found.bounds[0, 2] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("size", [0.0, -3.0, float("nan"), float("inf")])
def test_impossible_sizes(size: float) -> None:
    with pytest.raises(BadSetting, match="positive lengths"):
        prepare_for_print(of(box((1, 1, 1))), size)


def test_an_open_mesh_is_refused() -> None:
    whole = of(box((1, 1, 1)))
    with pytest.raises(GateFailed):
        prepare_for_print(Mesh(whole.vertices, whole.faces[1:]), 80)
