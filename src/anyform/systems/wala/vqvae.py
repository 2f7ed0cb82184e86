"""The wavelet VQ-VAE of WaLa (supplement B): packed coefficients -> a small quantised latent -> packed coefficients.

Released shape: 64×46³ -> 4×12³, codebook 1024×4, 128 channels everywhere. The embedded family uses the same code with
other numbers: see `config.py`. Tensors are (B, C, x, y, z). Stages are numbered from the packed grid (stage 0) down to
the latent grid; each stage halves the edge, rounding up (46 -> 23 -> 12), and on the way back the trilinear upsampling
is cropped to the size that stage had (24 -> 23).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class VQVAEConfig:
    """Shape of the VQ-VAE. Defaults are the released WaLa's (supplement C; specs/wala.md §3)."""

    packed_channels: int = 64
    packed_size: int = 46
    widths: tuple[int, ...] = (128, 128, 128)  # channels of each stage, packed grid first
    encoder_blocks: tuple[int, ...] = (2, 2, 2)  # residual blocks of each stage; one more follows at the latent grid
    decoder_blocks: tuple[int, ...] = (2, 2, 2)  # likewise; the extra block comes first
    latent_channels: int = 4
    codebook_size: int = 1024
    code_width: int = 4  # latent_channels / code_width codes a cell; the released model has one
    commitment: float = 0.25  # β of the quantiser loss
    normalised_codes: bool = False  # `normalize_latent = "l2_norm"` of the public arguments
    norm_groups: int = 32  # 0 = no normalisation layers (embedded: crops and whole volumes then see the same network)
    transformer_blocks: tuple[int, int] = (0, 0)  # optional, encoder and decoder; not used as far as known
    strided: bool = False  # 2³ strided and transposed convolutions between grids, not pooling and interpolation (ours)

    @property
    def stage_sizes(self) -> tuple[int, ...]:
        """Edge of the grid at each stage: (46, 23, 12) for the released model."""
        sizes = [self.packed_size]
        for _ in self.widths[1:]:
            sizes.append((sizes[-1] + 1) // 2)
        return tuple(sizes)

    @property
    def latent_size(self) -> int:
        """Cells a side of the latent grid."""
        return self.stage_sizes[-1]


def group_norm(groups: int, channels: int) -> nn.Module:
    """GroupNorm in float32 whatever the input's dtype, or nothing for groups = 0."""
    return nn.GroupNorm(groups, channels) if groups else nn.Identity()


class ResBlock(nn.Module):
    """h = conv3³(SiLU(norm(x))); h = conv3³(SiLU(norm(h))), second convolution zero at the start; out = skip(x) + h."""

    def __init__(self, channels_in: int, channels_out: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(norm_groups, channels_in)
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(norm_groups, channels_out)
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv3d(channels_in, channels_out, 1)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class TokenBlock(nn.Module):
    """The optional transformer block on latent tokens (specs/wala.md §3.4): MLP first, then attention, 4 heads of 64.

    Queries and keys are normalised over the full width and scaled by its square root, not the head's.
    """

    def __init__(self, width: int, heads: int = 4, head_width: int = 64) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.q, self.k, self.v = nn.Linear(width, inner), nn.Linear(width, inner), nn.Linear(width, inner)
        self.q_norm, self.k_norm = nn.LayerNorm(inner), nn.LayerNorm(inner)
        self.o = nn.Linear(inner, width)
        for layer in (self.mlp_out, self.o):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        x = x + self.mlp_out(F.silu(self.mlp_in(self.mlp_norm(x))))
        h = F.silu(F.layer_norm(x, x.shape[-1:]))
        q, k, v = self.q_norm(self.q(h)) * self.q.out_features**-0.5, self.k_norm(self.k(h)), self.v(h)
        split = [t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v)]
        out = F.scaled_dot_product_attention(*split, scale=1.0).transpose(1, 2).flatten(2)
        return x + self.o(F.silu(out))


class TokenBlocks(nn.Module):
    """Learned positions and a stack of `TokenBlock` over the voxels of the latent grid in (x, y, z) order."""

    def __init__(self, depth: int, width: int, size: int) -> None:
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(1, size**3, width))
        self.blocks = nn.ModuleList(TokenBlock(width) for _ in range(depth))

    def forward(self, x: Float[Tensor, "b c g g g"]) -> Float[Tensor, "b c g g g"]:
        tokens = x.flatten(2).transpose(1, 2) + self.pos
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


class Encoder(nn.Module):
    """Packed coefficients (B, 64, c, c, c) -> latent before quantisation (B, latent_channels, g, g, g)."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        widths, groups = config.widths, config.norm_groups
        self.stem = nn.Conv3d(config.packed_channels, widths[0], 3, padding=1)
        self.stages, self.down = nn.ModuleList(), nn.ModuleList()
        previous = widths[0]
        for number, (width, count) in enumerate(zip(widths, config.encoder_blocks, strict=True)):
            if config.strided and number:
                self.down.append(nn.Conv3d(previous, width, 2, stride=2))
                previous = width
            inputs = [previous] + [width] * (count - 1)
            self.stages.append(nn.Sequential(*(ResBlock(c, width, groups) for c in inputs)))
            previous = width
        depth = config.transformer_blocks[0]
        self.tblocks = TokenBlocks(depth, previous, config.latent_size) if depth else None
        self.last = ResBlock(previous, previous, groups)
        self.head_norm = group_norm(groups, previous)
        self.head = nn.Conv3d(previous, config.latent_channels, 3, padding=1)

    def forward(self, packed: Tensor) -> Tensor:
        h = self.stem(packed)
        for number, stage in enumerate(self.stages):
            if number and self.down:
                h = self.down[number - 1](h)
            elif number:  # padded zeros are counted in the average, as in the public code
                h = F.avg_pool3d(h, 3, stride=2, padding=1)
            h = stage(h)
        if self.tblocks is not None:
            h = self.tblocks(h)
        return self.head(F.silu(self.head_norm(self.last(h))))


class Decoder(nn.Module):
    """Latent (B, latent_channels, g, g, g) -> packed coefficients (B, 64, c, c, c)."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        widths, groups = config.widths[::-1], config.norm_groups
        self.sizes, self.strided = config.stage_sizes, config.strided
        self.stem = nn.Conv3d(config.latent_channels, widths[0], 3, padding=1)
        self.first = ResBlock(widths[0], widths[0], groups)
        depth = config.transformer_blocks[1]
        self.tblocks = TokenBlocks(depth, widths[0], config.latent_size) if depth else None
        self.stages, self.narrow = nn.ModuleList(), nn.ModuleList()
        for width, finer, count in zip(widths, (*widths[1:], widths[-1]), config.decoder_blocks[::-1], strict=True):
            self.stages.append(nn.Sequential(*(ResBlock(width, width, groups) for _ in range(count))))
            # channels change on the coarse grid, before upsampling, where it is eight times cheaper
            last = len(self.narrow) == len(widths) - 1
            if config.strided and not last:
                self.narrow.append(nn.ConvTranspose3d(width, finer, 2, stride=2))
            else:
                self.narrow.append(nn.Identity() if width == finer else nn.Conv3d(width, finer, 1))
        self.head_norm = group_norm(groups, widths[-1])
        self.head = nn.Conv3d(widths[-1], config.packed_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        h = self.first(self.stem(latent))
        if self.tblocks is not None:
            h = self.tblocks(h)
        for number, (stage, narrow) in enumerate(zip(self.stages, self.narrow, strict=True)):
            if number and not self.strided:
                h = F.interpolate(h, scale_factor=2, mode="trilinear", align_corners=False)
                if self.sizes[-number] * 2 > self.sizes[-1 - number] and latent.shape[-1] == self.sizes[-1]:
                    edge = self.sizes[-1 - number]
                    h = h[..., :edge, :edge, :edge]
            h = narrow(stage(h))
        return self.head(F.silu(self.head_norm(h)))


class Codebook(nn.Module):
    """The WaLa codebook: nearest of `codebook_size` codes by squared distance (specs/wala.md §3.3).

    A latent of several `code_width`s is quantised group by group with the same codes (ours, for the embedded family;
    the released model has one group). `embedding` is (codebook_size, code_width).
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.codebook_size, config.code_width))
        if config.normalised_codes:
            nn.init.normal_(self.embedding)
        else:
            nn.init.uniform_(self.embedding, -1 / config.codebook_size, 1 / config.codebook_size)

    def vectors(self, latent: Float[Tensor, "b c g g g"]) -> Float[Tensor, "n w"]:
        """The latent as rows of `code_width`, in (x, y, z, group) order."""
        return latent.movedim(1, -1).reshape(-1, self.config.code_width)

    def forward(self, latent: Float[Tensor, "b c g g g"]) -> tuple[Tensor, Int[Tensor, "b n"]]:
        """(quantised latent of the same shape, code indices (B, g³ · groups)); no gradient passes."""
        rows, table = self.vectors(latent.float()), self.embedding
        if self.config.normalised_codes:
            rows, table = F.normalize(rows, dim=-1), F.normalize(table, dim=-1)
        nearest = [
            (part.square().sum(1, keepdim=True) + table.square().sum(1) - 2 * part @ table.T).argmin(1)
            for part in rows.detach().split(65536)  # bounds the distance matrix
        ]
        codes = torch.cat(nearest)
        return self.lookup(codes.reshape(len(latent), -1), latent.shape[-1]), codes.reshape(len(latent), -1)

    def lookup(self, codes: Int[Tensor, "b n"], size: int) -> Float[Tensor, "b c g g g"]:
        """Code indices -> quantised latent on a grid of edge `size`."""
        table = F.normalize(self.embedding, dim=-1) if self.config.normalised_codes else self.embedding
        return table[codes].reshape(len(codes), size, size, size, -1).movedim(-1, 1)

    def loss(self, latent: Tensor, quantised: Tensor) -> Tensor:
        """β·|sg(e) − z|² + |e − sg(z)|², means over all elements.

        Implements: WaLa-supp B quantiser
        """
        if self.config.normalised_codes:
            latent = self.normalised(latent)
        return self.config.commitment * F.mse_loss(latent, quantised.detach()) + F.mse_loss(quantised, latent.detach())

    def normalised(self, latent: Tensor) -> Tensor:
        """Each code-wide part of the latent at unit length."""
        rows = F.normalize(self.vectors(latent), dim=-1)
        return rows.reshape(len(latent), *latent.shape[2:], -1).movedim(-1, 1)


class VQVAE(nn.Module):
    """Encoder, codebook and decoder. Diffusion works on `encode`'s output; `decode` always snaps to the codes first."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.codebook = Codebook(config)

    def encode(self, packed: Float[Tensor, "b p c c c"]) -> Float[Tensor, "b ch g g g"]:
        """Packed coefficients -> latent before quantisation (the diffusion target)."""
        return self.encoder(packed)

    def quantise(self, latent: Float[Tensor, "b ch g g g"]) -> tuple[Tensor, Int[Tensor, "b n"]]:
        """Latent -> (nearest codes' latent, code indices in (x, y, z) order)."""
        return self.codebook(latent)

    def decode(self, latent: Float[Tensor, "b ch g g g"]) -> Float[Tensor, "b p c c c"]:
        """Latent -> packed coefficients; the latent is snapped to its nearest codes first."""
        return self.decoder(self.quantise(latent)[0].to(latent.dtype))

    def forward(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(reconstruction, latent, quantiser loss), with the straight-through gradient z + sg(e − z)."""
        latent = self.encode(packed)
        quantised, _ = self.quantise(latent)
        through = self.codebook.normalised(latent) if self.config.normalised_codes else latent
        passed = through + (quantised - through).detach()
        return self.decoder(passed), latent, self.codebook.loss(latent.float(), quantised)
