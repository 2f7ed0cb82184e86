"""OpenCLIP's text tower as Stable Diffusion 2 reads prompts: the penultimate layer's 77 tokens, normalised.

Sources: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"; OpenCLIP ViT-H/14
(Cherti et al.). Parameter names are those of OpenCLIP; the last block is in the files and never run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from anyform.encoders.clip_tokens import LENGTH, tokenise
from anyform.nn.attention import join_heads, split_heads
from anyform.nn.transformer import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClipTextConfig:
    """Defaults: the text tower of ViT-H/14 (354 M parameters)."""

    vocabulary: int = 49408
    width: int = 1024
    layers: int = 24
    heads: int = 16


class CausalAttention(nn.Module):
    """Multi-head self attention to this and earlier tokens; `in_proj` holds q, k, v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (split_heads(part, self.heads) for part in projected.chunk(3, -1))
        return self.out_proj(join_heads(functional.scaled_dot_product_attention(q, k, v, is_causal=True)))


class Perceptron(nn.Module):
    """To four times the width and back, exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(functional.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Attention, then perceptron; each pre-normalised and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), CausalAttention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), Perceptron(width)

    def forward(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """The blocks, under the name that OpenCLIP has for them."""

    def __init__(self, config: OpenClipTextConfig) -> None:
        super().__init__()
        self.resblocks = Stack(lambda: Block(config.width, config.heads), config.layers)


class OpenClipText(nn.Module):
    """Token ids -> tokens of the penultimate layer."""

    def __init__(self, config: OpenClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(torch.zeros(LENGTH, config.width))
        self.transformer = Transformer(config)
        self.ln_final = nn.LayerNorm(config.width)

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l w"]:
        x = self.token_embedding(ids) + self.positional_embedding
        for block in list(self.transformer.resblocks)[:-1]:
            x = block(x)
        return self.ln_final(x)

    @torch.inference_mode()
    def read(self, texts: list[str]) -> Float[Tensor, "b l w"]:
        """B sentences -> (B, 77, W)."""
        return self(torch.from_numpy(tokenise(texts)).to(self.positional_embedding.device))
