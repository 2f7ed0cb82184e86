"""The U-Net and the autoencoder against diffusers' with the same weights, and their two halves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anyform.errors import WeightsError
from anyform.nn import autoencoder_kl, unet2d
from anyform.nn.autoencoder_kl import AutoencoderConfig, AutoencoderKL
from anyform.nn.unet2d import Attention, UNet2D, UNet2DConfig, sinusoid

TINY = {
    "in_channels": 5,
    "out_channels": 4,
    "block_out_channels": (16, 24, 32),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": (2, 3, 4),
    "norm_num_groups": 8,
    "cross_attention_dim": 20,
}
TINY_VAE = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}


def theirs(table: dict[str, Any]) -> Any:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(3)
    model = diffusers.UNet2DConditionModel(sample_size=16, **table).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.12)
    return model


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"use_linear_projection": True},
        {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 12},
    ],
)
def test_the_unet_is_diffusers(extra: dict[str, Any]) -> None:
    reference = theirs({**TINY, **extra})
    ours = UNet2D(unet2d.config_of_diffusers(dict(reference.config))).eval()
    ours.load_state_dict(reference.state_dict())
    x, t, tokens = torch.randn(2, 5, 16, 16), torch.tensor([7, 993]), torch.randn(2, 6, 20)
    labels = torch.randn(2, 12) if "class_embed_type" in extra else None
    with torch.no_grad():
        expected = reference(x, t, encoder_hidden_states=tokens, class_labels=labels).sample
        found = ours(x, t, tokens, labels)
    assert expected.std() > 0.05
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_the_autoencoder_is_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(5)
    reference = diffusers.AutoencoderKL(**TINY_VAE).eval()
    ours = AutoencoderKL(autoencoder_kl.config_of_diffusers(dict(reference.config))).eval()
    ours.load_state_dict(reference.state_dict())
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = reference.encode(image).latent_dist
        mean, deviation = ours.moments(image)
        assert torch.allclose(mean, expected.mean, atol=1e-5)
        assert torch.allclose(deviation, expected.std, atol=1e-5)
        assert mean.shape == (2, 4, 8, 8)
        assert torch.allclose(ours.decode(mean), reference.decode(mean).sample, atol=1e-5)


def test_full_size_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        sizes = {
            "zero123": UNet2D(UNet2DConfig(channels_in=8)),
            "unclip": UNet2D(UNet2DConfig(heads=(5, 10, 20, 20), token_width=1024, labels=2048, linear=True)),
            "vae": AutoencoderKL(AutoencoderConfig()),
        }
    counts = {name: sum(p.numel() for p in model.parameters()) / 1e6 for name, model in sizes.items()}
    assert counts == pytest.approx({"zero123": 859.53, "unclip": 870.17, "vae": 83.65}, abs=0.01)


def test_the_halves_make_the_whole_and_residuals_reach_the_output() -> None:
    torch.manual_seed(0)
    model = UNet2D(UNet2DConfig(widths=(8, 16), attends=(False, True), layers=1, heads=(1, 2), groups=4, token_width=6))
    x, t, tokens = torch.randn(1, 4, 8, 8), torch.tensor([10]), torch.randn(1, 3, 6)
    embedding = model.embed(t)
    encoded = model.encode(x, embedding, tokens)
    whole = model(x, t, tokens)
    assert torch.equal(model.decode(encoded, embedding, tokens), whole)
    assert [tuple(skip.shape[1:]) for skip in encoded.skips] == [(8, 8, 8), (8, 8, 8), (8, 4, 4), (16, 4, 4)]
    zero = encoded.plus([torch.zeros_like(skip) for skip in encoded.skips], torch.zeros_like(encoded.middle))
    assert torch.equal(model.decode(zero, embedding, tokens), whole)
    moved = encoded.plus([torch.zeros_like(skip) for skip in encoded.skips], torch.ones_like(encoded.middle))
    assert not torch.allclose(model.decode(moved, embedding, tokens), whole, atol=1e-3)


def test_sliced_attention_is_exact() -> None:
    torch.manual_seed(0)
    layer = Attention(12, 12, 3)
    x = torch.randn(2, 10, 12)
    whole = layer(x)
    layer.slice = 3
    assert torch.allclose(layer(x), whole, atol=1e-6)


def test_sinusoid_starts_with_cosines() -> None:
    values = sinusoid(torch.tensor([0.0, 1.0]), 4)
    expected = torch.tensor([[1, 1, 0, 0], [0.5403023, 0.99995, 0.8414710, 0.0099998]])
    assert torch.allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"down_block_types": ("SimpleCrossAttnDownBlock2D",) * 3}, {"class_embed_type": "timestep"}]
)
def test_another_structure_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="another structure"):
        unet2d.config_of_diffusers({**TINY, **change})


def test_labels_must_fit_the_network() -> None:
    model = UNet2D(UNet2DConfig(widths=(8,), attends=(False,), layers=1, heads=(1,), groups=4, token_width=6))
    with pytest.raises(ValueError, match="takes no class labels"):
        model.embed(torch.tensor([1]), torch.zeros(1, 4))
