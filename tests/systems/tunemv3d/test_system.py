"""TuneMV3D end to end on a tiny random foundation and branch in their real file formats: prompts, files, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import anyform
from anyform import api, cli
from anyform.device import home
from anyform.errors import BadInput, BadSetting, WeightsError
from anyform.geometry.formats import read_mesh
from anyform.geometry.gate import gate
from anyform.systems.tunemv3d import references
from anyform.systems.tunemv3d.branch_file import write_branch
from anyform.systems.tunemv3d.config import TuneMV3DSettings, tiny
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundations import load_foundation
from anyform.systems.tunemv3d.system import BRANCH, TuneMV3D, as_views, load
from anyform.types.camera import Cameras
from anyform.types.progress import Progress
from anyform.types.prompt import Image, Text, Views

FAST = {"num_inference_steps": 3, "refinement_steps": 3, "resolution": 32, "texture_size": 64, "preview_every": 2}


@pytest.fixture(scope="module")
def run_folder(tiny_foundation: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `anyform train tunemv3d` leaves it, with its foundation beside it."""
    folder = tmp_path_factory.mktemp("run")
    foundation = load_foundation(tiny_foundation.embedded_file(folder / "foundation.safetensors"))
    torch.manual_seed(0)
    branch = ControlBranch(foundation, tiny())
    for parameter in branch.zeros.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    write_branch(folder / BRANCH, branch, foundation, {"licence": "CC0-1.0", "commercial_use": "yes"})
    return folder


def settings(run_folder: Path, **more: object) -> dict[str, object]:
    return {**FAST, "foundation": str(run_folder / "foundation.safetensors"), **more}


@pytest.fixture(scope="module")
def system(run_folder: Path) -> TuneMV3D:
    loaded = api.load("tunemv3d", weights=run_folder, device="cpu", settings=settings(run_folder))
    assert isinstance(loaded, TuneMV3D)
    return loaded


@pytest.fixture(scope="module")
def picture() -> Image:
    rgba = np.zeros((40, 32, 4), np.uint8)
    rgba[5:35, 8:28] = (200, 30, 30, 255)
    return Image(rgba)


def test_text_to_a_gated_textured_asset_with_its_views(system: TuneMV3D) -> None:
    heard: list[Progress] = []
    asset = anyform.generate("a wooden chair", system=system, seed=5, report=heard.append)
    report = gate(asset.mesh, allow_parts=True)
    assert report.ok and report.watertight
    assert asset.mesh.uv is not None and asset.mesh.material is not None
    assert np.abs(asset.mesh.vertices).max() <= 1.01
    assert asset.views is not None and asset.views.pixels.shape == (4, 16, 16, 4)
    made = asset.provenance.to_json()
    assert made["system"] == "tunemv3d" and made["settings"]["num_inference_steps"] == 3
    assert len(made["weights"]) == 2 and made["weights"][0]["id"].endswith(BRANCH)
    stages = [one.stage for one in heard]
    assert stages.count("views") == 3 and "refine" in stages and "mesh" in stages and "texture" in stages
    previews = [one.preview for one in heard if one.preview is not None]
    assert len(previews) == 1 and previews[0].parent == home() / "previews"
    with Pillow.open(previews[0]) as shown:
        assert shown.size == (64, 16)


def test_the_same_seed_gives_the_same_asset(system: TuneMV3D) -> None:
    one, two, other = (system.generate(Text("a chair"), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.mesh.vertices, two.mesh.vertices) and np.array_equal(one.mesh.uv, two.mesh.uv)  # type: ignore[arg-type]
    assert one.views is not None and two.views is not None and other.views is not None
    assert np.array_equal(one.views.pixels, two.views.pixels)
    assert not np.array_equal(one.views.pixels, other.views.pixels)


def test_a_picture_comes_back_as_its_own_view(system: TuneMV3D, picture: Image) -> None:
    drawn = system.draw(picture, seed=0)
    given = references.of_image(picture, math.radians(20), 4, 16)
    assert torch.equal(drawn.pictures[0], given.pictures[0])
    free = system.draw(Text("a box"), seed=0)
    assert not torch.allclose(drawn.pictures[1], free.pictures[1])
    mixed = system.draw([(picture, 1.0), (Text("a red box"), 1.0)], seed=0)
    assert torch.equal(mixed.pictures[0], given.pictures[0])
    assert not torch.equal(mixed.pictures[1], drawn.pictures[1])


def test_views_keep_their_cameras_in_the_nearest_slots(system: TuneMV3D) -> None:
    angles = np.radians([[95.0, 10.0], [170.0, 0.0]])
    cameras = Cameras.orbit(angles[:, 0], angles[:, 1], 6.0, np.radians(30.0), 24)
    pixels = np.ones((2, 24, 24, 4), np.float32)
    pixels[0, 6:18, 6:18, :3] = 0.2
    pixels[1, 6:18, 6:18, :3] = 0.4
    views = Views("rgb", pixels, cameras)
    arrangement = references.of_views(views, 4, 16)
    assert sorted(arrangement.pictures) == [1, 2]
    expected = 3 * math.sin(math.radians(20)) / (6 * math.sin(math.radians(15)))
    assert arrangement.scale == pytest.approx(expected)
    position = arrangement.cameras.camera_to_world[1, :3, 3]
    assert np.allclose(position, cameras.camera_to_world[0, :3, 3] * expected)
    drawn = system.draw(views, seed=0)
    assert torch.equal(drawn.pictures[1], arrangement.pictures[1])
    back = as_views(drawn.pictures, drawn.cameras, arrangement.scale).cameras.camera_to_world[1]
    assert np.allclose(back, cameras.camera_to_world[0])


def test_a_wide_view_is_filled_up_and_keeps_its_scale() -> None:
    cameras = Cameras.orbit(np.zeros(1), np.zeros(1), 3.0, np.radians(40.0), 32)
    wide = Cameras(cameras.camera_to_world, cameras.fov_y, 16, 32)
    pixels = np.zeros((1, 16, 32, 4), np.float32)
    pixels[0, 4:12, 12:20] = (0, 0, 0, 1)
    arrangement = references.of_views(Views("rgb", pixels, wide), 4, 32)
    picture = arrangement.pictures[0]
    assert (picture[:, 12:20, 12:20] == 0).all() and (picture[:, :8] == 1).all()
    assert math.tan(arrangement.cameras.fov_y[0] / 2) == pytest.approx(2 * math.tan(math.radians(20)))


def test_prompts_it_cannot_use_are_refused(system: TuneMV3D, picture: Image) -> None:
    with pytest.raises(BadInput, match="not Image, Image"):
        system.understand([(picture, 1.0), (picture, 1.0)])
    cameras = Cameras.orbit(np.arange(4.0), np.zeros(4), 3.0, 0.7, 16)
    rgb = np.random.default_rng(0).random((4, 16, 16, 4)).astype(np.float32)
    with pytest.raises(BadInput, match="1 to 3"):
        system.understand(Views("rgb", rgb, cameras))
    with pytest.raises(BadInput, match="depth"):
        system.understand(Views("depth", np.ones((4, 16, 16, 1), np.float32), cameras))
    with pytest.raises(BadInput, match="accepts"):
        anyform.generate(anyform.Points(np.random.default_rng(0).random((80, 3))), system="tunemv3d")


def test_drawn_views_have_their_background_taken_out() -> None:
    pictures = torch.ones(1, 3, 8, 8)
    pictures[:, :, 2:6, 2:6] = torch.tensor([0.5, 0.2, 0.1])[None, :, None, None]
    cameras = references.preset(1, 8)
    views = as_views(pictures, cameras)
    assert views.pixels[0, 0, 0, 3] == 0 and np.allclose(views.pixels[0, 3, 3], [0.5, 0.2, 0.1, 1.0], atol=1e-5)


def test_settings_have_bounds_and_qualities_differ() -> None:
    steps = [TuneMV3DSettings(quality=quality).steps for quality in ("draft", "standard", "high")]
    assert steps == sorted(set(steps)) and steps[-1] == 50
    for bad in ({"consistency_fraction": 1.5}, {"num_inference_steps": 1}, {"reference_elevation": 95.0}):
        with pytest.raises(BadSetting, match="lies between"):
            TuneMV3DSettings(**bad)  # type: ignore[arg-type]
    assert TuneMV3DSettings().consistency_strength == 7.5


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    from anyform.weights import EMBEDDED

    with pytest.raises(WeightsError, match="no branch"):
        load(tmp_path)
    if "tunemv3d" not in EMBEDDED:
        with pytest.raises(WeightsError, match="anyform train tunemv3d"):
            load(None)


def test_the_command_writes_the_asset_and_its_views(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "a wooden chair", "--system", "tunemv3d", "--weights", str(run_folder), "--seed", "3"]
    for key, value in settings(run_folder, refinement_steps=0).items():
        command += ["--set", f"{key}={value}"]
    out, folder = tmp_path / "c.glb", tmp_path / "views"
    assert cli.main([*command, "-o", str(out), "--views-out", str(folder), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["system"] == "tunemv3d" and record["commercial_use"] in ("yes", "unknown")
    assert len(read_mesh(out).faces) > 100
    table = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))
    assert len(table["frames"]) == 4 and {"camera_angle_x", "up"} <= table.keys()
    views = Views.open(folder)
    assert np.allclose(views.cameras.camera_to_world, references.preset(4, 16).camera_to_world)
    assert np.allclose(views.cameras.fov_y, math.radians(40))
    assert cli.main([*command, "-o", str(tmp_path / "d.glb"), "--views-out", str(folder)]) == 2
    assert not (tmp_path / "d.glb").exists()


def test_a_branch_for_another_foundation_ends_with_exit_3(
    run_folder: Path, tiny_foundation: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_foundation.embedded_file(tmp_path / "other.safetensors", seed=9)
    command = [
        "generate",
        "a chair",
        "--system",
        "tunemv3d",
        "--weights",
        str(run_folder),
        "-o",
        str(tmp_path / "c.glb"),
    ]
    assert cli.main([*command, "--set", f"foundation={other}"]) == 3
    assert "revision differs" in capsys.readouterr().err
    assert not (tmp_path / "c.glb").exists()
