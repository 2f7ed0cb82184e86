from __future__ import annotations

import math

import pytest
import torch

from anyform.errors import BadSetting
from anyform.training.optim import Adan


def by_hand(
    gradients: list[float], start: float, lr: float, betas: tuple[float, float, float], decay: float
) -> list[float]:
    """The algorithm written for one number."""
    b1, b2, b3 = betas
    p, m, d, n, before, path = start, 0.0, 0.0, 0.0, gradients[0], []
    for k, g in enumerate(gradients, 1):
        change = g - before
        m, d = b1 * m + (1 - b1) * g, b2 * d + (1 - b2) * change
        n = b3 * n + (1 - b3) * (g + b2 * change) ** 2
        den = math.sqrt(n) / math.sqrt(1 - b3**k) + 1e-8
        p -= lr * m / ((1 - b1**k) * den) + lr * b2 * d / ((1 - b2**k) * den)
        p /= 1 + lr * decay
        before = g
        path.append(p)
    return path


def test_adan_is_its_algorithm() -> None:
    gradients, betas = [1.0, -0.5, 2.0, 0.1, 0.0, -3.0], (0.98, 0.92, 0.99)
    parameter = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    optimiser = Adan([parameter], lr=0.05, betas=betas, weight_decay=0.1)
    path = []
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
        path.append(float(parameter.detach()))
    assert path == pytest.approx(by_hand(gradients, 0.7, 0.05, betas, 0.1), abs=1e-12)


def test_the_norm_is_clipped_over_all_parameters_together() -> None:
    """Adan's first step does not know the gradient's scale; its averages do."""
    a, b = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimiser = Adan([a, b], lr=0.1, max_grad_norm=5.0)
    a.grad, b.grad = torch.tensor([30.0, 0.0]), torch.tensor([0.0, 40.0])
    optimiser.step()
    assert optimiser.state[a]["previous"].tolist() == pytest.approx([3.0, 0.0], rel=1e-6)
    assert optimiser.state[b]["previous"].tolist() == pytest.approx([0.0, 4.0], rel=1e-6)


def test_adan_finds_the_minimum_of_a_bowl() -> None:
    target = torch.tensor([1.0, -2.0, 0.5])
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimiser = Adan([parameter], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        ((parameter - target) ** 2 * torch.tensor([1.0, 30.0, 0.2])).sum().backward()
        optimiser.step()
    assert torch.allclose(parameter, target, atol=0.06)


def test_a_saved_state_continues_bit_for_bit() -> None:
    def steps(parameter: torch.nn.Parameter, optimiser: Adan, first: int, last: int) -> None:
        for k in range(first, last):
            parameter.grad = torch.tensor([math.sin(k), math.cos(3 * k)])
            optimiser.step()

    whole = torch.nn.Parameter(torch.ones(2))
    one = Adan([whole], lr=0.01, max_grad_norm=0.5)
    steps(whole, one, 0, 10)
    half = torch.nn.Parameter(torch.ones(2))
    two = Adan([half], lr=0.01, max_grad_norm=0.5)
    steps(half, two, 0, 6)
    rest = torch.nn.Parameter(half.detach().clone())
    three = Adan([rest], lr=0.01, max_grad_norm=0.5)
    three.load_state_dict(two.state_dict())
    steps(rest, three, 6, 10)
    assert torch.equal(rest, whole)


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"betas": (0.9, 1.0, 0.9)}, {"weight_decay": -0.1}])
def test_settings_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(BadSetting, match="Adan needs"):
        Adan([torch.nn.Parameter(torch.zeros(1))], **bad)  # type: ignore[arg-type]
