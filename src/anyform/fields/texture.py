"""Colours and materials as a function of the place: a grid encoding and a small network, the same everywhere.

Points are in world units and are clamped into [-radius, radius]³. Albedo is sRGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anyform.nn.grid_encoding import GridConfig, GridEncoding, hashed
from anyform.nn.perceptron import perceptron

if TYPE_CHECKING:
    from anyform.fields.nerf import NeRF

# the range that PBR references for distilled materials agree on: no mirror, no black hole (specs/xbind.md §6)
METALLIC, ROUGHNESS = (0.0, 0.9), (0.08, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextureConfig:
    """encoding: where detail is; physical: metallic, roughness and bump beside the albedo."""

    encoding: GridConfig = field(default_factory=hashed)
    hidden: int = 64
    hidden_layers: int = 2
    radius: float = 1.0
    physical: bool = False


class SurfaceMaterial(NamedTuple):
    """albedo (N, 3) sRGB, metallic (N, 1), roughness (N, 1) linear; bump (N, 3): added to the unit normal, or None."""

    albedo: Tensor
    metallic: Tensor
    roughness: Tensor
    bump: Tensor | None


class TextureField(nn.Module):
    """A learned material at every point of the cube."""

    def __init__(self, config: TextureConfig) -> None:
        super().__init__()
        self.config = config
        self.encoding = GridEncoding(config.encoding)
        self.network = perceptron(
            config.encoding.width, config.hidden, config.hidden_layers, 8 if config.physical else 3
        )

    def material(self, points: Tensor) -> SurfaceMaterial:
        """What a surface at points (N, 3) is made of; without `physical` it is matt and not metallic."""
        raw = self.network(self.encoding(unit_cube(points, self.config.radius)))
        albedo = torch.sigmoid(raw[:, :3])
        if not self.config.physical:
            return SurfaceMaterial(
                albedo, torch.zeros_like(raw[:, :1]), torch.full_like(raw[:, :1], ROUGHNESS[1]), None
            )
        metallic, roughness = (
            low + (high - low) * torch.sigmoid(raw[:, k : k + 1]) for k, (low, high) in ((3, METALLIC), (4, ROUGHNESS))
        )
        return SurfaceMaterial(albedo, metallic, roughness, 0.3 * torch.tanh(raw[:, 5:8]))

    def color(self, points: Tensor) -> Tensor:
        """Albedo (N, 3) of points (N, 3)."""
        return self.material(points).albedo

    @torch.no_grad()
    def colors_at(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """`color` for baking: arrays in, arrays out, a block at a time."""
        device = self.encoding.table.device
        blocks = torch.from_numpy(np.ascontiguousarray(points, np.float32)).split(1 << 16)
        return torch.cat([self.color(block.to(device)).cpu() for block in blocks] or [torch.zeros(0, 3)]).numpy()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by kind, which optimisers give rates of their own."""
        return {"encoding": list(self.encoding.parameters()), "networks": list(self.network.parameters())}


def texture_from_nerf(nerf: NeRF, *, physical: bool = False) -> TextureField:
    """The colours of a radiance field, as a field of its own: encoding and network are copied, all levels in use."""
    config = nerf.config
    texture = TextureField(
        TextureConfig(
            encoding=config.encoding,
            hidden=config.hidden,
            hidden_layers=config.hidden_layers,
            radius=config.radius,
            physical=physical,
        )
    ).to(nerf.encoding.table)
    with torch.no_grad():
        active = 2 * nerf.active_levels
        texture.encoding.table.copy_(nerf.encoding.table)
        for mine, theirs in zip(texture.network.parameters(), nerf.color_network.parameters(), strict=True):
            mine[: len(theirs)] = theirs
        # levels that the field has not used yet must not speak
        first = next(texture.network.parameters())
        first[:, active:] = 0
    return texture


def unit_cube(points: Tensor, radius: float) -> Tensor:
    """World points in [-radius, radius]³ -> [0, 1]³, what lies outside clamped to the faces."""
    return ((points + radius) / (2 * radius)).clamp(0, 1)
