"""The three readings describe the same x_t, whichever one they were made from."""

from __future__ import annotations

import pytest
import torch

from anyform.diffusion.prediction import Prediction
from anyform.diffusion.schedule import cosine


def readings(t: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(t)
    x0, eps = (torch.randn(2, 4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    alpha, sigma = cosine().alpha_sigma(t)
    x_t, v = alpha * x0 + sigma * eps, alpha * eps - sigma * x0
    return {"eps": eps.to(dtype), "x0": x0.to(dtype), "v": v.to(dtype)}, x_t.to(dtype), alpha, sigma


@pytest.mark.parametrize("made_from", ["eps", "x0", "v"])
@pytest.mark.parametrize("t", [0, 400, 990])
def test_every_reading_comes_back(made_from: str, t: int) -> None:
    values, x_t, alpha, sigma = readings(t)
    make = {"eps": Prediction.from_eps, "x0": Prediction.from_x0, "v": Prediction.from_v}[made_from]
    prediction = make(values[made_from], x_t, alpha, sigma)
    for name, value in values.items():
        assert torch.allclose(getattr(prediction, name), value, atol=1e-11), name
    assert getattr(prediction, made_from) is values[made_from]


def test_a_batch_of_timesteps_is_read_sample_by_sample() -> None:
    alpha, sigma = cosine().alpha_sigma(torch.tensor([3, 700]))
    value, x_t = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    together = Prediction.from_v(value, x_t, alpha, sigma)
    for row in range(2):
        alone = Prediction.from_v(value[row : row + 1], x_t[row : row + 1], alpha[row], sigma[row])
        assert torch.allclose(together.x0[row], alone.x0[0], atol=1e-6)
        assert torch.allclose(together.eps[row], alone.eps[0], atol=1e-6)


def test_float32_stays_float32_and_coefficients_may_be_plain_numbers() -> None:
    values, x_t, alpha, sigma = readings(400, torch.float32)
    prediction = Prediction.from_eps(values["eps"], x_t, alpha.item(), sigma.item())
    assert prediction.x0.dtype == prediction.v.dtype == torch.float32
    assert torch.allclose(prediction.x0, values["x0"], atol=1e-5)


def test_gradients_pass_through_a_reading() -> None:
    value = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    alpha, sigma = cosine().alpha_sigma(600)
    Prediction.from_eps(value, torch.zeros(1, 2, dtype=torch.float64), alpha, sigma).x0.sum().backward()
    assert torch.allclose(value.grad, torch.full_like(value, (-sigma / alpha).item()))


def test_without_noise_left_x0_still_reads() -> None:
    x0 = torch.randn(1, 3)
    assert Prediction.from_x0(x0, x0, 1.0, 0.0).x0 is x0
    assert torch.equal(Prediction.from_v(torch.zeros(1, 3), x0, 1.0, 0.0).x0, x0)
