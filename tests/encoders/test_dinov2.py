"""DINOv2 with registers against its formulas, and its position resize against a bicubic kernel written out."""

from __future__ import annotations

import math

import numpy as np
import torch

from anyform.encoders.dinov2 import Dinov2, Dinov2Config

SMALL = Dinov2Config(width=32, depth=2, heads=4, patch=4, trained_cells=7, registers=4)


def randomised(config: Dinov2Config = SMALL) -> Dinov2:
    torch.manual_seed(0)
    encoder = Dinov2(config).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def test_parameter_count_of_the_released_model() -> None:
    with torch.device("meta"):
        encoder = Dinov2(Dinov2Config())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 304_371_712


def test_the_network_is_the_published_formula() -> None:
    """A batch of one at the trained size, head by head with plain products."""
    encoder = randomised().double()
    s = encoder.state_dict()
    image = torch.randn(1, 3, 28, 28, dtype=torch.float64)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * s[name + ".weight"] + s[name + ".bias"]
        )

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ s[name + ".weight"].T + s[name + ".bias"]

    kernel = s["patch.weight"].reshape(32, -1)
    cells = [image[0, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(-1) for i in range(7) for j in range(7)]
    patches = torch.stack(cells) @ kernel.T + s["patch.bias"] + s["positions"][0, 1:]
    x = torch.cat([s["class_token"][0] + s["positions"][0, :1], s["registers"][0], patches])
    for n in range(2):
        q, k, v = linear(f"blocks.{n}.attention.qkv", norm(f"blocks.{n}.norm1", x)).reshape(-1, 3, 4, 8).unbind(1)
        heads = [(q[:, h] @ k[:, h].T / 8**0.5).softmax(-1) @ v[:, h] for h in range(4)]
        x = x + s[f"blocks.{n}.scale1"] * linear(f"blocks.{n}.attention.out", torch.cat(heads, -1))
        h = linear(f"blocks.{n}.mlp.first", norm(f"blocks.{n}.norm2", x))
        h = h * (1 + torch.erf(h / 2**0.5)) / 2
        x = x + s[f"blocks.{n}.scale2"] * linear(f"blocks.{n}.mlp.second", h)
    assert torch.allclose(encoder(image)[0], norm("norm", x)[5:], atol=1e-10)


def bicubic_row(position: float, cells: int) -> np.ndarray:
    """Weights over `cells` samples of the cubic kernel with a = −0.75, edges repeated."""
    start = math.floor(position)
    weights = np.zeros(cells)
    for tap in range(start - 1, start + 3):
        d = abs(position - tap)
        a = -0.75
        value = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4)
        weights[min(max(tap, 0), cells - 1)] += value
    return weights


def test_positions_are_resized_by_the_scale_factor_with_its_offset() -> None:
    encoder = randomised()
    found = encoder.patch_positions(3, 4)[0].reshape(3, 4, 32).numpy()
    trained = encoder.positions[0, 1:].reshape(7, 7, 32).double().numpy()

    def rows(cells: int, offset: float) -> np.ndarray:
        step = 7 / (cells + offset)
        return np.stack([bicubic_row((i + 0.5) * step - 0.5, 7) for i in range(cells)])

    expected = np.einsum("ra,cb,abd->rcd", rows(3, 0.1), rows(4, 0.1), trained)
    assert np.abs(found - expected).max() < 1e-5
    to_size = np.einsum("ra,cb,abd->rcd", rows(3, 0.0), rows(4, 0.0), trained)
    assert np.abs(found - to_size).max() > 1e-3  # a resize to the output size samples elsewhere


def test_positions_at_the_trained_size_are_untouched() -> None:
    encoder = randomised()
    assert torch.equal(encoder.patch_positions(7, 7), encoder.positions[:, 1:])


def test_tokens_are_rows_first_and_count_patches_only() -> None:
    encoder = randomised()
    image = torch.zeros(1, 3, 16, 16)
    tokens = encoder(image)
    assert tokens.shape == (1, 16, 32)
    changed = image.clone()
    changed[..., 0:4, 8:12] = 3.0  # first row, third column
    assert (encoder(changed) - tokens).norm(dim=-1).argmax().item() == 2
