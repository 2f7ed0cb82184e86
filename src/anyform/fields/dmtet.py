"""A surface as the level 0 of a signed distance on a deformable tetrahedral grid, with colours on it.

The grid is Kuhn's (`geometry.tets`) over a box in world space. A vertex sits at its lattice place plus half a cell
times tanh(deformation), so that none passes its neighbour; sdf is in world units, negative inside. On the
border of the box it counts as at least a tenth of a cell, so that the surface is closed wherever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anyform.errors import GateFailed
from anyform.fields.marching_tets import marching_tets
from anyform.fields.nerf import DENSITY_THRESHOLD, NeRF, trilinear
from anyform.fields.texture import TextureField, texture_from_nerf
from anyform.geometry.mesh import Mesh
from anyform.geometry.tets import grid_vertices
from anyform.render.background import per_pixel
from anyform.render.lighting import Lighting, LitPoints
from anyform.render.projection import clip
from anyform.render.rasteriser import Backend, Rasteriser, rasteriser
from anyform.types.camera import Cameras
from anyform.types.render import Render

_MARGIN = 0.1  # of the object's size, around it on all sides
_BAND = 1.5  # cells around the surface whose distances come from the density itself


@dataclass(frozen=True, slots=True, kw_only=True)
class DmtetConfig:
    """resolution: cubes a side; Kuhn 64 has as many tetrahedra as the usual "128" grids. low, high: the box."""

    resolution: int = 64
    low: tuple[float, float, float] = (-1.0, -1.0, -1.0)
    high: tuple[float, float, float] = (1.0, 1.0, 1.0)
    backend: Backend = "auto"


class Surface(NamedTuple):
    """vertices (N, 3) world, faces (F, 3) int64, facing outward."""

    vertices: Tensor
    faces: Tensor


class DMTet(nn.Module):
    """A `Representation`: parameters sdf ((R + 1)³,) and deformation ((R + 1)³, 3), and those of the texture."""

    low: Tensor
    high: Tensor
    border: Tensor
    density_threshold: Tensor

    def __init__(
        self, config: DmtetConfig, sdf: Tensor, texture: TextureField | None = None, lighting: Lighting | None = None
    ) -> None:
        """sdf: start values in world units. Without a texture the surface is grey; without lighting it shows albedo."""
        super().__init__()
        self.config, self.texture, self.lighting = config, texture, lighting
        self.sdf = nn.Parameter(sdf.detach().clone())
        self.deformation = nn.Parameter(sdf.new_zeros(len(sdf), 3))
        self.register_buffer("low", torch.tensor(config.low).to(sdf))
        self.register_buffer("high", torch.tensor(config.high).to(sdf))
        self.register_buffer("density_threshold", torch.zeros(()))  # of the field it was made from; 0 = of none
        at = torch.from_numpy(grid_vertices(config.resolution))
        self.register_buffer("border", ((at == 0) | (at == 1)).any(1), persistent=False)
        self._frozen: Surface | None = None
        self._rasteriser: Rasteriser | None = None

    def surface(self) -> Surface:
        """The mesh, differentiable in sdf and deformation. Raises GateFailed where it is empty."""
        if self._frozen is not None:
            return self._frozen
        tenth = 0.1 * float((self.high - self.low).mean()) / self.config.resolution
        sdf = torch.where(self.border, self.sdf.clamp(min=tenth), self.sdf)
        vertices, faces = marching_tets(self._positions, sdf, self.config.resolution)
        if not len(faces):
            low, high = (float(end) for end in self.sdf.detach().aminmax())
            raise GateFailed(
                f"the surface has vanished: no signed distance inside the box is below 0 ({low:.3g} to {high:.3g})"
            )
        return Surface(vertices, faces)

    def freeze_geometry(self) -> None:
        """From now on the surface is as it is: made once, without gradients; only the texture is left to learn."""
        self._frozen = None
        with torch.no_grad():
            self._frozen = self.surface()
        self.sdf.requires_grad_(False)
        self.deformation.requires_grad_(False)

    def render(
        self, cameras: Cameras, background: Tensor, *, color: bool = True, normal: bool = False
    ) -> Render[Tensor]:
        """See `Representation.render`; outlines are antialiased, and the texture sends no gradient to the geometry."""
        surface = self.surface()
        shape = len(cameras), cameras.height, cameras.width
        behind = per_pixel(background.to(surface.vertices), *shape)
        facing = vertex_normals(surface.vertices, surface.faces)
        draw = self._backend(surface.vertices.device)
        views = [self._view(draw, surface, facing, cameras, view, behind[view], color) for view in range(len(cameras))]
        layers = torch.stack(views)
        return Render(
            rgb=layers[..., :3],
            alpha=layers[..., 3:4],
            depth=layers[..., 4:5],
            normal=layers[..., 5:8] if normal else None,
        )

    def _backend(self, device: torch.device) -> Rasteriser:
        """The rasteriser, kept because it remembers the last mesh's edges."""
        if self._rasteriser is None:
            self._rasteriser = rasteriser(device, self.config.backend)
        return self._rasteriser

    def _view(
        self,
        draw: Rasteriser,
        surface: Surface,
        facing: Tensor,
        cameras: Cameras,
        view: int,
        background: Tensor,
        color: bool,
    ) -> Tensor:
        """(H, W, 8): rgb, alpha, depth, normal of one view, row 0 at the top."""
        position = clip(surface.vertices, cameras, view)
        visible = draw.rasterise(position, surface.faces, cameras.height, cameras.width)
        attributes = torch.cat([surface.vertices, facing], 1)
        seen = draw.interpolate(attributes, position, surface.faces, visible)
        mask = visible.face >= 0
        eye = torch.as_tensor(cameras.camera_to_world[view, :3, 3]).to(seen)
        normal = nn.functional.normalize(seen[..., 3:], dim=-1, eps=1e-8)
        depth = torch.where(mask, (seen[..., :3] - eye).norm(dim=-1), 0.0)
        rgb = background.flip(0)
        shade = self._shade(seen[mask][:, :3], normal[mask], eye) if color else seen.new_zeros(int(mask.sum()), 3)
        rgb = rgb.masked_scatter(mask[..., None], shade)
        layers = torch.cat([rgb, mask[..., None].to(rgb), depth[..., None], normal], -1)
        return draw.antialias(layers, position, surface.faces, visible).flip(0)

    def _shade(self, place: Tensor, normal: Tensor, eye: Tensor) -> Tensor:
        """sRGB (N, 3) of surface points."""
        place = place.detach()
        if self.texture is None:
            grey, none = place.new_full((len(place), 3), 0.5), place.new_zeros(len(place), 1)
            albedo, metallic, roughness, bump = grey, none, none + 0.9, None
        else:
            albedo, metallic, roughness, bump = self.texture.material(place)
        if bump is not None:
            normal = nn.functional.normalize(normal + bump, dim=-1)
        if self.lighting is None:
            return albedo
        return self.lighting(LitPoints(albedo, metallic, roughness, normal, place, eye.expand_as(place)))

    @torch.no_grad()
    def to_mesh(self, resolution: int | None = None) -> Mesh:
        """The surface with vertex colours; `resolution` other than the grid's own is refused with ValueError."""
        if resolution not in (None, self.config.resolution):
            raise ValueError(f"this grid has {self.config.resolution} cubes a side; {resolution} cannot be asked of it")
        vertices, faces = (part.cpu().numpy() for part in self.surface())
        colors = None if self.texture is None else self.texture.colors_at(vertices)
        return Mesh(vertices, faces, vertex_color=colors)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by kind, which optimisers give rates of their own."""
        groups = {"geometry": [self.sdf, self.deformation]}
        return groups if self.texture is None else {**groups, **self.texture.parameter_groups()}

    def _positions(self, index: Tensor) -> Tensor:
        """World places (T, 3) of grid vertices."""
        side = self.config.resolution + 1
        lattice = torch.stack([index // side**2, index // side % side, index % side], 1)
        place = lattice + 0.5 * torch.tanh(self.deformation.index_select(0, index))
        return self.low + place * ((self.high - self.low) / self.config.resolution)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (N, 3): sums of the normals of a vertex' faces, weighted by their areas; 0 where they cancel."""
    a, b, c = vertices[faces].unbind(1)
    cross = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices).index_add(0, faces.flatten(), cross.repeat_interleave(3, 0))
    return nn.functional.normalize(total, dim=-1, eps=1e-12)


@torch.no_grad()
def dmtet_from_nerf(
    nerf: NeRF, density_threshold: float = DENSITY_THRESHOLD, *, resolution: int = 64, physical: bool = False
) -> DMTet:
    """The surface density = density_threshold of a radiance field, in a box around it, with the field's colours.

    Where the field does not reach the threshold, a half and a quarter of it, the mean of what is denser than 1e-5, and
    half the largest density are tried in turn; the one taken is in `density_threshold` of the result. Raises GateFailed
    where nothing is there. Density jumps within a cell, so near the surface distances are the density's own divided by
    its slope, farther away those to the nearest inside or outside vertex.
    """
    radius = nerf.config.radius
    lattice = (torch.from_numpy(grid_vertices(resolution)) * 2 - 1).to(nerf.encoding.table) * radius
    density = _density(nerf, lattice)
    for threshold in _thresholds(density, density_threshold):
        inside = density > threshold
        if bool(inside.any()) and not bool(inside.all()):
            break
    else:
        raise GateFailed(
            f"the field holds no surface: its densities are {float(density.min()):.3g} to {float(density.max()):.3g};"
            " train longer or with another seed"
        )
    cell = 2 * radius / resolution
    low, high = lattice[inside].amin(0) - cell, lattice[inside].amax(0) + cell
    margin = _MARGIN * (high - low).max()
    low, high = (low - margin).clamp(min=-radius), (high + margin).clamp(max=radius)
    density = _density(nerf, low + (lattice / radius + 1) / 2 * (high - low))
    if not bool((density > threshold).any()):
        raise GateFailed(f"the field is denser than {threshold:.3g} in single points only; train longer")
    grid = (density / threshold).view(*(resolution + 1,) * 3).cpu().numpy().astype(np.float64)
    sdf = _distances(1 - grid, ((high - low) / resolution).cpu().numpy())
    config = DmtetConfig(resolution=resolution, low=_triple(low), high=_triple(high))
    values = torch.from_numpy(sdf.astype(np.float32).reshape(-1)).to(nerf.encoding.table)
    tets = DMTet(config, values, texture_from_nerf(nerf, physical=physical)).to(values.device)
    tets.density_threshold.fill_(threshold)
    return tets


@torch.no_grad()
def dmtet_from_sdf(sdf: NDArray[np.floating], *, resolution: int = 64, texture: TextureField | None = None) -> DMTet:
    """The surface of a sampled distance (N, N, N), cell-centred on [-1, 1]³ as `geometry.sdf` says, in a box around it.

    Raises GateFailed for a field without inside.
    """
    grid = torch.from_numpy(np.ascontiguousarray(sdf, np.float32))
    inside = (grid < 0).nonzero()
    if not len(inside):
        raise GateFailed(f"the distance field is empty: its smallest sample is {float(grid.min()):.3g}")
    cell = 2 / len(grid)
    low, high = ((index + 0.5) * cell - 1 for index in (inside.amin(0) - 1, inside.amax(0) + 1))
    margin = _MARGIN * (high - low).max()
    low, high = (low - margin).clamp(min=-1), (high + margin).clamp(max=1)
    places = low + torch.from_numpy(grid_vertices(resolution)) * (high - low)
    config = DmtetConfig(resolution=resolution, low=_triple(low), high=_triple(high))
    return DMTet(config, trilinear(grid, places), texture)


def _density(nerf: NeRF, points: Tensor) -> Tensor:
    return torch.cat([nerf.density(block) for block in points.split(1 << 16)])


def _thresholds(density: Tensor, wanted: float) -> list[float]:
    """What to try, in order."""
    seen = density[density > 1e-5]
    spare = [float(seen.mean())] if len(seen) else []
    return [wanted, wanted / 2, wanted / 4, *spare, 0.5 * float(density.max())]


def _distances(level: NDArray[np.float64], cell: NDArray[np.floating]) -> NDArray[np.float64]:
    """Approximate signed distances in world units from a level function (n, n, n), negative inside, cells (3,) wide."""
    from scipy import ndimage

    inside = level < 0
    smooth = ndimage.correlate(np.clip(level, -1, 1), _SIX, mode="nearest")
    smooth = np.where((smooth < 0) == inside, smooth, np.where(inside, -1e-3, 1e-3))
    slope = np.sqrt(sum(g**2 for g in np.gradient(smooth, *cell)))
    width = float(np.mean(cell))
    near = np.clip(smooth / np.maximum(slope, 1e-6), -_BAND * width, _BAND * width)
    out, deep = (np.asarray(ndimage.distance_transform_edt(part, cell)) for part in (~inside, inside))
    away = out - deep
    far = away - np.sign(away) * width / 2
    return np.where(np.abs(far) < _BAND * width, near, far)


# half the sample itself, half its six neighbours
_SIX = np.zeros((3, 3, 3))
_SIX[1, 1, 1] = 0.5
_SIX[[0, 2, 1, 1, 1, 1], [1, 1, 0, 2, 1, 1], [1, 1, 1, 1, 0, 2]] = 1 / 12


def _triple(values: Tensor) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
