"""From a distance field to WaLa's latent and back: truncation, wavelet tree, packing, VQ-VAE, in one object.

`sdf` here is in world units (half box = 1), negative inside, sampled on the grid that `CodecConfig` names; networks see
it divided by the truncation, in [-1, 1] (scale "unit", ours) or as it is (released WaLa, truncation 0.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from anyform.systems.wala import wavelet_tree
from anyform.systems.wala.vqvae import VQVAE, VQVAEConfig

WAVELETS = {"bior6.8": wavelet_tree.BIOR_6_8, "haar": wavelet_tree.HAAR}


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecConfig:
    """What a latent stands for. Defaults are the released WaLa's; `embedded()` below is ours."""

    size: int = 256  # voxels along an edge
    wavelet: Literal["bior6.8", "haar"] = "bior6.8"
    levels: int = 3
    kept_levels: int = 2  # detail levels in the packed volume; the finest is dropped when fewer than `levels`
    padding: wavelet_tree.Padding = "constant"
    truncation: float = 0.1  # world units; further away is constant
    unit_scale: bool = False  # divide by the truncation before the transform
    grid: Literal["corner", "cell"] = "corner"  # sample i at -1 + 2i/N (released) or -1 + (2i + 1)/N (ours: mirrors)
    standardised: bool = False  # packed channels to zero mean and unit spread, by stored buffers
    refine_width: int = 0  # channels of a residual convolution pair on 2³ blocks after unpacking (ours; 0 = none)
    vqvae: VQVAEConfig = field(default_factory=VQVAEConfig)

    @property
    def spacing(self) -> float:
        """World distance of neighbouring samples."""
        return 2.0 / self.size

    @property
    def first(self) -> float:
        """World coordinate of sample 0."""
        return -1.0 if self.grid == "corner" else -1.0 + 1.0 / self.size


def embedded() -> CodecConfig:
    """The embedded codec: 64³, two lossless Haar levels to 16³×64, latent 8³×16 as four 4-wide codes a cell."""
    return CodecConfig(
        size=64,
        wavelet="haar",
        levels=2,
        kept_levels=2,
        truncation=0.125,
        unit_scale=True,
        grid="cell",
        standardised=True,
        refine_width=32,
        vqvae=VQVAEConfig(
            packed_size=16,
            widths=(64, 128),
            encoder_blocks=(1, 1),
            decoder_blocks=(2, 2),
            latent_channels=16,
            norm_groups=0,
            strided=True,  # pooling and interpolation of so few channels lost a tenth of the IoU
        ),
    )


class ShapeCodec(nn.Module):
    """Distance fields (B, N, N, N) <-> latents (B, C, g, g, g)."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.vqvae = VQVAE(config.vqvae)
        channels = config.vqvae.packed_channels
        self.mean: Tensor
        self.spread: Tensor
        self.latent_mean: Tensor
        self.latent_spread: Tensor
        self.register_buffer("latent_mean", torch.zeros(config.vqvae.latent_channels))
        self.register_buffer("latent_spread", torch.ones(config.vqvae.latent_channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.refine = None
        if config.refine_width:
            # on blocks, not voxels: a one-channel convolution at 64³ would cost more than the whole decoder
            first = nn.Conv3d(8, config.refine_width, 3, padding=1)
            last = nn.Conv3d(config.refine_width, 8, 3, padding=1)
            self.refine = nn.Sequential(first, nn.SiLU(), last)
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def to_network(self, sdf: Tensor) -> Tensor:
        """World-unit distances -> what the transform sees: truncated, and in [-1, 1] if `unit_scale`."""
        limit = self.config.truncation
        return sdf.clamp(-limit, limit) / (limit if self.config.unit_scale else 1.0)

    def pack(self, field_: Float[Tensor, "b n n n"]) -> Float[Tensor, "b p c c c"]:
        """Network-scale field -> packed, standardised coefficients."""
        config = self.config
        tree = wavelet_tree.decompose(
            field_, config.padding, WAVELETS[config.wavelet], config.levels, config.kept_levels == config.levels
        )
        packed = wavelet_tree.pack(tree)
        if config.standardised:
            packed = (packed - self.mean[:, None, None, None]) / self.spread[:, None, None, None]
        return packed.contiguous(memory_format=torch.channels_last_3d)

    def unpack(self, packed: Float[Tensor, "b p c c c"]) -> Float[Tensor, "b n n n"]:
        """Inverse of `pack`, then the full-resolution refinement if there is one; crops of any size work."""
        config = self.config
        if config.standardised:
            packed = packed * self.spread[:, None, None, None] + self.mean[:, None, None, None]
        size = config.size * packed.shape[-1] // config.vqvae.packed_size  # smaller for training crops
        tree = wavelet_tree.unpack(packed, size, WAVELETS[config.wavelet], config.levels)
        field_ = wavelet_tree.reconstruct(tree, size, WAVELETS[config.wavelet])
        if self.refine is not None:
            field_ = field_ + from_blocks(self.refine(to_blocks(field_))).to(field_.dtype)
        return field_

    def standardise(self, latent: Tensor) -> Tensor:
        """Latents -> zero mean and unit spread a channel, as the embedded denoiser sees them."""
        return (latent - self.latent_mean[:, None, None, None]) / self.latent_spread[:, None, None, None]

    def destandardise(self, latent: Tensor) -> Tensor:
        """Inverse of `standardise`."""
        return latent * self.latent_spread[:, None, None, None] + self.latent_mean[:, None, None, None]

    def encode(self, sdf: Float[Tensor, "b n n n"]) -> Float[Tensor, "b ch g g g"]:
        """World-unit SDF -> latent before quantisation."""
        return self.vqvae.encode(self.pack(self.to_network(sdf)))

    def encode_standardised(self, field_: Float[Tensor, "b n n n"]) -> Float[Tensor, "b ch g g g"]:
        """Network-scale fields -> standardised latents, as the embedded denoiser sees them."""
        return self.standardise(self.vqvae.encode(self.pack(field_)).float())

    def decode(self, latent: Float[Tensor, "b ch g g g"]) -> Float[Tensor, "b n n n"]:
        """Latent (snapped to its codes) -> SDF in world units, truncated."""
        field_ = self.unpack(self.vqvae.decode(latent).float())
        return field_ * (self.config.truncation if self.config.unit_scale else 1.0)

    @torch.no_grad()
    def measure_spread(self, fields: Float[Tensor, "b n n n"]) -> None:
        """Set the standardisation buffers from network-scale fields."""
        self.mean.zero_()
        self.spread.fill_(1.0)
        packed = self.pack(fields)
        self.mean.copy_(packed.mean((0, 2, 3, 4)))
        self.spread.copy_(packed.std((0, 2, 3, 4)).clamp(min=1e-3))


def to_blocks(field_: Float[Tensor, "b n n n"]) -> Tensor:
    """2³ blocks as channels: (B, n, n, n) -> (B, 8, n/2, n/2, n/2), channels last."""
    half = field_.shape[-1] // 2
    parts = field_.reshape(len(field_), half, 2, half, 2, half, 2).permute(0, 2, 4, 6, 1, 3, 5)
    return parts.reshape(len(field_), 8, half, half, half).contiguous(memory_format=torch.channels_last_3d)


def from_blocks(blocks: Tensor) -> Float[Tensor, "b n n n"]:
    """Inverse of `to_blocks`."""
    batch, _, half = blocks.shape[:3]
    parts = blocks.reshape(batch, 2, 2, 2, half, half, half).permute(0, 4, 1, 5, 2, 6, 3)
    return parts.reshape(batch, 2 * half, 2 * half, 2 * half)


def surface_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """Ours, for the embedded codec: L1 four times as heavy near the surface, and occupancy cross-entropy there.

    decoded, target: (B, n, n, n) in [-1, 1] (unit scale), negative inside.
    """
    weight = 1 + 3 * (target.abs() < 0.6).float()
    inside = (target < 0).float()
    near = (target.abs() < 0.99).float() + 0.05
    entropy = F.binary_cross_entropy_with_logits(-8 * decoded, inside, reduction="none")
    return ((decoded - target).abs() * weight).mean() + 0.5 * (entropy * near).mean()


def overlap_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """Ours, for the embedded codec: 1 − soft IoU of the insides, a mean over objects, so that thin ones count as much.

    decoded, target: (B, n, n, n) in [-1, 1] (unit scale), negative inside; one voxel is added to both volumes, so that
    two empty crops agree.
    """
    inside, truth = torch.sigmoid(-8 * decoded).flatten(1), (target < 0).float().flatten(1)
    both = (inside * truth).sum(1)
    either = inside.sum(1) + truth.sum(1) - both
    return (1 - (both + 1) / (either + 1)).mean()
