"""Light on surfaces, differentiable in the material: an environment all around, or one point light.

Colours go in and come out as sRGB; light is computed in linear light. Directions are unit vectors in world axes, +y
up. An environment picture is latitude and longitude: column 0 looks at azimuth −π, azimuth 0 is on +z and grows towards
+x, row 0 is the zenith.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from anyform.errors import BadInput

_DIELECTRIC = 0.04  # reflectance of a non-metal seen straight on
_ROWS, _COLUMNS = 16, 32  # resolution at which glossy reflections are prepared
_ROUGHNESS = (0.08, 0.25, 0.45, 0.7, 1.0)


class LitPoints(NamedTuple):
    """N surface points: albedo (N, 3) sRGB, metallic and roughness (N, 1), unit normal, place and eye (N, 3)."""

    albedo: Tensor
    metallic: Tensor
    roughness: Tensor
    normal: Tensor
    place: Tensor
    eye: Tensor


class Lighting(Protocol):
    """What turns surface points into colours."""

    def __call__(self, points: LitPoints) -> Tensor:
        """sRGB (N, 3) in [0, 1]."""
        ...


class PointLight:
    """A white lamp at `place` (3,): albedo · (ambient + diffuse · max(cos, 0)), as text-to-3D baselines light shapes.

    `textureless` replaces the albedo by white, which shows the shape alone.
    """

    def __init__(self, place: Tensor, ambient: float = 0.1, diffuse: float = 0.9, textureless: bool = False) -> None:
        self.place, self.ambient, self.diffuse, self.textureless = place, ambient, diffuse, textureless

    def __call__(self, points: LitPoints) -> Tensor:
        """See `Lighting`."""
        towards = functional.normalize(self.place.to(points.place) - points.place, dim=-1)
        light = self.ambient + self.diffuse * (points.normal * towards).sum(-1, keepdim=True).clamp(min=0)
        albedo = torch.ones_like(points.albedo) if self.textureless else points.albedo
        return to_srgb(to_linear(albedo) * light)


class Environment:
    """Light from everywhere, by the split-sum approximation (Karis 2013).

    Diffuse: nine spherical harmonics of the radiance, weighted for a cosine (Ramamoorthi and Hanrahan 2001). Glossy:
    the radiance blurred for five roughnesses, times a fit of the material's share (Karis 2014, "Physically based
    shading on mobile").
    """

    def __init__(self, radiance: Tensor) -> None:
        """radiance (H, W, 3): linear, >= 0, of any range."""
        if (
            radiance.dim() != 3
            or radiance.shape[2] != 3
            or not bool((torch.isfinite(radiance) & (radiance >= 0)).all())
        ):
            raise BadInput(f"an environment is finite light (H, W, 3) of at least 0, not {tuple(radiance.shape)}")
        picture = functional.interpolate(
            radiance.float().permute(2, 0, 1)[None], (_ROWS, _COLUMNS), mode="bilinear", antialias=True
        )[0].permute(1, 2, 0)
        directions, solid_angle = _sphere()
        light = picture.reshape(-1, 3) * solid_angle[:, None]
        band = torch.tensor([math.pi] + [2 * math.pi / 3] * 3 + [math.pi / 4] * 5)
        self.harmonics = band[:, None] * (_harmonics(directions).T @ light) / math.pi
        cosine = (directions @ directions.T).clamp(min=0)
        blurred = []
        for roughness in _ROUGHNESS:
            lobe = cosine ** (2 / roughness**4) * solid_angle
            blurred.append((lobe / lobe.sum(1, keepdim=True)) @ picture.reshape(-1, 3))
        self.glossy = torch.stack(blurred).view(len(_ROUGHNESS), _ROWS, _COLUMNS, 3)

    def __call__(self, points: LitPoints) -> Tensor:
        """See `Lighting`."""
        base = to_linear(points.albedo)
        view = functional.normalize(points.eye - points.place, dim=-1)
        facing = (points.normal * view).sum(-1, keepdim=True)
        mirrored = 2 * facing * points.normal - view
        reflectance = _DIELECTRIC * (1 - points.metallic) + base * points.metallic
        scale, bias = _share(points.roughness, facing.clamp(min=0))
        diffuse = base * (1 - points.metallic) * self.irradiance(points.normal)
        return to_srgb(diffuse + self.reflected(mirrored, points.roughness) * (reflectance * scale + bias))

    def irradiance(self, normal: Tensor) -> Tensor:
        """Cosine-weighted mean light (N, 3) on surfaces facing `normal` (N, 3), >= 0: 1 in a world of light 1."""
        return (_harmonics(normal) @ self.harmonics.to(normal)).clamp(min=0)

    def reflected(self, direction: Tensor, roughness: Tensor) -> Tensor:
        """Light (N, 3) from around `direction` (N, 3), blurred for `roughness` (N, 1)."""
        knots = torch.tensor(_ROUGHNESS).to(roughness)
        value = roughness.clamp(_ROUGHNESS[0], _ROUGHNESS[-1])
        level = torch.searchsorted(knots, value.detach().contiguous()).clamp(1, len(knots) - 1)
        part = (value - knots[level - 1]) / (knots[level] - knots[level - 1])
        depth = (level - 1 + part) / (len(knots) - 1) * 2 - 1
        azimuth = torch.atan2(direction[:, :1], direction[:, 2:])
        elevation = torch.asin(direction[:, 1:2].clamp(-1 + 1e-6, 1 - 1e-6))
        # the picture goes on around: one column of the other side at each end
        picture = torch.cat([self.glossy[:, :, -1:], self.glossy, self.glossy[:, :, :1]], 2).to(direction)
        column = azimuth / math.pi * _COLUMNS / (_COLUMNS + 2)
        where = torch.cat([column, -elevation * 2 / math.pi, depth], 1).view(1, -1, 1, 1, 3)
        # levels are knots (ends included), pixels are areas: stretch the depth axis to match align_corners=False
        where = where * torch.tensor([1, 1, (len(knots) - 1) / len(knots)]).to(where)
        volume = picture.permute(3, 0, 1, 2)[None]
        return functional.grid_sample(volume, where, padding_mode="border", align_corners=False).view(3, -1).T


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> linear light, with a gradient everywhere."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light -> sRGB, what is brighter than 1 cut."""
    value = linear.clamp(0, 1)
    return torch.where(value <= 0.0031308, value * 12.92, 1.055 * value.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def _share(roughness: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
    """Karis' fit: a surface reflects reflectance · scale + bias."""
    x, y = 1 - roughness, 0.0425 - 0.0275 * roughness
    rim = torch.minimum(x * x, torch.exp2(-9.28 * cosine)) * x + y
    return 1.04 - 0.572 * roughness - 1.04 * rim, 1.04 * rim - 0.04 + 0.022 * roughness


def _sphere() -> tuple[Tensor, Tensor]:
    """Directions (P, 3) of the prepared picture's pixels and their solid angles (P,), 4π together."""
    elevation = math.pi / 2 - (torch.arange(_ROWS) + 0.5) * math.pi / _ROWS
    azimuth = (torch.arange(_COLUMNS) + 0.5) * 2 * math.pi / _COLUMNS - math.pi
    e, a = torch.meshgrid(elevation, azimuth, indexing="ij")
    directions = torch.stack([torch.cos(e) * torch.sin(a), torch.sin(e), torch.cos(e) * torch.cos(a)], -1)
    band = torch.sin(e + math.pi / 2 / _ROWS) - torch.sin(e - math.pi / 2 / _ROWS)
    return directions.view(-1, 3), (band * 2 * math.pi / _COLUMNS).flatten()


def _harmonics(direction: Tensor) -> Tensor:
    """The first nine real spherical harmonics (N, 9) of unit vectors (N, 3)."""
    x, y, z = direction.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack([
        0.282095 * one, 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y, 1.092548 * y * z,
        0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
    ], -1)  # fmt: skip
