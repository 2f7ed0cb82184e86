"""Do V pictures with known cameras show one object? Measured without any pretrained network (specs/tunemv3d.md §9.2).

A small voxel field of densities and colours is fitted to some of the pictures. What it says about the others, and where
its depth sends their pixels, is how consistent they are. A blank picture is perfectly consistent: foreground area,
diversity and text accuracy belong beside every number of this file. Pictures (V, 3, S, S) in [0, 1] on white.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from anyform.errors import BadInput
from anyform.fields.sparse_neus import ball_edges, project, projections, rays_of, read_lattice, section_weights
from anyform.types.camera import Cameras

VISIBLE = 0.06  # world units between a warped point and the other view's depth, within which it counts as seen


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """The voxel field and how it is fitted; the same for every method that is compared."""

    resolution: int = 40
    steps: int = 60
    rays: int = 4096
    sections: int = 48
    rate: float = 0.15
    roughness: float = 1e-3
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VoxelField:
    """volume (4, G, G, G): raw density and raw colour."""

    volume: Tensor
    sections: int

    def render(self, origins: Tensor, directions: Tensor, *, jitter: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Rays (R, 3) -> colour over white (R, 3), alpha (R,), distance along the ray (R,)."""
        edges = ball_edges(origins, directions, self.sections, jitter)
        middle = (edges[:, :-1] + edges[:, 1:]) / 2
        points = origins[:, None] + directions[:, None] * middle[..., None]
        values = read_lattice(self.volume, points.reshape(-1, 3)).reshape(*middle.shape, 4)
        density = functional.softplus(values[..., 0]) * 12 * (points.norm(dim=-1) < 1.05)
        weights = section_weights(1 - torch.exp(-density * (2 / self.sections)))
        alpha = weights.sum(-1)
        color = (torch.sigmoid(values[..., 1:]) * weights[..., None]).sum(1) + (1 - alpha)[:, None]
        return color, alpha, (weights * middle).sum(-1) / alpha.clamp(min=1e-4)


def fit(pictures: Tensor, cameras: Cameras, plan: FitPlan) -> VoxelField:
    """A voxel field of the pictures, the same bits every time."""
    origins, directions = (part.reshape(-1, 3) for part in rays_of(_sized(cameras, pictures)))
    wanted = pictures.permute(0, 2, 3, 1).reshape(-1, 3)
    start = torch.zeros(4, *(plan.resolution,) * 3)
    start[0] = -2
    volume = start.requires_grad_(True)
    optimiser = torch.optim.Adam([volume], lr=plan.rate)
    generator = torch.Generator().manual_seed(plan.seed)
    with torch.enable_grad():
        for _ in range(plan.steps):
            rows = torch.randint(len(wanted), (plan.rays,), generator=generator)
            color, _, _ = VoxelField(volume, plan.sections).render(origins[rows], directions[rows])
            rough = torch.stack([volume.diff(dim=axis).square().mean() for axis in (1, 2, 3)]).sum()
            loss = (color - wanted[rows]).square().mean() + plan.roughness * rough
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return VoxelField(volume.detach(), plan.sections)


@torch.no_grad()
def leave_out_psnr(pictures: Tensor, cameras: Cameras, plan: FitPlan | None = None) -> float:
    """PSNR (dB) of every second picture against a field fitted to the others ("3D consistency scoring" of 3DiM).

    Raises BadInput for fewer than 4 pictures.
    """
    _check(pictures, cameras, 4)
    used = fit(pictures[::2], _some(cameras, slice(0, None, 2)), plan or FitPlan())
    seen, _, _ = _views(used, _some(cameras, slice(1, None, 2)), pictures)
    return float(-10 * torch.log10((seen - pictures[1::2]).square().mean().clamp(min=1e-12)))


@torch.no_grad()
def reprojection(pictures: Tensor, cameras: Cameras, plan: FitPlan | None = None) -> tuple[float, float]:
    """(mean absolute colour error of foreground pixels warped to both neighbouring views, the share of them that the
    neighbour sees). Depth is that of a field fitted to all pictures; without foreground (0, 0)."""
    _check(pictures, cameras, 2)
    field = fit(pictures, cameras, plan or FitPlan())
    _, alpha, depth = _views(field, cameras, pictures)
    views = len(pictures)
    origins, directions = rays_of(_sized(cameras, pictures))
    points = origins + directions * depth[..., None]
    projection = projections(cameras)
    errors, seen, total = [], 0, 0
    for view in range(views):
        front = (alpha[view] > 0.5) & ((1 - pictures[view]).amax(0) > 0.04)
        total += 2 * int(front.sum())
        place, color = points[view][front], pictures[view][:, front].T
        for other in ((view + 1) % views, (view - 1) % views):
            where, _ = project(place, projection[other : other + 1])
            grid = where[:, None]
            maps = torch.cat([pictures[other], depth[other][None]])[None]
            read = functional.grid_sample(maps, grid, align_corners=False, padding_mode="border")[0, :, 0].T
            reach = (place - origins[other, 0, 0]).norm(dim=-1)
            visible = ((read[:, 3] - reach).abs() < VISIBLE) & (where[0].abs() <= 1).all(-1)
            seen += int(visible.sum())
            errors.append((read[:, :3] - color)[visible].abs().mean(-1))
    every = torch.cat(errors) if errors else torch.zeros(0)
    return (float(every.mean()) if len(every) else 0.0), (seen / total if total else 0.0)


def _views(field: VoxelField, cameras: Cameras, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (V, 3, S, S), alpha and distance (V, S, S) of the field from cameras at the size of the pictures."""
    size = like.shape[-1]
    origins, directions = (part.reshape(-1, 3) for part in rays_of(_sized(cameras, like)))
    parts = [field.render(o, d) for o, d in zip(origins.split(8192), directions.split(8192), strict=True)]
    color, alpha, depth = (torch.cat(some) for some in zip(*parts, strict=True))
    shape = len(cameras), size, size
    return color.reshape(*shape, 3).permute(0, 3, 1, 2), alpha.reshape(shape), depth.reshape(shape)


def _sized(cameras: Cameras, pictures: Tensor) -> Cameras:
    return Cameras(cameras.camera_to_world, cameras.fov_y, pictures.shape[-2], pictures.shape[-1])


def _some(cameras: Cameras, part: slice) -> Cameras:
    return Cameras(cameras.camera_to_world[part], cameras.fov_y[part], cameras.height, cameras.width)


def _check(pictures: Tensor, cameras: Cameras, least: int) -> None:
    if pictures.ndim != 4 or pictures.shape[1] != 3 or len(pictures) != len(cameras) or len(pictures) < least:
        raise BadInput(
            f"consistency needs at least {least} pictures (V, 3, S, S) and as many cameras, not"
            f" {tuple(pictures.shape)} and {len(cameras)}"
        )
