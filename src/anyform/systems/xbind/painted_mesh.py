"""A surface that stays as it is under colours that are optimised: the representation of phase III."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anyform.errors import GateFailed
from anyform.fields.dmtet import vertex_normals
from anyform.fields.texture import TextureField
from anyform.geometry.mesh import Mesh
from anyform.render.background import per_pixel
from anyform.render.projection import clip
from anyform.render.rasteriser import Rasteriser, rasteriser
from anyform.types.camera import Cameras
from anyform.types.render import Render


class PaintedMesh(nn.Module):
    """A `Representation`: a mesh in world units, whose albedo is a field in space. Unlit."""

    vertices: Tensor
    normals: Tensor

    def __init__(self, mesh: Mesh, texture: TextureField) -> None:
        super().__init__()
        if not len(mesh.faces):
            raise GateFailed("there is no surface to paint: the mesh has no faces")
        self.mesh, self.texture = mesh, texture
        device = next(texture.parameters()).device
        vertices = torch.from_numpy(np.array(mesh.vertices)).to(device)
        self.faces = torch.from_numpy(mesh.faces.astype(np.int64)).to(device)
        self.register_buffer("vertices", vertices)
        self.register_buffer("normals", vertex_normals(vertices, self.faces))
        self.raster: Rasteriser = rasteriser(device)

    def render(
        self, cameras: Cameras, background: Tensor, *, color: bool = True, normal: bool = False
    ) -> Render[Tensor]:
        """See `Representation.render`; alpha and normals are constants of every gradient."""
        shape = len(cameras), cameras.height, cameras.width
        behind = per_pixel(background.to(self.vertices), *shape)
        views = [self._view(cameras, view, behind[view], color) for view in range(shape[0])]
        rgb, alpha, facing = (torch.stack(part) for part in zip(*views, strict=True))
        return Render(rgb=rgb, alpha=alpha, normal=facing if normal else None)

    def _view(self, cameras: Cameras, view: int, behind: Tensor, color: bool) -> tuple[Tensor, Tensor, Tensor]:
        """rgb, alpha, normal · alpha of one view, each (H, W, ·) with row 0 at the top."""
        with torch.no_grad():
            position = clip(self.vertices, cameras, view)
            visible = self.raster.rasterise(position, self.faces, cameras.height, cameras.width)
            attributes = torch.cat([self.vertices, self.normals], 1)
            place, facing = self.raster.interpolate(attributes, position, self.faces, visible).split(3, -1)
            seen = visible.face.to(place.device) >= 0
            facing = nn.functional.normalize(facing, dim=-1, eps=1e-8) * seen[..., None]
        ground = behind.flip(0)  # rasters count rows from the bottom
        painted = torch.zeros_like(place)
        if color and bool(seen.any()):
            painted = painted.masked_scatter(seen[..., None], self.texture.color(place[seen]))
        mask = seen[..., None].to(place)
        layers = torch.cat([painted * mask + ground * (1 - mask), mask, facing], -1)
        shown = self.raster.antialias(layers, position, self.faces, visible)
        rgb, alpha, normal = shown.split([3, 1, 3], -1)
        return rgb.flip(0).clamp(0, 1), alpha.detach().flip(0).clamp(0, 1), normal.detach().flip(0)

    def surface(self) -> tuple[Tensor, Tensor]:
        """Vertices (V, 3) and faces (F, 3)."""
        return self.vertices, self.faces

    def to_mesh(self, resolution: int) -> Mesh:
        """The mesh with vertex colours; it has its own resolution."""
        assert resolution > 0
        colors = self.texture.colors_at(self.mesh.vertices)
        return Mesh(self.mesh.vertices, self.mesh.faces, vertex_color=colors.clip(0, 1))

    def color_at(self, points: Any) -> Any:
        """Albedo of points (N, 3), for baking: arrays in, arrays out."""
        return self.texture.colors_at(points)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by kind."""
        return self.texture.parameter_groups()
