"""Distillation against a prior whose score is known: a Gaussian N(μ, s²), for which D(z) is linear."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anyform.diffusion import distillation
from anyform.diffusion.distillation import Denoise, cds, sds, sds_image, surrogate, vsd, vsd_loss
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.schedule import NoiseSchedule, scaled_linear
from anyform.errors import BadSetting

MODE, SPREAD = 1.5, 0.5
SCHEDULE = scaled_linear(0.00085, 0.012, 1000)


def gaussian(mean: float = MODE, spread: float = SPREAD, schedule: NoiseSchedule = SCHEDULE) -> Denoise:
    """The exact denoiser of N(mean, spread²): E[x0 | x_t]."""

    def denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        alpha, sigma = schedule.alpha_sigma(t)
        a, s = (c.reshape(-1, *[1] * (x_t.ndim - 1)) if c.ndim else c for c in (alpha, sigma))
        x0 = (spread**2 * a * x_t + s**2 * mean) / (a**2 * spread**2 + s**2)
        return Prediction.from_x0(x0, x_t, alpha, sigma)

    return denoise


class Identity:
    def encode(self, sample: Tensor) -> Tensor:
        return sample

    def decode(self, latent: Tensor) -> Tensor:
        return latent


def descend(
    gradient: Callable[[Tensor, float, torch.Generator], Tensor], steps: int = 400, rate: float = 0.15
) -> Tensor:
    """64 latents from −2; gradient(z, part done, generator)."""
    generator = torch.Generator().manual_seed(0)
    z = torch.full((64, 1), -2.0, dtype=torch.float64)
    for step in range(steps):
        z = z - rate * gradient(z, step / steps, generator)
    return z


def timesteps(part: float, generator: torch.Generator, count: int) -> tuple[int, Tensor]:
    """Consistent3D's pair: t2 annealed from 300 to 20 with the root of time, t1 100 to 200 above it."""
    t2 = int(min(max(300 - 280 * part**0.5, 20), 400))
    return t2, (t2 + torch.randint(100, 200, (count,), generator=generator)).clamp(20, 500)


def draw(generator: torch.Generator, count: int = 64) -> Tensor:
    return torch.randn(count, 1, generator=generator, dtype=torch.float64)


def test_sds_finds_the_mode() -> None:
    def rule(z: Tensor, part: float, generator: torch.Generator) -> Tensor:
        t = torch.randint(20, 500, (64,), generator=generator)
        return sds(gaussian(), z, t, draw(generator), SCHEDULE, "one_minus_abar")

    z = descend(rule)
    assert abs(float(z.mean()) - MODE) < 0.02
    assert float(z.std()) < 0.2


def test_sds_in_the_mean_is_the_closed_form() -> None:
    """E_ε[g] = w σα (z − μ)/(α² s² + σ²) for a Gaussian."""
    t, w = 300, "one_minus_sqrt_abar"
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    z = torch.tensor([[-2.0], [0.3], [MODE]], dtype=torch.float64)
    g = [sds(gaussian(), z, t, torch.full_like(z, e), SCHEDULE, w) for e in (1.3, -1.3)]  # antithetic: mean noise 0
    wanted = (1 - alpha) * sigma * alpha * (z - MODE) / (alpha**2 * SPREAD**2 + sigma**2)
    assert torch.allclose((g[0] + g[1]) / 2, wanted, atol=1e-12)


def test_cds_finds_the_mode_with_fresh_noise_and_nears_it_with_fixed_noise() -> None:
    fixed = draw(torch.Generator().manual_seed(7))

    def rule(fresh: bool) -> Callable[[Tensor, float, torch.Generator], Tensor]:
        def gradient(z: Tensor, part: float, generator: torch.Generator) -> Tensor:
            t2, t1 = timesteps(part, generator, len(z))
            noise = draw(generator) if fresh else fixed
            return cds(gaussian(), z, t1, t2, noise, SCHEDULE)

        return gradient

    fresh, still = descend(rule(True), 800), descend(rule(False), 800)
    assert abs(float(fresh.mean()) - MODE) < 0.1 and float(fresh.std()) < SPREAD
    assert float((still - MODE).abs().max()) < 3 * SPREAD  # biased by its own noise, but inside the distribution
    assert abs(float(still.mean()) - MODE) < 0.15


@pytest.mark.parametrize("jacobian", [False, True])
def test_the_printed_sign_of_eq_3_does_not_converge(jacobian: bool) -> None:
    """Minimising ‖D(z₁) − sg D(z₂)‖² as printed, with and without the denoiser's own derivative."""

    def literal(z: Tensor, part: float, generator: torch.Generator) -> Tensor:
        t2, t1 = timesteps(part, generator, len(z))
        noise, denoise = draw(generator), gaussian()
        (a1, n1), (a2, n2) = SCHEDULE.alpha_sigma(t1), SCHEDULE.alpha_sigma(t2)
        s1, s2 = (n1 / a1)[:, None], n2 / a2
        z = z.clone().requires_grad_(jacobian)
        z1 = z + s1 * noise
        first = denoise(a1[:, None] * z1, t1)
        z2 = (z1 + (s2 - s1) * first.eps).detach()
        difference = first.x0 - denoise(a2 * z2, t2).x0
        w = (n1**2)[:, None]
        if not jacobian:
            return w * difference
        (gradient,) = torch.autograd.grad((0.5 * w * difference**2).sum(), z)
        return gradient

    z = descend(literal, 500, 0.1)
    assert float(z.mean()) < -3  # it began at −2, left of the mode at 1.5, and went away from it


def test_cds_is_zero_at_the_clean_end_of_its_own_trajectory() -> None:
    """A prior that is sure (spread 0) says the same along the trajectory only at its mode with ε̂ = ε*."""
    z = torch.full((4, 1), MODE, dtype=torch.float64)
    noise = draw(torch.Generator().manual_seed(1), 4)
    assert torch.allclose(cds(gaussian(spread=0.0), z, 320, 120, noise, SCHEDULE), torch.zeros(4, 1).double())


def test_cds_clamps_and_removes_nan() -> None:
    z = torch.tensor([[-50.0], [50.0]], dtype=torch.float64)
    g = cds(gaussian(), z, 500, 20, torch.zeros_like(z), SCHEDULE, clamp=0.01)
    assert g.tolist() == [[-0.01], [0.01]]
    assert torch.equal(cds(gaussian(), z * float("nan"), 500, 20, z, SCHEDULE), torch.zeros_like(z))


def test_the_image_half_pulls_a_picture_to_the_decoded_mean() -> None:
    """With the identity codec g_image = w α/σ (x − clamp(x̂)) and g_latent = w (ε̂ − ε) are the same vector."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    noise = 0.05 * torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    denoise, t = gaussian(mean=0.5, spread=0.1), 400
    latent, picture = sds_image(denoise, image, Identity(), t, noise, SCHEDULE, "uniform")
    assert torch.allclose(latent, sds(denoise, image, t, noise, SCHEDULE, "uniform"))
    assert torch.allclose(latent, picture, atol=1e-9)
    far = sds_image(gaussian(mean=40.0), image, Identity(), t, noise, SCHEDULE, "uniform")[1]
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    assert torch.allclose(far, alpha / sigma * (image - 1))  # x̂ is clamped to 1


def test_vsd_vanishes_where_the_copy_knows_the_score_and_follows_the_prior_otherwise() -> None:
    z = draw(torch.Generator().manual_seed(3))
    noise = draw(torch.Generator().manual_seed(4))
    assert torch.equal(vsd(gaussian(), gaussian(), z, 400, noise, SCHEDULE), torch.zeros_like(z))
    pull = vsd(gaussian(), gaussian(mean=-2.0), z, 400, noise, SCHEDULE)
    assert (pull < 0).all()  # subtracting it moves towards the prior's larger mean


def test_the_loss_of_the_learned_copy_is_least_for_the_true_score() -> None:
    generator = torch.Generator().manual_seed(5)
    z = MODE + SPREAD * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    losses = [float(vsd_loss(gaussian(mean=m), z, 400, noise, SCHEDULE)) for m in (MODE - 0.5, MODE, MODE + 0.5)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("one_minus_abar", lambda a: 1 - a),
        ("one_minus_sqrt_abar", lambda a: 1 - a**0.5),
        ("uniform", lambda a: a**0),
        ("sqrt_abar", lambda a: a**0.5 * (1 - a)),
    ],
)
def test_weightings(weighting: str, expected: Callable[[Tensor], Tensor]) -> None:
    t = torch.tensor([20, 500, 980])
    assert torch.allclose(distillation.weight(SCHEDULE, t, weighting), expected(SCHEDULE.alphas_cumprod[t]))


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(BadSetting, match="one_minus_abar"):
        distillation.weight(SCHEDULE, 3, "cosine")


def test_the_surrogate_has_the_gradient_per_sample_over_the_batch() -> None:
    value = torch.randn(4, 3, requires_grad=True)
    gradient = torch.randn(4, 3)
    loss = surrogate(value, gradient)
    (found,) = torch.autograd.grad(loss, value)
    assert torch.allclose(found, gradient / 4, atol=1e-6)
    assert float(loss.detach()) == pytest.approx(float(0.5 * gradient.square().sum() / 4), rel=1e-4)
