"""MiniLM-L6: the small sentence encoder behind every text prompt of the embedded models.

A post-norm BERT of 6 layers, width 384, 12 heads, exact GELU, LayerNorm eps 1e-12, absolute positions, English
lower-case word pieces. A sentence vector is the mean of the token states over the real tokens, brought to unit length.
Sources: Devlin et al., BERT (2018); Wang et al., MiniLM (2020); Reimers and Gurevych, Sentence-BERT (2019). The weights
are all-MiniLM-L6-v2 (Apache-2.0), converted by `runs/convert_minilm.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class MiniLMConfig:
    """Sizes of all-MiniLM-L6-v2 (its public config.json); of its 512 positions we keep 64, the longest prompt read."""

    vocabulary: int = 30522
    width: int = 384
    num_layers: int = 6
    num_heads: int = 12
    mlp_width: int = 1536
    num_positions: int = 64
    norm_eps: float = 1e-12


class Layer(nn.Module):
    """One post-norm transformer layer: x = norm(x + attention(x)); x = norm(x + mlp(x))."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, D), mask (B, L) bool, True = a real token -> (B, L, D)."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = self.attention_norm(x + self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        return self.mlp_norm(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """Word-piece ids -> token states. The released pooler is no part of a sentence vector and is left out."""

    def __init__(self, config: MiniLMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MiniLMConfig()
        self.words = nn.Parameter(torch.zeros(config.vocabulary, config.width))
        # A prompt is one segment, so its segment vector is added to the positions once, at conversion.
        self.positions = nn.Parameter(torch.zeros(config.num_positions, config.width))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids (B, L) int64 with L <= num_positions, mask (B, L) bool -> token states (B, L, D)."""
        x = self.norm(F.embedding(ids, self.words) + self.positions[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask)
        return x


def sentence_vectors(tokens: Tensor, mask: Tensor) -> Tensor:
    """Token states (B, L, D), mask (B, L) bool -> (B, D) unit vectors: the mean over real tokens, normalised."""
    weight = mask.unsqueeze(-1).to(tokens.dtype)
    return F.normalize((tokens * weight).sum(1) / weight.sum(1), dim=-1)


def from_released(released: dict[str, Tensor], config: MiniLMConfig) -> dict[str, Tensor]:
    """State dict of the released BertModel -> ours: q, k, v in one matrix; positions cut and joined with segment 0."""
    state = {
        "words": released["embeddings.word_embeddings.weight"],
        "positions": released["embeddings.position_embeddings.weight"][: config.num_positions]
        + released["embeddings.token_type_embeddings.weight"][0],
    }
    renamed = {"norm": "embeddings.LayerNorm"}
    for i in range(config.num_layers):
        theirs = f"encoder.layer.{i}"
        renamed |= {
            f"layers.{i}.out": f"{theirs}.attention.output.dense",
            f"layers.{i}.attention_norm": f"{theirs}.attention.output.LayerNorm",
            f"layers.{i}.up": f"{theirs}.intermediate.dense",
            f"layers.{i}.down": f"{theirs}.output.dense",
            f"layers.{i}.mlp_norm": f"{theirs}.output.LayerNorm",
        }
        for part in ("weight", "bias"):
            attention = [released[f"{theirs}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"layers.{i}.qkv.{part}"] = torch.cat(attention)
    for ours, theirs in renamed.items():
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = released[f"{theirs}.{part}"]
    return state
