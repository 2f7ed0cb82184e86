from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyform.data.corpus import Catalogue, MeshFolder, face_colours, open_collection
from anyform.errors import BadInput
from anyform.geometry.mesh import Material, Mesh

FIXTURES = Path(__file__).parents[2] / "fixtures"
ROW = {
    "id": "aa00",
    "caption": "tiny table",
    "name": "Tiny Table",
    "tags": ["Wood"],
    "category": "Living room",
    "source": "somewhere",
    "license": "CC0-1.0",
    "author": "Somebody",
    "split": "val",
    "faces": 1,
}


def write_corpus(folder: Path, rows: list[dict[str, Any]], members: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "catalog.json").write_text(json.dumps(rows), encoding="utf-8")
    with zipfile.ZipFile(folder / "objects.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, allow_pickle=True, **arrays)
    return out.getvalue()


def triangle() -> bytes:
    vertices = np.array([[-32767, 0, 0], [32767, 0, 0], [0, 16384, 0]], np.int16)
    return npz(vertices=vertices, faces=np.array([[0, 1, 2]], np.uint16), face_rgb=np.array([[9, 8, 7]], np.uint8))


def test_catalogue_rows_and_shapes(tmp_path: Path) -> None:
    collection = open_collection(write_corpus(tmp_path / "corpus", [ROW], {"aa00.npz": triangle()}))
    assert isinstance(collection, Catalogue)
    (item,) = collection.items
    assert (item.id, item.caption, item.split, item.tags) == ("aa00", "tiny table", "val", ("Wood",))
    assert (item.licence, item.author, item.source) == ("CC0-1.0", "Somebody", "somewhere")
    shape = collection.read(item)
    assert np.isclose(np.ptp(shape.vertices, axis=0).max(), 1, atol=1e-4)
    assert shape.vertices.dtype == np.float64 and shape.faces.dtype == np.int64
    assert shape.face_rgb.tolist() == [[9, 8, 7]]


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"aa00.npz": b"no archive"},
        {"aa00.npz": triangle()[:-40]},
        {"aa00.npz": npz(vertices=np.zeros((3, 3), np.int16))},
        {"aa00.npz": npz(vertices=np.array([{"a": 1}], object), faces=np.zeros((1, 3)), face_rgb=np.zeros((1, 3)))},
    ],
    ids=["missing", "garbage", "cut short", "arrays missing", "pickled"],
)
def test_damaged_object_is_bad_input_with_its_id(tmp_path: Path, members: dict[str, bytes]) -> None:
    collection = open_collection(write_corpus(tmp_path / "corpus", [ROW], members))
    with pytest.raises(BadInput, match="aa00"):
        collection.read(collection.items[0])


@pytest.mark.parametrize("rows", [{"a": 1}, [{"id": "x"}], [{**ROW, "split": "holdout"}], [3]])
def test_damaged_catalogue_is_bad_input(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(BadInput, match=r"catalog\.json"):
        open_collection(write_corpus(tmp_path / "corpus", rows, {}))


def test_mesh_folder_is_sorted_stable_and_split_by_path() -> None:
    first, second = open_collection(FIXTURES / "meshes"), open_collection(FIXTURES / "meshes")
    assert isinstance(first, MeshFolder)
    names = [item.name for item in first.items]
    assert names == sorted(names) and "chair.glb" in names
    assert first.items == second.items
    assert next(item.caption for item in first.items if item.name == "desk_lamp.glb") == "desk lamp"
    assert len({item.id for item in first.items}) == len(names)


def test_hash_split_shares(tmp_path: Path) -> None:
    for index in range(300):
        (tmp_path / f"{index}.obj").touch()
    splits = [item.split for item in open_collection(tmp_path).items]
    assert 0.82 < splits.count("train") / 300 < 0.97
    assert min(splits.count("val"), splits.count("test")) > 3


def test_fixture_chair_is_read_with_its_colours() -> None:
    collection = open_collection(FIXTURES / "meshes")
    shape = collection.read(next(item for item in collection.items if item.name == "chair.glb"))
    blue = (shape.face_rgb[:, 2] > shape.face_rgb[:, 0].astype(int) + 15).mean()
    assert len(shape.faces) == len(shape.face_rgb) > 1000
    assert 0.05 < blue < 0.6  # the cushion


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_folder_without_meshes_is_refused(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / content).write_text("nothing here", encoding="utf-8")
    with pytest.raises(BadInput, match="no mesh file"):
        open_collection(tmp_path)
    with pytest.raises(BadInput, match="not a folder"):
        open_collection(tmp_path / "absent")


def quad(**more: Any) -> Mesh:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    return Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), **more)


def test_face_colours_from_every_source() -> None:
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4] = (200, 10, 20)  # row 0 is the top, v = 1
    texture[4:] = (10, 20, 200)
    high = np.full((4, 2), 0.9, np.float32)
    assert face_colours(quad(uv=high, material=Material(base_color=texture))).tolist() == [[200, 10, 20]] * 2
    assert face_colours(quad(uv=high * 0.1, material=Material(base_color=texture))).tolist() == [[10, 20, 200]] * 2
    red = np.tile(np.float32([1, 0, 0]), (4, 1))
    assert face_colours(quad(vertex_color=red)).tolist() == [[255, 0, 0]] * 2
    linear_half = Material(base_color_factor=(0.21586, 1, 0, 1))
    assert face_colours(quad(material=linear_half)).tolist() == [[128, 255, 0]] * 2
    grey = face_colours(quad())
    assert (grey == grey[0, 0]).all() and 100 < grey[0, 0] < 220
