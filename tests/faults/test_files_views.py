"""Bad folders and zips of views (expectations.md §4.3 rows 18-20)."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from anyform.errors import BadInput
from anyform.types.camera import Cameras
from anyform.types.prompt import Views

SIZE = 16
POSES = Cameras.orbit(np.array([0.0, 1.5, 3.0]), np.full(3, 0.3), 4.0, 0.7, SIZE).camera_to_world


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def picture(i: int, size: int = SIZE) -> bytes:
    return png(np.random.default_rng(i).integers(0, 256, (size, size, 3)).astype(np.uint8))


def depth(distance: float = 4.0) -> np.ndarray:
    values = np.full((SIZE, SIZE), np.inf, np.float32)
    values[4:12, 4:12] = distance
    return values


def transforms(files: list[str], **changes: Any) -> bytes:
    frames = [{"file_path": file, "transform_matrix": pose.tolist()} for file, pose in zip(files, POSES, strict=False)]
    table = {"fov_y": 0.7, "frames": frames, **changes}
    return json.dumps({key: value for key, value in table.items() if value is not None}).encode()


def good() -> dict[str, bytes]:
    names = [f"{i}.png" for i in range(3)]
    return {"transforms.json": transforms(names), **{name: picture(i) for i, name in enumerate(names)}}


def with_pose(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, bytes]:
    table = json.loads(transforms(["0.png", "1.png", "2.png"]))
    table["frames"][1]["transform_matrix"] = change(POSES[1].copy()).tolist()
    return {**good(), "transforms.json": json.dumps(table).encode()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def refused(path: Path, kind: str = "rgb") -> str:
    with pytest.raises(BadInput) as caught:
        Views.open(path, kind=kind)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 and str(path.parent) not in message
    return message


def mirrored(pose: np.ndarray) -> np.ndarray:
    pose[:3, 0] *= -1
    return pose


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "0 views"),
        ({"transforms.json": b"{}"}, "0 views"),
        ({**good(), "transforms.json": b"[]"}, "has to be an object"),
        ({**good(), "transforms.json": b'{"frames": 5}'}, "list"),
        ({**good(), "transforms.json": b'{"frames": [5]}'}, "file_path"),
        ({**good(), "transforms.json": b'{"frames": [{"file_path": "0.png"}]}'}, "4 x 4"),
        ({**good(), "transforms.json": b'{"frames": [], "frames": []}'}, "same key twice"),
        ({**good(), "transforms.json": b'{"fov_y": NaN}'}, "holds NaN"),
        ({**good(), "transforms.json": transforms([])}, "0 views"),
        ({**good(), "transforms.json": transforms(["0.png", "nine.png"])}, "'nine.png', which is not there"),
        ({**good(), "transforms.json": transforms(["/etc/passwd"])}, "leads outside"),
        ({**good(), "transforms.json": transforms(["../views/0.png"])}, "leads outside"),
        ({**good(), "transforms.json": transforms(["0.png", "0.png"])}, "same picture"),
        ({**good(), "transforms.json": transforms(["0.png"], fov_y=None)}, "no field of view"),
        ({**good(), "transforms.json": transforms(["0.png"], fov_y=40)}, "degrees"),
        ({**good(), "transforms.json": transforms(["0.png"], fov_y=None, camera_angle_x=60.0)}, "degrees"),
        ({**good(), "transforms.json": transforms(["0.png"], fov_y="wide")}, "positive number"),
        ({**good(), "transforms.json": transforms(["0.png"], up="x")}, "up is"),
        ({**good(), "1.png": good()["0.png"]}, "are the same picture"),
        ({**good(), "1.png": picture(1, 20)}, "different sizes"),
        ({**good(), "1.png": b"not a picture"}, "no picture"),
        ({**good(), "1.png": picture(1)[:-60]}, "damaged"),
        (with_pose(mirrored), "camera 1 is not a rigid motion"),
        (with_pose(lambda pose: pose * 1.1), "camera 1 is not a rigid motion"),
        (with_pose(lambda pose: np.zeros((4, 4))), "camera 1 is not a rigid motion"),
        (with_pose(lambda pose: POSES[0]), "two of the 3 cameras are the same"),
        (with_pose(lambda pose: pose[:3]), "4 x 4"),
        ({"0.png": picture(0), "1.png": picture(1)}, "does not end in a view id"),
        ({"view.png": picture(0)}, "does not end in a view id"),
        ({"3.png": picture(0), "view_03.png": picture(1)}, "two pictures of view 3"),
        ({"3.png": picture(0), "6.png": picture(0)}, "are the same picture"),
        ({"3.png": png(np.arange(960, dtype=np.uint8).reshape(16, 20, 3))}, "square"),
        ({"a.json": b"{}", "b.json": b"{}", "3.png": picture(0)}, "2 JSON files"),
    ],
)
def test_refused(files: dict[str, bytes], says: str, tmp_path: Path) -> None:
    assert says in refused(write(tmp_path / "views", files))


def test_one_view_given_as_eight(tmp_path: Path) -> None:
    ids = [3, 6, 10, 26, 41, 42, 43, 44]
    message = refused(write(tmp_path / "views", {f"{i}.png": picture(0) for i in ids}))
    assert "same picture" in message and "image prompt" in message


def test_too_many_views_and_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = transforms(["0.png"] * 3)
    many = json.loads(table)["frames"] * 30
    files = {**good(), "transforms.json": json.dumps({"fov_y": 0.7, "frames": many}).encode()}
    assert "at most 64" in refused(write(tmp_path / "many", files))
    monkeypatch.setattr("anyform.types.readers.views.MAX_TOTAL_PIXELS", 700)
    assert "3 views of 16 x 16 pixels" in refused(write(tmp_path / "large", good()))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"3.npy": npy(np.full((16, 16), np.inf))}, "background everywhere"),
        ({"3.npy": npy(np.zeros((16, 16)))}, "background everywhere"),
        ({"3.npy": npy(-depth())}, "negative"),
        ({"3.npy": npy(np.where(depth() < 9, np.nan, 1))}, "NaN"),
        ({"3.npy": npy(np.array([[None] * 16] * 16))}, "pickled"),
        ({"3.npy": npy(np.ones((4, 16, 16)))}, "2 axes"),
        ({"3.npy": npy(np.ones((4, 16)))}, "at least 8 x 8"),
        ({"3.npy": npy(depth(0.01))}, "do not fit cameras 4.4"),
        ({"3.npy": npy(depth(10**6))}, "do not fit cameras 4.4"),
        ({"3.npy": npy(depth()), "6.npy": npy(depth()[:, 2:])}, "different sizes"),
        ({"3.png": png(np.zeros((16, 16), np.uint16))}, "background everywhere"),
        ({"3.png": png(np.zeros((16, 16), np.uint8))}, "background everywhere"),
        ({"3.png": picture(0)}, "in colours"),
        ({"3.png": png(np.full((16, 16), 9, np.uint8)), "a.json": b'{"near": 5, "far": 5}'}, "smaller than far"),
        ({"3.png": png(np.full((16, 16), 9, np.uint16)), "a.json": b'{"depth_scale": -1}'}, "positive number"),
        ({"0.png": png(np.full((16, 16), 9, np.uint8)), "t.json": transforms(["0.png"])}, "near and far"),
    ],
)
def test_depths_that_are_refused(files: dict[str, bytes], says: str, tmp_path: Path) -> None:
    assert says in refused(write(tmp_path / "depths", files), "depth")


def zipped(path: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            if change:
                change(info)
            archive.writestr(info, data)
    return path


def link(info: zipfile.ZipInfo) -> None:
    if info.filename == "1.png":
        info.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize(
    ("files", "change", "says"),
    [
        ({**good(), "../evil.png": picture(9)}, None, "leads outside"),
        ({**good(), "/etc/evil.png": picture(9)}, None, "leads outside"),
        ({**good(), "C:evil.png": picture(9)}, None, "leads outside"),
        ({**good(), "..\\evil.png": picture(9)}, None, "leads outside"),
        ({**good(), "1.png": b"/etc/passwd"}, link, "symbolic link"),
        ({**good(), "more.zip": b"PK"}, None, "archive in an archive"),
        ({**good(), **{f"{i}.txt": b"" for i in range(4100)}}, None, "at most 4096"),
    ],
)
def test_zips_that_are_refused(files: dict[str, bytes], change: Callable | None, says: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "views.zip", files, change)
    before = sorted(tmp_path.parent.rglob("*"))
    assert says in refused(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_more_zips_that_are_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", good()).read_bytes())
    for place in (6, data.index(b"PK\1\2") + 8):  # the flag "encrypted" in the local and the central header
        data[place] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    assert "encrypted" in refused(tmp_path / "b.zip")
    (tmp_path / "c.zip").write_bytes(b"PK\3\4 no zip")
    assert "no zip" in refused(tmp_path / "c.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("3.png", picture(0))
        archive.writestr("3.png", picture(1))
    assert "same name" in refused(tmp_path / "d.zip")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"IHDR") if b"IHDR" in data else 700] ^= 255  # a stored byte that its checksum contradicts
    (tmp_path / "e.zip").write_bytes(data)
    assert "damaged" in refused(tmp_path / "e.zip")


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    folder = write(tmp_path / "views", good())
    (tmp_path / "secret.png").write_bytes(picture(7))
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to(tmp_path / "secret.png")
    assert "leads outside the folder" in refused(folder)


def test_what_is_no_folder(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none")
    (tmp_path / "a.png").write_bytes(picture(0))
    assert "no zip" in refused(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("kind", "shape", "value", "says"),
    [
        ("rgb", (3, 16, 16, 3), 0.5, "are an array (3, 16, 16, 4)"),
        ("rgb", (2, 16, 16, 4), 0.5, "are an array (3, 16, 16, 4)"),
        ("rgb", (3, 16, 16, 4), 255.0, "[0, 1]"),
        ("rgb", (3, 16, 16, 4), np.nan, "[0, 1]"),
        ("rgb", (3, 16, 16, 4), 0.0, "view 0 is fully transparent"),
        ("depth", (3, 16, 16, 1), np.inf, "depth map 0 is background"),
        ("depth", (3, 16, 16, 1), 0.0, "positive"),
        ("depth", (3, 16, 16, 1), np.nan, "positive"),
        ("both", (3, 16, 16, 1), 1.0, "'rgb' or 'depth'"),
    ],
)
def test_the_constructor_checks_too(kind: Any, shape: tuple[int, ...], value: float, says: str) -> None:
    cameras = Cameras(POSES, np.full(3, 0.7), SIZE, SIZE)
    with pytest.raises(BadInput) as caught:
        Views(kind, np.full(shape, value, np.float32), cameras)
    assert says in str(caught.value)


def test_view_ids_have_to_fit() -> None:
    cameras = Cameras(POSES, np.full(3, 0.7), SIZE, SIZE)
    with pytest.raises(BadInput, match="2 view ids for 3 views"):
        Views("depth", np.ones((3, SIZE, SIZE, 1), np.float32), cameras, (3, 6))
