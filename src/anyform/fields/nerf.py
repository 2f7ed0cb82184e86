"""A radiance field without view dependence: density and colour at every point of [-radius, radius]³.

density = softplus(network(encoding(x)) + bias(x)) with the blob bias(x) = 10 (1 − |x| / 0.5), so that an untrained
field is a soft ball in the middle (Magic3D). Rays are sampled every 2√3 · radius / `samples`; an occupancy grid leaves
out cells where nothing is (the running maximum of density · step, threshold min(its mean, 0.01)). Normals are
−∇density, by forward differences unless `analytic_normals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anyform.errors import GateFailed
from anyform.fields.texture import unit_cube
from anyform.geometry.marching_cubes import surface
from anyform.geometry.mesh import Mesh
from anyform.nn.grid_encoding import GridConfig, GridEncoding, hashed
from anyform.nn.perceptron import perceptron
from anyform.render.background import per_pixel
from anyform.render.rays import Marched, Rays, camera_rays, march, starts
from anyform.render.volume import composite
from anyform.types.camera import Cameras
from anyform.types.render import Render, Samples

DENSITY_THRESHOLD = 10.0  # density of the surface (Consistent3D and threestudio: isosurface_threshold)
_DECAY, _EVERY, _WARM_UP, _THRESHOLD = 0.95, 16, 256, 0.01  # of the occupancy grid, as nerfacc's estimator
_BLOCK = 1 << 15  # rays at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class NerfConfig:
    """Defaults: XBind's phase I (specs/xbind.md §4). Steps are the optimiser's."""

    encoding: GridConfig = field(default_factory=hashed)
    hidden: int = 64
    hidden_layers: int = 2
    radius: float = 1.0
    samples: int = 256  # steps along the diagonal of the cube
    occupancy: int = 32  # cells a side
    min_alpha: float = 0.01  # samples below add nothing and get no gradient; 0 keeps all and saves one evaluation
    blob_density: float = 10.0
    blob_radius: float = 0.5
    start_levels: int = 8  # levels of the encoding in use until start_step ...
    start_step: int = 2000
    level_every: int = 300  # ... and one more every so many steps after it
    analytic_normals: bool = False
    normal_step: float = 0.01  # world units


class NeRF(nn.Module):
    """A `Representation`. Call `update(step)` before every optimiser step."""

    step_length: float
    occupancy: Tensor
    occupied: Tensor
    step: Tensor

    def __init__(self, config: NerfConfig) -> None:
        super().__init__()
        self.config = config
        self.encoding = GridEncoding(config.encoding)
        width = config.encoding.width
        self.density_network = perceptron(width, config.hidden, config.hidden_layers, 1)
        self.color_network = perceptron(width, config.hidden, config.hidden_layers, 3)
        self.step_length = 2 * math.sqrt(3) * config.radius / config.samples
        cells = (config.occupancy,) * 3
        self.register_buffer("occupancy", torch.zeros(cells))
        self.register_buffer("occupied", torch.ones(cells, dtype=torch.bool))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def active_levels(self) -> int:
        """Levels of the encoding in use at the current step."""
        c = self.config
        past = int(self.step) - c.start_step
        grown = c.start_levels + (past // c.level_every + 1 if past >= 0 else 0)
        return min(len(c.encoding.resolutions), grown)

    def density(self, points: Tensor, *, twice: bool = False) -> Tensor:
        """(N, 3) world points -> (N,) extinction per world unit, >= 0."""
        c = self.config
        encoded = self.encoding(unit_cube(points, c.radius), self.active_levels, twice=twice)
        blob = c.blob_density * (1 - torch.linalg.norm(points, dim=-1) / c.blob_radius)
        return nn.functional.softplus(self.density_network(encoded)[:, 0] + blob)

    def color(self, points: Tensor) -> Tensor:
        """(N, 3) world points -> (N, 3) sRGB in [0, 1]."""
        encoded = self.encoding(unit_cube(points, self.config.radius), self.active_levels)
        return torch.sigmoid(self.color_network(encoded))

    def normals(self, points: Tensor, density: Tensor | None = None) -> Tensor:
        """(N, 3) world points -> (N, 3) unit −∇density, 0 where it is flat; `density` at the points saves a query."""
        if self.config.analytic_normals:
            with torch.enable_grad():
                place = points.detach().requires_grad_()
                slope = torch.autograd.grad(self.density(place, twice=True).sum(), place, create_graph=self.training)[0]
            return -nn.functional.normalize(slope, dim=-1, eps=1e-8)
        here = self.density(points) if density is None else density
        offsets = torch.eye(3, dtype=points.dtype, device=points.device) * self.config.normal_step
        beside = self.density((points[:, None] + offsets).reshape(-1, 3)).view(-1, 3)
        return nn.functional.normalize(here[:, None] - beside, dim=-1, eps=1e-8)

    @torch.no_grad()
    def update(self, step: int, *, every_cell: bool = False) -> None:
        """Tell the field the optimiser's step: levels of detail, and the occupancy grid every 16 steps.

        All cells are looked at in the first 256 steps, later a random quarter of all and a random quarter of the
        occupied ones; places within a cell are random, from torch's global generator.
        """
        self.step.fill_(step)
        if step % _EVERY and not every_cell:
            return
        size, device = self.config.occupancy, self.occupancy.device
        total = size**3
        if step < _WARM_UP or every_cell:
            cells = torch.arange(total, device=device)
        else:
            used = self.occupied.flatten().nonzero()[:, 0]
            some = torch.randint(total, (total // 4,), device=device)
            cells = torch.cat([some, used[torch.randperm(len(used), device=device)[: total // 4]]]).unique()
        index = torch.stack([cells // size**2, cells // size % size, cells % size], 1)
        place = (index + torch.rand(len(cells), 3, device=device)) * (
            2 * self.config.radius / size
        ) - self.config.radius
        seen = torch.cat([self.density(block) for block in place.split(1 << 16)]) * self.step_length
        flat = self.occupancy.view(-1)
        flat[cells] = torch.maximum(flat[cells] * _DECAY, seen)
        self.occupied.copy_(self.occupancy > self.occupancy.mean().clamp(max=_THRESHOLD))

    def render(
        self, cameras: Cameras, background: Tensor, *, color: bool = True, normal: bool = False
    ) -> Render[Tensor]:
        """See `Representation.render`; depth and samples are always there."""
        table = self.encoding.table
        rays = camera_rays(cameras, self.config.radius, table.device, table.dtype)
        shape = len(cameras), cameras.height, cameras.width
        behind = per_pixel(background.to(table), *shape).reshape(-1, 3)
        bounds = range(0, max(len(rays), 1), _BLOCK)
        parts = [self._block(_part(rays, at), behind[at : at + _BLOCK], color, normal) for at in bounds]
        rgb, alpha, depth, facing, counts, t, weights = (torch.cat(column) for column in zip(*parts, strict=True))
        return Render(
            rgb=rgb.view(*shape, 3),
            alpha=alpha.view(*shape, 1),
            depth=depth.view(*shape, 1),
            normal=facing.view(*shape, 3) if normal else None,
            samples=Samples(start=starts(counts), t=t, ray_weights=weights),
        )

    def _block(self, rays: Rays, background: Tensor, color: bool, normal: bool) -> tuple[Tensor, ...]:
        """rgb, alpha, depth, normal of R rays; samples a ray, their t and ray_weights."""
        jitter = torch.rand_like(rays.near) if self.training else 0.5
        marched = march(rays, self.occupied, self.config.radius, self.step_length, jitter)
        points = rays.points(marched)
        if self.config.min_alpha > 0:
            marched, points = self._visible(rays, marched, points)
        density = self.density(points)
        nothing = torch.zeros_like(points)
        features = [self.color(points) if color else nothing]
        if normal:
            features.append(self.normals(points, density))
        values = torch.cat(features, 1)
        behind = nn.functional.pad(background, (0, values.shape[1] - 3))
        step = torch.full_like(density, self.step_length)
        pixels = composite(density, values, marched.t, step, marched.start, behind)
        facing = nn.functional.normalize(pixels.color[:, 3:], dim=-1, eps=1e-8) * pixels.alpha[:, None]
        return (
            pixels.color[:, :3], pixels.alpha, pixels.depth, facing,
            torch.diff(marched.start), marched.t, pixels.ray_weights,
        )  # fmt: skip

    @torch.no_grad()
    def _visible(self, rays: Rays, marched: Marched, points: Tensor) -> tuple[Marched, Tensor]:
        """Without the samples whose alpha is below min_alpha."""
        kept = self.density(points) * self.step_length > -math.log1p(-self.config.min_alpha)
        ray = marched.ray[kept]
        start = starts(torch.bincount(ray, minlength=len(rays)))
        return Marched(start, ray, marched.t[kept]), points[kept]

    @torch.no_grad()
    def to_mesh(self, resolution: int, density_threshold: float = DENSITY_THRESHOLD) -> Mesh:
        """The surface density = density_threshold from resolution³ samples, with vertex colours."""
        radius, device = self.config.radius, self.encoding.table.device
        axis = -radius + (2 * torch.arange(resolution, device=device) + 1) * (radius / resolution)
        rows = (torch.cartesian_prod(x[None], axis, axis) for x in axis)
        level = torch.stack([density_threshold - self.density(row) for row in rows]).view(*(resolution,) * 3)
        mesh = surface(level.cpu().numpy(), -radius + radius / resolution, 2 * radius / resolution)
        blocks = torch.from_numpy(mesh.vertices).to(device).split(1 << 16)
        colors = torch.cat([self.color(block).cpu() for block in blocks]).numpy().astype(np.float32)
        return Mesh(mesh.vertices, mesh.faces, vertex_color=colors)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by kind, which optimisers give rates of their own."""
        networks = [*self.density_network.parameters(), *self.color_network.parameters()]
        return {"encoding": list(self.encoding.parameters()), "networks": networks}


def nerf_from_sdf(
    sdf: NDArray[np.floating],
    config: NerfConfig,
    *,
    color_at: Callable[[NDArray[np.float32]], NDArray[np.floating]] | None = None,
    steps: int = 200,
    batch: int = 8192,
) -> NeRF:
    """A field fitted to a sampled signed distance (N, N, N), cell-centred on [-1, 1]³ as `geometry.sdf` says.

    Its density is 10 on the surface and grows by one for every 6 thousandths of a unit inwards, to at most 50.
    color_at: (N, 3) world points -> sRGB of the nearest surface, grey where absent. Random places come from torch's
    generator. Raises GateFailed for a field without a surface.
    """
    nerf = NeRF(config)
    nerf.step.fill_(max(config.start_step, 1) + len(config.encoding.resolutions) * config.level_every)
    grid = torch.from_numpy(np.ascontiguousarray(sdf, np.float32))
    near = (grid.abs() < 0.1).nonzero()
    if not len(near) or not bool((grid < 0).any()):
        raise GateFailed(f"the distance field has no surface: its values are {grid.min():.3g} to {grid.max():.3g}")
    groups = nerf.parameter_groups()
    rates = [{"params": groups["encoding"], "lr": 3e-2}, {"params": groups["networks"], "lr": 5e-3}]
    optimiser = torch.optim.Adam(rates, betas=(0.9, 0.99), fused=True)
    for _ in range(steps):
        cell = near[torch.randint(len(near), (batch // 2,))] + torch.rand(batch // 2, 3)
        points = torch.cat([cell * (2 / len(grid)) - 1, torch.rand(batch - batch // 2, 3) * 2 - 1])
        wanted = (DENSITY_THRESHOLD - trilinear(grid, points) / 0.006).clamp(-10, 50)
        density = nerf.density(points)
        raw = density + torch.log(-torch.expm1(-density.clamp(min=1e-6)))  # the inverse of softplus
        loss = ((raw.clamp(min=-10) - wanted) / 10).square().mean()
        if color_at is not None:
            colors = torch.from_numpy(np.asarray(color_at(points.numpy()), np.float32))
            loss = loss + (nerf.color(points) - colors).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    nerf.update(0, every_cell=True)
    return nerf


def trilinear(grid: Tensor, points: Tensor) -> Tensor:
    """Values (N,) of a cell-centred grid (G, G, G) on [-1, 1]³, indexed [x, y, z], at points (N, 3); edges go on."""
    where = points.flip(-1).view(1, -1, 1, 1, 3)  # grid_sample counts axes from the last
    sampled = nn.functional.grid_sample(
        grid[None, None].to(points), where, align_corners=False, padding_mode="border", mode="bilinear"
    )
    return sampled.view(-1)


def _part(rays: Rays, first: int) -> Rays:
    return Rays(*(part[first : first + _BLOCK] for part in (rays.origins, rays.directions, rays.near, rays.far)))
