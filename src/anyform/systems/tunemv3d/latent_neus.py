"""The centralised condition: noisy views -> features -> one field -> what each view would look like, x_0r.

The noise encoder E reads every view by itself (TuneMV3D supplement B.1: residual blocks under the timestep, attention
to the text); the field joins them. Views (V, C, s, s) are in the space of x_0; E sees them folded (`foundation.fold`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyform.fields.sparse_neus import RayRender, Scene, SparseNeuS, projections, rays_of
from anyform.nn.unet2d import Attention, Embedding, ResidualBlock, sinusoid
from anyform.systems.tunemv3d.config import BranchConfig
from anyform.systems.tunemv3d.foundation import Caption, FoundationSpec, fold
from anyform.types.camera import Cameras

_GROUPS = 8
_HEADS = 4


class Mixer(nn.Module):
    """Attention of a feature map to tokens, or to itself, added to it; starts as nothing."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.attention = Attention(width, context, _HEADS)
        for parameter in self.attention.to_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        """(B, C, h, w), (B, L, D) -> (B, C, h, w)."""
        mixed = self.attention(self.norm(x).flatten(2).mT, tokens)
        return x + mixed.mT.unflatten(2, x.shape[-2:])


class NoiseEncoder(nn.Module):
    """E: a small U-Net of three levels, (V, C, s, s) -> (V, C_f, s, s)."""

    def __init__(self, channels: int, token_width: int, config: BranchConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.encoder_widths
        time = config.time_width
        self.frequencies = max(fine, 16)
        self.time = Embedding(self.frequencies, time)
        self.enter = nn.Conv2d(channels, fine, 3, padding=1)
        self.fine = ResidualBlock(fine, fine, time, _GROUPS)
        self.middle = ResidualBlock(fine, middle, time, _GROUPS)
        self.middle_text = Mixer(middle, token_width)
        self.coarse = ResidualBlock(middle, coarse, time, _GROUPS)
        self.coarse_text = Mixer(coarse, token_width)
        self.coarse_self = Mixer(coarse, coarse)
        self.to_middle = ResidualBlock(coarse + middle, middle, time, _GROUPS)
        self.to_fine = ResidualBlock(middle + fine, fine, time, _GROUPS)
        self.leave = nn.Sequential(
            nn.GroupNorm(_GROUPS, fine), nn.SiLU(), nn.Conv2d(fine, config.field.feature_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor, caption: Caption) -> Tensor:
        """x (V, C, s, s), a timestep for each view t (V,), the caption of each view."""
        time = self.time(sinusoid(t, self.frequencies))
        fine = self.fine(self.enter(x), time)
        middle = self.middle_text(self.middle(functional.avg_pool2d(fine, 2), time), caption.tokens)
        coarse = self.coarse_text(self.coarse(functional.avg_pool2d(middle, 2), time), caption.tokens)
        coarse = self.coarse_self(coarse, None)
        up = self.to_middle(torch.cat([functional.interpolate(coarse, scale_factor=2.0), middle], 1), time)
        return self.leave(self.to_fine(torch.cat([functional.interpolate(up, scale_factor=2.0), fine], 1), time))


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """Cameras as the networks need them: projection (V, 3, 4), origins and unit directions (V, s, s, 3), float32."""

    projection: Tensor
    origins: Tensor
    directions: Tensor

    @classmethod
    def of(cls, cameras: Cameras, size: int, device: torch.device | str = "cpu") -> Rig:
        """The rig of square cameras whose pictures are seen at `size` pixels."""
        scaled = Cameras(cameras.camera_to_world, cameras.fov_y, size, size)
        return cls(*(part.to(device) for part in (projections(scaled), *rays_of(scaled))))

    def rays(self) -> tuple[Tensor, Tensor]:
        """Origins and directions (V s s, 3)."""
        return self.origins.reshape(-1, 3), self.directions.reshape(-1, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The centralised condition of V views. views (V, C, s, s): x_0r; render: the rays that made them."""

    views: Tensor
    render: RayRender
    scene: Scene
    lattice: Tensor | None = None

    @property
    def rgb(self) -> Tensor | None:
        """(V, 3, s, s) in [-1, 1] over white, where the field has colours beside latents."""
        if self.render.rgb is None:
            return None
        views, _, height, width = self.views.shape
        return self.render.rgb.reshape(views, height, width, 3).permute(0, 3, 1, 2)

    @property
    def alpha(self) -> Tensor:
        """(V, 1, s, s) soft coverage."""
        return self.render.alpha.reshape(len(self.views), 1, *self.views.shape[-2:])


class LatentNeuS(nn.Module):
    """E and the field together."""

    def __init__(self, spec: FoundationSpec, config: BranchConfig) -> None:
        super().__init__()
        self.config, self.packing = config, spec.packing
        self.encoder = NoiseEncoder(spec.channels * spec.packing**2, spec.token_width, config)
        self.field = SparseNeuS(config.field)
        self.register_buffer("background", torch.tensor(spec.background), persistent=False)

    def scene(self, x_t: Tensor, t: Tensor, t_field: Tensor, caption: Caption, rig: Rig) -> Scene:
        """Features of the views x_t (V, C, s, s) at t (V,), read under the noisy views' timestep t_field (1,)."""
        return self.field.scene(self.encoder(fold(x_t, self.packing), t, caption), rig.projection, t_field)

    def forward(self, scene: Scene, rig: Rig, *, jitter: bool = False) -> Seen:
        """The field rendered from the rig's cameras, which may be others than those of the scene."""
        lattice = self.field.lattice(scene, self.config.lattice) if self.config.evaluator == "lattice" else None
        return self.render(scene, lattice, rig, jitter=jitter)

    def render(self, scene: Scene, lattice: Tensor | None, rig: Rig, *, jitter: bool = False) -> Seen:
        """C(r) = Σ_i T_i α_i c_i along the rays of every pixel, as V views in the space of x_0.

        Implements: TuneMV3D Eq. 3
        Differs: the paper integrates a density; α comes from the distances at the sections' ends, as in NeuS.
        """
        views, size = rig.directions.shape[:2]
        origins, directions = rig.rays()
        background = self.get_buffer("background")
        if lattice is not None:
            found = self.field.render_lattice(
                lattice, origins, directions, background, sections=self.config.sections, jitter=jitter
            )
        else:
            found = self.field.render_points(
                scene, origins, directions, background,
                sections=self.config.sections, importance=self.config.importance,
            )  # fmt: skip
        pictures = found.value.reshape(views, size, size, -1).permute(0, 3, 1, 2)
        return Seen(pictures, found, scene, lattice)
