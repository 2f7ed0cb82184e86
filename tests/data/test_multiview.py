"""Multi-view pictures: where the cameras stand, that the ball fits, and that an interrupted run goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from anyform import cli
from anyform.data.corpus import open_collection
from anyform.data.multiview import MultiviewPlan, ViewArrays, make_views, read_rows, write_views
from anyform.errors import BadInput, BadSetting
from anyform.types.camera import alternating_orbit

PLAN = MultiviewPlan(num_ring=4, num_free=2, size=16, supersampling=1)


@pytest.fixture(scope="module")
def meshes(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meshes")
    for name in ("mug", "table"):
        shutil.copy(fixtures / "meshes" / f"{name}.glb", folder)
    (folder / "broken.glb").write_bytes(b"no mesh")
    return folder


@pytest.fixture(scope="module")
def written(meshes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("views")
    assert write_views(open_collection(meshes), out, PLAN) == {"objects": 2, "refused": 1, "views": 6}
    return out


def test_the_preset_orbit_alternates() -> None:
    angles = np.degrees(alternating_orbit(8, np.radians(3)))
    assert np.allclose(angles[:, 0], 3 + 45 * np.arange(8))
    assert np.allclose(angles[:, 1], [20, -5] * 4)


def test_pictures_show_the_object_whole_from_cameras_that_are_told(written: Path) -> None:
    arrays = ViewArrays.open(written)
    assert arrays.rgba.shape == (3, 6, 16, 16, 4) and len(arrays.rows) == 2
    for row in arrays.rows:
        assert row["caption"] in ("mug", "table") and row["caption"] in row["captions"]
        pictures, cameras = arrays.pictures(row["index"]), arrays.cameras(row["index"])
        alpha = pictures[..., 3]
        assert (alpha.max((1, 2)) > 0.9).all()
        frame = np.ones((16, 16), bool)
        frame[1:-1, 1:-1] = False
        assert alpha[:, frame].max() == 0  # the ball of radius .9 leaves a margin
        distance = np.linalg.norm(cameras.camera_to_world[:, :3, 3], axis=1)
        assert np.allclose(distance, 3.0, atol=1e-5)
        ring = np.degrees(arrays.angles[row["index"], :4])
        assert np.allclose(np.diff(ring[:, 0]), 90, atol=1e-3) and abs(ring[0, 0]) <= 10
        free = np.degrees(arrays.angles[row["index"], 4:])
        assert (free[:, 1] >= -10).all() and (free[:, 1] <= 60).all()


def test_a_finished_run_is_kept_and_a_broken_one_goes_on(meshes: Path, written: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    shutil.copytree(written, out)
    whole = np.load(written / "rgba.npy")
    rows = (out / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    (out / "rows.jsonl").write_text(rows[0] + "\n" + rows[1][:20], encoding="utf-8")
    array = np.lib.format.open_memmap(out / "rgba.npy", mode="r+")
    array[1:] = 0
    array.flush()
    write_views(open_collection(meshes), out, PLAN)
    assert [row["index"] for row in read_rows(out)] == [0, 1, 2]
    assert np.array_equal(np.load(out / "rgba.npy"), whole)
    with pytest.raises(BadInput, match="another plan"):
        write_views(open_collection(meshes), out, MultiviewPlan(num_ring=2, num_free=2, size=16))


def test_the_same_object_gives_the_same_pictures(meshes: Path) -> None:
    collection = open_collection(meshes)
    item = next(item for item in collection.items if item.caption == "mug")
    one, two = (make_views(item, collection.read(item), PLAN) for _ in range(2))
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


def test_folders_and_plans_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="anyform data views"):
        ViewArrays.open(tmp_path)
    with pytest.raises(BadSetting, match="ring of 2"):
        MultiviewPlan(num_ring=1)


def test_the_command(meshes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--size", "8", "--ring", "2", "--free", "1", "--json"]
    assert cli.main(["data", "views", str(meshes), "-o", str(out), *arguments]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {"ok": True, "objects": 2, "refused": 1, "views": 3}
    assert cli.main(["data", "views", str(meshes), "-o", str(out), "--size", "1"]) == 2
