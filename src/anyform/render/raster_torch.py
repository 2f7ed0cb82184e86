"""The rasteriser of `raster` in torch, on any device, differentiable by autograd: the definition the fast ones follow.

Every face is expanded to the pixels of its bounding box, all are tested at once, and two scatter-minima keep the
nearest fragment and, of equals, the lowest face id. Memory grows with the fragments: for tests, small pictures, and
devices without another backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anyform.render.raster import MIN_W


def rasterise(position: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """uv (H, W, 2), z (H, W), face (H, W) int64 of clip positions (V, 4) and faces (F, 3) int64; float64 inside."""
    corners = position.detach().double()[faces]
    w = corners[..., 3]
    size = torch.tensor([width, height], device=faces.device)
    screen = (corners[..., :2] / w.clamp(min=MIN_W)[..., None] + 1) * size * 0.5 - 0.5
    low = torch.ceil(screen.amin(1)).clamp(min=0).minimum(size).long()
    high = torch.floor(screen.amax(1)).clamp(min=-1).minimum(size - 1).long()
    extent = (high - low + 1).clamp(min=0)
    extent[(w <= MIN_W).any(1)] = 0
    count = extent[:, 0] * extent[:, 1]
    f = torch.repeat_interleave(count)
    rest = torch.arange(len(f), device=f.device) - (count.cumsum(0) - count)[f]
    column, row = low[f, 0] + rest % extent[f, 0], low[f, 1] + rest // extent[f, 0]
    e = edge_functions(corners[f], column, row, height, width)
    total = e.sum(1)
    covered = ((e * torch.sign(total)[:, None]) >= 0).all(1) & (total != 0)
    f, row, column, e = f[covered], row[covered], column[covered], e[covered]
    z = (e * corners[f][..., 2]).sum(1) / (e * corners[f][..., 3]).sum(1)
    ahead = (z >= -1) & (z < 1)
    f, pixel, e, z = f[ahead], (row * width + column)[ahead], e[ahead], z[ahead]
    depth = torch.ones(height * width, dtype=z.dtype, device=z.device).scatter_reduce(0, pixel, z, "amin")
    shown = z == depth[pixel]
    none = len(faces)
    face = torch.full((height * width,), none, device=f.device).scatter_reduce(0, pixel[shown], f[shown], "amin")
    winner = shown & (f == face[pixel])
    uv = torch.zeros(height * width, 2, dtype=z.dtype, device=z.device)
    uv[pixel[winner]] = (e / e.sum(1, keepdim=True))[winner, :2]
    face = torch.where(face == none, -1, face)
    return uv.view(height, width, 2), depth.view(height, width), face.view(height, width)


def edge_functions(corners: Tensor, column: Tensor, row: Tensor, height: int, width: int) -> Tensor:
    """e_k (P, 3) of clip corners (P, 3, 4) at pixel centres."""
    column, row = column.to(corners), row.to(corners)  # an integer tensor divided would be float32
    centre = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], -1)
    q = corners[..., :2] - centre[:, None] * corners[..., 3:]
    one, other = q[:, [1, 2, 0]], q[:, [2, 0, 1]]
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]


def interpolate(attributes: Tensor, position: Tensor, faces: Tensor, face: Tensor) -> Tensor:
    """Attributes (V, C) at every pixel, (H, W, C), 0 where nothing is seen; gradients to attributes and position."""
    row, column = (face >= 0).nonzero(as_tuple=True)
    seen = faces[face[row, column]]
    e = edge_functions(position[seen], column, row, *face.shape)
    values = ((e / e.sum(1, keepdim=True))[..., None] * attributes[seen]).sum(1)
    blank = attributes.new_zeros(*face.shape, attributes.shape[1])
    return blank.index_put((row, column), values)
