"""A sentence through the whole released chain in miniature: MVDream draws six depth maps, the 6-depth model shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import anyform
from anyform.encoders.open_clip_text import OpenClipTextConfig
from anyform.errors import BadInput, LicenceNotAccepted, WeightsError
from anyform.geometry.asset import WeightsRecord
from anyform.nn.autoencoder_kl import AutoencoderConfig
from anyform.nn.ldm_keys import autoencoder_names, unet_names
from anyform.nn.unet2d import UNet2DConfig
from anyform.priors import mvdream
from anyform.systems.wala.config import WalaSettings
from anyform.systems.wala.multiview_text import TextWala
from anyform.systems.wala.system import load
from anyform.types.prompt import Text, Views, Voxels
from anyform.weights import accept_licence, accepted_licences

DRAFT = WalaSettings(quality="draft", num_inference_steps=2, front_end_steps=2)


def write_front_end(folder: Path) -> None:
    """A random MVDream of the smallest sizes in the published layout, in Lightning's wrapper."""
    torch.manual_seed(5)
    config = mvdream.MVDreamConfig(
        unet=UNet2DConfig(
            widths=(64, 64), attends=(False, True), layers=1, heads=(1, 1), token_width=64, labels=16, linear=True
        ),
        autoencoder=AutoencoderConfig(widths=(32, 32, 32, 32), layers=1),
        text=OpenClipTextConfig(width=64, layers=2, heads=1),
    )
    model = mvdream.MVDream(config)
    names = unet_names(model.unet, config.unet, "camera_embed")
    state = {f"model.{theirs}": model.unet.state_dict()[ours] for ours, theirs in names.items()}
    for ours, theirs in autoencoder_names(model.autoencoder, config.autoencoder).items():
        state[f"model.{theirs}"] = model.autoencoder.state_dict()[ours]
    state |= {f"model.cond_stage_model.model.{name}": value for name, value in model.text.state_dict().items()}
    folder.mkdir()
    torch.save({"state_dict": state}, folder / "checkpoint.ckpt")


@pytest.fixture(scope="module")
def folder(miniature, tmp_path_factory) -> Path:
    """A 6-depth checkpoint with its front end inside."""
    state = miniature.vq_state(0) | miniature.uvit_state(1, context=64) | miniature.dino_state(2, views=6)
    args = {"use_depth_conditions": True, "training_views": list(mvdream.DEPTH_VIEWS)}
    made = miniature.write(tmp_path_factory.mktemp("text") / "DM6", state, args)
    write_front_end(made / "mvdream")
    return made


def test_text_becomes_a_shape_by_way_of_six_depth_maps(folder: Path) -> None:
    wala = load(folder, "cpu", DRAFT)
    assert isinstance(wala, TextWala) and wala.accepts == (Text, Views)
    drawn: list[np.ndarray] = []
    draw = wala.draw
    wala.draw = lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1]  # type: ignore[func-returns-value]
    stages: set[str] = set()
    sdf = wala.generate_sdf(Text("a cup"), seed=1, report=lambda progress: stages.add(progress.stage))
    assert sdf.shape == (64, 64, 64) and stages == {"draw views", "denoise"}
    assert drawn[0].shape == (6, 256, 256, 3) and drawn[0].dtype == np.uint8
    direct = wala.sdf_of(wala.conditions.condition_of(list(drawn[0])), seed=1)
    np.testing.assert_array_equal(sdf, direct)
    assert not np.array_equal(sdf, wala.generate_sdf(Text("a long wooden table"), seed=1))
    made = wala.provenance(Text("a cup"), 1)
    assert [record.id for record in made.weights] == ["DM6", "mvdream"] and len({r.sha256 for r in made.weights}) == 2
    assert any("MVDream" in citation for citation in made.citations) and len(made.citations) == 2


def test_one_command_from_text_to_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random field meshes to something or fails its gate; here it is a ball, so that the whole way is walked."""
    from anyform.cli import main

    axis = np.linspace(-1, 63 / 32 - 1, 64, dtype=np.float32)
    ball = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis))) - np.float32(0.6)
    monkeypatch.setattr(TextWala, "decode", lambda self, latent: ball[None])
    command = ["generate", "a cup", "--weights", str(folder), "--quality", "draft", "--seed", "1"]
    more = ["--set", "front_end_steps=2", "--set", "num_inference_steps=2", "--set", "paint=true"]
    assert main([*command, *more, "-o", str(tmp_path / "cup.glb")]) == 0
    from anyform.cli.inputs import read_provenance

    made = read_provenance(tmp_path / "cup.glb")
    assert made["prompt"]["text"] == "a cup" and len(made["weights"]) == 2
    assert any("colours are anyform's own" in note for note in made["notes"])
    assert str(folder) not in str(made)


def test_a_front_end_needs_a_model_of_several_views(miniature, folder: Path, tmp_path: Path) -> None:
    state = miniature.vq_state(0) | miniature.uvit_state(1, context=40) | miniature.voxel_state(2)
    single = load(miniature.write(tmp_path / "VX", state, {"use_voxel_conditions": True}), "cpu", DRAFT)
    with pytest.raises(WeightsError, match="several views"):
        TextWala.behind(single, lambda *_: np.zeros(1, np.uint8), WeightsRecord("a", "", "", "no"))
    assert single.accepts == (Voxels,)
    wala = load(folder, "cpu", DRAFT)
    with pytest.raises(BadInput, match="reads 6 views, got 4"):
        wala.conditions.condition_of([np.zeros((8, 8, 3), np.uint8)] * 4)


def test_the_released_chain_is_one_id_and_one_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYFORM_HOME", str(tmp_path))
    name = "ADSKAILab/WaLa-MVDream-DM6"
    with pytest.raises(LicenceNotAccepted):
        anyform.load("wala", weights=name, device="cpu")
    accept_licence(name)
    assert set(accepted_licences()) == {name, "ADSKAILab/WaLa-DM6-1B"}, "the model behind it is under the same licence"
    with pytest.raises(WeightsError, match="network is off"):
        anyform.load("wala", weights=name, device="cpu")
