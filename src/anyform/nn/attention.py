"""Scaled dot-product attention, shared by every transformer here: a plain twin, and what is fast on this machine.

q: (B, H, N, D), k and v: (B, H, M, D) -> (B, H, N, D) in the dtype of q; softmax(q kᵀ / √D) v.
On a CPU in bfloat16 torch's fused kernel is no faster than float32. Blocks of scores small enough to stay in cache,
as two matrix products around a softmax, are about three times faster (specs/wala.md §12).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_SCORES_IN_CACHE = 432 * 1728  # elements of one block of scores: 1.5 MB in bfloat16


def attention(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h m d"], v: Float[Tensor, "b h m d"]
) -> Float[Tensor, "b h n d"]:
    """The fastest of the exact forms for this device and dtype; equal to `attention_reference` up to rounding."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return attention_chunked(q, k, v)
    return functional.scaled_dot_product_attention(q, k, v)


def attention_reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Readable twin: the formula."""
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return scores.softmax(-1) @ v


def attention_chunked(q: Tensor, k: Tensor, v: Tensor, scores_in_cache: int = _SCORES_IN_CACHE) -> Tensor:
    """The formula on blocks of at most `scores_in_cache` scores: several heads together, or some rows of one head."""
    batch, heads, num_rows, width = q.shape
    num_keys = k.shape[2]
    queries = (q * width**-0.5).reshape(batch * heads, num_rows, width)
    keys = k.reshape(batch * heads, num_keys, width).transpose(1, 2)
    values = v.reshape(batch * heads, num_keys, width)
    rows = max(1, min(num_rows, scores_in_cache // num_keys))
    together = max(1, scores_in_cache // (rows * num_keys))
    blocks = []
    for some in zip(queries.split(together), keys.split(together), values.split(together), strict=True):
        q_some, k_some, v_some = some
        parts = [torch.bmm(torch.bmm(part, k_some).softmax(-1), v_some) for part in q_some.split(rows, dim=1)]
        blocks.append(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
    return torch.cat(blocks).reshape(batch, heads, num_rows, width)


def split_heads(x: Float[Tensor, "b n w"], num_heads: int) -> Float[Tensor, "b h n d"]:
    """(B, N, H·D) -> (B, H, N, D): a head's channels are contiguous."""
    batch, length, width = x.shape
    return x.reshape(batch, length, num_heads, width // num_heads).transpose(1, 2)


def join_heads(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n w"]:
    """Inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)
