"""The level 0 of a signed distance on a tetrahedral grid, as a mesh with gradients (Shen et al. 2021, DMTet).

On an edge between a and b with sdf of different signs the surface has a vertex at p = p_a + t (p_b − p_a),
t = s_a / (s_a − s_b). The topology is a constant of the gradient. With h = ⟨g, p_b − p_a⟩ / (s_a − s_b)²:
d s_a −= s_b h, d s_b += s_a h, d p_a += (1 − t) g, d p_b += t g.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from anyform.geometry.tets import EDGES, NUM_TRIANGLES, TRIANGLES, crossings

_SMALLEST = 1e-8


def marching_tets(positions_of: Callable[[Tensor], Tensor], sdf: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Vertices (N, 3) and faces (F, 3) int64 of a Kuhn grid's surface, differentiable in positions and sdf.

    sdf ((R + 1)³,), negative inside. positions_of: indices (T,) of grid vertices -> their positions (T, 3); only those
    on crossing edges are asked for. The topology is compiled and runs on the CPU.
    """
    pairs, faces = (torch.from_numpy(part) for part in crossings(sdf.detach().cpu().numpy(), resolution))
    used = torch.zeros(len(sdf), dtype=torch.bool)
    used[pairs.flatten()] = True
    local = (used.cumsum(0) - 1)[pairs].to(sdf.device)
    touched = used.nonzero()[:, 0].to(sdf.device)
    values = off_zero(sdf.index_select(0, touched))
    return _Crossing.apply(positions_of(touched), values, local), faces.to(sdf.device, torch.int64)


def off_zero(sdf: Tensor) -> Tensor:
    """The sdf with |s| >= 1e-8, sign kept, gradient 1: clamping t instead would lose the gradient."""
    value = sdf.detach()
    smallest = torch.full_like(value, _SMALLEST)
    moved = torch.where(value > 0, smallest, -smallest) - value
    return sdf + torch.where(value.abs() < _SMALLEST, moved, torch.zeros_like(value))


def marching_tets_reference(positions: Tensor, sdf: Tensor, tets: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, on any tetrahedra (T, 4): the same surface with vertices and faces in another order."""
    outside = sdf > 0
    cut = outside[tets].sum(1)
    tets = tets[(cut > 0) & (cut < 4)]
    case = (outside[tets] * torch.tensor([1, 2, 4, 8], device=tets.device)).sum(1)
    ends = tets[:, torch.from_numpy(EDGES).to(tets.device)].reshape(-1, 2).sort(1).values
    key, edge = torch.unique(ends[:, 0] * len(sdf) + ends[:, 1], return_inverse=True)
    a, b = key // len(sdf), key % len(sdf)
    crossing = outside[a] != outside[b]
    a, b, edge = a[crossing], b[crossing], (crossing.cumsum(0) - 1)[edge].view(-1, 6)
    triangles, number = (torch.from_numpy(table).to(tets.device)[case] for table in (TRIANGLES, NUM_TRIANGLES))
    one, two = number > 0, number > 1
    faces = torch.cat([edge[one].gather(1, triangles[one, :3]), edge[two].gather(1, triangles[two, 3:])])
    t = (sdf[a] / (sdf[a] - sdf[b]))[:, None]
    return positions[a] * (1 - t) + positions[b] * t, faces


class _Crossing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, sdf: Tensor, pairs: Tensor) -> Tensor:
        a, b = pairs[:, 0], pairs[:, 1]
        sa, sb, pa = sdf[a], sdf[b], positions[a]
        t, along = sa / (sa - sb), positions[b] - pa
        ctx.save_for_backward(pairs, sa, sb, t, along)
        ctx.count = len(sdf)
        return torch.addcmul(pa, t[:, None], along)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pairs, sa, sb, t, along = ctx.saved_tensors
        a, b = pairs[:, 0], pairs[:, 1]
        h = (gradient * along).sum(1) / (sa - sb) ** 2
        g_sdf = gradient.new_zeros(ctx.count).index_add_(0, a, -sb * h).index_add_(0, b, sa * h)
        if not ctx.needs_input_grad[0]:
            return None, g_sdf, None
        g_positions = gradient.new_zeros(ctx.count, 3).index_add_(0, a, gradient * (1 - t)[:, None])
        return g_positions.index_add_(0, b, gradient * t[:, None]), g_sdf, None
