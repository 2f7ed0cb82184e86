"""The wavelet tree against PyWavelets, its readable twin, and the packing order written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch

from anyform.systems.wala.wavelet_tree import (
    BIOR_6_8,
    HAAR,
    analyse_reference,
    decompose,
    level_sizes,
    pack,
    reconstruct,
    synthesise_reference,
    unpack,
)

KEYS = ("daa", "ada", "dda", "aad", "dad", "add", "ddd")  # bands 1..7; letters are the axes x, y, z
BANKS = {"bior6.8": BIOR_6_8, "haar": HAAR}


@pytest.mark.parametrize("name", BANKS)
def test_filters_are_those_of_pywavelets(name):
    bank, oracle = BANKS[name], pywt.Wavelet(name)
    for mine, theirs in zip(
        (bank.analysis_low, bank.analysis_high, bank.synthesis_low, bank.synthesis_high),
        oracle.filter_bank,
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-15)


@pytest.mark.filterwarnings("ignore:Level value")
@pytest.mark.parametrize("padding", ["constant", "zero"])
@pytest.mark.parametrize(
    ("name", "size", "levels"), [("bior6.8", 64, 3), ("bior6.8", 47, 2), ("haar", 32, 2), ("haar", 30, 3)]
)
def test_tree_equals_pywavelets_and_comes_back(name, size, levels, padding):
    volume = torch.from_numpy(np.random.default_rng(size).standard_normal((2, size, size, size)))
    tree = decompose(volume, padding, BANKS[name], levels)
    for sample in range(2):
        oracle = pywt.wavedecn(volume[sample].numpy(), name, mode=padding, level=levels)
        np.testing.assert_allclose(tree.coarse[sample], oracle[0], atol=1e-10)
        for level, bands in enumerate(oracle[1:]):
            for band, key in enumerate(KEYS):
                np.testing.assert_allclose(tree.details[level][sample, band], bands[key], atol=1e-10)
    torch.testing.assert_close(reconstruct(tree, size, BANKS[name]), volume, atol=1e-10, rtol=0)


def test_sizes_of_the_paper_and_of_the_embedded_family():
    assert level_sizes(256) == (256, 136, 76, 46)
    assert [level_sizes(size)[-1] for size in (64, 96, 128)] == [22, 26, 30]
    assert level_sizes(64, HAAR, 2) == (64, 32, 16)


@pytest.mark.parametrize("padding", ["constant", "zero"])
@pytest.mark.parametrize("bank", BANKS.values())
def test_matrices_equal_the_readable_twin(bank, padding):
    signal = torch.randn(3, 21, dtype=torch.float64)
    low, high = analyse_reference(signal, bank, padding)
    tree = decompose(signal[0][None, :, None, None].expand(1, 21, 21, 21).contiguous(), padding, bank, 1)
    constant = decompose(torch.ones(1, 21, 21, 21, dtype=torch.float64), padding, bank, 1).coarse[0]
    middle = constant.shape[0] // 2
    per_axis = constant[middle, middle, middle] ** (2 / 3)
    torch.testing.assert_close(tree.coarse[0, :, middle, middle], low[0] * per_axis)
    back = synthesise_reference(low, high, bank)[:, :21]
    torch.testing.assert_close(back, signal)


def test_packing_order_is_the_one_released_weights_depend_on():
    volume = torch.randn(1, 64, 64, 64, dtype=torch.float64)
    tree = decompose(volume)
    packed, edge = pack(decompose(volume, with_finest=False)), 22
    assert packed.shape == (1, 64, edge, edge, edge)
    finer = torch.nn.functional.pad(tree.details[1], ((2 * edge - tree.details[1].shape[-1]) // 2,) * 6)
    for dx, band, dy, dz in [(0, 1, 0, 0), (1, 3, 0, 1), (0, 7, 1, 1), (1, 1, 1, 0)]:
        channel = 1 + ((dx * 7 + band - 1) * 2 + dy) * 2 + dz
        torch.testing.assert_close(packed[0, channel], finer[0, band - 1, dx::2, dy::2, dz::2])
    torch.testing.assert_close(packed[:, 57:], tree.details[0])
    torch.testing.assert_close(packed[:, 0], tree.coarse)


def test_unpack_inverts_pack_and_its_finest_level_is_zero():
    volume = torch.randn(2, 64, 64, 64)
    packed = pack(decompose(volume, with_finest=False))
    tree = unpack(packed, 64)
    assert tree.finest_is_zero
    assert not tree.details[-1].any()
    torch.testing.assert_close(pack(tree), packed)
    skipped = reconstruct(tree, 64)
    spelled_out = reconstruct(type(tree)(tree.coarse, tuple(d.clone() for d in tree.details)), 64)
    torch.testing.assert_close(skipped, spelled_out, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="64 channels at 22³"):
        unpack(packed, 128)


def test_dropping_the_finest_level_keeps_a_smooth_shape():
    axis = torch.linspace(-1, 1, 64)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    sdf = ((x**2 + y**2 + z**2).sqrt() - 0.6).clamp(-0.1, 0.1)[None]
    for padding, largest in (("constant", 1e-2), ("zero", 10.0)):
        back = reconstruct(unpack(pack(decompose(sdf, padding, with_finest=False)), 64), 64)
        assert (back - sdf).abs().max() < largest
    inside, truth = back < 0, sdf < 0
    assert (inside & truth).sum() / (inside | truth).sum() > 0.98


def test_a_constant_field_gives_the_constant_that_the_specification_states():
    coarse = decompose(torch.full((1, 64, 64, 64), 0.1, dtype=torch.float64)).coarse
    torch.testing.assert_close(coarse, torch.full_like(coarse, 0.1 * 2**4.5), atol=1e-9, rtol=0)


def test_gradient_of_a_round_trip_is_the_identity():
    volume = torch.randn(1, 20, 20, 20, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 20, 20, 20, dtype=torch.float64)
    (reconstruct(decompose(volume, levels=2), 20) * weight).sum().backward()
    torch.testing.assert_close(volume.grad, weight, atol=1e-9, rtol=0)
