"""The surface fitted to the views: a distance and colour lattice, rendered like the field, against every picture (§8).

The field's own resolution is that of its features. A few dozen optimiser steps on a lattice bring it to the views'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyform.fields.sparse_neus import alphas, ball_edges, read_lattice, section_weights
from anyform.systems.tunemv3d.latent_neus import Rig
from anyform.systems.tunemv3d.training import eikonal

WHITE = 0.04  # a pixel within this of white in every channel is background


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinePlan:
    """Steps and weights; slope: 1/s of the logistic function grows from the first to the second over the steps."""

    steps: int = 60
    resolution: int = 64
    rays: int = 2048
    sections: int = 48
    rate_distance: float = 0.01  # world units a step
    rate_color: float = 0.05
    slope: tuple[float, float] = (20.0, 80.0)
    weight_mask: float = 0.5
    weight_eikonal: float = 0.05
    weight_smooth: float = 2.0


def foreground(pictures: Tensor) -> Tensor:
    """(V, 3, s, s) in [0, 1] on white -> soft coverage (V, 1, s, s): 0 on white, 1 from four times `WHITE` away."""
    distance = (1 - pictures).amax(1, keepdim=True)
    return ((distance - WHITE) / (3 * WHITE)).clamp(0, 1)


def refine(
    lattice: Tensor, pictures: Tensor, rig: Rig, plan: RefinePlan, *, seed: int, on_step: Callable[[int], None]
) -> Tensor:
    """lattice (4, G, G, G), distances and colours in [0, 1] -> the same at `plan.resolution`, fitted to the pictures.

    pictures (V, 3, s, s) in [0, 1] on white, seen by the rig at s. The same seed gives the same bits.
    """
    size = plan.resolution
    start = functional.interpolate(lattice[None], size=(size,) * 3, mode="trilinear", align_corners=True)[0]
    distance = nn.Parameter(start[:1].clone())
    color = nn.Parameter(torch.logit(start[1:].clamp(0.02, 0.98)))
    optimiser = torch.optim.Adam(
        [{"params": [distance], "lr": plan.rate_distance}, {"params": [color], "lr": plan.rate_color}]
    )
    wanted = torch.cat([pictures, foreground(pictures)], 1).permute(0, 2, 3, 1).reshape(-1, 4)
    origins, directions = rig.rays()
    generator = torch.Generator().manual_seed(seed)
    for step in range(plan.steps):
        rows = torch.randint(len(wanted), (plan.rays,), generator=generator).to(wanted.device)
        share = step / max(plan.steps - 1, 1)
        slope = plan.slope[0] + share * (plan.slope[1] - plan.slope[0])
        field = torch.cat([distance, color.sigmoid()])
        seen = _render(field, origins[rows], directions[rows], plan.sections, slope)
        loss = (seen[:, :3] - wanted[rows, :3]).abs().mean()
        loss = loss + plan.weight_mask * (seen[:, 3] - wanted[rows, 3]).abs().mean()
        loss = loss + plan.weight_eikonal * eikonal(field) + plan.weight_smooth * _roughness(distance)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        on_step(step + 1)
    return torch.cat([distance, color.sigmoid()]).detach()


def _render(field: Tensor, origins: Tensor, directions: Tensor, sections: int, slope: float) -> Tensor:
    """Colour over white and alpha (R, 4) of rays through a lattice."""
    edges = ball_edges(origins, directions, sections, jitter=False)
    points = origins[:, None] + directions[:, None] * edges[..., None]
    values = read_lattice(field, points.reshape(-1, 3)).reshape(*edges.shape, -1)
    weights = section_weights(alphas(values[..., 0], slope) * (points[:, :-1].norm(dim=-1) < 1))
    alpha = weights.sum(-1, keepdim=True)
    middle = (values[:, :-1, 1:] + values[:, 1:, 1:]) / 2
    return torch.cat([(middle * weights[..., None]).sum(1) + 1 - alpha, alpha], -1)


def _roughness(distance: Tensor) -> Tensor:
    """Mean squared second difference of a lattice (1, G, G, G) along its axes, in units of its spacing."""
    spacing = 2 / (distance.shape[-1] - 1)
    terms = []
    for axis in (1, 2, 3):
        terms.append((distance.diff(n=2, dim=axis) / spacing).square().mean())
    return torch.stack(terms).sum()
