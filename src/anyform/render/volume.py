"""Emission and absorption along rays.

A sample with extinction `density` over a length `delta` absorbs alpha = 1 − exp(−density · delta). Its weight is
ray_weight = T · alpha with the transmittance T = Π (1 − alpha) over the samples before it; a pixel is
Σ ray_weight · colour + (1 − Σ ray_weight) · background. Samples are packed as `rays` says.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from anyform.errors import BadInput
from anyform.render.rays import sum_along

EARLY_STOP = 1e-4  # transmittance below which the rest of a ray is skipped


class Pixels(NamedTuple):
    """color (R, C), alpha (R,), depth (R,) = Σ ray_weights · t, and ray_weights (S,)."""

    color: Tensor
    alpha: Tensor
    depth: Tensor
    ray_weights: Tensor


def ray_weights(density: Tensor, delta: Tensor) -> Tensor:
    """T · (1 − exp(−density · delta)) of samples (..., S) in order along the last axis; sums to at most 1."""
    optical = density * delta
    return -torch.expm1(-optical) * torch.exp(optical - optical.cumsum(-1))


def composite(
    density: Tensor,
    color: Tensor,
    t: Tensor,
    delta: Tensor,
    start: Tensor,
    background: Tensor,
    early_stop: float = EARLY_STOP,
) -> Pixels:
    """Pixels of packed samples, differentiable in density, color and background.

    density, t, delta (S,), density >= 0; color (S, C); start (R + 1,); background (R, C). After the sample that brings
    the transmittance below `early_stop` a ray's samples weigh exactly 0 and get no gradient. On a CPU float32 and
    float64 run compiled (`volume_numba`), everything else in torch (`composite_reference`, which never stops early).
    """
    _check(density, color, t, delta, start, background)
    if density.device.type == "cpu" and density.dtype in (torch.float32, torch.float64):
        from anyform.render import volume_numba

        return volume_numba.composite(density, color, t, delta, start, background, early_stop, False)
    return composite_reference(density, color, t, delta, start, background)


def composite_alphas(
    alpha: Tensor, color: Tensor, t: Tensor, start: Tensor, background: Tensor, early_stop: float = EARLY_STOP
) -> Pixels:
    """As `composite` of samples that come with their alpha (S,) in [0, 1] (NeuS), differentiable in it too.

    Behind an exactly opaque sample nothing is seen, and that sample's alpha gets no gradient from there.
    """
    _check(alpha, color, t, t, start, background)
    if alpha.device.type == "cpu" and alpha.dtype in (torch.float32, torch.float64):
        from anyform.render import volume_numba

        return volume_numba.composite(alpha, color, t, t, start, background, early_stop, True)
    density = -torch.log1p(-alpha.clamp(max=1 - 1e-6))
    return composite_reference(density, color, t, torch.ones_like(t), start, background)


def composite_reference(
    density: Tensor, color: Tensor, t: Tensor, delta: Tensor, start: Tensor, background: Tensor
) -> Pixels:
    """The definition of `composite` without early stop: an exclusive sum inside each ray, then sums over rays."""
    optical = density * delta
    total = torch.cat([optical.new_zeros(1), optical.cumsum(0)])
    ray = torch.repeat_interleave(torch.diff(start))
    before = total[:-1] - total[start[:-1]][ray]
    weights = torch.exp(-before) * -torch.expm1(-optical)
    alpha = sum_along(weights, start)
    seen = sum_along(weights[:, None] * color, start) + (1 - alpha)[:, None] * background
    return Pixels(seen, alpha, sum_along(weights * t, start), weights)


def _check(value: Tensor, color: Tensor, t: Tensor, delta: Tensor, start: Tensor, background: Tensor) -> None:
    """The compiled kernels do not check bounds: nothing may reach them before this has passed it."""
    samples, rays = len(value), len(start) - 1
    shapes = [tuple(part.shape) for part in (value, color, t, delta, background)]
    width = color.shape[-1] if color.dim() else 0
    if shapes != [(samples,), (samples, width), (samples,), (samples,), (rays, width)]:
        raise BadInput(f"samples (S,), colours (S, C), t, delta (S,) and background (R, C) do not fit: {shapes}")
    if start.dtype != torch.int64 or rays < 0 or int(start[0]) != 0 or int(start[-1]) != samples:
        raise BadInput(f"start must be int64 from 0 to the number of samples {samples}")
    if bool((torch.diff(start) < 0).any()):
        raise BadInput("start must not decrease: a ray would own a negative number of samples")
    kinds = {part.dtype for part in (value, color, t, delta, background)}
    if len(kinds) > 1:
        raise BadInput(f"samples, colours and background must share one dtype, not {sorted(map(str, kinds))}")
