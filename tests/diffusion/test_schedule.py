"""Schedules against closed forms evaluated with Python floats."""

from __future__ import annotations

import math

import pytest
import torch

from anyform.diffusion.schedule import cosine, scaled_linear
from anyform.errors import BadSetting


def test_cosine_follows_its_closed_form_up_to_the_clipped_end() -> None:
    schedule = cosine(1000)

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0, 1, 250, 749, 998):
        assert schedule.alphas_cumprod[t].item() == pytest.approx(alpha_bar((t + 1) / 1000) / alpha_bar(0), rel=1e-10)
    assert schedule.betas[-1].item() == 0.999
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(2.4288e-9, rel=1e-4)  # the value the spec measured


def test_scaled_linear_is_linear_in_the_root_of_beta() -> None:
    schedule = scaled_linear(0.00085, 0.012, 1000)
    roots = schedule.betas.sqrt()
    assert torch.allclose(roots[1:] - roots[:-1], (roots[-1] - roots[0]) / 999, rtol=1e-9, atol=0)
    assert schedule.betas[0].item() == pytest.approx(0.00085, rel=1e-12)
    assert schedule.betas[-1].item() == pytest.approx(0.012, rel=1e-12)


@pytest.mark.parametrize("schedule", [cosine(1000), cosine(50), scaled_linear(0.00085, 0.02, 1000)])
def test_everything_is_double_and_decreasing(schedule) -> None:
    assert schedule.betas.dtype == schedule.alphas_cumprod.dtype == torch.float64
    assert schedule.num_timesteps == len(schedule.betas) == len(schedule.alphas_cumprod)
    assert (schedule.alphas_cumprod.diff() < 0).all()
    assert 0 < schedule.alphas_cumprod[-1] < schedule.alphas_cumprod[0] < 1
    product = 1.0
    for beta, expected in zip(schedule.betas.tolist(), schedule.alphas_cumprod.tolist(), strict=True):
        product *= 1 - beta
        assert expected == pytest.approx(product, rel=1e-12)


def test_alpha_and_sigma_of_a_batch_are_on_the_unit_circle() -> None:
    alpha, sigma = cosine().alpha_sigma(torch.tensor([0, 500, 999]))
    assert alpha.shape == sigma.shape == (3,)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(3, dtype=torch.float64), atol=1e-15)
    one, _ = cosine().alpha_sigma(500)
    assert one == alpha[1]


def test_noise_is_added_per_sample() -> None:
    schedule = cosine()
    x0, noise = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    both = schedule.add_noise(x0, noise, torch.tensor([10, 900]))
    for row, t in enumerate((10, 900)):
        kept = schedule.alphas_cumprod[t].item()
        assert torch.allclose(both[row], kept**0.5 * x0[row] + (1 - kept) ** 0.5 * noise[row], atol=1e-14)
        assert torch.equal(schedule.add_noise(x0[row], noise[row], t), both[row])


@pytest.mark.parametrize("arguments", [(0.0, 0.02), (0.02, 0.01), (0.01, 1.0)])
def test_impossible_ranges_are_refused_with_their_numbers(arguments) -> None:
    with pytest.raises(BadSetting, match=str(arguments[1])):
        scaled_linear(*arguments)


def test_a_single_timestep_is_no_schedule() -> None:
    with pytest.raises(BadSetting, match="2 timesteps"):
        cosine(1)
