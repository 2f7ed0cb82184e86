"""Files appear whole or not at all; every refusal is one sentence. Rows 23, 24 and 65 of the fault table."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anyform.errors import BadInput
from anyform.geometry.asset import Asset
from anyform.geometry.formats import FORMATS, files, glb


def only(folder: Path, *names: str) -> None:
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


def test_existing_files_need_force(painted_l: Asset, tmp_path: Path) -> None:
    path = tmp_path / "l.glb"
    path.write_bytes(b"old")
    with pytest.raises(BadInput, match="exists already; pass --force"):
        painted_l.save(path)
    assert path.read_bytes() == b"old"
    painted_l.save(path, force=True)
    assert path.read_bytes()[:4] == b"glTF"
    only(tmp_path, "l.glb")


def test_a_companion_file_is_protected_too(textured_l: Asset, tmp_path: Path) -> None:
    (tmp_path / "l.png").write_bytes(b"mine")
    with pytest.raises(BadInput, match=r"l\.png' exists already"):
        textured_l.save(tmp_path / "l.obj")
    only(tmp_path, "l.png")


@pytest.mark.parametrize("name", ["l", "l.gltf", ".glb", "glb", "l.glb.exe", "l.zip"])
def test_unknown_suffixes_name_the_known_ones(painted_l: Asset, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"\.glb, \.obj"):
        painted_l.save(tmp_path / name)
    only(tmp_path)


def test_upper_case_suffixes_work(painted_l: Asset, tmp_path: Path) -> None:
    assert painted_l.save(tmp_path / "L.GLB").read_bytes()[:4] == b"glTF"


def test_folders_and_missing_parents_are_refused(painted_l: Asset, tmp_path: Path) -> None:
    (tmp_path / "d.glb").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        painted_l.save(tmp_path / "d.glb", force=True)
    with pytest.raises(BadInput, match="does not exist; create it first"):
        painted_l.save(tmp_path / "missing" / "l.glb")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match=r"not a folder|does not exist"):
        painted_l.save(tmp_path / "file" / "l.glb")
    only(tmp_path, "d.glb", "file")


def test_a_name_of_255_bytes_works_and_a_longer_one_is_refused(painted_l: Asset, tmp_path: Path) -> None:
    longest = "é" * 125 + "x.glb"
    assert len(longest.encode()) == 255
    painted_l.save(tmp_path / longest)
    with pytest.raises(BadInput, match="the name is too long"):
        painted_l.save(tmp_path / ("x" + longest))
    only(tmp_path, longest)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_devices_are_refused_even_through_a_link(painted_l: Asset, tmp_path: Path) -> None:
    (tmp_path / "l.glb").symlink_to("/dev/full")
    with pytest.raises(BadInput, match="not a regular file"):
        painted_l.save(tmp_path / "l.glb", force=True)
    assert Path("/dev/full").is_char_device()
    only(tmp_path, "l.glb")


def test_a_link_keeps_pointing_and_its_target_is_replaced(painted_l: Asset, tmp_path: Path) -> None:
    (tmp_path / "real.glb").write_bytes(b"old")
    (tmp_path / "link.glb").symlink_to("real.glb")
    painted_l.save(tmp_path / "link.glb", force=True)
    assert (tmp_path / "link.glb").is_symlink() and (tmp_path / "real.glb").read_bytes()[:4] == b"glTF"


def test_a_full_disk_keeps_the_old_file(painted_l: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.glb"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(BadInput, match=r"cannot write 'l.glb': the disk is full"):
        painted_l.save(path, force=True)
    assert path.read_bytes() == b"old"
    only(tmp_path, "l.glb")


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_file_size_limit_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "l.glb").write_bytes(b"old")
    script = """
import resource, sys
import numpy as np
from anyform.errors import BadInput
from anyform.geometry.asset import Asset, Provenance
from anyform.geometry.mesh import Mesh
mesh = Mesh(np.random.default_rng(0).random((3000, 3)), np.arange(3000))
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    Asset(mesh, Provenance("wala", "0", 0, "draft")).save(sys.argv[1], force=True)
except BadInput as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", script, str(tmp_path / "l.glb")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "cannot write 'l.glb': the file would be larger than this system allows"
    assert (tmp_path / "l.glb").read_bytes() == b"old"
    only(tmp_path, "l.glb")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_writer_that_fails_leaves_nothing(painted_l: Asset, tmp_path: Path, suffix: str) -> None:
    if suffix == ".usdz":
        pytest.importorskip("pxr", reason="usd-core is the extra [usd]")
    empty = replace(painted_l, metres=float("nan"))
    with pytest.raises(BadInput, match="positive length"):
        empty.save(tmp_path / f"l{suffix}")
    only(tmp_path)


def test_a_glb_beyond_its_size_is_refused_with_advice(
    painted_l: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glb, "MAX_BYTES", 2048)
    with pytest.raises(BadInput, match=r"--faces or save it as \.ply"):
        painted_l.save(tmp_path / "l.glb")
    only(tmp_path)


def test_a_mesh_without_extent_has_no_size(painted_l: Asset, tmp_path: Path) -> None:
    flat = replace(painted_l, mesh=painted_l.mesh.moved(np.zeros(3)))
    with pytest.raises(BadInput, match="cannot be given a size"):
        flat.save(tmp_path / "l.glb")
