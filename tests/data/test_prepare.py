from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trimesh.creation import annulus, box, cone

from anyform.data import prepare as module
from anyform.data.prepare import Prepared, prepare
from anyform.data.samples import ViewPlan
from anyform.data.shards import read_shards
from anyform.errors import BadInput, BadSetting, MissingDependency
from anyform.types.progress import Progress

FIXTURES = Path(__file__).parents[2] / "fixtures"
SMALL = ViewPlan(ring=1, wala_ids=(3,), size=24, points=100)

# A process of its own that says each object's name before working on it.
SCRIPT = """
import sys
from anyform.data.prepare import prepare
from anyform.data.samples import ViewPlan

if __name__ == "__main__":
    folder, out, workers = sys.argv[1:]
    plan = ViewPlan(ring=1, wala_ids=(3,), size=24, points=100)
    say = lambda progress: print(progress.message, flush=True)
    prepare(folder, out, size=16, views=plan, shard_size=2, workers=int(workers), report=say)
"""


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sound meshes, one of them a fixture with colours, and three that are none."""
    folder = tmp_path_factory.mktemp("meshes")
    shutil.copy(FIXTURES / "meshes" / "table.glb", folder)
    for name, mesh in (("box", box((1, 2, 3))), ("cone", cone(1, 2)), ("ring", annulus(0.5, 1, 0.4))):
        mesh.export(folder / f"{name}.ply")
    (folder / "cut.glb").write_bytes((folder / "table.glb").read_bytes()[:3000])
    (folder / "point.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", encoding="utf-8")
    (folder / "text.stl").write_text("this is a letter, not a mesh", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(meshes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    result = prepare(meshes, out, size=16, views=SMALL, shard_size=2, workers=0)
    assert result == Prepared(samples=4, rejected=3, shards=4)
    return out


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_samples_are_complete(uninterrupted: Path) -> None:
    samples = {sample.row["name"]: sample for sample in read_shards(uninterrupted)}
    assert sorted(samples) == ["box.ply", "cone.ply", "ring.ply", "table.glb"]
    for sample in samples.values():
        assert sample.sdf.shape == (16, 16, 16) and sample.rgba.shape == (2, 24, 24, 4)
        assert (sample.sdf < 0).any() and (sample.sdf > 0).any()
        assert sample.sketch.shape == sample.depth.shape == (2, 24, 24)
        assert sample.sketch.max() > 0.3 and np.isfinite(sample.depth).any()
        assert sample.points.shape == (100, 3) and np.abs(sample.points).max() <= 0.9005
        assert len(sample.row["captions"]) >= 4 and sample.row["split"] in ("train", "val", "test")
        assert np.array(sample.row["camera_to_world"]).shape == (2, 3, 4)
    assert "a tall box" in samples["box.ply"].row["captions"] or "a long box" in samples["box.ply"].row["captions"]
    # The hole of the ring (its axis is z) is outside.
    assert samples["ring.ply"].sdf[8, 8, 8] > 0


def test_bad_meshes_are_listed_with_their_reasons(uninterrupted: Path) -> None:
    lines = (uninterrupted / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    rejected = {row["name"]: row["reason"] for row in map(json.loads, lines)}
    assert sorted(rejected) == ["cut.glb", "point.obj", "text.stl"]
    assert all(len(reason) > 10 and "\n" not in reason for reason in rejected.values())
    manifest = json.loads((uninterrupted / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["samples"], manifest["rejected"]) == (4, 3)
    assert sum(shard["samples"] for shard in manifest["shards"]) == 4


def test_second_run_does_nothing(meshes: Path, uninterrupted: Path) -> None:
    before = content(uninterrupted)
    seen: list[Progress] = []
    prepare(meshes, uninterrupted, size=16, views=SMALL, shard_size=2, workers=0, report=seen.append)
    assert seen == []
    assert content(uninterrupted) == before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_equals_uninterrupted(
    meshes: Path, uninterrupted: Path, tmp_path: Path, workers: int
) -> None:
    script, out = tmp_path / "run.py", tmp_path / "out"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script), str(meshes), str(out), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(4):  # in the middle of the second shard
            assert process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    assert content(out) == content(uninterrupted)


@pytest.mark.slow
def test_a_worker_that_dies_costs_one_object(meshes: Path, uninterrupted: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_once(progress: Progress) -> None:
        if not killed:
            (child,) = multiprocessing.active_children()
            assert child.pid is not None
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    result = prepare(meshes, tmp_path, size=16, views=SMALL, shard_size=9, workers=1, report=kill_once)
    assert result == Prepared(samples=3, rejected=4, shards=1) or result == Prepared(samples=4, rejected=3, shards=1)
    reasons = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8")
    assert reasons.count("process that worked on it died") == 1
    assert multiprocessing.active_children() == []


def test_other_settings_or_items_are_never_mixed_in(meshes: Path, uninterrupted: Path, tmp_path: Path) -> None:
    for change in ({"size": 20}, {"shard_size": 3}, {"views": ViewPlan(ring=2, wala_ids=(3,), size=24, points=100)}):
        with pytest.raises(BadInput, match="choose another folder"):
            prepare(meshes, uninterrupted, **{"size": 16, "views": SMALL, "shard_size": 2, "workers": 0, **change})
    other = tmp_path / "other"
    shutil.copytree(meshes, other)
    (other / "box.ply").rename(other / "crate.ply")
    with pytest.raises(BadInput, match="items_sha256"):
        prepare(other, uninterrupted, size=16, views=SMALL, shard_size=2, workers=0)


def test_settings_are_checked_before_any_work(meshes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSetting, match="workers is -1"):
        prepare(meshes, tmp_path / "out", workers=-1)
    with pytest.raises(BadSetting, match="0 views"):
        ViewPlan(ring=0, wala_ids=())
    with pytest.raises(BadSetting, match="16383"):
        ViewPlan(size=1024)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="point-cloud-utils"):
        prepare(meshes, tmp_path / "out")
    assert not (tmp_path / "out").exists()
