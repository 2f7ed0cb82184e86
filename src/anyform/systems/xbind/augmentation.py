"""How a render is shown to the joint encoder: whole and from askance, a part of it, or as it is (XBind's G, L, Z)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

DISTORTION, PROBABILITY = 0.5, 0.8


def whole(picture: Tensor, size: int, background: Tensor, rng: np.random.Generator) -> Tensor:
    """G: the whole picture in a random perspective. (B, 3, H, W) in [0, 1] -> (B, 3, size, size)."""
    return _askance(plain(picture, size), background, rng)


def part(picture: Tensor, size: int, background: Tensor, rng: np.random.Generator, area: tuple[float, float]) -> Tensor:
    """L: a random square of `area` (smallest, largest share of the picture) in a random perspective."""
    edge = picture.shape[-1]
    side = round(edge * float(np.sqrt(rng.uniform(*area))))
    side = min(max(side, 1), edge)
    row, column = (int(rng.integers(0, edge - side + 1)) for _ in range(2))
    return _askance(plain(picture[..., row : row + side, column : column + side], size), background, rng)


def plain(picture: Tensor, size: int) -> Tensor:
    """Z: resized only."""
    if picture.shape[-2:] == (size, size):
        return picture
    return functional.interpolate(picture, (size, size), mode="bilinear", antialias=True, align_corners=False)


def _askance(picture: Tensor, background: Tensor, rng: np.random.Generator) -> Tensor:
    """With the chance PROBABILITY each corner moves inwards by up to DISTORTION / 2 of an edge; background around."""
    moved = rng.random() < PROBABILITY
    inwards = rng.uniform(0, DISTORTION, (4, 2))  # of the half edge, which is 1 in these coordinates
    if not moved:
        return picture
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    matrix = homography(corners - corners * inwards, corners)
    size = picture.shape[-1]
    centre = (2 * np.arange(size) + 1) / size - 1
    spot = np.stack([*np.meshgrid(centre, centre), np.ones((size, size))], -1) @ matrix.T
    grid = torch.from_numpy(spot[..., :2] / spot[..., 2:]).to(picture)
    fill = background.reshape(-1, 3, 1, 1).to(picture)
    grid = grid[None].expand(len(picture), -1, -1, -1)
    return functional.grid_sample(picture - fill, grid, align_corners=False) + fill


def homography(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """The 3 × 3 projective map that takes four points source (4, 2) to target (4, 2)."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows, np.float64), np.array(right, np.float64)), 1.0).reshape(3, 3)
