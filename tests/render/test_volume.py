"""Compositing: closed forms, float64 gradients, the compiled form against the definition."""

from __future__ import annotations

import numba
import pytest
import torch
from torch import Tensor

from anyform.errors import BadInput
from anyform.render.rays import starts
from anyform.render.volume import composite, composite_alphas, composite_reference, ray_weights

COUNTS = torch.tensor([3, 0, 1, 8, 5])


def samples(dtype: torch.dtype = torch.float64, scale: float = 3.0) -> dict[str, Tensor]:
    """Random packed samples of five rays, one of them without any."""
    generator = torch.Generator().manual_seed(0)
    number = int(COUNTS.sum())

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=dtype)

    return {
        "density": (rand(number) * scale).requires_grad_(),
        "color": rand(number, 3).requires_grad_(),
        "t": rand(number),
        "delta": rand(number),
        "start": starts(COUNTS),
        "background": rand(len(COUNTS), 3).requires_grad_(),
    }


def test_gradients_of_a_density_in_float64() -> None:
    s = samples()

    def run(density: Tensor, color: Tensor, background: Tensor) -> tuple[Tensor, ...]:
        return composite(density, color, s["t"], s["delta"], s["start"], background, early_stop=0.0)

    assert torch.autograd.gradcheck(run, (s["density"], s["color"], s["background"]))


def test_gradients_of_given_alphas_in_float64() -> None:
    s = samples(scale=1.0)

    def run(alpha: Tensor, color: Tensor, background: Tensor) -> tuple[Tensor, ...]:
        return composite_alphas(alpha, color, s["t"], s["start"], background, early_stop=0.0)

    assert torch.autograd.gradcheck(run, (s["density"], s["color"], s["background"]))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_values_and_gradients_are_those_of_the_definition(dtype: torch.dtype, close: float) -> None:
    s = samples(dtype)
    inputs = s["density"], s["color"], s["background"]
    ours, definition = composite(**s, early_stop=0.0), composite_reference(**s)
    for one, other in zip(ours, definition, strict=True):
        assert (one - other).abs().max() < close
    # an expanded gradient has stride 0: the kernel must not read past it
    loss = [
        pixels.color.sum() + (pixels.depth**2).sum() + pixels.ray_weights.square().sum()
        for pixels in (ours, definition)
    ]
    for one, other in zip(*(torch.autograd.grad(part, inputs) for part in loss), strict=True):
        assert (one - other).abs().max() < close


def test_a_slab_of_constant_density_absorbs_exponentially() -> None:
    length, density, number = 0.7, 2.3, 50
    ones = torch.ones(number, dtype=torch.float64)
    start, none = torch.tensor([0, number]), torch.zeros(1, 1, dtype=torch.float64)
    pixels = composite(ones * density, ones[:, None], ones, ones * length / number, start, none, early_stop=0.0)
    expected = 1 - torch.exp(torch.tensor(-density * length, dtype=torch.float64))
    torch.testing.assert_close(pixels.alpha[0], expected)
    torch.testing.assert_close(pixels.color[0, 0], expected)


def test_dense_weights_are_the_packed_ones_and_sum_to_what_is_absorbed() -> None:
    density = torch.rand(4, 9, dtype=torch.float64) * 5
    delta = torch.rand(4, 9, dtype=torch.float64)
    weights = ray_weights(density, delta)
    torch.testing.assert_close(weights.sum(-1), 1 - torch.exp(-(density * delta).sum(-1)))
    flat = torch.zeros(36, 1, dtype=torch.float64)
    start = torch.arange(5) * 9
    packed = composite(density.flatten(), flat, flat[:, 0], delta.flatten(), start, flat[:4], early_stop=0.0)
    torch.testing.assert_close(packed.ray_weights.view(4, 9), weights)


def test_after_an_early_stop_weights_and_gradients_are_exactly_zero() -> None:
    density = torch.tensor([1.0, 80, 50, 50], requires_grad=True)
    color = torch.rand(4, 3, requires_grad=True)
    start, background = torch.tensor([0, 4]), torch.ones(1, 3)
    pixels = composite(density, color, torch.ones(4), torch.ones(4), start, background)
    assert pixels.ray_weights[2:].tolist() == [0, 0]
    pixels.color.sum().backward()
    assert density.grad is not None and color.grad is not None
    assert density.grad[2:].tolist() == [0, 0]
    assert color.grad[2:].abs().sum() == 0
    assert color.grad[:2].abs().min() > 0


def test_behind_an_opaque_alpha_nothing_is_seen() -> None:
    alpha = torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64, requires_grad=True)
    color = torch.eye(3, dtype=torch.float64)
    pixels = composite_alphas(alpha, color, color[0], torch.tensor([0, 3]), torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(pixels.color[0], torch.tensor([0.5, 0.5, 0], dtype=torch.float64))
    pixels.color[0, 0].backward()
    assert alpha.grad is not None
    assert torch.isfinite(alpha.grad).all()
    torch.testing.assert_close(alpha.grad, torch.tensor([1.0, 0, 0], dtype=torch.float64))


def test_same_bits_for_one_thread_and_two() -> None:
    most, results = numba.get_num_threads(), []
    for threads in (1, most):
        numba.set_num_threads(threads)
        s = samples(torch.float32)
        pixels = composite(**s)
        results.append((*pixels, *torch.autograd.grad(pixels.color.square().sum(), (s["density"], s["color"]))))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_what_does_not_fit_is_refused_before_the_kernel() -> None:
    s = samples()
    with pytest.raises(BadInput, match="do not fit"):
        composite(**{**s, "color": s["color"][:-1]})
    with pytest.raises(BadInput, match="number of samples"):
        composite(**{**s, "start": s["start"][:-1], "background": s["background"][:-1]})
    with pytest.raises(BadInput, match="must not decrease"):
        composite(**{**s, "start": s["start"][[0, 3, 2, 1, 4, 5]]})
    with pytest.raises(BadInput, match="one dtype"):
        composite(**{**s, "background": s["background"].float()})
