"""The embedded priors on tiny random networks in the shipped format: conditions, nulls, codec, files, distances."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from anyform.diffusion.prior import Prior, guided
from anyform.errors import BadInput, WeightsError
from anyform.nn.int8 import quantise
from anyform.priors import embedded
from anyform.priors.embedded import FoldCodec, PriorConfig, PriorNetwork
from anyform.priors.relative_camera import relative_camera

TINY = {"image_size": 16, "widths": (16, 32), "attends": (False, True), "heads": (1, 2), "token_width": 12}
TINY |= {"text_width": 10, "joint": 8}


def read_text(text: str) -> Tensor:
    generator = torch.Generator().manual_seed(len(text))
    return torch.randn(2 + len(text.split()), 10, generator=generator)


def embed(pictures: Tensor) -> Tensor:
    means = torch.nn.functional.adaptive_avg_pool2d(pictures, 2).flatten(1)[:, :8]
    return torch.nn.functional.normalize(means, dim=-1)


def write(folder: Path, *, view: bool) -> Path:
    torch.manual_seed(0)
    config = PriorConfig(view=view, **TINY)  # type: ignore[arg-type]
    path = folder / "prior.safetensors"
    save_file(quantise(PriorNetwork(config).state_dict()), path, {"config": config.to_json()})
    return path


@pytest.fixture
def foundation(tmp_path: Path) -> Prior:
    return embedded.foundation(write(tmp_path, view=False), read_text=read_text)


@pytest.fixture
def view(tmp_path: Path) -> Prior:
    return embedded.view(write(tmp_path, view=True), embed=embed, read_text=read_text)


def test_the_shipped_size_is_the_one_of_the_specification() -> None:
    with torch.device("meta"):
        network = PriorNetwork(PriorConfig())
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(11.1e6, rel=0.02)
    assert PriorConfig.from_json(PriorConfig(view=True).to_json()) == PriorConfig(view=True)


def test_the_codec_is_exact() -> None:
    picture = torch.rand(2, 3, 8, 8)
    latent = FoldCodec(2).encode(picture)
    assert latent.shape == (2, 12, 4, 4) and latent.min() >= -1
    assert torch.allclose(FoldCodec(2).decode(latent), picture, atol=1e-6)
    assert FoldCodec(2).decode(latent * 3).max() <= 1


def test_foundation_conditions_and_their_null(foundation: Prior) -> None:
    unit = torch.nn.functional.normalize(torch.ones(1, 8), dim=-1)
    condition = foundation.condition(text="a red chair", embedding=unit, noise=torch.zeros(1, 8))
    null = foundation.null(condition)
    assert condition.tokens is not None and condition.labels is not None and null.tokens is not None
    assert condition.tokens.shape == (1, 16, 12) and condition.labels.shape == (1, 16)
    assert torch.allclose(condition.labels[:, :8], unit * math.sqrt(8), atol=1e-3)  # level 0 keeps nearly all
    assert torch.equal(null.labels, torch.zeros(1, 16))
    assert torch.equal(null.tokens, foundation.condition().tokens)
    assert not torch.allclose(condition.tokens, null.tokens)
    # five pieces: the others are all the same padding
    assert torch.equal(condition.tokens[0, 5], condition.tokens[0, 15])
    assert not torch.allclose(condition.tokens[0, 4], condition.tokens[0, 15])


def test_a_sample_is_a_picture_and_the_last_timestep_is_finite(foundation: Prior) -> None:
    condition = foundation.condition(text="a mug")
    noise = torch.randn(2, 12, 8, 8)
    said = guided(foundation, condition, 3.0)(noise, 999)
    assert said.reading == "v" and torch.isfinite(said.x0).all() and torch.allclose(said.eps, noise)
    picture = foundation.codec.decode(said.x0)
    assert picture.shape == (2, 3, foundation.image_size, foundation.image_size)
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1


def test_every_condition_reaches_the_output(foundation: Prior) -> None:
    x, unit = torch.randn(1, 12, 8, 8), torch.nn.functional.normalize(torch.randn(1, 8), dim=-1)
    plain = foundation.denoiser(x, 400, foundation.condition()).v
    assert not torch.allclose(foundation.denoiser(x, 400, foundation.condition(text="a mug")).v, plain, atol=1e-6)
    assert not torch.allclose(foundation.denoiser(x, 400, foundation.condition(embedding=unit)).v, plain, atol=1e-6)


def test_view_conditions_and_their_null(view: Prior) -> None:
    image, camera = torch.rand(1, 3, 20, 20), torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.3, 1.0, 0.0, 0.0]])
    condition = view.condition(image, camera)
    null = view.null(condition)
    assert condition.tokens is not None and condition.image_latent is not None and null.tokens is not None
    assert condition.tokens.shape == (2, 17, 12) and condition.image_latent.shape == (2, 12, 8, 8)
    assert torch.equal(condition.tokens[0, :16], condition.tokens[1, :16])
    assert not torch.allclose(condition.tokens[0, 16], condition.tokens[1, 16])
    assert torch.equal(null.tokens[:, 16], torch.zeros(2, 12)) and torch.equal(
        null.tokens[:, :16], condition.tokens[:, :16]
    )
    assert not null.image_latent.any() and not null.labels.any()  # type: ignore[union-attr]
    x = torch.randn(2, 12, 8, 8)
    said = view.denoiser(x, torch.tensor([10, 900]), condition)
    assert said.v.shape == x.shape and not torch.allclose(said.v, view.denoiser(x, torch.tensor([10, 900]), null).v)


def test_the_wrong_file_and_no_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="of the foundation prior"):
        embedded.view(write(tmp_path, view=False))
    path = tmp_path / "prior.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"config": PriorConfig(**TINY).to_json()})  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="do not fit"):
        embedded.foundation(path)
    save_file({"x": torch.zeros(1)}, path, {"config": "[]"})
    with pytest.raises(WeightsError, match="no valid configuration"):
        embedded.foundation(path)
    with pytest.raises(WeightsError, match=r"runs/embedded_view\.py"):
        embedded.load_network("view")


def test_a_joint_embedding_of_another_width_is_refused(foundation: Prior) -> None:
    with pytest.raises(BadInput, match="384 dimensions, this prior reads 8"):
        foundation.condition(embedding=torch.ones(384))


def test_relative_cameras_have_the_signs_of_zero123() -> None:
    reference = (0.0, 0.0, 2.5, math.radians(40))
    higher = relative_camera(0.5, 0.0, 2.5, reference[3])
    side = relative_camera(0.0, math.pi / 2, 2.5, reference[3])
    assert higher[0].tolist() == pytest.approx([-0.5, 0, 1, 0], abs=1e-6)
    assert side[0].tolist() == pytest.approx([0, 1, 0, 0], abs=1e-6)
    closer = relative_camera(0.0, 0.0, np.array([2.0, 0.1]).tolist()[0], reference[3])
    assert float(closer[0, 3]) == pytest.approx(0.74 * (2.0 - 2.5), abs=1e-6)
    assert float(relative_camera(0.0, 0.0, 9.0, reference[3])[0, 3]) == pytest.approx(0.7)
    # the same framing by another lens is no change of distance
    wide = 2.5 * math.tan(reference[3] / 2) / math.tan(0.6)
    assert float(relative_camera(0.0, 0.0, wide, 1.2)[0, 3]) == pytest.approx(0, abs=1e-6)
    assert relative_camera(torch.zeros(3), torch.zeros(3), 2.5, reference[3]).shape == (3, 4)
    stable = relative_camera(0.5, 0.0, 9.0, reference[3], (0.2, 0.0, 2.5, reference[3]), stable=True)
    assert stable[0].tolist() == pytest.approx([-0.3, 0, 1, math.pi / 2 - 0.2], abs=1e-6)
