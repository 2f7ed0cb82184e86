"""`anyform generate --system xbind` as a user types it, on files of tiny random networks."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from anyform.cli import main
from anyform.cli.inputs import read_start
from anyform.errors import GateFailed, WeightsError
from anyform.geometry.asset import Start
from anyform.geometry.formats import read_mesh
from anyform.types.prompt import Text
from anyform.weights import EMBEDDED

SHORT = {
    "shape.steps": 2, "shape.size": 16, "geometry.steps": 2, "geometry.size": 16, "geometry.views": 1,
    "texture.steps": 2, "texture.size": 16, "fields.tets": 8, "fields.samples": 24, "fields.occupancy": 8,
    "candidates": 1, "reference_steps": 2, "init": "'blob'", "texture_size": 0, "preview_every": 0,
    "checkpoint_every": 1, "mesh_resolution": 16,
    # networks that know nothing would wipe the object out at a real rate
    "fields.blob_density": 20.0, "shape.learning_rate": 1e-4, "shape.network_rate": 1e-4,
    "geometry.learning_rate": 1e-4, "geometry.network_rate": 1e-4,
}  # fmt: skip


def typed(*words: str, **changes: Any) -> list[str]:
    settings = [f"{name}={value}" for name, value in {**SHORT, **changes}.items()]
    return ["generate", *words, "--quality", "draft", "--json", *[w for s in settings for w in ("--set", s)]]


@pytest.fixture(scope="module")
def weights(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.write(tmp_path_factory.mktemp("networks")))


@pytest.mark.slow
def test_text_to_glb_with_a_turntable_and_the_same_bytes_again(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.glb", tmp_path / "two.glb"
    command = ("a red chair", "--system", "xbind", "--weights", weights, "--seed", "3")
    assert main(typed(*command, "-o", str(one))) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] and (tmp_path / "one-turntable.webp").stat().st_size > 0
    assert len(read_mesh(one).faces) > 0
    assert main(typed(*command, "-o", str(two), turntable=False)) == 0
    assert not (tmp_path / "two-turntable.webp").exists()


@pytest.mark.slow
def test_a_run_that_failed_is_resumed_without_naming_its_seed(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "chair.glb"
    command = ("a blue chair", "--system", "xbind", "--weights", weights, "-o", str(out))
    monkeypatch.setenv("ANYFORM_FAULT", "nan:stage=texture")
    assert main(typed(*command)) == GateFailed.exit_code
    assert "phase texture failed in step 0 of 2" in capsys.readouterr().err and not out.exists()
    monkeypatch.delenv("ANYFORM_FAULT")
    assert main(typed(*command, "--resume")) == 0
    said = capsys.readouterr().err
    assert out.is_file() and "resumed at step 2" in said


@pytest.mark.slow
def test_a_mesh_file_gets_new_colours_only(weights: str, fixtures: Path, tmp_path: Path) -> None:
    mesh = next(path for path in sorted((fixtures / "meshes").iterdir()) if path.suffix in {".glb", ".obj", ".ply"})
    out = tmp_path / "gold.glb"
    command = ("made of gold", "--init", str(mesh), "--keep-geometry", "--system", "xbind", "--weights", weights)
    assert main(typed(*command, "--seed", "1", "-o", str(out), turntable=False)) == 0
    assert len(read_mesh(out).faces) == len(read_mesh(mesh).faces)


def test_a_start_fills_the_box_and_brings_its_licence_or_none(fixtures: Path, tmp_path: Path) -> None:
    mesh = next(path for path in sorted((fixtures / "meshes").iterdir()) if path.suffix in {".glb", ".obj", ".ply"})
    start = read_start(mesh, Text("gold"))
    assert isinstance(start, Start) and start.prompt == Text("gold")
    low, high = start.asset.mesh.bounds
    assert np.allclose((low + high) / 2, 0, atol=1e-5) and np.isclose((high - low).max(), 1.8, atol=1e-4)
    provenance = start.asset.provenance
    assert provenance.system == "file"
    assert [source.licence for source in provenance.sources] == ["CC0-1.0"]  # what the fixture says of itself
    bare = tmp_path / "bare.ply"
    start.asset.to_trimesh().export(bare)
    stranger = read_start(bare, Text("gold"))
    assert isinstance(stranger, Start)
    assert [source.licence for source in stranger.asset.provenance.sources] == ["unknown"]


@pytest.mark.skipif("foundation" in EMBEDDED, reason="the embedded priors are trained: nothing is missing")
def test_without_trained_priors_exit_3_names_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.glb"
    assert main(["generate", "a red chair", "--system", "xbind", "-o", str(out)]) == WeightsError.exit_code
    assert "runs/embedded_foundation.py" in capsys.readouterr().err and not out.exists()
