"""Stage 1 of the released shape in small: balanced draws, the loss, and the metrics that weigh data sets alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anyform.data.shards import TRUNCATION
from anyform.systems.wala.codec import CodecConfig, ShapeCodec
from anyform.systems.wala.training_coefficients import (
    CoefficientLoss,
    CoefficientRecipe,
    balanced_groups,
    dataset_mean,
    network_fields,
    reconstruction_scores,
)
from anyform.systems.wala.vqvae import VQVAEConfig
from anyform.training.loop import TrainConfig, fit
from anyform.types.progress import silent

SOURCES = ["big"] * 12 + ["small"] * 3


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 balls of growing radius as stored levels, 32³."""
    along = -1 + (2 * np.arange(32) + 1) / 32
    distance = np.linalg.norm(np.stack(np.meshgrid(along, along, along, indexing="ij")), axis=0)
    balls = np.stack([distance - radius for radius in np.linspace(0.3, 0.8, 15)])
    path = tmp_path_factory.mktemp("fields") / "field.npy"
    np.save(path, np.rint(np.clip(balls / TRUNCATION, -1, 1) * 127).astype(np.int8))
    return path


def small_codec() -> ShapeCodec:
    torch.manual_seed(0)
    vqvae = VQVAEConfig(
        packed_size=8, widths=(16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1), norm_groups=4, codebook_size=32
    )
    return ShapeCodec(CodecConfig(size=32, wavelet="haar", levels=2, grid="cell", vqvae=vqvae))


def test_groups_hold_at_most_so_many_of_each_data_set() -> None:
    rows = np.arange(15)
    groups = balanced_groups(SOURCES, rows, per_dataset=5, seed=0)
    assert [len(group) for group in groups] == [5, 3]
    assert set(groups[0].tolist()) <= set(range(12)) and set(groups[1].tolist()) == {12, 13, 14}
    again = balanced_groups(SOURCES, rows, per_dataset=5, seed=0)
    assert all(np.array_equal(one, two) for one, two in zip(groups, again, strict=True))
    assert not np.array_equal(groups[0], balanced_groups(SOURCES, rows, per_dataset=5, seed=1)[0])


def test_a_small_data_set_is_drawn_as_often_as_a_large_one(fields: Path) -> None:
    groups = balanced_groups(SOURCES, np.arange(15), per_dataset=100, seed=0)
    drawn = CoefficientLoss(fields, groups, CoefficientRecipe(batch=2000)).rows(np.random.default_rng(0))
    assert abs(np.mean(np.array(drawn) >= 12) - 0.5) < 0.04


def test_stored_levels_come_back_as_world_units(fields: Path) -> None:
    codec = small_codec()
    target = network_fields(codec, np.load(fields)[:2])
    assert float(target.abs().max()) == pytest.approx(codec.config.truncation)  # 0.1, though the shards reach 0.125
    along = -1 + 33 / 32
    centre = float(np.sqrt(3) * along - 0.3)
    assert float(target[0, 16, 16, 16]) == pytest.approx(max(centre, -0.1), abs=1e-3)


@pytest.mark.parametrize("variant", ["rebalanced", "plain", "dense"])
def test_every_variant_of_the_loss_learns(fields: Path, tmp_path: Path, variant: str) -> None:
    recipe = CoefficientRecipe(batch=2, variant=variant)  # type: ignore[arg-type]
    config = TrainConfig(steps=40, learning_rate=3e-3, warmup=2, ema_decay=0.5, log_every=40, checkpoint_every=40)
    loss, before = CoefficientLoss(fields, (np.arange(15),), recipe), small_codec()
    codec = small_codec()
    base = [loss(before, np.random.default_rng(9))[1]["base"]]
    average = fit(codec, lambda: loss, config, tmp_path, silent)
    base.append(loss(average, np.random.default_rng(9))[1]["base"])
    assert base[1] < 0.7 * base[0]


def test_a_data_set_counts_once() -> None:
    assert dataset_mean([1.0] * 12 + [0.0] * 3, SOURCES) == pytest.approx(0.5)
    assert dataset_mean([0.25, 0.75], ["a", "a"]) == pytest.approx(0.5)


def test_scores_follow_their_definitions(fields: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, stored = small_codec(), np.load(fields)
    # a decoder that always answers with the smallest ball
    answer = network_fields(codec, stored[:1])
    monkeypatch.setattr(codec, "unpack", lambda packed: answer.expand(len(packed), -1, -1, -1))
    scores = reconstruction_scores(codec, stored, SOURCES)
    truth = network_fields(codec, stored)
    iou = [float(((answer[0] < 0) & (t < 0)).sum() / ((answer[0] < 0) | (t < 0)).sum()) for t in truth]
    mse = [float((answer[0] - t).square().mean()) for t in truth]
    assert scores["iou"] == pytest.approx(np.mean(iou), rel=1e-5)
    assert scores["mse"] == pytest.approx(np.mean(mse), rel=1e-5)
    assert scores["d_iou"] == pytest.approx((np.mean(iou[:12]) + np.mean(iou[12:])) / 2, rel=1e-5)
    assert scores["d_iou"] < scores["iou"] and scores["d_mse"] > scores["mse"]
