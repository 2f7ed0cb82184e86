"""Views: cameras from a JSON or from WaLa's ids, and depth in every form it is stored in."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from anyform.types.camera import WALA_VIEWS, Cameras, wala_cameras
from anyform.types.prompt import Views, describe

SIZE = 32
IDS = (3, 6, 10, 26)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def sphere_depth(cameras: Cameras, radius: float = 0.8) -> np.ndarray:
    """(V, H, W) distance along the camera axis to a sphere at the origin, inf beside it; closed form."""
    origins, directions = cameras.rays()
    along = -(origins * directions).sum(-1)
    root = radius**2 - (origins**2).sum(-1) + along**2
    reach = np.where(root >= 0, along - np.sqrt(root.clip(0)), np.inf)
    forward = -cameras.camera_to_world[:, None, None, :3, 2]
    return reach * (directions * forward).sum(-1)


def test_wala_views_are_the_published_ones() -> None:
    assert WALA_VIEWS[0] == (57.37415476, 13.47771793) and WALA_VIEWS[49] == (360.0, 60.0)
    assert WALA_VIEWS[50] == (0.0, -60.0) and WALA_VIEWS[54] == (360.0, -60.0) and WALA_VIEWS[41] == (40.0, 60.0)
    cameras = wala_cameras(list(WALA_VIEWS), 8)
    for (azimuth, elevation), pose in zip(WALA_VIEWS.values(), cameras.camera_to_world, strict=True):
        a, e = math.radians(azimuth), math.radians(elevation)
        at = np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)]) * 4.4
        assert np.allclose(pose[:3, 3], at) and np.allclose(pose[:3, 2], at / 4.4)
        assert np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3)) and pose[1, 1] > 0


def test_wala_cameras_show_the_sphere_of_radius_one_and_a_half() -> None:
    sphere = np.random.default_rng(0).normal(size=(5000, 3))
    pixels = wala_cameras(IDS, 100).project(sphere * (1.5 / np.linalg.norm(sphere, axis=1))[:, None])
    assert pixels[..., :2].min() > 0 and pixels[..., :2].max() < 100 and pixels[..., 2].min() > 2.8


def test_rgb_by_view_ids_in_rising_order(tmp_path: Path) -> None:
    pictures = {i: np.random.default_rng(i).integers(0, 256, (SIZE, SIZE, 4)).astype(np.uint8) for i in IDS}
    names = {3: "view_003.png", 6: "shot6.png", 10: "a10.png", 26: "26.png"}
    views = Views.open(write(tmp_path / "v", {names[i]: png(pictures[i]) for i in reversed(IDS)}))
    assert views.view_ids == IDS and views.kind == "rgb" and views.pixels.dtype == np.float32
    assert np.array_equal(np.rint(views.pixels * 255), np.stack([pictures[i] for i in IDS]))
    assert np.array_equal(views.cameras.camera_to_world, wala_cameras(IDS, SIZE).camera_to_world)


@pytest.mark.parametrize("packed", [False, True])
def test_rgb_by_transforms(packed: bool, tmp_path: Path) -> None:
    cameras = Cameras.orbit(np.array([0.2, 2.0]), np.array([0.1, -0.4]), 3.0, 0.8, SIZE)
    frames = [
        {"file_path": f"./rgb/{name}", "transform_matrix": pose.tolist()}
        for name, pose in zip(("b", "a.png"), cameras.camera_to_world, strict=True)
    ]
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    files = {"rgb/b.png": png(pictures[0]), "rgb/a.png": png(pictures[1]), "rgb/c.png": b"not listed"}
    files["transforms.json"] = json.dumps({"fov_y": 0.8, "frames": frames}).encode()
    if packed:
        source = tmp_path / "v.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for name, data in files.items():
                archive.writestr(f"set/{name}", data)
            archive.writestr("__MACOSX/set/._a.json", b"junk")
    else:
        source = write(tmp_path / "v", files)
    views = Views.open(source, kind="rgb")
    assert np.array_equal(np.rint(views.pixels[..., :3] * 255), pictures) and (views.pixels[..., 3] == 1).all()
    assert np.allclose(views.cameras.camera_to_world, cameras.camera_to_world) and views.view_ids is None
    assert np.allclose(views.cameras.fov_y, 0.8)


@pytest.mark.parametrize(
    ("optics", "fov_y"),
    [
        ({"fov_y": 0.5}, 0.5),
        ({"camera_angle_x": 1.0}, 2 * math.atan(math.tan(0.5) / 2)),
        ({"fl_y": 16.0}, 2 * math.atan(0.5)),
    ],
)
def test_three_ways_to_say_the_field_of_view(optics: dict[str, float], fov_y: float, tmp_path: Path) -> None:
    pose = Cameras.orbit(np.zeros(1), np.zeros(1), 3.0, 1.0, 8).camera_to_world[0].tolist()
    table = {**optics, "frames": [{"file_path": "a.png", "transform_matrix": pose}]}
    picture = np.random.default_rng(0).integers(0, 256, (16, 32, 3)).astype(np.uint8)
    views = Views.open(write(tmp_path / "v", {"a.png": png(picture), "cameras.json": json.dumps(table).encode()}))
    assert np.allclose(views.cameras.fov_y, fov_y) and (views.cameras.height, views.cameras.width) == (16, 32)


def test_a_world_with_z_up_keeps_azimuth_and_elevation(tmp_path: Path) -> None:
    azimuth, elevation = 0.7, 0.3
    at = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(at, right), at, at * 3], 1)
    table = {"up": "z", "fov_y": 0.7, "frames": [{"file_path": "a.png", "transform_matrix": pose.tolist()}]}
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    views = Views.open(write(tmp_path / "v", {"a.png": png(picture), "cameras.json": json.dumps(table).encode()}))
    expected = Cameras.orbit(np.array([azimuth]), np.array([elevation]), 3.0, 0.7, 16)
    assert np.allclose(views.cameras.camera_to_world, expected.camera_to_world)


@pytest.mark.parametrize(
    "form", ["npy", "npy with zeros", "npy in mm", "16 bit", "16 bit scaled", "8 bit", "8 bit near far"]
)
def test_depth_in_every_form_gives_the_sphere_back(form: str, tmp_path: Path) -> None:
    cameras = wala_cameras(IDS, SIZE)
    true = sphere_depth(cameras)
    hit = np.isfinite(true)
    stored, extra, step, message = true, {}, 1e-6, None
    if form == "npy with zeros":
        stored = np.where(hit, true, 0)
    elif form == "npy in mm":
        stored, message = true * 1000, "millimetres"
    elif form == "16 bit":
        stored, step, message = np.where(hit, np.rint(true * 1000), 0).astype(np.uint16), 6e-4, "16-bit depth"
    elif form == "16 bit scaled":
        stored, step = np.where(hit, np.rint(true * 8000), 0).astype(np.uint16), 7e-5
        extra = {"depth_scale": 1 / 8000}
    elif form == "8 bit":
        stored, step = np.where(hit, np.rint((6.0 - true) / 3.2 * 255), 0).astype(np.uint8), 3.2 / 255 * 0.51
    elif form == "8 bit near far":
        stored, step = np.where(hit, np.rint((5.5 - true) / 2.5 * 255), 0).astype(np.uint8), 2.5 / 255 * 0.51
        extra = {"near": 3.0, "far": 5.5}
    encode, suffix = (npy, "npy") if form.startswith("npy") else (png, "png")
    files = {f"{i}.{suffix}": encode(picture) for i, picture in zip(IDS, stored, strict=True)}
    if extra:
        files["depth.json"] = json.dumps(extra).encode()
    folder = write(tmp_path / "d", files)
    if message:
        with pytest.warns(UserWarning, match=message) as caught:
            views = Views.open(folder, kind="depth")
        assert len(caught) == 1
    else:
        views = Views.open(folder, kind="depth")
    assert np.array_equal(np.isfinite(views.pixels[..., 0]), hit)
    assert np.abs(views.pixels[..., 0][hit] - true[hit]).max() <= step
    points = np.concatenate(views.cameras.unproject(views.pixels[..., 0]))
    assert np.abs(np.linalg.norm(points, axis=1) - 0.8).max() < 0.05


def test_transparent_depth_is_background(tmp_path: Path) -> None:
    grey = np.full((SIZE, SIZE), 100, np.uint8)
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[8:24, 8:24] = 255
    views = Views.open(write(tmp_path / "d", {"3.png": png(np.dstack([grey, grey, grey, alpha]))}), kind="depth")
    assert np.array_equal(np.isfinite(views.pixels[0, ..., 0]), alpha > 0)


def test_the_description_includes_the_cameras() -> None:
    pixels = np.ones((1, 8, 8, 1), np.float32)
    first, second = (Views("depth", pixels, wala_cameras([i], 8), (i,)) for i in (3, 6))
    assert describe(first)["kind"] == "depths" and describe(first)["sha256"] != describe(second)["sha256"]
    assert describe(first) == describe(Views("depth", pixels.copy(), wala_cameras([3], 8)))
    rgb = np.full((1, 8, 8, 4), 0.5, np.float32)
    assert describe(Views("rgb", rgb, wala_cameras([3], 8)))["kind"] == "views"
