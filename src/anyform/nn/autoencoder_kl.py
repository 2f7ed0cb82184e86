"""The image autoencoder of Stable Diffusion's family: (B, 3, H, W) in [−1, 1] <-> latents (B, 4, H/8, W/8).

Parameter names are those of diffusers' AutoencoderKL. Source: Rombach et al., section 3.1 and appendix G. Encoding
gives the mean and the log variance of a Gaussian; the mean is its mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.errors import WeightsError
from anyform.nn.attention import attention
from anyform.nn.unet2d import Resample, ResidualBlock

_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderConfig:
    """Sizes. Defaults: Stable Diffusion's; scaling: latents times this have about unit variance."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    groups: int = 32
    latent: int = 4
    channels: int = 3
    scaling: float = 0.18215


def config_of_diffusers(table: Mapping[str, Any]) -> AutoencoderConfig:
    """The `vae/config.json` of a diffusers folder -> ours. Raises WeightsError for other blocks."""
    kinds = {*table["down_block_types"], *table["up_block_types"]}
    if not kinds <= {"DownEncoderBlock2D", "UpDecoderBlock2D"}:
        raise WeightsError(f"this autoencoder is of another structure than Stable Diffusion's: {sorted(kinds)}")
    return AutoencoderConfig(
        widths=tuple(table["block_out_channels"]),
        layers=table["layers_per_block"],
        groups=table.get("norm_num_groups", 32),
        latent=table["latent_channels"],
        channels=table.get("in_channels", 3),
        scaling=table.get("scaling_factor", 0.18215),
    )


class PixelAttention(nn.Module):
    """Single-head self attention over the pixels of a feature map, added to it."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, _EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        pixels = self.group_norm(x).flatten(2).mT
        q, k, v = (part(pixels)[:, None] for part in (self.to_q, self.to_k, self.to_v))
        return x + self.to_out[0](attention(q, k, v)[:, 0]).mT.unflatten(2, x.shape[-2:])


class Level(nn.Module):
    """Residual blocks at one size and the change of size after them."""

    def __init__(self, width_in: int, width: int, layers: int, groups: int, resample: Resample | None) -> None:
        super().__init__()
        inputs = [width_in, *[width] * (layers - 1)]
        self.resnets = nn.ModuleList(ResidualBlock(one, width, 0, groups, _EPS) for one in inputs)
        if resample is not None:
            setattr(self, "upsamplers" if resample.up else "downsamplers", nn.ModuleList([resample]))
        self.resample = [resample] if resample is not None else []  # a list: registered under its public name only

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        for block in (*self.resnets, *self.resample):
            x = block(x)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([PixelAttention(width, groups)])
        self.resnets = nn.ModuleList(ResidualBlock(width, width, 0, groups, _EPS) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    """Images -> moments (B, 2·latent, h, w) before `quant_conv`."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups, last = config.widths, config.groups, len(config.widths) - 1
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        before = [widths[0], *widths[:-1]]
        self.down_blocks = nn.ModuleList(
            Level(
                before[i],
                width,
                config.layers,
                groups,
                None if i == last else Resample(width, up=False, symmetric=False),
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2·latent, h, w)."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(functional.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents after `post_quant_conv` -> images."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, groups = tuple(reversed(config.widths)), config.groups
        self.conv_in = nn.Conv2d(config.latent, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups)
        before, last = [widths[0], *widths[:-1]], len(widths) - 1
        self.up_blocks = nn.ModuleList(
            Level(before[i], width, config.layers + 1, groups, None if i == last else Resample(width, up=True))
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent, h, w) -> (B, 3, H, W)."""
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))


class AutoencoderKL(nn.Module):
    """Encoder and decoder with their 1×1 convolutions at the latent."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent, 2 * config.latent, 1)
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 1)

    def moments(self, x: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1] -> mean and standard deviation of their latents, unscaled."""
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, torch.exp(log_variance.clamp(-30, 20) / 2)

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latents -> images, about [−1, 1]."""
        return self.decoder(self.post_quant_conv(z))
