"""Splatted bias against the explicit gather it stands for, and what must never leak."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from torch import Tensor

from anyform.fields.sparse_neus import RayRender, project
from anyform.systems.tunemv3d.latent_neus import Rig
from anyform.systems.tunemv3d.pair_attention import PairAttention, PairAttentions, bias_of, mass_of, over_patches, splat

SIZE, VIEWS, SAMPLES = 4, 3, 5


def samples(rig: Rig) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reach = 2 + 2 * torch.rand(VIEWS, SIZE, SIZE, SAMPLES, generator=generator)
    points = rig.origins[..., None, :] + rig.directions[..., None, :] * reach[..., None]
    return points, torch.rand(VIEWS, SIZE, SIZE, SAMPLES, generator=generator)


@pytest.fixture
def rig(tiny_foundation: ModuleType) -> Rig:
    return Rig.of(tiny_foundation.orbit(VIEWS, SIZE), SIZE)


def gathered(q: Tensor, k: Tensor, v: Tensor, points: Tensor, weights: Tensor, projection: Tensor) -> Tensor:
    """The paper's way for every query: candidate keys by projecting its samples, attention times weight, renormalised.

    A sample between pixels is a candidate at all four with bilinear shares of its weight; equal keys come repeatedly.
    """
    out, cells = torch.zeros_like(q), SIZE * SIZE
    for query in range(len(q)):
        own, row, column = query // cells, query % cells // SIZE, query % SIZE
        keys, mass = [], []
        for other in (view for view in range(VIEWS) if view != own):
            where, depth = project(points[own, row, column], projection[other : other + 1])
            for sample in range(SAMPLES):
                x, y = ((where[0, sample] + 1) * SIZE / 2 - 0.5).tolist()
                for i, j in ((i, j) for i in (0, 1) for j in (0, 1)):
                    c, r = math.floor(x) + i, math.floor(y) + j
                    share = (1 - abs(x - c)) * (1 - abs(y - r))
                    if 0 <= c < SIZE and 0 <= r < SIZE and depth[0, sample] > 0:
                        keys.append(other * cells + r * SIZE + c)
                        mass.append(weights[own, row, column, sample].item() * share)
        if keys:
            score = torch.exp(k[keys] @ q[query] / math.sqrt(q.shape[1])) * torch.tensor(mass)
            out[query] = (score / score.sum()) @ v[keys]
    return out


def test_splatted_bias_equals_the_explicit_gather(rig: Rig) -> None:
    points, weights = samples(rig)
    mass = splat(points, weights, rig.projection)
    q, k, v = torch.randn(3, VIEWS * SIZE * SIZE, 6, generator=torch.Generator().manual_seed(1))
    fast = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=bias_of(mass)[None])[0]
    exact = gathered(q, k, v, points, weights, rig.projection)
    reached = mass.sum(-1) > 0
    large = (mass >= 1e-4) | (mass == 0)  # the floor of the bias is the one intended difference
    rows = reached & large.all(-1)
    assert rows.sum() > 20
    assert (fast - exact)[rows].abs().max() < 1e-5
    assert (fast - exact)[reached].abs().max() < 1e-2


def test_nothing_comes_from_the_own_view(rig: Rig) -> None:
    mass = splat(*samples(rig), rig.projection)
    cells = SIZE * SIZE
    for view in range(VIEWS):
        own = slice(view * cells, (view + 1) * cells)
        assert mass[own, own].sum() == 0
    assert mass.sum() > 0


def test_mass_is_the_weight_that_lands_inside(rig: Rig) -> None:
    """A sample at the centre of the world lands between the middle pixels of every other view with all its weight."""
    points = torch.zeros(VIEWS, SIZE, SIZE, 1, 3)
    mass = splat(points, torch.full((VIEWS, SIZE, SIZE, 1), 0.25), rig.projection)
    assert torch.allclose(mass.sum(-1), torch.full((len(mass),), 0.25 * (VIEWS - 1)), atol=1e-5)
    behind = points + 1.5 * rig.origins[:1, :1, :1, None]
    assert splat(behind, torch.ones(VIEWS, SIZE, SIZE, 1), rig.projection)[:, : SIZE * SIZE].sum() == 0


def test_a_patch_is_the_sum_of_its_pixels(rig: Rig) -> None:
    mass = splat(*samples(rig), rig.projection)
    patched = over_patches(mass, VIEWS).reshape(VIEWS, SIZE, SIZE, -1)
    rows = mass.reshape(VIEWS, SIZE, SIZE, -1)
    assert torch.allclose(patched[1, 2, 1], rows[1, 1:4, 0:3].sum((0, 1)), atol=1e-5)
    corner = [rows[0, r, c] for r in (0, 0, 1) for c in (0, 0, 1)]
    assert torch.allclose(patched[0, 0, 0], torch.stack(corner).sum(0), atol=1e-5)


def test_mass_of_a_render_takes_the_heaviest_sections_of_each_cell(tiny_foundation: ModuleType) -> None:
    """All weight on one section: the same as splatting that section's middle on every cell's mean ray."""
    rig = Rig.of(tiny_foundation.orbit(VIEWS, 8), 8)
    origins, directions = rig.rays()
    edges = -(origins * directions).sum(-1, keepdim=True) + torch.linspace(-1, 1, 4)
    weights = torch.zeros(len(edges), 3)
    weights[:, 1] = 1
    seen = RayRender(torch.zeros(len(edges), 3), weights.sum(-1), weights, edges)
    mass = mass_of(seen, rig.origins, rig.directions, rig.projection, SIZE, samples=1)
    cells = rig.directions.reshape(VIEWS, SIZE, 2, SIZE, 2, 3).mean((2, 4))
    reach = seen.middles[:, 1].reshape(VIEWS, SIZE, 2, SIZE, 2).mean((2, 4))
    points = rig.origins[:, ::2, ::2] + torch.nn.functional.normalize(cells, dim=-1) * reach[..., None]
    exact = splat(points[..., None, :], torch.ones(VIEWS, SIZE, SIZE, 1), rig.projection)
    assert torch.allclose(mass, over_patches(exact, VIEWS), atol=1e-4)
    assert mass.sum() > 0


def test_a_query_that_reaches_nothing_adds_nothing() -> None:
    torch.manual_seed(0)
    pair = PairAttention(8, 2)
    torch.nn.init.normal_(pair.out.weight)
    torch.nn.init.normal_(pair.out.bias)
    x = torch.randn(2, 8, 2, 2)
    mass = torch.zeros(1, 8, 8)
    mass[0, 0, 5] = 1.0
    changed = (pair(x, mass) - x).abs().sum(1)
    assert changed[0, 0, 0] > 0
    assert changed.flatten()[1:].abs().max() == 0


def test_untrained_attention_adds_nothing_and_levels_are_found_by_number() -> None:
    pair = PairAttention(6, 2)
    x = torch.randn(2, 6, 2, 2)
    assert torch.equal(pair(x, torch.ones(1, 8, 8)), x)
    held = PairAttentions({"1": pair})
    assert held.at(1) is pair and held.at(0) is None
