"""Files other programs write: trimesh's exports, Draco, strips, mirrored nodes, several materials, big-endian PLY."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from anyform.errors import BadInput, MissingDependency
from anyform.geometry.formats import draco, read_mesh
from anyform.geometry.gate import gate


def glb(path: Path, arrays: list[NDArray], meshes: list[dict[str, Any]], **sections: Any) -> Path:
    """A GLB whose accessor i is array i."""
    kinds = {"f4": 5126, "u2": 5123, "u1": 5121, "i2": 5122}
    shapes = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
    binary, views, accessors = b"", [], []
    for array in arrays:
        normalized = array.dtype == np.uint8 or array.dtype == np.int16
        width = 1 if array.ndim == 1 else array.shape[1]
        accessors.append({"bufferView": len(views), "componentType": kinds[array.dtype.str[1:]], "count": len(array),
                          "type": shapes[width], "normalized": bool(normalized)})  # fmt: skip
        content = array.tobytes()
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(content)})
        binary += content + b"\0" * (-len(content) % 4)
    document: dict[str, Any] = {"asset": {"version": "2.0"}, "nodes": [{"mesh": i} for i in range(len(meshes))]}
    document |= {"meshes": meshes, "accessors": accessors, "bufferViews": views, **sections}
    document["buffers"] = [{"byteLength": len(binary)}]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIIII", b"glTF", 2, 28 + len(text) + len(binary), len(text), 0x4E4F534A)
    path.write_bytes(head + text + struct.pack("<II", len(binary), 0x004E4942) + binary)
    return path


CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
STRIP = np.array([0, 1, 2, 3], np.uint16)


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "3mf"])
def test_what_trimesh_writes(tmp_path: Path, suffix: str) -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=2.0)
    ball.export(tmp_path / f"ball.{suffix}")
    report = gate(read_mesh(tmp_path / f"ball.{suffix}"))
    unit = 1e-9 if suffix in ("stl", "3mf") else 1
    assert report.ok and report.volume == pytest.approx(ball.volume * unit, rel=1e-4)


@pytest.mark.parametrize(("encoding", "reference"), [("ascii", False), ("binary", True)])
def test_ply_of_both_kinds(tmp_path: Path, encoding: str, reference: bool) -> None:
    box = trimesh.creation.box((1, 2, 3))
    box.visual.vertex_colors = np.tile([10, 200, 30, 255], (8, 1))
    (tmp_path / "box.ply").write_bytes(box.export(file_type="ply", encoding=encoding, vertex_normal=reference))
    mesh = read_mesh(tmp_path / "box.ply")
    assert gate(mesh).volume == pytest.approx(6) and mesh.vertex_color is not None
    np.testing.assert_allclose(mesh.vertex_color, np.tile([10, 200, 30], (8, 1)) / 255, atol=1e-6)


def test_big_endian_ply_with_polygons_of_different_sizes(tmp_path: Path) -> None:
    header = "ply\nformat binary_big_endian 1.0\nelement vertex 5\n" + "".join(f"property double {a}\n" for a in "xyz")
    header += "element face 2\nproperty uchar flag\nproperty list uchar ushort vertex_index\nend_header\n"
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 2, 2]], ">f8")
    faces = struct.pack(">BB4H", 7, 4, 0, 1, 2, 3) + struct.pack(">BB3H", 7, 3, 0, 1, 4)
    (tmp_path / "p.ply").write_bytes(header.encode() + points.tobytes() + faces)
    np.testing.assert_array_equal(read_mesh(tmp_path / "p.ply").faces, [[0, 1, 2], [0, 2, 3], [0, 1, 4]])


def test_strips_fans_and_bare_triangles(tmp_path: Path) -> None:
    for mode, faces in ((5, [[0, 1, 2], [1, 3, 2]]), (6, [[0, 1, 2], [0, 2, 3]])):
        primitive = {"attributes": {"POSITION": 0}, "indices": 1, "mode": mode}
        mesh = read_mesh(glb(tmp_path / "s.glb", [CORNERS, STRIP], [{"primitives": [primitive]}]))
        np.testing.assert_array_equal(mesh.faces, faces)
    mesh = read_mesh(glb(tmp_path / "b.glb", [CORNERS[:3]], [{"primitives": [{"attributes": {"POSITION": 0}}]}]))
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2]])


def test_nodes_turn_scale_and_mirror(tmp_path: Path) -> None:
    half = float(np.sqrt(0.5))
    nodes = [
        {"children": [1], "translation": [10, 0, 0]},
        {"mesh": 0, "rotation": [0, 0, half, half], "scale": [-2, 1, 1]},
    ]
    primitive = {"attributes": {"POSITION": 0}}
    scene = {"nodes": nodes, "scenes": [{"nodes": [0]}], "scene": 0}
    mesh = read_mesh(glb(tmp_path / "n.glb", [CORNERS[:3]], [{"primitives": [primitive]}], **scene))
    np.testing.assert_allclose(mesh.vertices, [[10, 0, 0], [10, -2, 0], [9, 0, 0]], atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, [[2, 1, 0]])


def test_several_materials_become_vertex_colours(tmp_path: Path) -> None:
    materials = [{"pbrMetallicRoughness": {"baseColorFactor": [c, 0, 0, 1]}} for c in (1.0, 0.5)]
    meshes = [{"primitives": [{"attributes": {"POSITION": 0}, "material": i}]} for i in (0, 1)]
    mesh = read_mesh(glb(tmp_path / "m.glb", [CORNERS[:3]], meshes, materials=materials))
    assert mesh.vertex_color is not None and mesh.material is None
    np.testing.assert_allclose(mesh.vertex_color[[0, 3], 0], [1, 0.7354], atol=1e-3)


def test_colours_of_bytes_and_positions_of_shorts(tmp_path: Path) -> None:
    positions = np.array([[0, 0, 0], [32767, 0, 0], [0, -32767, 0]], np.int16)
    colors = np.array([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]], np.uint8)
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}}
    quantised = {"extensionsRequired": ["KHR_mesh_quantization"]}
    mesh = read_mesh(glb(tmp_path / "q.glb", [positions, colors], [{"primitives": [primitive]}], **quantised))
    np.testing.assert_allclose(mesh.vertices, [[0, 0, 0], [1, 0, 0], [0, -1, 0]])
    assert mesh.vertex_color is not None
    np.testing.assert_allclose(mesh.vertex_color, np.eye(3), atol=1e-6)


def test_draco_is_read_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("DracoPy", reason="DracoPy is in the extra [data]")
    ball = trimesh.creation.icosphere(subdivisions=1)
    packed = np.frombuffer(library.encode(ball.vertices, faces=ball.faces, quantization_bits=16), np.uint8)
    extension = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    meshes = [{"primitives": [{"attributes": {"POSITION": 0}, "extensions": extension}]}]
    path = glb(tmp_path / "d.glb", [packed], meshes, extensionsRequired=["KHR_draco_mesh_compression"])
    assert gate(read_mesh(path)).volume == pytest.approx(ball.volume, rel=1e-3)
    with pytest.raises(BadInput, match="Draco data"):
        draco.decode_draco(packed.tobytes()[:60], 10)
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)
    with pytest.raises(MissingDependency, match=r"anyform\[data\]"):
        read_mesh(path)


def test_obj_polygons_negative_indices_and_continued_lines(tmp_path: Path) -> None:
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4 -3 \\\n-2 -1\nusemtl a\nf 1//1 2 3\n"
    (tmp_path / "o.obj").write_text(text, encoding="utf-8")
    mesh = read_mesh(tmp_path / "o.obj")
    areas = np.cross(*np.diff(mesh.vertices[mesh.faces], axis=1).transpose(1, 0, 2))[:, 2] / 2
    np.testing.assert_allclose(areas, 0.5)
