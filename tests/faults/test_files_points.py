"""Bad point files (expectations.md §4.3 rows 10-13, 16, 17): what a header promises is checked first."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyform.errors import BadInput, MissingDependency
from anyform.types.prompt import Points

CLOUD = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
LINES = "".join(f"{x:.7g} {y:.7g} {z:.7g}\n" for x, y, z in CLOUD)


def ply(
    count: object = 100, body: bytes = CLOUD.tobytes(), form: str = "binary_little_endian", more: str = ""
) -> bytes:
    properties = more or "property float x\nproperty float y\nproperty float z\n"
    return f"ply\nformat {form} 1.0\nelement vertex {count}\n{properties}end_header\n".encode() + body


def npy(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npy_claiming(shape: str, body: bytes = b"", dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def obj(*lines: str) -> bytes:
    return "\n".join(["v 0 0 0", "v 1 0 0", "v 0 1 0", *lines, ""]).encode()


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(BadInput) as caught:
        Points.open(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 and str(path.parent) not in message
    return message


@pytest.mark.parametrize(
    ("suffix", "data", "says"),
    [
        (".ply", b"", "empty"),
        (".ply", b"ply", "no PLY header"),
        (".ply", b"solid not a ply", "no PLY header"),
        (".ply", b"ply\n" + b"comment " * 20_000, "no PLY header"),
        (".ply", ply(10**12), "promises 1000000000000 vertices"),
        (".ply", ply(10**12, form="ascii"), "promises 1000000000000 vertices"),
        (".ply", ply("9" * 40), "no count"),
        (".ply", ply(-5), "no count"),
        (".ply", ply(101), "promises 101"),
        (".ply", ply(0, b""), "non-empty"),
        (".ply", ply(form="ascii", body=LINES.replace("\n", " nan\n", 1).encode()[:400]), "promises|cut off"),
        (".ply", ply(form="ascii", body=("nan" + LINES[LINES.index(" ") :]).encode()), "1 of the 300"),
        (".ply", ply(form="ascii", body=("inf" + LINES[LINES.index(" ") :]).encode()), "1 of the 300"),
        (".ply", ply(form="ascii", body=("a" + LINES).encode()), "damaged"),
        (".ply", ply(form="ascii", body=LINES[: len(LINES) * 3 // 4].encode() + b" " * 500), "damaged"),
        (".ply", ply(more="property list uint float x\nproperty float y\nproperty float z\n"), "lists"),
        (".ply", ply(more="property float x\nproperty float y\n"), "without x, y and z"),
        (".ply", ply(more="property float x\nproperty float x\nproperty float y\nproperty float z\n"), "one name"),
        (".ply", ply(more="property quad x\nproperty float y\nproperty float z\n"), "means nothing"),
        (".ply", ply(form="binary_middle_endian"), "PLY format"),
        (".ply", b"ply\nformat ascii 1.0\nproperty float x\nend_header\n", "means nothing"),
        (".ply", b"ply\nformat ascii 1.0\nend_header\n", "no vertices"),
        (".npy", npy(CLOUD)[:50], "NPY header"),
        (".npy", npy(CLOUD)[:-8], "declares"),
        (".npy", npy_claiming("(1000000000000, 3)"), "at most 10000000000 x 64"),
        (".npy", npy_claiming("(1000000000, 3)"), "declares"),
        (".npy", npy_claiming("(-3, 3)"), "(-3, 3)"),
        (".npy", npy_claiming("(" * 300), "NPY header"),
        (".npy", npy_claiming("(100, 3)", CLOUD.tobytes(), "|O"), "pickled"),
        (".npy", npy(np.array([{"a": 1}] * 100), allow_pickle=True), "pickled"),
        (".npy", npy(CLOUD[:, :2]), "(100, 2)"),
        (".npy", npy(CLOUD[None]), "(1, 100, 3)"),
        (".npy", npy(CLOUD.astype(np.complex64)), "plain numbers"),
        (".npy", b"\x93NUMPY\x03\x00" + bytes(100), "version"),
        (".npz", b"PK\3\4 cut off", "damaged"),
        (".npz", packed({"a.npy": npy(CLOUD), "b.npy": npy(CLOUD)}), "call the one to read 'points'"),
        (".npz", packed({"a.txt": b"x"}), "0 arrays"),
        (".npz", packed({"../x.npy": npy(np.array([None] * 100), allow_pickle=True)}), "pickled"),
        (".npz", packed({"points.npy": npy_claiming("(100000000, 3)", bytes(1000))}), "declares"),
        (".h5", b"not hdf", "damaged"),
        (".xyz", b"\n\n# only a comment\n", "no line of numbers"),
        (".xyz", b"1 2 3\n4 5\n", "not 3 numbers"),
        (".xyz", b"1 2 3\n4 5 six\n", "not 3 numbers"),
        (".xyz", b"1 " * 5000, "more than 4096 bytes"),
        (".csv", b"a,b,c\n1,2,3\n", "neither numbers nor the column names"),
        (".xyz", LINES.encode().replace(b"\n", b" 1e999\n", 1).replace(b" ", b" nan ", 1), "not 3 numbers|NaN"),
        (".doc", LINES.encode(), "suffix"),
    ],
)
def test_refused(suffix: str, data: bytes, says: str, tmp_path: Path) -> None:
    message = refused(tmp_path / f"cloud{suffix}", data)
    assert any(part in message for part in says.split("|")), message


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (CLOUD[:1], "1 points"),
        (CLOUD[:3], "3 points"),
        (CLOUD[:63], "63 points"),
        (np.linspace(0, 1, 100)[:, None] * [[1.0, 2.0, -0.5]] + 3, "one line"),
        (np.full((100, 3), 0.7), "equal"),
        (np.zeros((100, 3)), "equal"),
        (np.where(CLOUD > 2, np.nan, CLOUD), "NaN"),
        (CLOUD.astype(np.float64) * 1e300, "infinite"),
        (CLOUD[:, :2], "(N, 3)"),
        (CLOUD.astype(str), "numbers"),
    ],
)
def test_clouds_without_a_shape(points: np.ndarray, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        Points(points)
    assert says in str(caught.value)


def test_a_flat_cloud_is_a_shape() -> None:
    flat = CLOUD * np.float32([1, 0, 1])
    assert np.array_equal(Points(flat).points, flat)


def test_colours_have_to_fit_the_points() -> None:
    with pytest.raises(BadInput, match="colours"):
        Points(CLOUD, np.zeros((99, 3), np.uint8))


def h5(path: Path, build: Callable[..., None]) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        build(h5py, file)
    return path


def external(h5py: object, file: dict) -> None:
    file["points"] = h5py.ExternalLink("/etc/passwd", "/points")


def soft(h5py: object, file: dict) -> None:
    file["other"] = CLOUD
    file["points"] = h5py.SoftLink("/other")


def outside(h5py: object, file: object) -> None:
    file.create_dataset("points", (100, 3), "f4", external=[("/etc/passwd", 0, 1200)])


def virtual(h5py: object, file: object) -> None:
    layout = h5py.VirtualLayout((100, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "points", (100, 3))
    file.create_virtual_dataset("points", layout)


def group(h5py: object, file: object) -> None:
    file.create_group("points")


def unnamed(h5py: object, file: dict) -> None:
    file["cloud"] = CLOUD


def plugin(h5py: object, file: object) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((10, 3))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # Zstandard, which comes as a plug-in
    space = h5py.h5s.create_simple((100, 3))
    h5py.h5d.create(file.id, b"points", h5py.h5t.NATIVE_FLOAT, space, plist)


def huge(h5py: object, file: object) -> None:
    file.create_dataset("points", (10**9, 3), "f4", chunks=(10**8, 3))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (external, "links are not followed"),
        (soft, "links are not followed"),
        (outside, "no data set stored in this file"),
        (virtual, "no data set stored in this file"),
        (group, "no data set"),
        (unnamed, "no data set 'points'"),
        (plugin, "filter 32015"),
        (huge, "chunks"),
    ],
)
def test_h5_that_leads_elsewhere(build: Callable[..., None], says: str, tmp_path: Path) -> None:
    opened: list[str] = []
    path = h5(tmp_path / "cloud.h5df", build)
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
    with pytest.raises(BadInput) as caught:
        Points.open(path)
    assert says in str(caught.value)
    assert not any("passwd" in name for name in opened)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "cloud.h5df").write_bytes(b"\x89HDF")
    with pytest.raises(MissingDependency, match=r"wala-formats"):
        Points.open(tmp_path / "cloud.h5df")


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".obj", obj("f 1/999999999 2 3")),
        (".obj", obj("f 1 2 999999999")),
        (".obj", obj("f 1 2 2")),
        (".obj", b"v 0 0 0\n" * 5),
        (".stl", bytes(80) + struct.pack("<I", 2**31) + bytes(50)),
        (".glb", b"glTF" + struct.pack("<II", 2, 2**31) + bytes(50)),
        (".ply", ply(more="property float x\nproperty float y\nproperty float z\nelement face 2147483647\n"
                          "property list uint int vertex_indices\n")),
        (".3mf", packed({"3D/3dmodel.model": b"<model/>"})),
    ],
)  # fmt: skip
def test_meshes_that_lie(suffix: str, data: bytes, tmp_path: Path) -> None:
    refused(tmp_path / f"mesh{suffix}", data)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".ply", ".npy", ".npz", ".xyz", ".csv"]),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=5),
    keep=st.integers(1, 3000),
)
def test_damaged_bytes_never_raise_anything_else(
    suffix: str, changes: list[tuple[int, int]], keep: int, tmp_path: Path
) -> None:
    whole = {
        ".ply": ply(), ".npy": npy(CLOUD), ".npz": packed({"points.npy": npy(CLOUD)}), ".xyz": LINES.encode(),
        ".csv": b"x,y,z\n" + LINES.replace(" ", ",").encode(),
    }[suffix]  # fmt: skip
    data = bytearray(whole[:keep])
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / f"cloud{suffix}"
    path.write_bytes(data)
    try:
        cloud = Points.open(path)
    except BadInput as error:
        assert "cloud" in str(error) or "points" in str(error)
    else:
        assert np.isfinite(cloud.points).all() and len(cloud.points) >= 64
