from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anyform.data.shards import DEPTH_SCALE, TRUNCATION, Sample, read_shard, read_shards, write_shard
from anyform.errors import BadInput


def sample(name: str, seed: int = 0, split: str = "train") -> Sample:
    rng = np.random.default_rng(seed)
    rgba = np.zeros((2, 16, 16, 4), np.float32)
    rgba[:, 4:12, 4:12] = [0.2, 0.5, 0.8, 1]
    depth = np.where(rgba[..., 3] > 0, rng.uniform(3, 5, (2, 16, 16)), np.inf).astype(np.float32)
    return Sample(
        row={"id": name, "split": split, "captions": ["ein Stühlchen", "a chair"]},
        sdf=rng.uniform(-0.3, 0.3, (8, 8, 8)).astype(np.float32),
        rgba=rgba,
        depth=depth,
        sketch=rng.uniform(0, 1, (2, 16, 16)).astype(np.float32),
        points=rng.uniform(-0.9, 0.9, (50, 3)).astype(np.float32),
        rgb=rng.integers(0, 256, (50, 3), np.uint8),
    )


def test_round_trip_within_the_quantisation(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    made = [sample("a", 0), sample("b", 1, "val")]
    assert write_shard(path, made) == 2
    read = list(read_shard(path))
    assert [s.row["id"] for s in read] == ["a", "b"]
    for before, after in zip(made, read, strict=True):
        assert after.row["captions"] == before.row["captions"]
        assert np.abs(after.sdf - np.clip(before.sdf, -TRUNCATION, TRUNCATION)).max() <= TRUNCATION / 254 + 1e-7
        hit = np.isfinite(before.depth)
        assert np.array_equal(hit, np.isfinite(after.depth))
        assert np.abs(after.depth[hit] - before.depth[hit]).max() <= DEPTH_SCALE
        assert np.abs(after.sketch - before.sketch).max() <= 0.5 / 255 + 1e-6
        assert np.abs(after.points - before.points).max() < 1e-3
        assert np.array_equal(after.rgb, before.rgb)
        assert np.array_equal(after.rgba[..., 3], before.rgba[..., 3])
        assert np.abs(after.rgba - before.rgba)[:, 6:10, 6:10].max() < 0.03


def test_same_samples_same_bytes_and_no_leftover(tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        write_shard(tmp_path / name, [sample("a"), sample("b", 1)])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.tar", "two.tar"]
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert {(entry.mtime, entry.uid, entry.uname) for entry in archive} == {(0, 0, "")}


def test_interrupted_shard_never_has_its_name(tmp_path: Path) -> None:
    def failing() -> object:
        yield sample("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "s.tar", failing())  # type: ignore[arg-type]
    assert not (tmp_path / "s.tar").exists()


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty member"])
def test_damaged_shard_is_bad_input(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.tar"
    write_shard(path, [sample("a"), sample("b", 1)])
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 3])
    elif damage == "garbage":
        path.write_bytes(b"\x01" * 2000)
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("a.json"))
    with pytest.raises(BadInput, match=r"s\.tar"):
        list(read_shard(path))


def test_folder_is_read_by_its_manifest_and_split(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.tar", [sample("a"), sample("b", 1, "val")])
    write_shard(tmp_path / "y.tar", [replace(sample("c"), row={"id": "c", "split": "train"})])
    manifest = {"shards": [{"file": "y.tar"}, {"file": "x.tar"}]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert [s.row["id"] for s in read_shards(tmp_path)] == ["c", "a", "b"]
    assert [s.row["id"] for s in read_shards(tmp_path, "val")] == ["b"]
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(BadInput, match="did not finish"):
        next(read_shards(tmp_path))
