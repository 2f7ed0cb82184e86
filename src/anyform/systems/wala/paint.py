"""Our own colours for WaLa's grey shapes: a small 3D U-Net that paints a grid around the surface.

Differs: the paper makes geometry only. From the shape, the sentence vector of the prompt (if any) and a reference
colour grid (if any: the retrieved training shape's colours, or the visible part of an image prompt) the network
predicts a colour for every cell of a 32³ grid; the surface samples it trilinearly. Trained by `runs/embedded_paint.py`.

Grids are cell-centred over [-1, 1]³ and indexed [x, y, z]. A reference grid is (16, 16, 16, 3) uint8 sRGB in which
(0, 0, 0) means "no surface here"; black surfaces are stored as (1, 1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anyform.errors import BadInput
from anyform.systems.wala.colour import lab_to_srgb, srgb_to_lab
from anyform.weights import embedded_file, read_safetensors

SIZE = 16  # edge of the grid the network works on, and of reference grids
TRUNCATION = 0.125  # world units: distances beyond are clipped, 4 voxels of 64³
LAB_MEAN, LAB_SCALE = (60.0, 4.0, 14.0), 30.0  # mean Lab of the corpus; one scale keeps distances in Lab


@dataclass(frozen=True, kw_only=True)
class PaintConfig:
    """Sizes of the shipped network: 1.4 M parameters, about 1.3 GFLOP a shape."""

    widths: tuple[int, int, int] = (32, 64, 80)  # at 16³, 8³ and 4³
    text_width: int = 384
    condition_width: int = 128


class Block(nn.Module):
    """Residual 3D convolutions whose second normalisation is scaled and shifted by the text condition (FiLM)."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv_1, self.conv_2 = (nn.Conv3d(width, width, 3, padding=1) for _ in range(2))
        self.modulation = nn.Linear(condition_width, 2 * width)
        nn.init.zeros_(self.conv_2.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C, n, n, n), condition (B, D) -> (B, C, n, n, n)."""
        scale, shift = self.modulation(condition)[..., None, None, None].chunk(2, 1)
        hidden = self.conv_1(F.silu(self.norm_1(x)))
        return x + self.conv_2(F.silu(self.norm_2(hidden) * (1 + scale) + shift))


class Paint(nn.Module):
    """Shape, text and reference -> a Lab grid at twice the working resolution."""

    coordinates: Tensor

    def __init__(self, config: PaintConfig | None = None) -> None:
        super().__init__()
        config = config or PaintConfig()
        fine, middle, coarse = config.widths
        self.text = nn.Sequential(
            nn.Linear(config.text_width, config.condition_width),
            nn.SiLU(),
            nn.Linear(config.condition_width, config.condition_width),
            nn.SiLU(),
        )
        # 8 shape values, 3 coordinates, reference Lab 3, its surface mask, whether there is one
        self.stem = nn.Conv3d(16, fine, 3, padding=1)
        self.down_1, self.down_2 = nn.Conv3d(fine, middle, 2, 2), nn.Conv3d(middle, coarse, 2, 2)
        self.up_1, self.up_0 = nn.Conv3d(coarse, middle, 1), nn.Conv3d(middle, fine, 1)
        self.blocks = nn.ModuleList(Block(w, config.condition_width) for w in (middle, coarse, coarse, middle, fine))
        self.head = nn.Conv3d(fine, 4 * 8, 1)
        self.base = nn.Linear(config.condition_width, 4)  # what the words alone say, the same in every cell
        axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
        coordinates = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]
        self.register_buffer("coordinates", coordinates, persistent=False)

    def forward(self, shape: Tensor, text: Tensor, reference: Tensor) -> Tensor:
        """shape (B, 8, 16, 16, 16) of `shape_features`, text (B, 384) unit or zeros, reference (B, 5, 16, 16, 16) of
        `reference_features` -> normalised Lab (B, 3, 32, 32, 32).

        Each output cell mixes its own prediction with the reference by a learned gate, so copying costs nothing.
        """
        coordinates = self.coordinates.expand(len(shape), -1, -1, -1, -1)
        condition = self.condition(text)
        at_16 = self.stem(torch.cat([shape, coordinates, reference], 1))
        at_8 = self.blocks[0](self.down_1(at_16), condition)
        x = self.blocks[2](self.blocks[1](self.down_2(at_8), condition), condition)
        x = self.blocks[3](at_8 + self.up_1(upsampled(x)), condition)
        x = self.blocks[4](at_16 + self.up_0(upsampled(x)), condition)
        values = depth_to_space(self.head(F.silu(x))) + self.base(condition)[..., None, None, None]
        gate = torch.sigmoid(values[:, 3:]) * upsampled(reference[:, 4:])
        return (1 - gate) * values[:, :3] + gate * upsampled(reference[:, :3])

    def condition(self, text: Tensor) -> Tensor:
        """Sentence vectors (B, 384) -> the condition (B, D) of every block and of the base colour."""
        return self.text(text * text.shape[1] ** 0.5)


def upsampled(x: Tensor) -> Tensor:
    """(B, C, n, n, n) -> (B, C, 2n, 2n, 2n), nearest."""
    return F.interpolate(x, scale_factor=2)


def depth_to_space(x: Tensor) -> Tensor:
    """(B, 8C, n, n, n) -> (B, C, 2n, 2n, 2n): channels become the 2³ children of each cell."""
    batch, channels, n = x.shape[:3]
    children = x.reshape(batch, channels // 8, 2, 2, 2, n, n, n).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return children.reshape(batch, -1, 2 * n, 2 * n, 2 * n)


def shape_features(sdf: Tensor) -> Tensor:
    """World-unit distances (B, N, N, N), N a multiple of 32 -> (B, 8, 16, 16, 16) in [-1, 1]: 32³ means packed by 2."""
    means = F.avg_pool3d((sdf / TRUNCATION).clamp(-1, 1)[:, None], sdf.shape[-1] // (2 * SIZE))
    packed = means.reshape(len(sdf), SIZE, 2, SIZE, 2, SIZE, 2).permute(0, 2, 4, 6, 1, 3, 5)
    return packed.reshape(len(sdf), 8, SIZE, SIZE, SIZE)


def splat(points: NDArray[np.floating], rgb: NDArray[np.floating], size: int = SIZE) -> NDArray[np.uint8]:
    """Points (N, 3) in [-1, 1] with sRGB (N, 3) in [0, 1] -> sparse grid (size, size, size, 3): the mean Lab a cell."""
    cells = np.clip((np.asarray(points) + 1) / 2 * size, 0, size - 1).astype(np.int64)
    flat = np.ravel_multi_index(tuple(cells.T), (size,) * 3)
    lab, count = srgb_to_lab(rgb), np.bincount(flat, minlength=size**3)
    sums = np.stack([np.bincount(flat, lab[:, c], minlength=size**3) for c in range(3)], -1)
    mean = lab_to_srgb(sums / np.maximum(count, 1)[:, None])
    grid = np.where(count[:, None] > 0, np.maximum(np.rint(mean * 255), 1), 0)
    return grid.astype(np.uint8).reshape(size, size, size, 3)


def diffused(grid: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Sparse grid (n, n, n, 3) -> Lab (n, n, n, 3): empty cells take the mean of filled neighbours, outwards in waves.

    A grid without any surface becomes the corpus mean everywhere.
    """
    filled: NDArray[np.bool_] = np.asarray(grid.any(-1))
    if not filled.any():
        return np.broadcast_to(np.array(LAB_MEAN), grid.shape).copy()
    lab = np.where(filled[..., None], srgb_to_lab(grid / 255), 0.0)
    while not filled.all():
        carried = np.pad(np.concatenate([lab, filled[..., None]], -1), [(1, 1)] * 3 + [(0, 0)])
        near = carried[2:, 1:-1, 1:-1] + carried[:-2, 1:-1, 1:-1] + carried[1:-1, 2:, 1:-1]
        near += carried[1:-1, :-2, 1:-1] + carried[1:-1, 1:-1, 2:] + carried[1:-1, 1:-1, :-2]
        reached = ~filled & (near[..., 3] > 0)
        lab[reached] = near[reached, :3] / near[reached, 3:]
        filled = filled | reached
    return lab


def reference_features(grid: NDArray[np.uint8] | None) -> Tensor:
    """A reference grid, or None -> (5, 16, 16, 16): normalised Lab, surface mask, 1 if there is a reference at all."""
    if grid is None:
        return torch.zeros(5, SIZE, SIZE, SIZE)
    lab = (diffused(grid) - LAB_MEAN) / LAB_SCALE
    flags = np.stack([grid.any(-1), np.full(grid.shape[:3], grid.any())])
    return torch.from_numpy(np.concatenate([lab.transpose(3, 0, 1, 2), flags])).float()


@dataclass(frozen=True, slots=True)
class ColorGrid:
    """Colours around a surface: rgb (R, R, R, 3) float32 sRGB in [0, 1], cell-centred over [-1, 1]³."""

    rgb: NDArray[np.float32]

    def color_at(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points (N, 3) in [-1, 1] -> sRGB (N, 3) in [0, 1], trilinear; outside, the nearest cell's colour."""
        grid = torch.from_numpy(self.rgb).permute(3, 0, 1, 2)[None]
        where = torch.from_numpy(np.ascontiguousarray(np.asarray(points, np.float32)[:, ::-1]))
        found = F.grid_sample(grid, where[None, :, None, None], padding_mode="border", align_corners=False)
        return np.ascontiguousarray(found[0, :, :, 0, 0].T.numpy())


@cache
def load_paint() -> Paint:
    """The shipped network, read once a process."""
    model = Paint()
    model.load_state_dict({name: value.float() for name, value in read_safetensors(embedded_file("paint"))[0].items()})
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def paint(
    sdf: NDArray[np.floating],
    text_vector: NDArray[np.floating] | Tensor | None = None,
    reference: NDArray[np.uint8] | None = None,
) -> ColorGrid:
    """Colours for one shape.

    sdf: (N, N, N) signed distances in world units (half box = 1), negative inside, cell-centred, N a multiple of 32.
    text_vector: the prompt's unit vector (384,) of `encoders.embedded`, or None. reference: sparse grid, or None.
    Raises BadInput for other shapes.
    """
    if sdf.ndim != 3 or len(set(sdf.shape)) != 1 or sdf.shape[0] % (2 * SIZE):
        raise BadInput(f"painting needs a cube of distances with an edge that is a multiple of 32, not {sdf.shape}")
    if reference is not None and reference.shape != (SIZE, SIZE, SIZE, 3):
        raise BadInput(f"a reference colour grid is (16, 16, 16, 3), not {reference.shape}: make it with splat()")
    model = load_paint()
    text = torch.zeros(1, 384) if text_vector is None else torch.as_tensor(text_vector).float().reshape(1, 384)
    shape = shape_features(torch.from_numpy(np.ascontiguousarray(sdf, np.float32))[None])
    lab = model(shape, text, reference_features(reference)[None])[0].permute(1, 2, 3, 0).numpy()
    return ColorGrid(lab_to_srgb(lab * LAB_SCALE + LAB_MEAN).astype(np.float32))
