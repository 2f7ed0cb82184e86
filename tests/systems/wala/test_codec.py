"""The codec around the VQ-VAE: exact where it should be, and the stage-1 losses against formulas written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anyform.systems.wala.codec import (
    CodecConfig,
    ShapeCodec,
    embedded,
    from_blocks,
    overlap_loss,
    surface_loss,
    to_blocks,
)
from anyform.systems.wala.training_codec import (
    adaptive_sampled_loss,
    fit_codebook,
    rich_positions,
    strict_iou,
    symmetry,
)
from anyform.systems.wala.vqvae import VQVAEConfig

SMALL = VQVAEConfig(
    packed_size=16, widths=(32, 32), encoder_blocks=(1, 1), decoder_blocks=(1, 1), latent_channels=8, norm_groups=0
)


def small() -> ShapeCodec:
    torch.manual_seed(0)
    return ShapeCodec(replace(embedded(), vqvae=SMALL))


def test_packing_and_unpacking_lose_nothing_at_the_embedded_size():
    codec, field = small(), torch.rand(2, 64, 64, 64) * 2 - 1
    codec.measure_spread(field)
    packed = codec.pack(field)
    torch.testing.assert_close(packed.mean((0, 2, 3, 4)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(packed.std((0, 2, 3, 4)), torch.ones(64), atol=1e-3, rtol=0)
    torch.testing.assert_close(codec.unpack(packed), field, atol=1e-5, rtol=0)


def test_a_crop_is_packed_like_the_whole_volume():
    codec, field = small(), torch.randn(1, 64, 64, 64)
    torch.testing.assert_close(codec.pack(field[:, :32, 32:, 16:48]), codec.pack(field)[..., :8, 8:, 4:12])


def test_truncation_and_scale_are_undone_by_decode():
    codec = small()
    sdf = torch.linspace(-1, 1, 64**3).reshape(1, 64, 64, 64)
    seen = codec.to_network(sdf)
    assert seen.min() == -1
    assert seen.max() == 1
    torch.testing.assert_close(seen[0, 32, 0, 0], sdf[0, 32, 0, 0] / 0.125)
    latent = codec.encode(sdf)
    decoded = codec.decode(latent)
    torch.testing.assert_close(decoded, codec.unpack(codec.vqvae.decode(latent)) * 0.125)
    torch.testing.assert_close(codec.destandardise(codec.standardise(latent)), latent)


def test_released_grid_is_corner_sampled_and_ours_mirrors():
    released, ours = CodecConfig(), embedded()
    assert released.first == -1
    assert released.first + 256 * released.spacing == 1
    assert ours.first == pytest.approx(-(ours.first + 63 * ours.spacing))


def test_blocks_are_neighbouring_voxels():
    field = torch.arange(4**3, dtype=torch.float32).reshape(1, 4, 4, 4)
    blocks = to_blocks(field)
    assert set(blocks[0, :, 0, 0, 0].tolist()) == {0, 1, 4, 5, 16, 17, 20, 21}
    assert torch.equal(from_blocks(blocks), field)


def test_surface_loss_is_smallest_at_the_truth_and_weighs_the_surface():
    torch.manual_seed(0)
    target = torch.rand(1, 8, 8, 8) * 2 - 1
    at_truth = surface_loss(target, target)
    assert surface_loss(target + 0.1, target) > at_truth
    far, near = torch.full((1, 2, 2, 2), 0.9), torch.full((1, 2, 2, 2), 0.1)
    bare = [float((surface_loss(t + 0.05, t) - surface_loss(t, t)).detach()) for t in (far, near)]
    assert bare[1] > 2 * bare[0]


def packed_pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(2, 64, 6, 6, 6, generator=generator)
    target[:, 57:] *= (torch.rand(2, 1, 6, 6, 6, generator=generator) > 0.8) + 0.01
    return target + 0.1 * torch.randn(target.shape, generator=generator), target


def test_rich_positions_by_brute_force():
    _, target = packed_pair()
    found = rich_positions(target)
    for sample in range(2):
        for position in np.ndindex(6, 6, 6):
            bands = [abs(float(target[(sample, 57 + b, *position)])) for b in range(7)]
            largest = [float(target[sample, 57 + b].abs().max()) for b in range(7)]
            assert bool(found[(sample, *position)]) == any(v > m / 32 for v, m in zip(bands, largest, strict=True))


@pytest.mark.parametrize("variant", ["rebalanced", "plain", "dense"])
def test_adaptive_sampled_loss_by_its_formula(variant):
    decoded, target = packed_pair()
    decoded.requires_grad_(True)
    loss, parts = adaptive_sampled_loss(decoded, target, torch.Generator().manual_seed(0), variant)
    base = float(((decoded.detach() - target)[:, 0] ** 2).mean())
    assert parts["base"] == pytest.approx(base, rel=1e-5)
    if variant == "rebalanced":
        assert float(loss.detach()) == pytest.approx(3 * base, rel=1e-4)
    else:
        assert float(loss.detach()) == pytest.approx(base + parts["coarse"] + parts["fine"], rel=1e-5)
    loss.backward()
    touched = (decoded.grad[:, 1:] != 0).any(1)
    rich = rich_positions(target)
    if variant == "dense":
        assert touched.all()
    else:
        assert touched[rich].all()
        expected = torch.minimum(2 * rich.flatten(1).sum(1), torch.tensor(216))
        assert torch.equal(touched.flatten(1).sum(1), expected)


def test_sampled_loss_divides_by_the_number_of_rich_positions():
    _, target = packed_pair()
    decoded = target.clone()
    decoded[:, 57] += 1.0
    _, parts = adaptive_sampled_loss(decoded, target, torch.Generator().manual_seed(0), "plain")
    rich = rich_positions(target).flatten(1).sum(1)
    chosen = torch.minimum(2 * rich, torch.tensor(216))
    assert parts["coarse"] == pytest.approx(float((chosen / rich).mean()), rel=1e-5)


def test_symmetries_are_rigid_and_all_48_occur():
    volume = np.arange(27, dtype=np.int8).reshape(1, 3, 3, 3)
    seen = {symmetry(volume, np.random.default_rng(seed)).tobytes() for seed in range(600)}
    assert len(seen) == 48


def test_fitted_codes_are_cluster_centres():
    codec = ShapeCodec(replace(embedded(), vqvae=replace(SMALL, codebook_size=4)))
    centres = torch.tensor([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 4]])
    vectors = centres.repeat(50, 1) + 0.01 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    error = fit_codebook(codec, vectors, rounds=20, seed=1)
    assert error < 1e-3
    distance = torch.cdist(codec.vqvae.codebook.embedding.detach(), centres).min(0).values
    assert distance.max() < 0.05


def test_strict_iou_of_a_perfect_reconstruction_is_one():
    codec = small()
    codec.vqvae.encode = codec.vqvae.decoder.forward = lambda x: x  # type: ignore[method-assign]
    field = np.clip(np.random.default_rng(0).normal(0, 60, (2, 64, 64, 64)), -127, 127).astype(np.int8) | np.int8(1)
    assert torch.equal(strict_iou(codec, field, quantised=False), torch.ones(2))


def test_overlap_loss_is_one_minus_iou_of_hard_fields_and_counts_objects_alike():
    target = torch.ones(2, 8, 8, 8)
    target[0, :4], target[1, :1, :1] = -1, -1  # 256 and 8 voxels inside
    shifted = torch.ones(2, 8, 8, 8)
    shifted[0, 2:6], shifted[1] = -1, target[1]
    expected = (1 - (128 + 1) / (384 + 1)) / 2  # a third of the first overlaps (one voxel added), all of the second
    assert abs(float(overlap_loss(8 * shifted, target)) - expected) < 1e-3
    assert float(overlap_loss(8 * target, target)) < 1e-3
    assert float(overlap_loss(torch.ones(1, 4, 4, 4) * 8, torch.ones(1, 4, 4, 4))) < 1e-3  # empty on both sides


def test_strided_codec_halves_and_doubles_without_pooling():
    strided = embedded()
    codec = ShapeCodec(strided)
    assert strided.vqvae.strided and codec.vqvae.encoder.down[0].weight.shape == (128, 64, 2, 2, 2)
    field = torch.linspace(-1, 1, 32**3).reshape(1, 32, 32, 32)  # a crop: a quarter of the latent grid's edge
    latent = codec.vqvae.encode(codec.pack(field))
    assert latent.shape == (1, 16, 4, 4, 4)
    assert codec.unpack(codec.vqvae.decode(latent)).shape == field.shape
    changed = field.clone()
    changed[0, 31, 31, 31] += 1  # a voxel's phase within its cell reaches the latent
    assert not torch.equal(codec.vqvae.encode(codec.pack(changed)), latent)
