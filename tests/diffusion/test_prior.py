"""Conditions as batches, guidance in one call, the zero-terminal schedule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anyform.diffusion.prediction import Prediction
from anyform.diffusion.prior import Condition, Prior, guided
from anyform.diffusion.schedule import cosine, scaled_linear, zero_terminal


def test_a_condition_of_one_serves_many() -> None:
    one = Condition(tokens=torch.randn(1, 3, 4), labels=torch.randn(1, 5))
    many = one.expanded(3)
    assert many.tokens is not None and many.labels is not None and many.grid is None
    assert many.tokens.shape == (3, 3, 4) and many.labels.shape == (3, 5)
    assert many.expanded(3) is many
    with pytest.raises(ValueError, match="cannot serve 2"):
        many.expanded(2)


def test_joined_conditions_keep_their_order_and_need_the_same_parts() -> None:
    first, second = Condition(labels=torch.zeros(1, 2)), Condition(labels=torch.ones(2, 2))
    joined = first.joined(second)
    assert joined.labels is not None and joined.labels[:, 0].tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="cannot be joined"):
        first.joined(Condition(tokens=torch.zeros(1, 1, 2)))


class Doubling:
    """A codec."""

    def encode(self, sample: Tensor) -> Tensor:
        return sample * 2

    def decode(self, latent: Tensor) -> Tensor:
        return latent / 2


class Linear:
    """A denoiser whose eps is its condition's label, whatever x is."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x_t: Tensor, t: int | Tensor, condition: Condition) -> Prediction:
        assert condition.expanded(len(x_t)).labels is not None
        self.batches.append(len(x_t))
        labels = condition.expanded(len(x_t)).labels
        assert labels is not None
        alpha, sigma = scaled_linear(0.00085, 0.012).alpha_sigma(t)
        return Prediction.from_eps(labels[:, :1].expand_as(x_t), x_t, alpha, sigma)


@pytest.mark.parametrize("t", [500, torch.tensor([500, 20])])
def test_guidance_is_one_call_and_the_formula(t: int | Tensor) -> None:
    denoiser = Linear()
    prior = Prior(
        denoiser=denoiser,
        codec=Doubling(),
        schedule=scaled_linear(0.00085, 0.012),
        condition=lambda: Condition(labels=torch.full((1, 1), 2.0)),
        null=lambda condition: Condition(labels=torch.full((1, 1), 0.5)),
        licence="none",
        image_size=8,
        latent_shape=(3, 8, 8),
    )
    x_t = torch.randn(2, 3)
    said = guided(prior, prior.condition(), 4.0)(x_t, t)
    assert torch.allclose(said.eps, torch.full((2, 3), 0.5 + 4 * 1.5)) and denoiser.batches == [4]
    assert said.x_t is x_t and torch.isfinite(said.x0).all() and said.x0.shape == x_t.shape
    alone = guided(prior, prior.condition(), 1.0)(x_t, t)
    assert torch.equal(alone.eps, torch.full((2, 3), 2.0)) and denoiser.batches == [4, 2]


@pytest.mark.parametrize("schedule", [cosine(1000), scaled_linear(0.00085, 0.012)])
def test_zero_terminal_keeps_the_first_and_ends_in_noise(schedule: object) -> None:
    made = zero_terminal(schedule)  # type: ignore[arg-type]
    alpha_bar = made.alphas_cumprod
    assert float(alpha_bar[-1]) == 0
    assert float(alpha_bar[0]) == pytest.approx(float(schedule.alphas_cumprod[0]), rel=1e-12)  # type: ignore[attr-defined]
    assert (alpha_bar[1:] < alpha_bar[:-1]).all()
    assert torch.allclose(torch.cumprod(1 - made.betas, 0), alpha_bar, atol=1e-12)
