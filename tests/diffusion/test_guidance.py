"""Guidance is linear: the same in every reading, and equal to TuneMV3D's statement about samples."""

from __future__ import annotations

import itertools

import pytest
import torch

from anyform.diffusion.guidance import classifier_free, consistency, consistency_steps
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.samplers import ddim_step
from anyform.diffusion.schedule import cosine

SCHEDULE = cosine()


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.8, 7.5])
def test_classifier_free_agrees_in_every_reading(scale: float) -> None:
    x_t, with_condition, without = (torch.randn(2, 5, dtype=torch.float64) for _ in range(3))
    coefficients = SCHEDULE.alpha_sigma(640)
    by_x0 = Prediction.from_x0(classifier_free(with_condition, without, scale), x_t, *coefficients)
    both = [Prediction.from_x0(value, x_t, *coefficients) for value in (with_condition, without)]
    assert torch.allclose(by_x0.eps, classifier_free(both[0].eps, both[1].eps, scale), atol=1e-12)
    assert torch.allclose(by_x0.v, classifier_free(both[0].v, both[1].v, scale), atol=1e-12)
    assert torch.equal(classifier_free(with_condition, without, 0.0), without)


@pytest.mark.parametrize("strength", [0.5, 7.5])
def test_consistency_on_eps_is_equation_4_on_samples(strength: float) -> None:
    x_t, with_branch, plain = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))
    coefficients, previous = SCHEDULE.alpha_sigma(500), SCHEDULE.alphas_cumprod[480].item()

    def step(eps: torch.Tensor) -> torch.Tensor:
        return ddim_step(Prediction.from_eps(eps, x_t, *coefficients), previous)

    stated = step(with_branch) + strength * (step(with_branch) - step(plain))  # TuneMV3D Eq. 4
    assert torch.allclose(step(consistency(with_branch, plain, strength)), stated, atol=1e-11)
    assert torch.allclose(
        consistency(with_branch, plain, strength), classifier_free(with_branch, plain, strength + 1), atol=1e-12
    )


@pytest.mark.parametrize(("num_steps", "fraction", "count"), [(50, 0.3, 15), (50, 0.0, 0), (50, 1.0, 50), (7, 0.5, 3)])
def test_consistency_steps_are_the_right_number_evenly_spread(num_steps, fraction, count) -> None:
    chosen = consistency_steps(num_steps, fraction)
    assert len(chosen) == num_steps
    assert sum(chosen) == count
    places = [i for i, is_chosen in enumerate(chosen) if is_chosen]
    gaps = {after - before for before, after in itertools.pairwise(places)}
    assert not gaps or max(gaps) - min(gaps) <= 1
