"""Every format keeps up, front, size and colours, judged by trimesh and by the formats' own rules."""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from anyform.geometry.asset import Asset
from anyform.geometry.color import linear_to_srgb, srgb_to_linear
from anyform.geometry.formats import read_extras, read_mesh, to_trimesh
from anyform.geometry.gate import gate
from anyform.geometry.mesh import Mesh

SIDE_COLORS = np.array([[204, 51, 26], [26, 153, 77], [51, 77, 204], [230, 204, 51], [128, 38, 153], [89, 89, 89]])
# Where the six sides of the L face in a y-up and in a z-up file.
Y_UP = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
Z_UP = np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1], [0, -1, 0], [0, 1, 0]])
SIZE = np.array([1.2, 1.6, 0.5]) / 1.6 * 0.25  # metres, x y z in world axes


def lab(srgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """sRGB in [0, 1] -> CIE L*a*b* (D65)."""
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750]])
    xyz = srgb_to_linear(srgb) @ np.vstack([matrix, [0.0193339, 0.1191920, 0.9503041]]).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def delta_e(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(lab(first) - lab(second), axis=1).max())


def sides_of(mesh: trimesh.Trimesh, axes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which side of the L each face belongs to, by its normal."""
    score = np.asarray(mesh.face_normals) @ axes.T
    assert score.max(1).min() > 0.999
    return score.argmax(1)


def face_colors(mesh: Mesh) -> NDArray[np.float64]:
    assert mesh.vertex_color is not None
    return mesh.vertex_color[mesh.faces].mean(1).astype(np.float64)


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def assert_stands(mesh: trimesh.Trimesh, up: int, unit: float, origin: bool = True) -> None:
    """The L is upright, of its size, on the plate, its post on the −x side and its sides where they belong."""
    extents = SIZE * unit if up == 1 else SIZE[[0, 2, 1]] * unit
    np.testing.assert_allclose(mesh.extents, extents, rtol=1e-5)
    assert mesh.bounds[0, up] == 0
    if origin:
        level = [axis for axis in range(3) if axis != up]
        np.testing.assert_allclose(mesh.bounds.mean(0)[level], 0, atol=1e-6 * unit)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert solid.is_watertight and solid.is_winding_consistent and solid.body_count == 1
    np.testing.assert_allclose(solid.volume, (1.2 * 0.4 + 0.4 * 1.2) * 0.5 * (0.25 / 1.6 * unit) ** 3, rtol=1e-5)
    middle = mesh.bounds.mean(0)
    top = mesh.vertices[mesh.vertices[:, up] > middle[up] * 1.5]
    assert (top[:, 0] < middle[0]).all(), "the post stands on the −x side"


def load(path: Path) -> trimesh.Trimesh:
    found = trimesh.load_mesh(path, process=False)
    return found.to_mesh() if isinstance(found, trimesh.Scene) else found


def glb_parts(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    size = struct.unpack_from("<I", content, 12)[0]
    assert struct.unpack_from("<I", content, 8)[0] == len(content)
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def glb_array(path: Path, attribute: str) -> NDArray:
    document, binary = glb_parts(path)
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"][attribute]]
    view = document["bufferViews"][accessor["bufferView"]]
    dtype = {5126: "<f4", 5123: "<u2"}[accessor["componentType"]]
    width = {"VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    return np.frombuffer(binary, dtype, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)


@pytest.mark.parametrize(
    ("suffix", "up", "unit"),
    [("glb", 1, 1.0), ("obj", 1, 1.0), ("ply", 1, 1.0), ("stl", 2, 1000.0), ("3mf", 2, 1000.0)],
)
def test_axes_and_units(painted_l: Asset, tmp_path: Path, suffix: str, up: int, unit: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mesh = load(painted_l.save(tmp_path / f"l.{suffix}"))
    assert_stands(mesh, up, unit, origin=suffix != "3mf")
    sides = sides_of(mesh, Y_UP if up == 1 else Z_UP)
    assert np.bincount(sides).min() >= 2
    back = read_mesh(tmp_path / f"l.{suffix}")
    in_metres = as_trimesh(back)
    np.testing.assert_allclose(in_metres.extents, SIZE, rtol=1e-5)
    assert gate(back).ok
    if back.vertex_color is not None:
        assert delta_e(face_colors(back), SIDE_COLORS[sides_of(in_metres, Y_UP)] / 255) < 1


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "3mf"])
def test_colour_survives_in_every_format_that_can_hold_it(painted_l: Asset, tmp_path: Path, suffix: str) -> None:
    assert read_mesh(painted_l.save(tmp_path / f"l.{suffix}")).vertex_color is not None


def test_glb_color_is_linear_16_bit(painted_l: Asset, tmp_path: Path) -> None:
    path = painted_l.save(tmp_path / "l.glb")
    stored = glb_array(path, "COLOR_0")
    assert stored.dtype == np.uint16 and stored.shape[1] == 4
    shown = linear_to_srgb(stored[:, :3] / 65535)
    assert painted_l.mesh.vertex_color is not None
    assert delta_e(shown, painted_l.mesh.vertex_color) < 0.1
    assert delta_e(stored[:, :3] / 65535, painted_l.mesh.vertex_color) > 10, "stored as sRGB it would be far off"


def test_glb_texture_is_srgb_and_upright(textured_l: Asset, tmp_path: Path) -> None:
    mesh = load(textured_l.save(tmp_path / "l.glb"))
    image = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    uv = np.asarray(mesh.visual.uv)[mesh.faces].mean(1)
    seen = image[((1 - uv[:, 1]) * image.shape[0]).astype(int), (uv[:, 0] * image.shape[1]).astype(int)] / 255
    assert delta_e(seen, SIDE_COLORS[sides_of(mesh, Y_UP)] / 255) < 1
    assert gate(read_mesh(tmp_path / "l.glb")).ok


@pytest.mark.parametrize("suffix", ["ply", "3mf"])
def test_a_texture_becomes_vertex_colours_where_there_is_no_texture(
    textured_l: Asset, tmp_path: Path, suffix: str
) -> None:
    with pytest.warns(UserWarning, match="texture"):
        path = textured_l.save(tmp_path / f"l.{suffix}")
    back = read_mesh(path)
    assert delta_e(face_colors(back), SIDE_COLORS[sides_of(as_trimesh(back), Y_UP)] / 255) < 1


def test_stl_warns_that_it_drops_colours(painted_l: Asset, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="neither colours nor provenance"):
        painted_l.save(tmp_path / "l.stl")


def test_obj_files_name_each_other_without_spaces(textured_l: Asset, tmp_path: Path) -> None:
    path = textured_l.save(tmp_path / "my größte L.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my größte L.obj", "my_größte_L.mtl", "my_größte_L.png"]
    assert "mtllib my_größte_L.mtl" in path.read_text("utf-8")
    assert "map_Kd my_größte_L.png" in (tmp_path / "my_größte_L.mtl").read_text("utf-8")
    mesh = load(path)
    assert mesh.visual.material.image.size == (24, 16)
    back = read_mesh(path)
    assert back.material is not None and back.material.base_color is not None and gate(back).ok


def test_obj_zip_holds_the_whole_set(textured_l: Asset, tmp_path: Path) -> None:
    path = textured_l.save(tmp_path / "my L.obj.zip")
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["my L.obj", "my_L.mtl", "my_L.png"]


def test_3mf_names_its_unit_and_lies_where_coordinates_are_positive(painted_l: Asset, tmp_path: Path) -> None:
    path = painted_l.save(tmp_path / "l.3mf")
    with zipfile.ZipFile(path) as archive:
        assert b'unit="millimeter"' in archive.read("3D/3dmodel.model")
    mesh = load(path)
    assert mesh.bounds[0].min() >= 0 and mesh.extents.max() == pytest.approx(250)


def test_usdz_is_upright_in_metres_and_aligned(textured_l: Asset, tmp_path: Path) -> None:
    usd = pytest.importorskip("pxr.Usd", reason="usd-core is the extra [usd]")
    from pxr import UsdGeom

    path = textured_l.save(tmp_path / "l.usdz")
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert (entry.header_offset + 30 + len(entry.filename) + len(entry.extra)) % 64 == 0
    stage = usd.Stage.Open(str(path))
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    surface = UsdGeom.Mesh(stage.GetPrimAtPath("/asset/surface"))
    points = np.array(surface.GetPointsAttr().Get())
    assert_stands(trimesh.Trimesh(points, textured_l.mesh.faces, process=False), 1, 1.0)


@pytest.mark.parametrize("suffix", ["glb", "obj", "obj.zip", "ply", "stl", "3mf"])
def test_same_asset_same_bytes(textured_l: Asset, tmp_path: Path, suffix: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = textured_l.save(tmp_path / f"l.{suffix}").read_bytes()
        second = textured_l.save(tmp_path / f"l.{suffix}", force=True).read_bytes()
    assert first == second


@pytest.mark.parametrize("suffix", ["glb", "3mf"])
def test_provenance_comes_back(painted_l: Asset, tmp_path: Path, suffix: str) -> None:
    extras = read_extras(painted_l.save(tmp_path / f"l.{suffix}"))
    assert extras == json.loads(json.dumps(painted_l.provenance.to_json()))


def test_glb_names_its_maker_and_its_sources(painted_l: Asset, tmp_path: Path) -> None:
    document, _ = glb_parts(painted_l.save(tmp_path / "l.glb"))
    assert document["asset"]["generator"] == "anyform 0.1.0"
    assert "Łukasz" in document["asset"]["copyright"] and "Apache-2.0" in document["asset"]["copyright"]
    packet = document["extensions"]["KHR_xmp_json_ld"]["packets"][
        document["asset"]["extensions"]["KHR_xmp_json_ld"]["packet"]
    ]
    assert packet["Iptc4xmpExt:DigitalSourceType"].endswith("/trainedAlgorithmicMedia")


def test_large_meshes_get_32_bit_indices(painted_l: Asset, tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=7)
    mesh = Mesh(np.asarray(ball.vertices), np.asarray(ball.faces))
    path = replace(painted_l, mesh=mesh).save(tmp_path / "ball.glb")
    document, _ = glb_parts(path)
    assert document["accessors"][document["meshes"][0]["primitives"][0]["indices"]]["componentType"] == 5125
    np.testing.assert_array_equal(load(path).faces, ball.faces)


def test_normals_are_unit_and_do_not_show_texture_seams(painted_l: Asset, tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    corners = np.asarray(ball.vertices)[np.asarray(ball.faces).ravel()]
    cut = Mesh(corners, np.arange(len(corners)), uv=np.zeros((len(corners), 2), np.float32))
    normals = glb_array(replace(painted_l, mesh=cut).save(tmp_path / "ball.glb"), "NORMAL")
    np.testing.assert_allclose(normals, corners, atol=0.03)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_to_trimesh_keeps_order_colours_and_texture(painted_l: Asset, textured_l: Asset) -> None:
    plain = to_trimesh(painted_l.mesh)
    np.testing.assert_allclose(plain.vertices, painted_l.mesh.vertices)
    np.testing.assert_array_equal(plain.visual.vertex_colors[:, :3], np.round(painted_l.mesh.vertex_color * 255))
    assert textured_l.to_trimesh().visual.material.baseColorTexture.size == (24, 16)
