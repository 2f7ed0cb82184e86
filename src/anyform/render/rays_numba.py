"""Ray marching through an occupancy grid, compiled by numba: two passes over rays (count, fill), no atomics.

A cell is looked up once: all lattice steps before its exit, less a thousandth of a step against rounding, are samples
or none is, so the samples are those of `rays.march_reference` bit for bit. No fastmath: contracted products would round
cell indices differently. No argument is checked: `rays.march` is the door.
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
_MANY = 1 << 60


def march(rays: Rays, occupied: Tensor, radius: float, step: float, jitter: Tensor) -> Marched:
    """`rays.march` on CPU tensors of one float type; jitter (R,)."""
    lines = torch.cat([rays.origins, rays.directions, torch.stack([rays.near, rays.far, jitter], 1)], 1).detach()
    size = len(occupied)
    packed, grid = lines.contiguous().numpy(), occupied.contiguous().numpy()
    used = np.argwhere(grid)
    ends = (used.min(0), used.max(0) + 1) if len(used) else (np.zeros(3), np.zeros(3))
    # a hundredth of a cell wider than what is occupied, against rounding
    box = np.concatenate([ends[0] - 0.01, ends[1] + 0.01]) * (2 * radius / size) - radius
    scales = np.array([size / (2 * radius), size / 2, step, *box], packed.dtype)
    count, begin = torch.empty(len(rays), dtype=torch.int64), np.zeros(len(rays), np.int64)
    nothing = np.empty(0, packed.dtype), np.empty(0, np.int64)
    with LAUNCH:
        _march(packed, grid, scales, np.empty(0, np.int64), count.numpy(), begin, *nothing)
        start = starts(count)
        t = torch.empty(int(start[-1]), dtype=lines.dtype)
        ray = torch.empty(len(t), dtype=torch.int64)
        _march(packed, grid, scales, start.numpy(), count.numpy(), begin, t.numpy(), ray.numpy())
    return Marched(start, ray, t)


@njit(parallel=True, cache=True, nogil=True)
def _march(
    lines: NDArray[np.floating],
    occupied: NDArray[np.bool_],
    scales: NDArray[np.floating],
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    begin: NDArray[np.int64],
    t_out: NDArray[np.floating],
    ray_out: NDArray[np.int64],
) -> None:
    """lines (R, 9): origin, direction, near, far, jitter. An empty `start`: only count and note where to
    begin; else fill from start[r] on. scales: cells a unit, half the cells, step, box of what is occupied.
    """
    size, fill = len(occupied), len(start) > 0
    scale, half, step = scales[0], scales[1], scales[2]
    for r in prange(len(lines)):
        ox, oy, oz, dx, dy, dz, near, far, jitter = lines[r]
        # steps to the far side of a cell: (face − x) · per_x, the face being 1 further up where the ray ascends
        per_x, per_y, per_z = _per_cell(dx * scale * step), _per_cell(dy * scale * step), _per_cell(dz * scale * step)
        up_x, up_y, up_z = int(dx > 0), int(dy > 0), int(dz > 0)
        found = 0
        first = start[r] if fill else 0
        most = count[r] if fill else _MANY
        if fill:
            k = begin[r]
        else:
            enter, leave = near, far
            for axis in range(3):
                enter, leave = _clip(
                    lines[r, axis], lines[r, 3 + axis], scales[3 + axis], scales[6 + axis], enter, leave
                )
            far = min(far, leave)
            k = max(0, int((enter - near) / step - jitter) - 1)
            begin[r] = k
        t = near + (jitter + lines.dtype.type(k)) * step
        while t < far and found < most:
            x = (ox + t * dx) * scale + half
            y = (oy + t * dy) * scale + half
            z = (oz + t * dz) * scale + half
            run, full = 1, False
            if 0 <= x < size and 0 <= y < size and 0 <= z < size:
                i, j, m = int(x), int(y), int(z)
                room = min((i + up_x - x) * per_x, (j + up_y - y) * per_y, (m + up_z - z) * per_z)
                run, full = max(1, int(np.ceil(room - _SLACK))), occupied[i, j, m]
            if full:
                if found == 0:
                    begin[r] = k
                if not near + (jitter + lines.dtype.type(k + run - 1)) * step < far:
                    run = 1  # the ray may end in this cell: one step at a time
                if fill:
                    for n in range(run):
                        t_out[first + found + n] = near + (jitter + lines.dtype.type(k + n)) * step
                        ray_out[first + found + n] = r
                found += run
            k += run
            t = near + (jitter + lines.dtype.type(k)) * step
        if not fill:
            count[r] = found


@njit(inline="always")
def _per_cell(cells: float) -> float:
    """Steps a cell, for a ray that goes so many cells a step along one axis; very many where it runs parallel."""
    return 1 / cells if abs(cells) > 1e-12 else (1e9 if cells > 0 else -1e9)


@njit(inline="always")
def _clip(origin: float, direction: float, low: float, high: float, enter: float, leave: float) -> tuple[float, float]:
    """The part of [enter, leave] in which a ray is between low and high along one axis; leave < enter = nowhere."""
    if abs(direction) < 1e-12:
        return (enter, leave) if low <= origin <= high else (enter, enter - 1)
    one, other = (low - origin) / direction, (high - origin) / direction
    return max(enter, min(one, other)), min(leave, max(one, other))
