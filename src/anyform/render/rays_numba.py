"""Ray marching through an occupancy grid, compiled by numba: two passes over rays (count, fill), no atomics.

A free cell is left in one stride: to the first lattice step at or beyond the cell's exit, minus a thousandth of a step
against rounding, so that the samples are those of `rays.march_reference` bit for bit. No fastmath: contracted products
would round cell indices differently. No argument is checked: `rays.march` is the door.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from anyform.geometry.compiled import LAUNCH
from anyform.render.rays import Marched, Rays, starts

_SLACK = 1e-3  # of a step


def march(rays: Rays, occupied: Tensor, radius: float, step: float, jitter: Tensor) -> Marched:
    """`rays.march` on CPU tensors of one float type; jitter (R,)."""
    lines = torch.cat([rays.origins, rays.directions, torch.stack([rays.near, rays.far, jitter], 1)], 1).detach()
    size = len(occupied)
    packed, grid = lines.contiguous().numpy(), occupied.contiguous().numpy()
    scales = np.array([size / (2 * radius), size / 2, step], packed.dtype)
    count = torch.empty(len(rays), dtype=torch.int64)
    nothing = np.empty(0, packed.dtype), np.empty(0, np.int64)
    with LAUNCH:
        _march(packed, grid, scales, np.empty(0, np.int64), count.numpy(), *nothing)
        start = starts(count)
        t = torch.empty(int(start[-1]), dtype=lines.dtype)
        ray = torch.empty(len(t), dtype=torch.int64)
        _march(packed, grid, scales, start.numpy(), count.numpy(), t.numpy(), ray.numpy())
    return Marched(start, ray, t)


@njit(parallel=True, cache=True, nogil=True)
def _march(
    lines: NDArray[np.floating],
    occupied: NDArray[np.bool_],
    scales: NDArray[np.floating],
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    t_out: NDArray[np.floating],
    ray_out: NDArray[np.int64],
) -> None:
    """lines (R, 9): origin, direction, near, far, jitter. An empty `start`: only count; else fill from start[r] on."""
    size, fill = len(occupied), len(start) > 0
    scale, half, step = scales[0], scales[1], scales[2]
    for r in prange(len(lines)):
        ox, oy, oz, dx, dy, dz, near, far, jitter = lines[r]
        found = 0
        first = start[r] if fill else 0
        k = 0
        t = near + jitter * step
        while t < far:
            x = (ox + t * dx) * scale + half
            y = (oy + t * dy) * scale + half
            z = (oz + t * dz) * scale + half
            stride = 1
            if 0 <= x < size and 0 <= y < size and 0 <= z < size:
                i, j, m = int(x), int(y), int(z)
                if occupied[i, j, m]:
                    if fill:
                        t_out[first + found] = t
                        ray_out[first + found] = r
                    found += 1
                else:
                    room = min(_exit(x, dx, i), _exit(y, dy, j), _exit(z, dz, m))
                    stride = max(1, int(np.ceil(room / (scale * step) - _SLACK)))
            k += stride
            t = near + (jitter + lines.dtype.type(k)) * step
        count[r] = found


@njit(inline="always")
def _exit(x: float, direction: float, cell: int) -> float:
    """Length, in cells, to where a ray leaves its cell along one axis; large where it runs parallel."""
    if direction > 1e-12:
        return (cell + 1 - x) / direction
    if direction < -1e-12:
        return (cell - x) / direction
    return 1e9
