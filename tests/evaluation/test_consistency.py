"""True views of a solid are more consistent than turned, recoloured or shuffled ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anyform.errors import BadInput
from anyform.evaluation.consistency import FitPlan, fit, leave_out_psnr, reprojection
from anyform.fields.sparse_neus import rays_of
from anyform.types.camera import Cameras, alternating_orbit

PLAN = FitPlan(resolution=20, steps=40, rays=1024, sections=24)
SIZE = 16


def cameras(turn: np.ndarray | float = 0.0) -> Cameras:
    angles = alternating_orbit(8)
    return Cameras.orbit(angles[:, 0] + turn, angles[:, 1], 3.0, np.radians(40.0), SIZE)


def pictures(taken: Cameras, centre: tuple[float, float, float] = (0.3, 0.0, 0.0)) -> Tensor:
    """A ball of radius .4 beside the middle, coloured by its surface's direction, on white."""
    origins, directions = rays_of(taken)
    offset = origins - torch.tensor(centre)
    along = -(offset * directions).sum(-1)
    inside = 0.16 - (offset + along[..., None] * directions).square().sum(-1)
    surface = offset + (along - inside.clamp(min=0).sqrt())[..., None] * directions
    color = (surface / 0.4 + 1) / 2 * 0.8
    return torch.where(inside[..., None] > 0, color, torch.ones(3)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return pictures(cameras())


def test_consistency_falls_with_every_kind_of_disagreement(truth: Tensor) -> None:
    rng = np.random.default_rng(0)
    turned = pictures(cameras(np.radians(rng.uniform(-25, 25, 8))))
    tint = torch.from_numpy(rng.uniform(0.3, 1.0, (8, 3, 1, 1))).float()
    shuffled = torch.cat([pictures(cameras(), (0.4 * np.cos(i), 0.0, 0.4 * np.sin(i)))[i : i + 1] for i in range(8)])
    best = leave_out_psnr(truth, cameras(), PLAN)
    found = [leave_out_psnr(some, cameras(), PLAN) for some in (turned, 1 - (1 - truth) * tint, shuffled)]
    assert best > max(found) + 0.5
    assert best > 18
    assert leave_out_psnr(truth, cameras(), PLAN) == best  # the same every time


def test_reprojection_finds_colours_that_change_with_the_view(truth: Tensor) -> None:
    error, visible = reprojection(truth, cameras(), PLAN)
    tint = torch.linspace(0.3, 1.0, 8).reshape(8, 1, 1, 1)
    worse, _ = reprojection(1 - (1 - truth) * tint, cameras(), PLAN)
    assert 0 < error < worse and 0.1 < visible <= 1


def test_blank_views_have_nothing_to_reproject() -> None:
    assert reprojection(torch.ones(8, 3, SIZE, SIZE), cameras(), PLAN) == (0.0, 0.0)


def test_a_fitted_field_shows_what_it_was_fitted_to(truth: Tensor) -> None:
    field = fit(truth, cameras(), PLAN)
    origins, directions = (part.reshape(-1, 3) for part in rays_of(cameras()))
    color, alpha, depth = field.render(origins, directions)
    wanted = truth.permute(0, 2, 3, 1).reshape(-1, 3)
    assert (color - wanted).abs().mean() < 0.05
    front = (wanted < 0.9).any(-1)
    assert alpha[front].mean() > 0.7 > 0.2 > alpha[~front].mean()
    assert 2 < depth[front].mean() < 3


def test_what_cannot_be_compared_is_refused(truth: Tensor) -> None:
    with pytest.raises(BadInput, match="at least 4"):
        leave_out_psnr(truth[:3], cameras(), PLAN)
    with pytest.raises(BadInput, match="as many cameras"):
        reprojection(truth[:4], cameras(), PLAN)
