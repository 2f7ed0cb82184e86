"""Rays of cameras, and the samples along them that lie where something may be.

A ray is origin + t · direction with a unit direction; t in world units. The box is the cube [-radius, radius]³, its
occupancy a grid (G, G, G) of booleans indexed [x, y, z]. Samples sit on the lattice t_k = near + (jitter + k) · step,
k = 0, 1, …, while t_k < far; those in a free cell are left out, and leaving out never moves the others.

Packed: ray r owns the samples start[r] .. start[r + 1] − 1, in ascending t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anyform.errors import BadInput
from anyform.types.camera import Cameras


@dataclass(frozen=True, slots=True, eq=False)
class Marched:
    """start (R + 1,) int64; ray (S,) int64: owner of each sample; t (S,): middle of the sample's interval."""

    start: Tensor
    ray: Tensor
    t: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Rays:
    """origins, directions (R, 3), directions of length 1; near, far (R,): where to sample, near >= far = nowhere."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor

    def __len__(self) -> int:
        return len(self.origins)

    def points(self, marched: Marched) -> Tensor:
        """World points (S, 3) of samples."""
        return self.origins[marched.ray] + marched.t[:, None] * self.directions[marched.ray]


def camera_rays(
    cameras: Cameras, radius: float, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Rays:
    """Rays through all pixel centres, views then rows then columns, clipped to the cube [-radius, radius]³."""
    origins, directions = (torch.from_numpy(part.reshape(-1, 3).copy()) for part in cameras.rays())
    near, far = box_interval(origins, directions, radius)
    return Rays(*(part.to(device, dtype) for part in (origins, directions, near, far)))


def box_interval(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """(near, far), each (R,): where rays (R, 3) are inside the cube; near >= 0, and near >= far where they miss it."""
    # a direction component of 0 gives ±inf, which min and max handle; 0 · inf does not occur off the faces
    inverse = 1 / torch.where(directions == 0, torch.full_like(directions, 1e-30), directions)
    one, other = (-radius - origins) * inverse, (radius - origins) * inverse
    near = torch.minimum(one, other).amax(-1).clamp(min=0)
    far = torch.maximum(one, other).amin(-1)
    return near, torch.maximum(far, near)


def march(rays: Rays, occupied: Tensor, radius: float, step: float, jitter: Tensor | float = 0.5) -> Marched:
    """Samples of `rays` in occupied cells; jitter in [0, 1), one number or (R,).

    On a CPU float32 and float64 run compiled (`rays_numba`, same samples bit for bit), everything else in torch
    (`march_reference`).
    """
    shift = torch.as_tensor(jitter, dtype=rays.near.dtype, device=rays.near.device).expand(len(rays)).contiguous()
    if occupied.dtype != torch.bool or occupied.dim() != 3 or len(set(occupied.shape)) != 1:
        raise BadInput(f"the occupancy is a bool grid (G, G, G), not {occupied.dtype} {tuple(occupied.shape)}")
    if not step > 0:
        raise BadInput(f"the step along a ray is {step:g}; it must be positive")
    if rays.near.device.type == "cpu" and rays.near.dtype in (torch.float32, torch.float64):
        from anyform.render import rays_numba

        return rays_numba.march(rays, occupied, radius, step, shift)
    return march_reference(rays, occupied, radius, step, shift)


def march_reference(rays: Rays, occupied: Tensor, radius: float, step: float, jitter: Tensor) -> Marched:
    """The definition of `march`: every lattice point of every ray looked up. jitter: (R,)."""
    size = len(occupied)
    span = (rays.far - rays.near).clamp(min=0)
    count = int(torch.ceil(span.max() / step)) if len(rays) else 0
    index = torch.arange(count, device=jitter.device, dtype=jitter.dtype)
    t = rays.near[:, None] + (jitter[:, None] + index) * step
    cell = (rays.origins[:, None] + t[..., None] * rays.directions[:, None]) * (size / (2 * radius)) + size / 2
    inside = (t < rays.far[:, None]) & ((cell >= 0) & (cell < size)).all(-1)
    i, j, k = cell.clamp(0, size - 1).long().unbind(-1)
    ray, column = (inside & occupied[i, j, k]).nonzero(as_tuple=True)
    return Marched(starts(torch.bincount(ray, minlength=len(rays))), ray, t[ray, column])


def starts(count: Tensor) -> Tensor:
    """(R,) numbers of samples -> (R + 1,) where each ray's begin and the last one's end."""
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def sum_along(values: Tensor, start: Tensor) -> Tensor:
    """Sums over each ray's samples: (S, ...) and start (R + 1,) -> (R, ...)."""
    ray = torch.repeat_interleave(torch.diff(start))
    return values.new_zeros(len(start) - 1, *values.shape[1:]).index_add(0, ray, values)
