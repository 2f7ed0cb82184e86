"""The VQ-VAE: published sizes, an independent codebook search, straight-through gradients, and its optional parts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from anyform.systems.wala.vqvae import VQVAE, Codebook, Decoder, Encoder, ResBlock, VQVAEConfig

TINY = VQVAEConfig(
    packed_channels=8,
    packed_size=14,
    widths=(32, 32, 32),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    codebook_size=16,
)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_released_shape_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = VQVAE(VQVAEConfig())
        tokens = VQVAE(VQVAEConfig(transformer_blocks=(4, 4)))
    assert (count(model.encoder), count(model.decoder), count(model.codebook)) == (6_433_924, 6_433_984, 4_096)
    assert count(tokens) == 15_434_052
    assert VQVAEConfig().stage_sizes == (46, 23, 12)


@pytest.mark.parametrize("size", [46, 38, 30, 26, 22, 14])
def test_every_size_of_the_wavelet_chain_comes_back_to_itself(size):
    config = VQVAEConfig(
        packed_channels=8, packed_size=size, widths=(32, 32, 32), encoder_blocks=(1,) * 3, decoder_blocks=(1,) * 3
    )
    with torch.device("meta"):
        packed = torch.zeros(1, 8, size, size, size)
        latent = Encoder(config)(packed)
        assert latent.shape == (1, 4, *(config.latent_size,) * 3)
        assert Decoder(config)(latent).shape == packed.shape


def test_pooling_counts_padded_zeros():
    encoder = Encoder(TINY)
    ones = torch.ones(1, 32, 14, 14, 14)
    pooled = F.avg_pool3d(ones, 3, 2, 1)
    assert pooled[0, 0, 0, 0, 0] == pytest.approx(8 / 27)
    seen = []
    encoder.stages[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder.stages[0].register_forward_hook(lambda *_: ones)
    encoder(torch.zeros(1, 8, 14, 14, 14))
    torch.testing.assert_close(seen[0], pooled)


def test_codebook_finds_the_nearest_code_by_brute_force():
    book = Codebook(TINY)
    torch.nn.init.normal_(book.embedding)
    latent = torch.randn(2, 4, 4, 4, 4)
    quantised, codes = book(latent)
    rows = latent.permute(0, 2, 3, 4, 1).reshape(2, -1, 1, 4)
    nearest = (rows - book.embedding).norm(dim=-1).argmin(-1)
    assert torch.equal(codes, nearest)
    torch.testing.assert_close(book.lookup(codes, 4), quantised)
    expected = 0.25 * (latent - quantised).square().mean() + (latent - quantised).square().mean()
    torch.testing.assert_close(book.loss(latent, quantised), expected)


def test_grouped_codes_quantise_each_part_of_the_channels_on_its_own():
    config = VQVAEConfig(latent_channels=8, code_width=4, codebook_size=16)
    book = Codebook(config)
    torch.nn.init.normal_(book.embedding)
    latent = torch.randn(1, 8, 3, 3, 3)
    quantised, codes = book(latent)
    assert codes.shape == (1, 27 * 2)
    for part in range(2):
        alone = Codebook(VQVAEConfig(codebook_size=16))
        alone.embedding = book.embedding
        torch.testing.assert_close(alone(latent[:, 4 * part : 4 * part + 4])[0], quantised[:, 4 * part : 4 * part + 4])


def test_normalised_codes_are_looked_up_by_direction():
    config = VQVAEConfig(normalised_codes=True, codebook_size=32)
    book = Codebook(config)
    latent = torch.randn(1, 4, 3, 3, 3)
    quantised, _ = book(latent)
    torch.testing.assert_close(quantised.norm(dim=1), torch.ones(1, 3, 3, 3))
    scaled, _ = book(latent * 7)
    torch.testing.assert_close(scaled, quantised)


def test_gradient_passes_straight_through_the_codes():
    torch.manual_seed(0)
    model = VQVAE(TINY)
    packed = torch.randn(1, 8, 14, 14, 14)
    decoded, latent, loss = model(packed)
    latent.retain_grad()
    assert decoded.shape == packed.shape
    (decoded.square().mean() + loss).backward()
    for part in (model.encoder.stem.weight, model.decoder.stem.weight, model.codebook.embedding):
        assert part.grad is not None
        assert torch.isfinite(part.grad).all()
        assert part.grad.abs().sum() > 0


def test_decode_always_snaps_to_codes():
    torch.manual_seed(1)
    model = VQVAE(TINY).eval()
    torch.nn.init.normal_(model.codebook.embedding)
    latent = torch.randn(1, 4, 4, 4, 4)
    snapped, _ = model.quantise(latent)
    torch.testing.assert_close(model.decode(latent), model.decoder(snapped))
    torch.testing.assert_close(model.decode(snapped), model.decode(latent))


def test_residual_block_starts_as_its_skip():
    block = ResBlock(32, 32, 8)
    x = torch.randn(1, 32, 3, 3, 3)
    torch.testing.assert_close(block(x), x)
    wider = ResBlock(32, 48, 0)
    torch.testing.assert_close(wider(x), wider.skip(x))
