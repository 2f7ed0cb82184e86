"""Pairwise geometry-aware attention: a pixel looks at the places in other views where its ray meets the surface.

The paper gathers candidate keys and multiplies attention by density. Here the samples' weights are splatted on the keys
of all views and their logarithm is added to the scores, which is the same (specs/tunemv3d.md §3.7) without a gather,
and one bias serves every layer, head and text branch.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.fields.sparse_neus import RayRender, project
from anyform.nn.attention import join_heads, split_heads

_SMALLEST = 1e-4  # mass below which a key that is seen at all still counts this much
_NEVER = -1e4


@torch.no_grad()
def splat(points: Tensor, weights: Tensor, projection: Tensor) -> Float[Tensor, "q k"]:
    """Mass of every key for every query, (V h h, V h h): Σ_s w_s · bilinear(key | π_j(p_s)), own view left out.

    points (V, h, h, S, 3): samples on the rays of each query; weights (V, h, h, S); projection (V, 3, 4). Samples that
    project beside a picture or behind a camera leave nothing there.
    """
    views, size, _, samples, _ = points.shape
    cells = size * size
    where, depth = project(points.reshape(-1, 3), projection)
    place = (where + 1) * size / 2 - 0.5
    corner = place.floor()
    part = place - corner
    query = torch.arange(views * cells, device=points.device).repeat_interleave(samples)
    mass = torch.zeros(views * cells * views * cells, device=points.device)
    for view in range(views):
        other = (depth[view] > 0) & (query // cells != view)
        for right in (0, 1):
            for down in (0, 1):
                column, row = corner[view, :, 0] + right, corner[view, :, 1] + down
                across = part[view, :, 0] if right else 1 - part[view, :, 0]
                along = part[view, :, 1] if down else 1 - part[view, :, 1]
                inside = other & (column >= 0) & (column < size) & (row >= 0) & (row < size)
                key = (view * cells + row * size + column)[inside].long()
                value = (weights.reshape(-1) * across * along)[inside]
                mass.index_add_(0, query[inside] * (views * cells) + key, value)
    return mass.reshape(views * cells, views * cells)


@torch.no_grad()
def over_patches(mass: Tensor, views: int) -> Float[Tensor, "q k"]:
    """The mass of the 3 × 3 patch around each query: splatting is linear, so patches are sums of their pixels' rows.

    Beyond a picture's border its last pixels count again.
    """
    size = round((len(mass) / views) ** 0.5)
    rows = mass.reshape(views, size, size, -1)
    for axis in (1, 2):
        first, last = rows.narrow(axis, 0, 1), rows.narrow(axis, size - 1, 1)
        before = torch.cat([first, rows.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([rows.narrow(axis, 1, size - 1), last], axis)
        rows = before + rows + after
    return rows.reshape(mass.shape)


@torch.no_grad()
def mass_of(
    seen: RayRender, origins: Tensor, directions: Tensor, projection: Tensor, size: int, samples: int
) -> Float[Tensor, "q k"]:
    """What `splat` makes of a render of V views at s × s: the `samples` heaviest sections of every size × size cell.

    origins, directions (V, s, s, 3) of the rendered rays; a cell's weights and depths are its pixels' means.
    """
    views, edge = directions.shape[:2]
    block = edge // size

    def pooled(values: Tensor) -> Tensor:
        maps = values.reshape(views, edge, edge, -1).permute(0, 3, 1, 2)
        return functional.avg_pool2d(maps, block).permute(0, 2, 3, 1)

    weights, middles = pooled(seen.weights), pooled(seen.middles)
    heaviest = weights.topk(min(samples, weights.shape[-1]), -1)
    reach = middles.gather(-1, heaviest.indices)
    start, towards = pooled(origins), functional.normalize(pooled(directions), dim=-1)
    points = start[..., None, :] + towards[..., None, :] * reach[..., None]
    return over_patches(splat(points, heaviest.values, projection), views)


def bias_of(mass: Tensor) -> Tensor:
    """log of the mass, as it is added to attention scores; keys without mass are never looked at."""
    return torch.where(mass > 0, mass.clamp(min=_SMALLEST).log(), torch.full_like(mass, _NEVER))


class PairAttention(nn.Module):
    """Attention between all pixels of an object's views, weighed by mass; adds nothing until it is trained."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, mass: Tensor) -> Tensor:
        """x (B V, C, h, w), mass (B, V h w, V h w) -> x plus what its queries found; a query without any key adds 0."""
        objects, (height, width) = len(mass), x.shape[-2:]
        tokens = self.norm(x).flatten(2).transpose(1, 2).reshape(objects, -1, x.shape[1])
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(tokens).chunk(3, -1))
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias_of(mass)[:, None].to(q.dtype))
        mixed = self.out(join_heads(found)) * (mass.sum(-1, keepdim=True) > 0).to(x.dtype)
        return x + mixed.reshape(len(x), height * width, -1).transpose(1, 2).unflatten(2, (height, width))


class PairAttentions(nn.ModuleDict):
    """One module for each level that has one; the keys are level numbers."""

    def at(self, level: int) -> PairAttention | None:
        """The module of a level, None where there is none."""
        return cast("PairAttention", self[str(level)]) if str(level) in self else None
