"""The point encoders: size, invariance to order, and the published formula head by head."""

from __future__ import annotations

import math

import pytest
import torch

from anyform.encoders.pointnet import PointNetConfig, build

SMALL = PointNetConfig(point_widths=(6, 8, 12), width=16, num_tokens=5, context_width=24, heads=4, depth=2)
SIMPLE = PointNetConfig(point_widths=(6, 8, 12), width=16, num_tokens=5, context_width=24, heads=4, simple=True)


def randomised(config: PointNetConfig):
    torch.manual_seed(0)
    encoder = build(config).double().eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def oracle(s: dict[str, torch.Tensor], config: PointNetConfig, points: torch.Tensor) -> torch.Tensor:
    """One cloud (N, 3) -> (L, C), written with plain products."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        y = x @ s[name + ".weight"].T
        return y + s[name + ".bias"] if name + ".bias" in s else y

    def standard(x: torch.Tensor, eps: float) -> torch.Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return standard(x, 1e-5) * s[name + ".weight"] + s[name + ".bias"]

    def attend(name: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        size, parts = q.shape[-1] // config.heads, []
        for head in range(config.heads):
            cut = slice(head * size, (head + 1) * size)
            scores = norm(f"{name}.q_norm.norm", q[:, cut]) @ norm(f"{name}.k_norm.norm", k[:, cut]).T / math.sqrt(size)
            parts.append(scores.softmax(-1) @ v[:, cut])
        return linear(f"{name}.out", torch.cat(parts, -1))

    def gelu(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def mlp(name: str, x: torch.Tensor) -> torch.Tensor:
        return linear(f"{name}.second", gelu(linear(f"{name}.first", x)))

    h = points
    for n in range(4):
        h = norm(f"points.norms.{n}", linear(f"points.linears.{n}", h))
        h = h.clamp(min=0) if config.simple else h * torch.sigmoid(h)
    k, v = linear("pooling.attention.kv", h).chunk(2, -1)
    x = attend("pooling.attention", linear("pooling.attention.q", s["pooling.queries"][0]), k, v)
    if config.simple:
        x = norm("norm1", linear("linear1", x)).clamp(min=0)
        return linear("linear3", norm("norm2", linear("linear2", x)).clamp(min=0))
    x = mlp("widen", standard(x, 1e-6))
    for n in range(config.depth):
        q, k, v = linear(f"blocks.{n}.attention.qkv", standard(x, 1e-6)).chunk(3, -1)
        x = x + attend(f"blocks.{n}.attention", q, k, v)
        x = x + mlp(f"blocks.{n}.mlp", standard(x, 1e-6))
    return x


@pytest.mark.parametrize("config", [SMALL, SIMPLE], ids=["large", "simple"])
def test_the_encoder_is_the_published_formula(config: PointNetConfig) -> None:
    encoder = randomised(config)
    points = torch.rand(2, 40, 3, dtype=torch.float64) * 1.8 - 0.9
    found = encoder(points)
    assert found.shape == (2, 5, 24)
    for cloud in range(2):
        expected = oracle(encoder.state_dict(), config, points[cloud])
        assert torch.allclose(found[cloud], expected, atol=1e-10)


@pytest.mark.parametrize("config", [SMALL, SIMPLE], ids=["large", "simple"])
def test_the_order_of_points_does_not_matter(config: PointNetConfig) -> None:
    encoder = randomised(config)
    points = torch.randn(1, 30, 3, dtype=torch.float64)
    turned = points[:, torch.randperm(30)]
    assert torch.allclose(encoder(points), encoder(turned), atol=1e-12)
    assert torch.allclose(encoder(points), encoder(torch.cat([points, points], 1)), atol=1e-12)
    assert not torch.allclose(encoder(points), encoder(-points), atol=1e-3)


def test_parameter_counts_and_biases_of_the_released_models() -> None:
    with torch.device("meta"):
        large, simple = build(PointNetConfig()), build(PointNetConfig(simple=True))
    assert sum(parameter.numel() for parameter in large.parameters()) == 64_546_176  # "64.5 M"
    assert sum(parameter.numel() for parameter in simple.parameters()) == 8_945_024  # "8.9 M"
    assert "pooling.attention.kv.bias" in large.state_dict()
    assert "pooling.attention.kv.bias" not in simple.state_dict()
    assert "blocks.0.attention.qkv.bias" not in large.state_dict()
