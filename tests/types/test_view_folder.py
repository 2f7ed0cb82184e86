"""Views written to a folder are the views that are read back; nothing of anybody else is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anyform.errors import BadInput
from anyform.types.camera import Cameras, alternating_orbit
from anyform.types.prompt import Views
from anyform.types.view_folder import check_view_folder, write_view_folder


@pytest.fixture
def views() -> Views:
    angles = alternating_orbit(3, 0.2)
    cameras = Cameras.orbit(angles[:, 0], angles[:, 1], 3.0, np.radians(40.0), 16)
    wide = Cameras(cameras.camera_to_world, cameras.fov_y, 16, 24)
    pixels = np.random.default_rng(0).integers(1, 256, (3, 16, 24, 4)).astype(np.float32) / 255
    return Views("rgb", pixels, wide)


def test_a_round_trip_is_exact(views: Views, tmp_path: Path) -> None:
    write_view_folder(views, tmp_path / "views")
    back = Views.open(tmp_path / "views")
    assert np.allclose(back.pixels, views.pixels, atol=1e-6)
    assert np.allclose(back.cameras.camera_to_world, views.cameras.camera_to_world)
    assert np.allclose(back.cameras.fov_y, views.cameras.fov_y)
    table = json.loads((tmp_path / "views" / "transforms.json").read_text(encoding="utf-8"))
    focal_x = 24 / 2 / np.tan(table["camera_angle_x"] / 2)
    assert focal_x == pytest.approx(16 / 2 / np.tan(np.radians(20)))  # square pixels
    assert (table["w"], table["h"]) == (24, 16)


def test_folders_are_replaced_only_if_they_are_ours_and_only_when_asked(views: Views, tmp_path: Path) -> None:
    folder = tmp_path / "views"
    write_view_folder(views, folder)
    with pytest.raises(BadInput, match="--force"):
        write_view_folder(views, folder)
    write_view_folder(views, folder, force=True)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").write_bytes(b"x")
    with pytest.raises(BadInput, match="other things"):
        write_view_folder(views, other, force=True)
    assert (other / "me.jpg").exists()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(BadInput, match="no folder"):
        check_view_folder(tmp_path / "file", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos", "views"]


def test_depth_views_are_no_pictures(views: Views, tmp_path: Path) -> None:
    depth = Views("depth", np.ones((3, 16, 24, 1), np.float32), views.cameras)
    with pytest.raises(BadInput, match="depth views"):
        write_view_folder(depth, tmp_path / "views")
