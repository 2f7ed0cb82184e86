"""U-ViT, WaLa's denoiser (supplement D.2): convolutions around a transformer over the voxels of the latent grid.

x_t (B, 4, 12, 12, 12), a timestep and a condition -> the predicted clean latent (or v, for the embedded family). Axes
are x, y, z; tokens run over them in that order, the last fastest. The default has 956,482,692 parameters.

`forward` is `step(x, 0, prepare(condition, t))`: everything that does not depend on x_t is made by `prepare`, so a
sampler makes it once for all its steps and loses nothing: same code, same numbers. Normalisations, modulation and the
residual stream run in float32 whatever the weights are (`in_bfloat16`), matrix products in the dtype of their weights.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.diffusion.prior import Condition
from anyform.nn.transformer import CrossAttention, Mlp, SelfAttention, Stack, linear, precise

_TIME_FREQUENCIES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class UVitConfig:
    """Defaults: the released 1-billion-parameter models (supplement table 2, last U-ViT row of the ablation)."""

    latent_channels: int = 4
    grid: int = 12  # edge of the latent
    width: int = 1152
    depth: int = 32
    heads: int = 16
    channels: int = 128  # of the residual convolutions
    num_res_blocks: int = 3  # before and after the transformer; 0 leaves a DiT
    patch: int = 1
    condition_width: int = 1024  # of a condition token; 0 = no tokens (unconditional, or a grid alone)
    condition_channels: int | None = 128  # pooled condition that multiplies the residual blocks; None = no multiplier
    pooled_modulation: bool = True  # the pooled condition is added to the time embedding of the transformer blocks
    registers: int = 0  # extra learned tokens
    learnable_skip: int = 0  # r: the skip is weighed by a bottleneck of channels // r; 0 = plain sum over √2
    fixed_positions: bool = False
    block: Literal["cross", "dit"] = "cross"  # dit: no cross attention
    norm_groups: int = 32
    # Ours, for the embedded family; the defaults are what released checkpoints have.
    grid_condition_channels: int = 0  # Condition.grid, concatenated to x_t
    mlp_ratio: int = 4
    prediction: Literal["x0", "v"] = "x0"

    @property
    def num_tokens(self) -> int:
        """Tokens in the transformer: one a patch of the grid."""
        return (self.grid // self.patch) ** 3

    @property
    def has_cross_attention(self) -> bool:
        """Whether the blocks attend to condition tokens."""
        return self.block == "cross" and self.condition_width > 0


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What `UVit.prepare` made for T timesteps and B samples; a dimension written 1|B holds one value for all samples.

    keys_values: one (k, v) a block, (B, H, L, D) each, empty without cross attention. modulation: one (T, 1|B, 6·width)
    a block. scale_shift: one (T, 1|B, 2·channels) a residual block. factor: one (B, channels) a residual block or none.
    """

    keys_values: list[tuple[Tensor, Tensor]]
    modulation: list[Tensor]
    scale_shift: list[Tensor]
    factor: list[Tensor]
    grid: Tensor | None


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer normalisation without weights, then scale and shift: LN(x)·(1 + scale) + shift."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class NormalisedLinear(nn.Module):
    """LayerNorm, Linear; float32 in and out."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width_in), nn.Linear(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:
        return precise(linear(self.linear, self.norm(x)))


class PooledProjection(nn.Module):
    """(B, L, D) tokens -> (B, out): two normalised layers a token, the mean, two layers (specs/wala.md §4.1)."""

    def __init__(self, width_in: int, hidden: int, out: int) -> None:
        super().__init__()
        self.linear1, self.norm1 = nn.Linear(width_in, hidden), nn.LayerNorm(hidden)
        self.linear2, self.norm2 = nn.Linear(hidden, hidden), nn.LayerNorm(hidden)
        self.out1, self.out2 = nn.Linear(hidden, out), nn.Linear(out, out)

    def forward(self, tokens: Float[Tensor, "b l d"]) -> Float[Tensor, "b out"]:
        h = functional.silu(self.norm1(precise(linear(self.linear1, tokens))))
        h = functional.silu(self.norm2(precise(linear(self.linear2, h))))
        return precise(linear(self.out2, functional.silu(linear(self.out1, h.mean(1)))))


class Block(nn.Module):
    """Modulated self-attention, plain cross attention, modulated MLP (specs/wala.md §4.3); the context is constant."""

    def __init__(self, config: UVitConfig) -> None:
        super().__init__()
        width = config.width
        self.modulation = nn.Linear(width, 6 * width)
        self.self_attention = SelfAttention(width, config.heads)
        self.cross_attention = CrossAttention(width, config.heads) if config.has_cross_attention else None
        self.mlp = Mlp(width, config.mlp_ratio * width, width, nn.GELU("tanh"))

    def forward(
        self, x: Float[Tensor, "b n w"], modulation: Tensor, keys_values: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, "b n w"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation[:, None].chunk(6, -1)
        x = x + gate1 * self.self_attention(_modulate(x, shift1, scale1))
        if self.cross_attention is not None and keys_values is not None:
            x = x + self.cross_attention(x, *keys_values)
        return x + gate2 * self.mlp(_modulate(x, shift2, scale2))


class ModulatedResidual(nn.Module):
    """Residual convolutions modulated by time, and multiplied by the pooled condition (specs/wala.md §4.2)."""

    def __init__(self, config: UVitConfig, with_skip: bool) -> None:
        super().__init__()
        channels, groups = config.channels, config.norm_groups
        self.norm1 = nn.GroupNorm(groups, channels)
        self.skip_norm = nn.GroupNorm(groups, channels) if with_skip else None
        self.skip_weight = None
        if with_skip and config.learnable_skip:
            bottleneck = channels // config.learnable_skip
            self.skip_weight = Mlp(channels, bottleneck, channels, nn.ReLU())
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.time = nn.Linear(config.width, 2 * channels)
        self.norm2 = nn.GroupNorm(groups, channels)
        has_factor = config.condition_channels is not None and config.condition_width > 0
        self.factor = nn.Linear(config.condition_channels or 0, channels) if has_factor else None
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, scale_shift: Tensor, factor: Tensor | None, skip: Tensor | None) -> Tensor:
        """x, skip: (B, C, g, g, g) float32; scale_shift (1|B, 2C), factor (B, C)."""
        h = self.norm1(x)
        if self.skip_norm is not None and skip is not None:
            h = self._add_skip(h, self.skip_norm(skip))
        h = self.norm2(_convolve(self.conv1, functional.silu(h)))
        scale, shift = scale_shift[:, :, None, None, None].chunk(2, 1)
        h = h * (1 + scale) + shift
        if factor is not None:
            h = h * factor[:, :, None, None, None]
        return x + _convolve(self.conv2, functional.silu(h))

    def _add_skip(self, h: Tensor, skip: Tensor) -> Tensor:
        if self.skip_weight is None:
            return (h + skip) / math.sqrt(2)
        weight = torch.sigmoid(precise(self.skip_weight(skip.mean((2, 3, 4)))))
        return h + weight[:, :, None, None, None] * skip


def _convolve(layer: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution in the dtype of its weights; float32 out, as the normalisations want it."""
    return precise(layer(x.to(layer.weight.dtype)))


class UVit(nn.Module):
    """The denoiser network; `systems.wala.denoiser` puts it beside its schedule."""

    def __init__(self, config: UVitConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, config.channels
        self.time = Mlp(2 * _TIME_FREQUENCIES, width, width, nn.SiLU())
        tokens = config.condition_width
        self.context = Mlp(tokens, width, width, nn.SiLU()) if config.has_cross_attention else None
        self.pool_block = PooledProjection(tokens, width, width) if tokens and config.pooled_modulation else None
        has_factor = config.condition_channels is not None and tokens > 0
        self.pool_residual = PooledProjection(tokens, width, config.condition_channels or 0) if has_factor else None
        self.stem = nn.Conv3d(config.latent_channels + config.grid_condition_channels, channels, 3, padding=1)
        self.down = Stack(lambda: ModulatedResidual(config, with_skip=False), config.num_res_blocks)
        patch_width = channels * config.patch**3
        self.patch_in = NormalisedLinear(patch_width, width)
        if config.fixed_positions:
            self.register_buffer("positions", fixed_positions(config.grid // config.patch, width))
        else:
            self.positions = nn.Parameter(torch.empty(1, config.num_tokens, width))
        self.registers = nn.Parameter(torch.empty(config.registers, width)) if config.registers else None
        self.blocks = Stack(lambda: Block(config), config.depth)
        self.patch_out = NormalisedLinear(width, patch_width)
        self.up = Stack(lambda: ModulatedResidual(config, with_skip=True), config.num_res_blocks)
        self.head_norm = nn.GroupNorm(config.norm_groups, channels)
        self.head = nn.Conv3d(channels, config.latent_channels, 3, padding=1)
        self._initialise()

    def forward(self, x_t: Float[Tensor, "b c g g g"], t: Tensor, condition: Condition) -> Float[Tensor, "b c g g g"]:
        """t: (B,) original timesteps 0..999 (not re-spaced ones). The result reads as `config.prediction`."""
        return self.step(x_t, 0, self.prepare(condition, t[None]))

    def prepare(self, condition: Condition, timesteps: Float[Tensor, "t b"] | Tensor) -> Prepared:
        """Everything that does not depend on x_t. timesteps: (T, B), or (T, 1) for all samples alike."""
        time = precise(self.time(time_features(timesteps.flatten()))).unflatten(0, timesteps.shape)
        tokens = self._tokens(condition)
        pooled = time
        if self.pool_block is not None and tokens is not None:
            pooled = time + self.pool_block(tokens)
        pooled, time = functional.silu(pooled), functional.silu(time)
        keys_values: list[tuple[Tensor, Tensor]] = []
        if self.context is not None and tokens is not None:
            context = self.context(tokens)
            keys_values = [b.cross_attention.keys_values(context) for b in self.blocks if b.cross_attention is not None]
        factor: list[Tensor] = []
        residuals = [*self.down, *self.up]
        if self.pool_residual is not None and tokens is not None:
            summary = self.pool_residual(tokens)
            factor = [precise(linear(r.factor, summary)) for r in residuals if r.factor is not None]
        return Prepared(
            keys_values=keys_values,
            modulation=[precise(linear(block.modulation, pooled)) for block in self.blocks],
            scale_shift=[precise(linear(residual.time, time)) for residual in residuals],
            factor=factor,
            grid=self._grid(condition),
        )

    def step(self, x_t: Float[Tensor, "b c g g g"], index: int, prepared: Prepared) -> Float[Tensor, "b c g g g"]:
        """One evaluation at timestep number `index` of those that were prepared."""
        h = _convolve(self.stem, x_t if prepared.grid is None else torch.cat([x_t, prepared.grid], 1))
        skips, residual = [], 0
        for down in self.down:
            h = down(h, *self._residual_inputs(prepared, index, residual), None)
            skips.append(h)
            residual += 1
        tokens = self._to_tokens(h)
        for number, block in enumerate(self.blocks):
            context = prepared.keys_values[number] if prepared.keys_values else None
            tokens = block(tokens, prepared.modulation[number][index], context)
        h = self._from_tokens(tokens)
        for up in self.up:
            h = up(h, *self._residual_inputs(prepared, index, residual), skips.pop())
            residual += 1
        return _convolve(self.head, functional.silu(self.head_norm(h)))

    def in_bfloat16(self) -> UVit:
        """`narrow` on a copy."""
        return copy.deepcopy(self).narrow()

    def narrow(self) -> UVit:
        """Make the transformer's matrices bfloat16, in place: half the memory, several times faster on a CPU with
        bfloat16 units, and about 2 % from the float32 output. Normalisations, learned tokens, time, and the
        convolutions around the transformer stay float32: the last ones are cheap, and rounding them alone doubled the
        error of embedded latents (mean IoU of the decoded insides .988, .993 with them exact)."""
        around = (self.time, self.down, self.up, self.patch_in, self.patch_out)
        exact = [self.stem, self.head, *(module for part in around for module in part.modules())]
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d) and module not in exact:
                module.to(torch.bfloat16)
        return self

    @staticmethod
    def _residual_inputs(prepared: Prepared, index: int, number: int) -> tuple[Tensor, Tensor | None]:
        factor = prepared.factor[number] if prepared.factor else None
        return prepared.scale_shift[number][index], factor

    def _tokens(self, condition: Condition) -> Tensor | None:
        if self.config.condition_width == 0:
            return None
        if condition.tokens is None or condition.tokens.shape[-1] != self.config.condition_width:
            found = "none" if condition.tokens is None else f"width {condition.tokens.shape[-1]}"
            raise ValueError(f"this U-ViT reads condition tokens of width {self.config.condition_width}, got {found}")
        return condition.tokens

    def _grid(self, condition: Condition) -> Tensor | None:
        wanted = self.config.grid_condition_channels
        found = 0 if condition.grid is None else condition.grid.shape[1]
        if found != wanted:
            raise ValueError(f"this U-ViT reads {wanted} grid condition channels, got {found}")
        return condition.grid

    def _to_tokens(self, h: Float[Tensor, "b c g g g"]) -> Float[Tensor, "b n w"]:
        """Patches as tokens in (x, y, z) order, features in (p1, p2, p3, channel) order; positions, registers added."""
        batch, channels, edge = h.shape[:3]
        p = self.config.patch
        parts = h.reshape(batch, channels, edge // p, p, edge // p, p, edge // p, p)
        flat = parts.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, -1, channels * p**3)
        tokens = self.patch_in(flat) + self.positions
        if self.registers is not None:
            tokens = torch.cat([tokens, self.registers.expand(batch, -1, -1)], 1)
        return tokens

    def _from_tokens(self, tokens: Float[Tensor, "b n w"]) -> Float[Tensor, "b c g g g"]:
        p, cells = self.config.patch, self.config.grid // self.config.patch
        flat = self.patch_out(tokens[:, : self.config.num_tokens])
        parts = flat.reshape(len(flat), cells, cells, cells, p, p, p, -1)
        return parts.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(len(flat), -1, *(self.config.grid,) * 3)

    def _initialise(self) -> None:
        """Every block starts as the identity, up to cross attention: modulation, second convolutions and head are 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        modulations, convolutions = [b.modulation for b in self.blocks], [r.conv2 for r in (*self.down, *self.up)]
        for zero in (*modulations, *convolutions, self.head):
            nn.init.zeros_(zero.weight)
            if zero.bias is not None:
                nn.init.zeros_(zero.bias)
        if isinstance(self.positions, nn.Parameter):
            nn.init.trunc_normal_(self.positions, std=0.01)
        if self.registers is not None:
            nn.init.trunc_normal_(self.registers, std=0.01)


def time_features(t: Float[Tensor, "n"] | Tensor) -> Float[Tensor, "n 256"]:
    """[cos(t f), sin(t f)], f_i = 10000^(−i/128), i = 0..127."""
    exponent = torch.arange(_TIME_FREQUENCIES, device=t.device) / _TIME_FREQUENCIES
    angle = t.float()[:, None] * torch.exp(-math.log(10000) * exponent)
    return torch.cat([angle.cos(), angle.sin()], 1)


def fixed_positions(edge: int, width: int) -> Float[Tensor, "1 n w"]:
    """Sine and cosine positions of an edge³ grid: a third of the width for each axis, in the order y, x, z.

    The frequencies are 10000^(−i/(width/6)). The axes stand in the order of a mesh grid
    with its first two axes swapped, which released weights would depend on (specs/wala.md §4.4).
    """
    if width % 6:
        raise ValueError(f"fixed positions need a width divisible by 6, not {width}")
    frequency = 10000.0 ** (-torch.arange(width // 6, dtype=torch.float64) / (width / 6))
    x, y, z = torch.meshgrid(*[torch.arange(edge, dtype=torch.float64)] * 3, indexing="ij")
    thirds = []
    for axis in (y, x, z):
        angle = axis.reshape(-1, 1) * frequency
        thirds += [angle.sin(), angle.cos()]
    return torch.cat(thirds, 1)[None].float()
