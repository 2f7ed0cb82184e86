"""The grid of `grid_encoding`, compiled by numba, with its gradient written by hand.

Forward: a task is a level and a block of points, so that a level's table stays in the cache. Backward to the table: a
level belongs to one thread and sees the points in order, so there are no atomics and the bits do not depend on the
number of threads; d table[row_c] += w_c g. To the points: d x_a = N Σ_c ± Π_{b≠a} w_cb ⟨table[row_c], g⟩.

No argument is checked, except that cells are clamped into the grid: `grid_encoding.encode` is the door. Double backward
and torch.compile are not supported. `no_type_check` keeps test-time type checkers off functions that numba compiles.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from anyform.geometry.compiled import LAUNCH
from anyform.nn.grid_encoding import Levels

Array = NDArray[Any]
BLOCK = 4096


def encode(points: Tensor, table: Tensor, grid: Levels, active: int) -> Tensor:
    """`grid_encoding.encode` on CPU tensors of one float type."""
    return _Encode.apply(points, table, grid, active)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, grid: Levels, active: int) -> Tensor:
        points, table = points.detach().contiguous(), table.detach().contiguous()
        encoded = points.new_empty(len(points), 2 * len(grid.resolution))
        encoded[:, 2 * active :] = 0
        with LAUNCH:
            _forward(points.numpy(), table.numpy(), *_arrays(grid, active), encoded.numpy())
        ctx.save_for_backward(points, table)
        ctx.levels = grid, active
        return encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        points, table = ctx.saved_tensors
        where, pull, arrays = points.numpy(), gradient.contiguous().numpy(), _arrays(*ctx.levels)
        g_points = g_table = None
        with LAUNCH:
            if ctx.needs_input_grad[1]:
                g_table = torch.zeros_like(table)
                _backward_table(where, pull, *arrays, g_table.numpy())
            if ctx.needs_input_grad[0]:
                g_points = torch.empty_like(points)
                _backward_points(where, table.numpy(), pull, *arrays, g_points.numpy())
        return g_points, g_table, None, None


def _arrays(grid: Levels, active: int) -> tuple[Array, Array, Array, Array]:
    return grid.resolution[:active], grid.dense[:active], grid.rows[:active], grid.offset


@njit(inline="always")
@no_type_check
def _cell(x: float, resolution: int) -> tuple[int, float]:
    """Cell index in 0 .. N − 1 and the offset within it."""
    p = x * resolution
    i = min(max(int(p), 0), resolution - 1)
    return i, p - i


@njit(inline="always")
@no_type_check
def _row(i: int, j: int, k: int, side: int, dense: bool, mask: int) -> int:
    if dense:
        return (i * side + j) * side + k
    mixed = np.uint32(i) ^ (np.uint32(j) * np.uint32(2654435761)) ^ (np.uint32(k) * np.uint32(805459861))
    return np.int64(mixed & np.uint32(mask))


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
@no_type_check
def _forward(
    points: Array,
    table: Array,
    resolution: Array,
    dense: Array,
    rows: Array,
    offset: Array,
    encoded: Array,
) -> None:
    count = len(points)
    blocks = (count + BLOCK - 1) // BLOCK
    for task in prange(len(resolution) * blocks):
        level, block = task // blocks, task % blocks
        size, first, mask, flat = resolution[level], offset[level], rows[level] - 1, dense[level]
        for n in range(block * BLOCK, min(count, block * BLOCK + BLOCK)):
            i, fx = _cell(points[n, 0], size)
            j, fy = _cell(points[n, 1], size)
            k, fz = _cell(points[n, 2], size)
            one = points[n, 0] * 0
            two = one
            for c in range(8):
                ci, cj, ck = c >> 2 & 1, c >> 1 & 1, c & 1
                w = (fx if ci else 1 - fx) * (fy if cj else 1 - fy) * (fz if ck else 1 - fz)
                row = first + _row(i + ci, j + cj, k + ck, size + 1, flat, mask)
                one += w * table[row, 0]
                two += w * table[row, 1]
            encoded[n, 2 * level] = one
            encoded[n, 2 * level + 1] = two


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
@no_type_check
def _backward_table(
    points: Array,
    gradient: Array,
    resolution: Array,
    dense: Array,
    rows: Array,
    offset: Array,
    g_table: Array,
) -> None:
    for level in prange(len(resolution)):
        size, first, mask, flat = resolution[level], offset[level], rows[level] - 1, dense[level]
        for n in range(len(points)):
            one, two = gradient[n, 2 * level], gradient[n, 2 * level + 1]
            if one == 0 and two == 0:
                continue
            i, fx = _cell(points[n, 0], size)
            j, fy = _cell(points[n, 1], size)
            k, fz = _cell(points[n, 2], size)
            for c in range(8):
                ci, cj, ck = c >> 2 & 1, c >> 1 & 1, c & 1
                w = (fx if ci else 1 - fx) * (fy if cj else 1 - fy) * (fz if ck else 1 - fz)
                row = first + _row(i + ci, j + cj, k + ck, size + 1, flat, mask)
                g_table[row, 0] += w * one
                g_table[row, 1] += w * two


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
@no_type_check
def _backward_points(
    points: Array,
    table: Array,
    gradient: Array,
    resolution: Array,
    dense: Array,
    rows: Array,
    offset: Array,
    g_points: Array,
) -> None:
    for n in prange(len(points)):
        gx = points[n, 0] * 0
        gy, gz = gx, gx
        for level in range(len(resolution)):
            size, first, mask, flat = resolution[level], offset[level], rows[level] - 1, dense[level]
            i, fx = _cell(points[n, 0], size)
            j, fy = _cell(points[n, 1], size)
            k, fz = _cell(points[n, 2], size)
            for c in range(8):
                ci, cj, ck = c >> 2 & 1, c >> 1 & 1, c & 1
                wx, wy, wz = (fx if ci else 1 - fx), (fy if cj else 1 - fy), (fz if ck else 1 - fz)
                row = first + _row(i + ci, j + cj, k + ck, size + 1, flat, mask)
                v = table[row, 0] * gradient[n, 2 * level] + table[row, 1] * gradient[n, 2 * level + 1]
                v *= size
                gx += v * wy * wz * (1 if ci else -1)
                gy += v * wx * wz * (1 if cj else -1)
                gz += v * wx * wy * (1 if ck else -1)
        g_points[n, 0], g_points[n, 1], g_points[n, 2] = gx, gy, gz
