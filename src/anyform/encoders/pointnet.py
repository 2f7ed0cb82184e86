"""WaLa's point cloud encoders: any number of points -> 256 tokens, whatever their order (specs/wala.md §5.2).

Points go one by one through four normalised layers; learned queries gather them by attention, without a residual.
PointNetLarge refines the tokens in transformer blocks (64.5 M parameters), PointNetSimple in three layers (8.9 M).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.nn.transformer import CrossAttention, Mlp, SelfAttention, Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class PointNetConfig:
    """Defaults: the released PC model with 1024-wide tokens."""

    point_widths: tuple[int, int, int] = (64, 256, 1024)  # hidden layers before the last, `width`
    width: int = 1024
    num_tokens: int = 256
    context_width: int = 1024
    heads: int = 16
    depth: int = 4  # transformer blocks of PointNetLarge
    simple: bool = False  # PointNetSimple instead


class PointLayers(nn.Module):
    """Linear, LayerNorm, activation, four times, for every point alone: (B, N, 3) -> (B, N, width)."""

    def __init__(self, config: PointNetConfig, activation: nn.Module) -> None:
        super().__init__()
        widths = (3, *config.point_widths, config.width)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])
        self.activation = activation

    def forward(self, points: Tensor) -> Tensor:
        h = points
        for layer, norm in zip(self.linears, self.norms, strict=True):
            h = self.activation(norm(layer(h)))
        return h


class AttentionPooling(nn.Module):
    """Learned queries attend to all points: (B, N, width) -> (B, num_tokens, width)."""

    def __init__(self, config: PointNetConfig, qkv_bias: bool) -> None:
        super().__init__()
        self.queries = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, config.num_tokens, config.width)))
        self.attention = CrossAttention(config.width, config.heads, qkv_bias=qkv_bias)

    def forward(self, points: Tensor) -> Tensor:
        return self.attention(self.queries.expand(len(points), -1, -1), *self.attention.keys_values(points))


class PlainBlock(nn.Module):
    """x += attention(LN(x)); x += MLP(LN(x)); the LayerNorms have no weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, qkv_bias=False)
        self.mlp = Mlp(width, 4 * width, width, nn.GELU("tanh"))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(_normalise(x))
        return x + self.mlp(_normalise(x))


def _normalise(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


class PointNetLarge(nn.Module):
    """(B, N, 3) points in [−1, 1]³ -> (B, num_tokens, context_width)."""

    def __init__(self, config: PointNetConfig) -> None:
        super().__init__()
        self.config = config
        self.points = PointLayers(config, nn.SiLU())
        self.pooling = AttentionPooling(config, qkv_bias=True)
        self.widen = Mlp(config.width, 4 * config.width, config.context_width, nn.GELU("tanh"))
        self.blocks = Stack(lambda: PlainBlock(config.context_width, config.heads), config.depth)

    def forward(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b l c"]:
        x = self.widen(_normalise(self.pooling(self.points(points))))
        for block in self.blocks:
            x = block(x)
        return x


class PointNetSimple(nn.Module):
    """(B, N, 3) points in [−1, 1]³ -> (B, num_tokens, context_width)."""

    def __init__(self, config: PointNetConfig) -> None:
        super().__init__()
        self.config = config
        width, out = config.width, config.context_width
        self.points = PointLayers(config, nn.ReLU())
        self.pooling = AttentionPooling(config, qkv_bias=False)
        self.linear1, self.norm1 = nn.Linear(width, out), nn.LayerNorm(out)
        self.linear2, self.norm2 = nn.Linear(out, out), nn.LayerNorm(out)
        self.linear3 = nn.Linear(out, out)

    def forward(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b l c"]:
        x = functional.relu(self.norm1(self.linear1(self.pooling(self.points(points)))))
        return self.linear3(functional.relu(self.norm2(self.linear2(x))))


def build(config: PointNetConfig) -> PointNetLarge | PointNetSimple:
    """The encoder that `config.simple` names."""
    return PointNetSimple(config) if config.simple else PointNetLarge(config)
