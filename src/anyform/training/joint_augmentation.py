"""What pictures, sketches, points and sounds suffer before the joint encoder sees them in training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anyform.encoders.speech import BANDS, WINDOW, window


def pictures(rgba: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """(B, H, W, 4) framed -> (B, 3, H, W): moved, over white, black, colours, gradients or blotches, relit, grainy."""
    count, height, width, _ = rgba.shape
    moved = _moved(torch.from_numpy(rgba).permute(0, 3, 1, 2).float() / 255, rng)
    alpha = moved[:, 3:]
    kind = rng.random((count, 1, 1, 1))
    colours = rng.random((2, count, 3, 1, 1))
    ramp = np.linspace(0, 1, height)[:, None] * np.ones(width)
    blotches = functional.interpolate(
        torch.from_numpy(rng.random((count, 3, 5, 5))), size=(height, width), mode="bilinear"
    ).numpy()
    ground = np.where(kind < 0.45, 1.0, np.where(kind < 0.55, 0.0, colours[0]))
    ground = np.where((kind > 0.75) & (kind < 0.9), colours[0] * ramp + colours[1] * (1 - ramp), ground)
    ground = np.where(kind > 0.9, blotches, ground)
    light = torch.from_numpy(rng.uniform(0.75, 1.3, (count, 1, 1, 1)) * rng.uniform(0.93, 1.07, (count, 3, 1, 1)))
    gamma = torch.from_numpy(rng.uniform(0.75, 1.35, (count, 1, 1, 1)))
    colour = (moved[:, :3].clamp(1e-3, 1) ** gamma * light).clamp(0, 1)
    mixed = colour * alpha + torch.from_numpy(ground) * (1 - alpha)
    grain = torch.from_numpy(rng.standard_normal(mixed.shape) * rng.uniform(0, 0.04, (count, 1, 1, 1)))
    return (mixed + grain).clamp(0, 1).float()


def sketches(ink: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """(B, H, W) ink 0..255 -> (B, 1, H, W): moved, thicker or thinner, part of it rubbed out."""
    count, height, width = ink.shape
    drawn = _moved(torch.from_numpy(ink)[:, None].float() / 255, rng)
    thick = torch.from_numpy(rng.random(count) < 0.4)[:, None, None, None]
    drawn = torch.where(thick, functional.max_pool2d(drawn, 3, 1, 1), drawn)
    drawn = (drawn * torch.from_numpy(rng.uniform(0.7, 1.6, (count, 1, 1, 1)))).clamp(0, 1).float()
    for one in np.flatnonzero(rng.random(count) < 0.3):
        row, column = rng.integers(0, height - 12), rng.integers(0, width - 12)
        drawn[one, :, row : row + 12, column : column + 12] = 0
    return drawn


def _moved(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Shifted by up to 6 %, scaled by 0.85 to 1.15, turned by up to 7°, half of them mirrored."""
    count = len(pictures)
    angle, zoom = rng.uniform(-0.12, 0.12, count), rng.uniform(0.87, 1.18, count)
    mirror = rng.choice([-1.0, 1.0], count)
    maps = np.zeros((count, 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 0, 1] = zoom * np.cos(angle) * mirror, -zoom * np.sin(angle)
    maps[:, 1, 0], maps[:, 1, 1] = zoom * np.sin(angle) * mirror, zoom * np.cos(angle)
    maps[:, :, 2] = rng.uniform(-0.12, 0.12, (count, 2))
    grid = functional.affine_grid(torch.from_numpy(maps), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, align_corners=False)


def clouds(points: NDArray[np.floating], count: int, rng: np.random.Generator) -> Tensor:
    """(B, P, 3) -> (B, count, 3): chosen at random, turned about y, mirrored, stretched, jittered; boxed."""
    batch = len(points)
    chosen = np.take_along_axis(points, rng.integers(0, points.shape[1], (batch, count, 1)), 1).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi, batch)
    turn = np.zeros((batch, 3, 3), np.float32)
    turn[:, 0, 0], turn[:, 0, 2] = np.cos(angle), np.sin(angle)
    turn[:, 2, 0], turn[:, 2, 2], turn[:, 1, 1] = -np.sin(angle), np.cos(angle), 1
    turn *= rng.uniform(0.9, 1.1, (batch, 1, 3))
    turn[:, :, 0] *= rng.choice([-1.0, 1.0], (batch, 1))
    moved = chosen @ turn
    moved += rng.standard_normal(moved.shape, np.float32) * rng.uniform(0, 0.02, (batch, 1, 1)).astype(np.float32)
    low, high = moved.min(1, keepdims=True), moved.max(1, keepdims=True)
    return torch.from_numpy((moved - (low + high) / 2) * (1.8 / (high - low).max(2, keepdims=True)))


def sounds(mel: NDArray[np.floating], length: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
    """(B, WINDOW, BANDS) log mel of `length` frames -> normalised windows: slower or faster, higher or lower, filtered,
    with reverberation and noise, parts masked, anywhere in the window.
    """
    out = np.zeros((len(mel), WINDOW, BANDS), np.float32)
    for at in range(len(mel)):
        one = _stretched(mel[at, : length[at]].astype(np.float32), rng)
        smooth = np.interp(np.arange(BANDS), np.linspace(0, BANDS - 1, 5), rng.normal(0, 1.0, 5))
        one = one + smooth.astype(np.float32)
        if rng.random() < 0.4:
            one = _reverberant(one, rng)
        if rng.random() < 0.7:
            tilt = np.linspace(0, rng.uniform(-2, 2), BANDS)
            noise = one.max() - rng.uniform(4, 11) + tilt + rng.normal(0, 0.6, one.shape)
            one = np.logaddexp(one, noise.astype(np.float32))
        for _ in range(int(rng.integers(0, 3))):
            band, frame = int(rng.integers(0, BANDS - 8)), int(rng.integers(0, max(1, len(one) - 8)))
            one[:, band : band + int(rng.integers(1, 8))] = one.mean()
            one[frame : frame + int(rng.integers(1, 8))] = one.mean()
        out[at] = window(one, int(rng.integers(0, WINDOW - len(one) + 1)))
    return out


def _stretched(mel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Time by 0.85 to 1.2 within the window, bands shifted by up to 3."""
    length = int(np.clip(round(len(mel) * rng.uniform(0.85, 1.2)), 2, WINDOW))
    at = np.linspace(0, len(mel) - 1, length)
    low = np.floor(at).astype(np.int64)
    part = (at - low).astype(np.float32)[:, None]
    longer = (mel[low] * (1 - part) + mel[np.minimum(low + 1, len(mel) - 1)] * part).astype(np.float32)
    bands = np.clip(np.arange(BANDS) * rng.uniform(0.95, 1.05) + rng.uniform(-2, 2), 0, BANDS - 1)
    return longer[:, np.rint(bands).astype(np.int64)]


def _reverberant(mel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Every frame keeps a share of the power of the one before it."""
    keep = np.log(rng.uniform(0.3, 0.8))
    out = mel.copy()
    for frame in range(1, len(out)):
        out[frame] = np.logaddexp(out[frame], out[frame - 1] + keep)
    return out
