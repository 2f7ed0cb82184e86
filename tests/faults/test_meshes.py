"""Mesh files from strangers: rows 10, 16 and 17 of the fault table. One sentence, no other file, no socket."""

from __future__ import annotations

import json
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyform.errors import BadInput
from anyform.geometry.formats import obj, read_extras, read_mesh

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes() + np.array([0, 1, 2, 0], "<u2").tobytes()
_WATCH: dict[str, Any] = {"allowed": None, "seen": []}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCH["allowed"] is None:
        return
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "urllib.Request"):
        _WATCH["seen"].append((event, arguments))
    elif event == "open" and isinstance(arguments[0], str | bytes):
        name = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
        if not name.startswith(_WATCH["allowed"]) and not name.endswith((".py", ".pyc", ".so")):
            _WATCH["seen"].append((event, name))


sys.addaudithook(_audit)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Path]:
    """A folder outside of which nothing may be opened (Python's own modules aside), and no socket at all."""
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl x\nKd 1 0 0\n", encoding="utf-8")
    _WATCH["allowed"], _WATCH["seen"] = str(folder), []
    yield folder
    _WATCH["allowed"] = None
    assert _WATCH["seen"] == []


def document(**changes: Any) -> dict[str, Any]:
    """The JSON of a GLB with one triangle; a change replaces a top-level section."""
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 3, "type": "SCALAR"},
        ],
        "bufferViews": [{"buffer": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": 6}],
        "buffers": [{"byteLength": 44}],
        **changes,
    }


def glb(content: Any = None, binary: bytes = TRIANGLE, **changes: Any) -> bytes:
    text = json.dumps(document(**changes)).encode() if content is None else content
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<4sIIII", b"glTF", 2, total, len(text), 0x4E4F534A)
    return head + text + struct.pack("<II", len(binary), 0x004E4942) + binary


def accessor(index: int, **changes: Any) -> bytes:
    accessors = document()["accessors"]
    accessors[index] |= changes
    return glb(accessors=accessors)


def view(index: int, **changes: Any) -> bytes:
    views = document()["bufferViews"]
    views[index] |= changes
    return glb(bufferViews=views)


def chain(depth: int) -> list[dict[str, Any]]:
    return [{"children": [i + 1]} for i in range(depth)] + [{"mesh": 0}]


def textured(image: dict[str, Any], binary: bytes = TRIANGLE) -> bytes:
    surface = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    primitive = {"attributes": {"POSITION": 0}, "indices": 1, "material": 0}
    views = [*document()["bufferViews"], {"buffer": 0, "byteOffset": 44, "byteLength": max(0, len(binary) - 44)}]
    return glb(binary=binary, materials=[surface], textures=[{"source": 0}], images=[image], bufferViews=views,
               meshes=[{"primitives": [primitive]}])  # fmt: skip


def draco() -> bytes:
    extension = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    return glb(meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "extensions": extension}]}])


def png_bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    import zlib

    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + header
        + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    )


GOOD = glb()
BAD_GLB: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not start with 'glTF'"),
    "text": (b"hello world, this is not a mesh", "does not start with 'glTF'"),
    "version": (b"glTF" + struct.pack("<I", 1) + GOOD[8:], "version 1"),
    "length lies": (GOOD[:8] + struct.pack("<I", 2**32 - 1) + GOOD[12:], "4294967295 bytes, but the file has"),
    "json length lies": (GOOD[:12] + struct.pack("<I", 2**31) + GOOD[16:], "does not fit"),
    "cut": (GOOD[:-20], "bytes, but the file has"),
    "binary length lies": (GOOD[:-52] + struct.pack("<I", 9999) + GOOD[-48:], "says 9999 bytes"),
    "bad json": (glb(b"{"), "damaged"),
    "json list": (glb(b"[]"), "not an object"),
    "deep json": (glb(b"[" * 100_000), "damaged"),
    "not utf-8": (glb(b"\xff\xfe{}"), "damaged"),
    "count 2^31": (accessor(0, count=2**31), "declares 2147483648 entries"),
    "negative count": (accessor(0, count=-1), "malformed"),
    "float count": (accessor(0, count=3.5), "malformed"),
    "offset": (accessor(0, byteOffset=40), "in a view of 36"),
    "unknown type": (accessor(0, componentType=1), "does not fit its use"),
    "positions as scalars": (accessor(0, type="SCALAR"), "does not fit its use"),
    "float indices": (accessor(1, componentType=5126), "does not fit its use"),
    "sparse": (accessor(0, sparse={"count": 1}), "sparse"),
    "no bufferView": (accessor(1, bufferView=7), "entry 7 of bufferViews"),
    "view out of range": (view(0, byteLength=10_000), "ends at byte 10000 of 44"),
    "negative view": (view(0, byteOffset=-4), "malformed"),
    "tiny stride": (view(0, byteStride=1), "malformed"),
    "index out of range": (glb(binary=TRIANGLE[:40] + b"\xff\xff\0\0"), "names vertex 65535"),
    "nan": (glb(binary=np.full(9, np.nan, "<f4").tobytes() + TRIANGLE[36:]), "not finite"),
    "self parent": (glb(nodes=[{"mesh": 0, "children": [0]}]), "own ancestor"),
    "cycle": (glb(nodes=[{"children": [1]}, {"mesh": 0, "children": [0]}]), "own ancestor"),
    "two parents": (
        glb(nodes=[{"children": [1, 2]}, {"children": [3]}, {"children": [3]}, {"mesh": 0}]),
        "two parents",
    ),
    "10^5 deep": (glb(nodes=chain(100_000)), "nested more than 256 deep"),
    "no nodes": (glb(nodes=[], scenes=[{"nodes": []}]), "no triangles"),
    "bad node": (glb(scenes=[{"nodes": ["x"]}]), "does not exist"),
    "bad matrix": (glb(nodes=[{"mesh": 0, "matrix": [1, 2, 3]}]), "damaged"),
    "infinite scale": (glb(nodes=[{"mesh": 0, "scale": [1e400, 1, 1]}]), "not finite"),
    "file uri": (glb(buffers=[{"uri": "file:///etc/passwd", "byteLength": 44}]), "never followed"),
    "http uri": (glb(buffers=[{"uri": "http://127.0.0.1:9/x.bin", "byteLength": 44}]), "never followed"),
    "data uri": (glb(buffers=[{"uri": "data:;base64,AAAA", "byteLength": 3}]), "never followed"),
    "image uri": (textured({"uri": "../secret.mtl"}), "never followed"),
    "image bomb": (textured({"bufferView": 2}, TRIANGLE + png_bomb()), "50000 × 50000|damaged|pixels"),
    "image is no image": (textured({"bufferView": 2}, TRIANGLE + b"<svg/>"), "neither PNG"),
    "meshopt": (glb(extensionsRequired=["EXT_meshopt_compression"]), "EXT_meshopt_compression"),
    "meshopt unasked": (view(0, extensions={"EXT_meshopt_compression": {}}), "meshopt"),
    "not draco": (draco(), "not Draco"),
    "points only": (glb(meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}]), "no triangles"),
    "mesh of meshes": (glb(meshes=[[]]), "not an object"),
    "primitives as text": (glb(meshes=[{"primitives": "abc"}]), "damaged"),
}
BAD_OBJ: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no faces"),
    "points only": (b"v 0 0 0\nv 1 0 0\n", "no faces"),
    "outside mtllib": (b"mtllib ../secret.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "only files beside it"),
    "absolute mtllib": (b"mtllib /etc/passwd\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "only files beside it"),
    "windows mtllib": (b"mtllib C:\\x.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "only files beside it"),
    "url mtllib": (b"mtllib http://127.0.0.1/x\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "only files beside it"),
    "index": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 999999999\n", "names vertex 999999999"),
    "index zero": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "counts from 1"),
    "index before first": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -4 1 2\n", "counts from 1"),
    "huge index": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999999999999999\n", "damaged"),
    "two corners": (b"v 0 0 0\nv 1 0 0\nf 1 2\n", "2 corners"),
    "words": (b"v a b c\nf 1 1 1\n", "damaged"),
    "ragged": (b"v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n", "numbers"),
    "nan": (b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
    "overflow": (b"v 1e300 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
}
PLY_HEAD = b"ply\nformat %s 1.0\nelement vertex %d\nproperty float x\nproperty float y\nproperty float z\n"
PLY_FACE = b"element face %d\nproperty list uchar int vertex_indices\nend_header\n"
POINTS = b"0 0 0\n1 0 0\n0 1 0\n"


def ply(form: bytes, vertices: int, faces: int, body: bytes) -> bytes:
    return PLY_HEAD % (form, vertices) + PLY_FACE % faces + body


BAD_PLY: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "PLY header"),
    "endless header": (b"ply\n" + b"comment x\n" * 20_000, "PLY header"),
    "no format": (b"ply\nend_header\n", "format '' is unknown"),
    "10^12 vertices": (ply(b"binary_little_endian", 10**12, 1, b""), "1000000000000 × 'vertex', but only 0 bytes"),
    "10^12 ascii": (ply(b"ascii", 10**12, 1, POINTS), "1000000000000 × 'vertex'"),
    "negative": (ply(b"ascii", -3, 1, POINTS), "declares -3"),
    "no number": (ply(b"ascii", 3, 1, POINTS).replace(b"vertex 3", b"vertex 1e3"), "damaged"),
    "list of 2^31": (ply(b"ascii", 3, 1, POINTS + b"2147483648 0 1 2\n"), "2147483648 entries"),
    "negative list": (ply(b"ascii", 3, 1, POINTS + b"-1 0 1 2\n"), "-1 entries"),
    "short list": (ply(b"binary_little_endian", 1, 1, bytes(12) + b"\xff" + bytes(12)), "bytes too early"),
    "unknown type": (ply(b"ascii", 3, 1, POINTS).replace(b"float x", b"quad x"), "malformed"),
    "same name twice": (ply(b"binary_little_endian", 1, 0, bytes(12)).replace(b"float y", b"float x"), "damaged|no x"),
    "no faces": (ply(b"ascii", 3, 0, POINTS), "no triangles"),
    "points": (PLY_HEAD % (b"ascii", 3) + b"end_header\n" + POINTS, "no faces; a point cloud"),
    "nan": (ply(b"ascii", 3, 1, b"nan 0 0\n1 0 0\n0 inf 0\n3 0 1 2\n"), "2 of its 3 vertices"),
    "index": (ply(b"ascii", 3, 1, POINTS + b"3 0 1 3\n"), "names vertex 3"),
    "negative index": (ply(b"ascii", 3, 1, POINTS + b"3 0 1 -1\n"), "names vertex -1"),
}
SOLID = (
    b"solid x\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid\n"
)
BAD_STL: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short"),
    "count lies": (bytes(80) + struct.pack("<I", 2**31) + bytes(50), "declares 2147483648 triangles"),
    "cut": (bytes(80) + struct.pack("<I", 2) + bytes(60), "instead of 184"),
    "no triangles": (bytes(84), "no triangles"),
    "nan": (bytes(80) + struct.pack("<I", 1) + np.full(12, np.nan, "<f4").tobytes() + b"\0\0", "not finite"),
    "ascii words": (SOLID.replace(b"1 0 0", b"one 0 0"), "damaged"),
    "ascii short": (SOLID.replace(b"vertex 0 1 0", b""), "no whole number of triangles"),
    "ascii empty": (b"solid x\nendsolid\n", "no whole number of triangles"),
}


def threemf(model: bytes, name: str = "3D/3dmodel.model") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, model)

    return write


CORE = b'<model unit="millimeter" xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">%s</model>'
POINT = b'<vertex x="0" y="0" z="0"/><vertex x="1" y="0" z="0"/><vertex x="0" y="1" z="0"/>'
SHAPE = b'<object id="1"><mesh><vertices>' + POINT + b"</vertices><triangles>%s</triangles></mesh></object>"
GOOD_FACE = b'<triangle v1="0" v2="1" v3="2"/>'
SELF = b'<object id="2"><components><component objectid="2"/><component objectid="2"/></components></object>'
BAD_3MF: dict[str, tuple[bytes, str]] = {
    "no model": (b"", "damaged"),
    "entities": (b'<!DOCTYPE x [<!ENTITY a "b">]>' + CORE % b"", "entities"),
    "not xml": (b"<model", "damaged"),
    "nothing": (CORE % b"", "no triangles"),
    "index": (
        CORE % (SHAPE % b'<triangle v1="0" v2="1" v3="9"/>' + b'<build><item objectid="1"/></build>'),
        "vertex 9",
    ),
    "words": (CORE % (SHAPE % b'<triangle v1="a" v2="1" v3="2"/>'), "damaged"),
    "endless": (CORE % (SELF + b'<build><item objectid="2"/></build>'), "nested"),
    "transform": (CORE % (SHAPE % GOOD_FACE + b'<build><item objectid="1" transform="1 2"/></build>'), "twelve"),
    "nan": (
        CORE % (SHAPE % GOOD_FACE + b'<build><item objectid="1"/></build>').replace(b'x="1"', b'x="nan"'),
        "not finite",
    ),
}
TABLE = [
    pytest.param(suffix, content, reason, id=f"{suffix}: {name}")
    for suffix, rows in (("glb", BAD_GLB), ("obj", BAD_OBJ), ("ply", BAD_PLY), ("stl", BAD_STL), ("3mf", BAD_3MF))
    for name, (content, reason) in rows.items()
]


@pytest.mark.parametrize(("suffix", "content", "reason"), TABLE)
def test_refused_in_one_sentence(watched: Path, suffix: str, content: bytes, reason: str) -> None:
    path = watched / f"bad.{suffix}"
    threemf(content)(path) if suffix == "3mf" else path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(BadInput, match=reason) as caught:
        read_mesh(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 and "bad." in str(caught.value)
    assert peak < 50 << 20


def test_the_good_twins_are_read(watched: Path) -> None:
    good = {"glb": GOOD, "obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "stl": SOLID}
    good["ply"] = ply(b"ascii", 3, 1, POINTS + b"3 0 1 2\n")
    for suffix, content in good.items():
        (watched / f"good.{suffix}").write_bytes(content)
        assert read_mesh(watched / f"good.{suffix}").faces.shape == (1, 3)
    threemf(CORE % (SHAPE % GOOD_FACE + b'<build><item objectid="1"/></build>'))(watched / "good.3mf")
    assert read_mesh(watched / "good.3mf").faces.shape == (1, 3)


def test_a_zip_bomb_is_refused_by_what_it_unpacks_to(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyform.geometry.formats.threemf.MAX_MODEL_BYTES", 1 << 20)
    threemf(b" " * (4 << 20))(watched / "bomb.3mf")
    with pytest.raises(BadInput, match="unpacks to 4 MiB"):
        read_mesh(watched / "bomb.3mf")


def test_a_3mf_that_is_no_zip(watched: Path) -> None:
    (watched / "x.3mf").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(BadInput, match="damaged"):
        read_mesh(watched / "x.3mf")
    threemf(b"", "notes.txt")(watched / "y.3mf")
    with pytest.raises(BadInput, match="no 3D model"):
        read_mesh(watched / "y.3mf")


def test_a_file_past_its_limit_is_not_read(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obj, "MAX_OBJ_BYTES", 1 << 20)
    with (watched / "line.obj").open("wb") as file:
        file.truncate(1 << 30)  # one line of a gigabyte that takes no disk
    tracemalloc.start()
    with pytest.raises(BadInput, match="1024 MiB; files of this kind are read up to 1 MiB"):
        read_mesh(watched / "line.obj")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_materials_are_read_beside_the_file_only(watched: Path) -> None:
    face = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl red\nf 1 2 3\n"
    (watched / "m.mtl").write_bytes(b"newmtl red\nKd 1 0 0\n")
    (watched / "m.obj").write_bytes(b"mtllib m.mtl\n" + face)
    material = read_mesh(watched / "m.obj").material
    assert material is not None and material.base_color_factor == (1.0, 0.0, 0.0, 1.0)
    (watched / "m.mtl").write_bytes(b"newmtl red\nmap_Kd ../secret.png\n")
    with pytest.raises(BadInput, match=r"asks for the texture '\.\./secret\.png'"):
        read_mesh(watched / "m.obj")
    (watched / "m.mtl").unlink()
    (watched / "m.mtl").symlink_to("../secret.mtl")
    with pytest.raises(BadInput, match="which is a link"):
        read_mesh(watched / "m.obj")
    (watched / "m.mtl").unlink()
    with pytest.warns(UserWarning, match="not there"):
        assert read_mesh(watched / "m.obj").material is None


def test_paths_that_are_no_files(watched: Path) -> None:
    (watched / "d.glb").mkdir()
    with pytest.raises(BadInput, match="a folder or a device"):
        read_mesh(watched / "d.glb")
    with pytest.raises(BadInput, match="no such file"):
        read_mesh(watched / "missing.glb")
    with pytest.raises(BadInput, match=r"use one of \.glb"):
        read_mesh(watched / "x.fbx")
    with pytest.raises(BadInput, match="carries no provenance"):
        read_extras(watched / "x.stl")


def test_extras_of_a_stranger_are_empty(watched: Path) -> None:
    (watched / "x.glb").write_bytes(GOOD)
    assert read_extras(watched / "x.glb") == {}
    for extras in ([], {"anyform": 3}, "x", None):
        (watched / "x.glb").write_bytes(glb(asset={"version": "2.0", "extras": extras}))
        assert read_extras(watched / "x.glb") == {}
    (watched / "x.glb").write_bytes(b"glTF")
    with pytest.raises(BadInput):
        read_extras(watched / "x.glb")


SEEDS = {
    "glb": GOOD,
    "obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1/1 2/1/1 3/1/1\nf -1//2 2//1 1//1\n",
    "ply": ply(b"binary_little_endian", 3, 1, TRIANGLE[:36] + b"\x03" + np.arange(3, dtype="<i4").tobytes()),
    "stl": SOLID,
}


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "3mf"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=300))
def test_junk_is_read_or_refused(tmp_path: Path, suffix: str, junk: bytes) -> None:
    magic = {"glb": b"glTF\x02\0\0\0", "ply": b"ply\n", "3mf": b"PK\x03\x04"}.get(suffix, b"")
    for content in (junk, magic + junk):
        read_or_refuse(tmp_path / f"junk.{suffix}", content)


@pytest.mark.parametrize("suffix", SEEDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_good_file_with_some_bytes_changed_is_read_or_refused(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    content = bytearray(SEEDS[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(tmp_path / f"junk.{suffix}", bytes(content[: data.draw(st.integers(1, len(content)))]))


@pytest.mark.filterwarnings("ignore:.*material file")
def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        mesh = read_mesh(path)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert len(mesh.faces) and np.isfinite(mesh.vertices).all() and mesh.faces.max() < len(mesh.vertices)
