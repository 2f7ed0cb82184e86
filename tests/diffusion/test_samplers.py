"""Samplers against the spec's tables, and against a linear-Gaussian world where the right answer is known."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch

from anyform.diffusion.prediction import Prediction
from anyform.diffusion.samplers import (
    ancestral,
    ancestral_step,
    ddim,
    ddim_step,
    spaced_betas,
    spaced_timesteps,
)
from anyform.diffusion.schedule import cosine, scaled_linear
from anyform.errors import BadSetting

SCHEDULE = cosine(1000)


@pytest.mark.parametrize(
    ("n", "timesteps", "betas"),
    [
        (5, [0, 250, 500, 749, 999], [4.128e-5, 0.1541, 0.4180, 0.7069, 1 - 1.7e-8]),
        (8, [0, 143, 285, 428, 571, 714, 856, 999],
         [4.128e-5, 0.0549, 0.1487, 0.2495, 0.3661, 0.5176, 0.7354, 1 - 5e-8]),
        (10, [0, 111, 222, 333, 444, 555, 666, 777, 888, 999],
         [4.128e-5, 0.0344, 0.0927, 0.1531, 0.2193, 0.2972, 0.3957, 0.5325, 0.7424, 1 - 8e-8]),
    ],
)  # fmt: skip
def test_spacing_matches_the_table(n, timesteps, betas) -> None:
    assert spaced_timesteps(n) == timesteps
    spaced = spaced_betas(SCHEDULE, timesteps)
    assert spaced.dtype == torch.float64
    assert spaced[:-1].tolist() == pytest.approx(betas[:-1], abs=5.1e-5, rel=2e-4)
    assert 1 - spaced[-1].item() == pytest.approx(1 - betas[-1], rel=0.1)


def test_spacing_accumulates_and_differs_from_a_product_first_at_21() -> None:
    differs = []
    for n in range(2, 1001):
        product = [round(k * 999 / (n - 1)) for k in range(n)]
        if spaced_timesteps(n) != product:
            differs.append(n)
    assert differs[0] == 21
    assert len(differs) == 283


@pytest.mark.parametrize("n", [2, 3, 21, 50, 333, 999, 1000])
def test_spacing_rises_from_the_cleanest_to_the_noisiest(n) -> None:
    timesteps = spaced_timesteps(n)
    assert (timesteps[0], timesteps[-1], len(timesteps)) == (0, 999, n)
    assert all(after > before for before, after in itertools.pairwise(timesteps))


def test_impossible_step_counts_are_refused() -> None:
    assert spaced_timesteps(1) == [0]
    for n in (0, -3, 1001):
        with pytest.raises(BadSetting, match=str(n)):
            spaced_timesteps(n)
    with pytest.raises(BadSetting, match="2 steps"):
        ancestral(lambda x, t: Prediction.from_x0(x, x, 1, 0), torch.zeros(1), SCHEDULE, [0])
    with pytest.raises(BadSetting, match="2 steps"):
        ddim(lambda x, t: Prediction.from_x0(x, x, 1, 0), torch.zeros(1), SCHEDULE, [999])


def test_the_ancestral_step_is_the_gaussian_posterior() -> None:
    """The product of the two Gaussians, in exact fractions: its mean and variance, nothing simplified."""
    timesteps = spaced_timesteps(8)
    spaced = SCHEDULE.alphas_cumprod[timesteps]
    for k in range(1, 8):
        now, before = Fraction(spaced[k].item()), Fraction(spaced[k - 1].item())
        forward_variance, prior_variance = 1 - now / before, 1 - before
        precision = (now / before) / forward_variance + 1 / prior_variance
        x_t, x0 = torch.randn(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
        root_step, root_before = float(now / before) ** 0.5, float(before) ** 0.5
        mean = (x_t * root_step / float(forward_variance) + x0 * root_before / float(prior_variance)) / float(precision)
        prediction = Prediction.from_x0(x0, x_t, *SCHEDULE.alpha_sigma(timesteps[k]))
        zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        step = ancestral_step(prediction, float(now), float(before), zero)
        assert torch.allclose(step, mean, rtol=1e-9, atol=1e-12)
        small = ancestral_step(prediction, float(now), float(before), one, "fixed_small") - step
        assert torch.allclose(small, one * float(1 / precision) ** 0.5, rtol=1e-8)
        large = ancestral_step(prediction, float(now), float(before), one, "fixed_large") - step
        assert torch.allclose(large, one * float(forward_variance) ** 0.5, rtol=1e-8)


class Gaussian:
    """Data N(mean, spread²): the best denoiser is linear, and every marginal is known."""

    mean, spread = 0.7, 0.4

    def __call__(self, x_t: torch.Tensor, t: int) -> Prediction:
        alpha, sigma = SCHEDULE.alpha_sigma(t)
        variance = alpha**2 * self.spread**2 + sigma**2
        x0 = self.mean + alpha * self.spread**2 / variance * (x_t - alpha * self.mean)
        return Prediction.from_x0(x0, x_t, alpha, sigma)


def test_ancestral_sampling_reaches_the_data_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(40_000, generator=generator, dtype=torch.float64)
    result = ancestral(Gaussian(), start, SCHEDULE, spaced_timesteps(300), generator=generator)
    assert result.mean().item() == pytest.approx(0.7, abs=0.01)
    assert result.std().item() == pytest.approx(0.4, abs=0.01)


def test_ddim_follows_the_exact_ode_of_the_gaussian() -> None:
    """For Gaussian data the probability flow maps each quantile of x_T to the same quantile of the data."""
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    result = ddim(Gaussian(), start, SCHEDULE, spaced_timesteps(1000))
    alpha, sigma = SCHEDULE.alpha_sigma(999)
    quantile = (start - alpha * 0.7) / (alpha**2 * 0.16 + sigma**2).sqrt()
    assert torch.allclose(result, 0.7 + 0.4 * quantile, atol=5e-3)


def test_a_perfect_denoiser_returns_its_sample_at_once() -> None:
    x0 = torch.randn(2, 3)

    def denoise(x_t: torch.Tensor, t: int) -> Prediction:
        return Prediction.from_x0(x0, x_t, *SCHEDULE.alpha_sigma(t))

    start = torch.randn(2, 3)
    assert torch.equal(ancestral(denoise, start, SCHEDULE, spaced_timesteps(5)), x0)
    assert torch.equal(ddim(denoise, start, SCHEDULE, spaced_timesteps(5)), x0)
    seen = []
    ancestral(denoise, start, SCHEDULE, [0, 999], on_step=seen.append)
    assert seen == [1, 2]


def test_ddim_with_eta_one_is_the_ancestral_step() -> None:
    timesteps = spaced_timesteps(10)
    alpha_bar = SCHEDULE.alphas_cumprod[timesteps].tolist()
    x0, x_t, noise = (torch.randn(4, dtype=torch.float64) for _ in range(3))
    for k in range(1, 10):
        prediction = Prediction.from_x0(x0, x_t, *SCHEDULE.alpha_sigma(timesteps[k]))
        expected = ancestral_step(prediction, alpha_bar[k], alpha_bar[k - 1], noise)
        assert torch.allclose(ddim_step(prediction, alpha_bar[k - 1], eta=1.0, noise=noise), expected, atol=1e-7)


def test_ddim_without_noise_keeps_x0_and_eps() -> None:
    schedule = scaled_linear(0.00085, 0.012, 1000)
    x0, eps = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(torch.tensor([800, 600]))
    prediction = Prediction.from_eps(eps, alpha[:, None] * x0 + sigma[:, None] * eps, alpha, sigma)
    previous = schedule.alphas_cumprod[torch.tensor([700, 500])]
    expected = previous.sqrt()[:, None] * x0 + (1 - previous).sqrt()[:, None] * eps
    assert torch.allclose(ddim_step(prediction, previous), expected, atol=1e-12)
    with pytest.raises(ValueError, match="needs noise"):
        ddim_step(prediction, previous, eta=0.5)


def test_noise_is_drawn_once_a_step_the_last_included(monkeypatch) -> None:
    drawn = []
    real = torch.randn

    def counted(*args, **kwargs):
        drawn.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "randn", counted)
    start = torch.zeros(2, 2, dtype=torch.float64)
    ancestral(Gaussian(), start, SCHEDULE, spaced_timesteps(5), generator=torch.Generator().manual_seed(1))
    assert len(drawn) == 5


def test_a_seed_gives_the_same_sample_and_another_seed_another() -> None:
    def sample(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        start = torch.zeros(8, dtype=torch.float64)
        return ancestral(Gaussian(), start, SCHEDULE, spaced_timesteps(5), generator=generator)

    assert torch.equal(sample(3), sample(3))
    assert not torch.allclose(sample(3), sample(4))
