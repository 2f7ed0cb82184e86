"""Parts that the transformers here share: layers in the dtype of their weights, two-layer perceptron, attention layers.

Attention optionally normalises every head's channels of q and k with a LayerNorm of their own. Activations may be
float32 beside bfloat16 weights: a matrix product runs in the dtype of its weights, normalisations in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anyform.nn.attention import attention, join_heads, split_heads

M = TypeVar("M", bound=nn.Module)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in the dtype of its weights, which is the dtype of the result."""
    return layer(x.to(layer.weight.dtype))


def precise(x: Tensor) -> Tensor:
    """At least float32: what normalisations, modulation and residual sums are computed in."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Stack(nn.ModuleList, Generic[M]):
    """A ModuleList of `count` new modules that remembers their type."""

    def __init__(self, build: Callable[[], M], count: int) -> None:
        super().__init__(build() for _ in range(count))

    def __iter__(self) -> Iterator[M]:
        return cast("Iterator[M]", super().__iter__())


class Mlp(nn.Module):
    """Linear, activation, Linear."""

    def __init__(self, width_in: int, hidden: int, width_out: int, activation: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(width_in, hidden)
        self.activation = activation
        self.second = nn.Linear(hidden, width_out)

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.second, self.activation(linear(self.first, x)))


class HeadNorm(nn.Module):
    """LayerNorm over the channels of each head, computed in float32, back in the dtype it came in."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(head_width)

    def forward(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        return self.norm(precise(x)).to(x.dtype)


def _head_norm(width: int, heads: int, wanted: bool) -> nn.Module:
    return HeadNorm(width // heads) if wanted else nn.Identity()


class SelfAttention(nn.Module):
    """Multi-head attention over its own tokens; `qkv` holds q, k, v in that order, heads contiguous."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool = True, head_norm: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.q_norm, self.k_norm = _head_norm(width, heads, head_norm), _head_norm(width, heads, head_norm)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        q, k, v = (split_heads(part, self.heads) for part in linear(self.qkv, x).chunk(3, -1))
        return linear(self.out, join_heads(attention(self.q_norm(q), self.k_norm(k), v)))


class CrossAttention(nn.Module):
    """Multi-head attention from x to a context, whose keys and values `keys_values` makes once."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width, bias=qkv_bias), nn.Linear(width, 2 * width, bias=qkv_bias)
        self.q_norm, self.k_norm = HeadNorm(width // heads), HeadNorm(width // heads)
        self.out = nn.Linear(width, width)

    def keys_values(self, context: Float[Tensor, "b l w"]) -> tuple[Tensor, Tensor]:
        """(k normalised, v), each (B, H, L, D)."""
        k, v = (split_heads(part, self.heads) for part in linear(self.kv, context).chunk(2, -1))
        return self.k_norm(k), v

    def forward(self, x: Float[Tensor, "b n w"], k: Tensor, v: Tensor) -> Float[Tensor, "b n w"]:
        q = self.q_norm(split_heads(linear(self.q, x), self.heads))
        return linear(self.out, join_heads(attention(q, k, v)))
