"""Point clouds: every format gives the same points, and meshes give points of their surface."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from anyform.types import prompt
from anyform.types.prompt import Points, describe
from anyform.types.readers import archive, ply, points

CLOUD = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
COLOURS = np.random.default_rng(2).integers(2, 256, (200, 3)).astype(np.uint8)


def text(separator: str, columns: np.ndarray, head: str = "") -> bytes:
    return (head + "\n".join(separator.join(f"{v:.9g}" for v in row) for row in columns)).encode()


def ply_bytes(form: str, points_first: bool = True) -> bytes:
    types = "property double x\nproperty double y\nproperty double z\nproperty short label\n"
    types += "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    cameras = "element camera 2\nproperty float f\n"
    order = "<" if form == "binary_little_endian" else ">"
    row = np.dtype([("p", order + "f8", 3), ("label", order + "i2"), ("c", "u1", 3)])
    rows = np.zeros(200, row)
    rows["p"], rows["label"], rows["c"] = CLOUD, 7, COLOURS
    body, extra = rows.tobytes(), np.ones(2, order + "f4").tobytes()
    if form == "ascii":
        body = "".join(f"{' '.join(map(repr, p.tolist()))} 7 {' '.join(map(str, c))}\n" for p, _, c in rows).encode()
        extra = b"1\n1\n"
    vertices = f"element vertex 200\n{types}"
    elements = vertices + cameras if points_first else cameras + vertices
    head = f"ply\nformat {form} 1.0\ncomment made by a test\n{elements}end_header\n".encode()
    return head + (body + extra if points_first else extra + body)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


BOTH = np.concatenate([CLOUD, COLOURS], 1)


@pytest.mark.parametrize(
    ("name", "data", "coloured"),
    [
        ("a.ply", ply_bytes("ascii"), True),
        ("a.ply", ply_bytes("binary_little_endian"), True),
        ("a.ply", ply_bytes("binary_big_endian", points_first=False), True),
        ("a.ply", ply_bytes("ascii", points_first=False), True),
        ("a.npy", npy(CLOUD), False),
        ("a.npy", npy(CLOUD.astype(">f8")), False),
        ("a.npy", npy(np.asfortranarray(CLOUD)), False),
        ("a.npy", npy(BOTH), True),
        ("a.npz", npz(points=CLOUD, normals=CLOUD[:9]), False),
        ("a.npz", npz(anything=BOTH), True),
        ("a.xyz", text(" ", CLOUD), False),
        ("a.txt", text("\t", BOTH, "# x y z r g b\n// more\n\n"), True),
        ("a.csv", text(",", BOTH[:, [3, 0, 1, 2, 4, 5]], "red,x,y,z,green,blue\n"), True),
        ("a.csv", text(";", CLOUD), False),
        ("a.pts", text(" ", np.insert(BOTH, 3, 9, axis=1), "200\n"), True),
        ("a.xyz", text(" ", np.concatenate([CLOUD, CLOUD / np.linalg.norm(CLOUD, axis=1)[:, None]], 1)), False),
    ],
)
def test_every_format_gives_the_same_cloud(name: str, data: bytes, coloured: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    cloud = Points.open(tmp_path / name)
    assert cloud.points.dtype == np.float32 and np.allclose(cloud.points, CLOUD, rtol=1e-6, atol=0)
    assert (cloud.colors is not None) == coloured
    if cloud.colors is not None:
        assert np.array_equal(cloud.colors, COLOURS)


@pytest.mark.parametrize("suffix", [".h5", ".h5df", ".hdf5"])
def test_h5(suffix: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / f"a{suffix}", "w") as file:
        file.create_dataset("points", data=CLOUD, chunks=(16, 3), compression="gzip", shuffle=True)
    assert np.array_equal(Points.open(tmp_path / f"a{suffix}").points, CLOUD)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.ply", "a.xyz", "a.h5", "ascii.ply"])
def test_long_clouds_are_thinned_evenly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (points, prompt):
        monkeypatch.setattr(module, "MAX_POINTS", 70)
    monkeypatch.setattr(archive, "_CHUNK", 12 * 33)  # several blocks
    monkeypatch.setattr(points, "_LINES", 33)
    path = tmp_path / name
    if name == "a.h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["points"] = CLOUD
    else:
        path.write_bytes(
            {"a.npy": npy(CLOUD), "a.npz": npz(points=CLOUD), "a.ply": ply_bytes("binary_little_endian"),
             "a.xyz": text(" ", CLOUD), "ascii.ply": ply_bytes("ascii")}[name]
        )  # fmt: skip
    cloud = points.read_points(path)[0]
    step = -(-200 // 70) if name != "a.xyz" else 4  # lines are not counted before they are read: the step doubles
    assert np.allclose(cloud, CLOUD[::step], rtol=1e-6, atol=0)


def test_the_constructor_thins_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "MAX_POINTS", 150)
    with pytest.warns(UserWarning, match="200 points thinned to 150"):
        cloud = Points(CLOUD, COLOURS)
    assert cloud.colors is not None and len(cloud.points) == len(cloud.colors) == 150
    rows = {tuple(p): tuple(c) for p, c in zip(CLOUD.tolist(), COLOURS.tolist(), strict=True)}
    assert all(rows[tuple(p)] == tuple(c) for p, c in zip(cloud.points.tolist(), cloud.colors.tolist(), strict=True))


def test_map_coordinates_are_moved_to_the_origin(tmp_path: Path) -> None:
    far = CLOUD.astype(np.float64) + np.array([5_400_000.0, 0, 650_000.0])
    (tmp_path / "a.npy").write_bytes(npy(far))
    with pytest.warns(UserWarning, match="far from the origin"):
        cloud = Points.open(tmp_path / "a.npy")
    assert np.allclose(cloud.points, CLOUD - CLOUD.mean(0), atol=1e-4)


@pytest.mark.parametrize(
    ("values", "colours"),
    [
        (np.array([[0.0, 0.5, 1.0], [0.2, 0.2, 0.2]]), [[0, 128, 255], [51, 51, 51]]),
        (np.array([[0, 128, 255], [1, 2, 3]]), [[0, 128, 255], [1, 2, 3]]),
        (np.array([[1, 0, 0], [1, 1, 0]], np.uint8), [[1, 0, 0], [1, 1, 0]]),
        (np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]), None),
        (np.array([[-0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]), None),
        (np.array([[300, 0, 0], [0, 0, 0]]), None),
        (np.array([[np.nan, 0, 0], [0, 0, 0]]), None),
    ],
)
def test_what_counts_as_colours(values: np.ndarray, colours: list | None) -> None:
    found = points.as_colours(values)
    assert (found is None) if colours is None else np.array_equal(found, colours)


def test_a_ply_with_faces_is_a_mesh(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    (tmp_path / "a.ply").write_text(head, encoding="utf-8")
    assert ply.read_ply(tmp_path / "a.ply", 10) is None


def test_points_of_a_mesh_lie_on_it_spread_by_area(tmp_path: Path) -> None:
    # a unit square in the plane y = 2 and a triangle of a quarter of its area in the plane x = 5
    lines = ["v 0 2 0", "v 1 2 0", "v 1 2 1", "v 0 2 1", "v 5 0 0", "v 5 1 0", "v 5 0 .5", "f 1 2 3 4", "f 5 6 7"]
    (tmp_path / "a.obj").write_text("\n".join(lines) + "\n", encoding="utf-8")
    cloud = Points.open(tmp_path / "a.obj").points
    square = cloud[:, 0] < 3
    assert len(cloud) == 25_000 and abs(square.mean() - 0.8) < 0.01
    assert np.allclose(cloud[square, 1], 2) and np.allclose(cloud[~square, 0], 5)
    assert np.abs(cloud[square].mean(0) - [0.5, 2, 0.5]).max() < 0.01
    assert np.abs(cloud[~square].mean(0) - [5, 1 / 3, 1 / 6]).max() < 0.01
    assert np.array_equal(Points.open(tmp_path / "a.obj").points, cloud)


def test_the_description_tells_colours_apart() -> None:
    plain, coloured = describe(Points(CLOUD)), describe(Points(CLOUD, COLOURS))
    assert plain["kind"] == coloured["kind"] == "points" and plain["sha256"] != coloured["sha256"]
    assert describe(Points(CLOUD.astype(np.float64))) == plain


def test_a_zip_is_read_without_unpacking(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        packed.writestr("../../evil.npy", npy(CLOUD))
    before = sorted(tmp_path.parent.rglob("*"))
    assert np.array_equal(Points.open(tmp_path / "a.npz").points, CLOUD)
    assert sorted(tmp_path.parent.rglob("*")) == before
