"""Compositing of packed samples, compiled by numba, with the gradient written by hand.

Per ray front to back: alpha_s = 1 − exp(−density_s · delta_s) (or given), w_s = T_s alpha_s, T_{s+1} = T_s − w_s. With
the incoming gradients g of colour, alpha, depth and weights let q_s = g_C · (c_s − bg) + g_A + g_D t_s + g_w,s and
S_s = Σ_{j>s} w_j q_j. Then d density_s = delta_s (T_{s+1} q_s − S_s), d c_s = w_s g_C and d bg = (1 − A) g_C; of a
given alpha, d alpha_s = T_s q_s − S_s / (1 − alpha_s). Nothing is divided by 1 − alpha in the first form.

No argument is checked: `volume` is the door. Double backward and torch.compile are not supported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from anyform.geometry.compiled import LAUNCH
from anyform.render.volume import Pixels

CLEAREST = 1e-6  # smallest 1 − alpha that is divided by; at exactly 0 nothing behind is seen


def composite(
    value: Tensor,
    color: Tensor,
    t: Tensor,
    delta: Tensor,
    start: Tensor,
    background: Tensor,
    early_stop: float,
    given: bool,
) -> Pixels:
    """`volume.composite` (given False: value is a density) or `composite_alphas` (True) on contiguous CPU tensors."""
    return Pixels(*_Composite.apply(value, color, background, t, delta, start, (early_stop, given)))


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        color: Tensor,
        background: Tensor,
        t: Tensor,
        delta: Tensor,
        start: Tensor,
        how: tuple[float, bool],
    ) -> tuple[Tensor, ...]:
        value, color, background, t, delta = (
            part.detach().contiguous() for part in (value, color, background, t, delta)
        )
        rays, width = len(start) - 1, color.shape[1]
        weights, after = torch.empty_like(value), torch.empty_like(value)
        pixel, alpha, depth = value.new_empty(rays, width), value.new_empty(rays), value.new_empty(rays)
        last = torch.empty(rays, dtype=torch.int64)
        inputs: Any = [part.numpy() for part in (start, value, delta, color, t, background)]
        outputs = [part.numpy() for part in (weights, after, pixel, alpha, depth, last)]
        stop = value.numpy().dtype.type(how[0])
        with LAUNCH:
            _forward(*inputs, stop, how[1], *outputs)
        ctx.save_for_backward(value, color, background, t, delta, start, weights, after, alpha, last)
        ctx.given = how[1]
        return pixel, alpha, depth, weights

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_pixel: Tensor, g_alpha: Tensor, g_depth: Tensor, g_weights: Tensor
    ) -> tuple[Tensor | None, ...]:
        value, color, background, t, delta, start, weights, after, alpha, last = ctx.saved_tensors
        g_pixel, g_alpha, g_depth, g_weights = (g.contiguous() for g in (g_pixel, g_alpha, g_depth, g_weights))
        g_value, g_color = torch.empty_like(value), torch.empty_like(color)
        inputs = (start, last, value, delta, color, t, background, weights, after)
        gradients = (g_pixel, g_alpha, g_depth, g_weights)
        with LAUNCH:
            _backward(
                *(part.numpy() for part in inputs),
                ctx.given,
                *(part.numpy() for part in (*gradients, g_value, g_color)),
            )
        g_background = (1 - alpha)[:, None] * g_pixel if ctx.needs_input_grad[2] else None
        return g_value, g_color, g_background, None, None, None, None


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _forward(
    start: NDArray[np.int64],
    value: NDArray[np.floating],
    delta: NDArray[np.floating],
    color: NDArray[np.floating],
    t: NDArray[np.floating],
    background: NDArray[np.floating],
    early_stop: float,
    given: bool,
    *outputs: Any,
) -> None:
    weights, after, pixel, total, depth, last = outputs
    width = color.shape[1]
    zero = early_stop * 0
    for r in prange(len(start) - 1):
        clear, alpha, far, end = zero + 1, zero, zero, start[r + 1]
        for c in range(width):
            pixel[r, c] = 0
        for s in range(start[r], start[r + 1]):
            w = clear * (value[s] if given else 1 - np.exp(-value[s] * delta[s]))
            clear -= w
            weights[s], after[s] = w, clear
            alpha += w
            far += w * t[s]
            for c in range(width):
                pixel[r, c] += w * color[s, c]
            if clear < early_stop:
                end = s + 1
                break
        for s in range(end, start[r + 1]):
            weights[s] = 0
        last[r], total[r], depth[r] = end, alpha, far
        for c in range(width):
            pixel[r, c] += (1 - alpha) * background[r, c]


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _backward(
    start: NDArray[np.int64],
    last: NDArray[np.int64],
    value: NDArray[np.floating],
    delta: NDArray[np.floating],
    color: NDArray[np.floating],
    t: NDArray[np.floating],
    background: NDArray[np.floating],
    weights: NDArray[np.floating],
    after: NDArray[np.floating],
    *rest: Any,
) -> None:
    given, g_pixel, g_alpha, g_depth, g_weights, g_value, g_color = rest
    width = color.shape[1]
    for r in prange(len(start) - 1):
        behind = g_alpha[r] * 0  # S of the module's docstring
        constant = g_alpha[r]
        for c in range(width):
            constant -= g_pixel[r, c] * background[r, c]
        for s in range(last[r], start[r + 1]):
            g_value[s] = 0
            for c in range(width):
                g_color[s, c] = 0
        for s in range(last[r] - 1, start[r] - 1, -1):
            q = constant + g_depth[r] * t[s] + g_weights[s]
            for c in range(width):
                q += g_pixel[r, c] * color[s, c]
                g_color[s, c] = weights[s] * g_pixel[r, c]
            if given:
                left = 1 - value[s]
                before = after[s] + weights[s]
                g_value[s] = before * q - (behind / max(left, CLEAREST) if left > 0 else behind * 0)
            else:
                g_value[s] = delta[s] * (after[s] * q - behind)
            behind += weights[s] * q
