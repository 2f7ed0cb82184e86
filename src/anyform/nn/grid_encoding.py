"""Multiresolution grids of learned features: dense where a level fits its table, hashed where it does not.

Level l has resolution N_l cells a side and vertices 0 .. N_l. For x in [0, 1]³ let p = x N_l, i = min(⌊p⌋, N_l − 1) and
f = p − i; the level's output is Σ over the eight corners c of Π_axis (c ? f : 1 − f) · table[offset_l + row(i + c)].
row is (i (N + 1) + j)(N + 1) + k on a dense level and (i ⊕ j · 2654435761 ⊕ k · 805459861) mod rows, in 32 bits, on a
hashed one (Müller et al. 2022, "Instant neural graphics primitives", Eq. 4). A row holds two numbers: a grid with four
features a level is two levels of equal resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from anyform.errors import BadInput, BadSetting

FEATURES = 2
PRIMES = 1, 2654435761, 805459861
_CORNERS = torch.tensor([[c >> 2 & 1, c >> 1 & 1, c & 1] for c in range(8)])


@dataclass(frozen=True, slots=True, kw_only=True)
class GridConfig:
    """resolutions: cells a side of every level. log2_rows: largest table of a level; None = every level dense."""

    resolutions: tuple[int, ...] = (16, 16, 32, 32, 64, 64)  # measured 2.7 times torch's grid_sample on a CPU
    log2_rows: int | None = None

    @property
    def width(self) -> int:
        """Numbers a point is encoded in."""
        return FEATURES * len(self.resolutions)


def hashed(num_levels: int = 16, base: int = 16, growth: float = 1.447269237440378, log2_rows: int = 19) -> GridConfig:
    """Instant-NGP's grid; the defaults are XBind's (16 levels from 16 to 4096 cells, 12.6 million numbers).

    A table beyond 2^15 rows no longer fits a CPU's cache: about twice as slow there.
    """
    return GridConfig(
        resolutions=tuple(math.floor(base * growth**level) for level in range(num_levels)), log2_rows=log2_rows
    )


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """What the kernels know of a grid, each (L,): resolution int64, dense bool, rows int64; offset (L + 1,) int64."""

    resolution: np.ndarray
    dense: np.ndarray
    rows: np.ndarray
    offset: np.ndarray


def levels(config: GridConfig) -> Levels:
    """Tables of a grid; BadSetting for one that is empty, degenerate or beyond 2^31 rows."""
    resolution = np.array(config.resolutions, np.int64)
    if not len(resolution) or resolution.min() < 1 or not 0 < (config.log2_rows or 1) < 31:
        raise BadSetting(f"a grid needs levels of at least 1 cell and 2^1 to 2^30 rows, not {config}")
    full = (resolution + 1) ** 3
    most = np.iinfo(np.int32).max if config.log2_rows is None else 2**config.log2_rows
    dense = full <= most
    rows = np.where(dense, (full + 7) // 8 * 8, most)
    offset = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
    if offset[-1] > np.iinfo(np.int32).max or not (dense | (config.log2_rows is not None)).all():
        raise BadSetting(f"a grid of {offset[-1]:,} rows is too large; set log2_rows")
    return Levels(resolution, dense, rows, offset)


class GridEncoding(nn.Module):
    """Points (N, 3) in [0, 1]³ -> (N, D). `table` (rows, 2) starts uniform in ±1e-4."""

    def __init__(self, config: GridConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = levels(config)
        self.table = nn.Parameter(torch.empty(int(self.levels.offset[-1]), FEATURES).uniform_(-1e-4, 1e-4))

    def forward(
        self, points: Float[Tensor, "n 3"], active: int | None = None, *, twice: bool = False
    ) -> Float[Tensor, "n d"]:
        """Levels from `active` on are 0 and cost nothing (None = all in use); `twice`: the gradient has a gradient."""
        used = len(self.levels.resolution) if active is None else active
        return (encode_reference if twice else encode)(points, self.table, self.levels, used)


def encode(points: Tensor, table: Tensor, grid: Levels, active: int) -> Tensor:
    """`encode_reference`; compiled (`grid_encoding_numba`) for float32 and float64 on a CPU.

    The compiled form has no double backward: take normals by finite differences, or encode_reference.
    Raises BadInput for points that are not finite.
    """
    if not bool(torch.isfinite(points).all()):
        bad = int((~torch.isfinite(points)).any(1).sum())
        raise BadInput(f"{bad} of {len(points)} points to encode are not finite; the step before has diverged")
    fits = table.shape == (int(grid.offset[-1]), FEATURES) and points.dim() == 2 and points.shape[1] == 3
    if not fits or not 0 <= active <= len(grid.resolution):
        raise BadInput(
            f"points {tuple(points.shape)} and table {tuple(table.shape)} do not fit {len(grid.resolution)} levels of"
            f" {int(grid.offset[-1])} rows, {active} of them active"
        )
    same = points.dtype == table.dtype and points.device == table.device
    if same and points.device.type == "cpu" and points.dtype in (torch.float32, torch.float64):
        from anyform.nn import grid_encoding_numba

        return grid_encoding_numba.encode(points, table, grid, active)
    return encode_reference(points, table, grid, active)


def encode_reference(points: Tensor, table: Tensor, grid: Levels, active: int) -> Tensor:
    """The module's definition, one gather for all levels: (N, 3) in [0, 1]³ and table (rows, 2) -> (N, 2 L)."""

    def per_level(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values[:active], device=points.device)[:, None]

    resolution, dense, rows, offset = map(per_level, (grid.resolution, grid.dense, grid.rows, grid.offset))
    corners = _CORNERS.to(points.device)
    p = points[:, None] * resolution
    cell = torch.minimum(p.detach().long().clamp(min=0), resolution - 1)
    f = (p - cell)[:, :, None]
    i, j, k = (cell[:, :, None] + corners).unbind(-1)
    side = resolution + 1
    hashed_row = (i ^ j * PRIMES[1] ^ k * PRIMES[2]) & (rows - 1)
    row = torch.where(dense, (i * side + j) * side + k, hashed_row) + offset
    weight = torch.where(corners.bool(), f, 1 - f).prod(-1, keepdim=True)
    values = table.index_select(0, row.flatten()).view(*row.shape, FEATURES)
    encoded = (weight * values).sum(2).flatten(1)
    return nn.functional.pad(encoded, (0, FEATURES * (len(grid.resolution) - active)))
