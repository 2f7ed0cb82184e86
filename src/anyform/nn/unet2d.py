"""The conditional 2D U-Net of Stable Diffusion's family, in two halves that a control branch can step between.

One structure serves the embedded priors, Zero-1-to-3 and SD-unCLIP; they differ in `UNet2DConfig`. Parameter names are
those of diffusers' UNet2DConditionModel, whose folders therefore load as they are. Source: Rombach et al., "High-
Resolution Image Synthesis with Latent Diffusion Models", section 3 and appendix E.

x: (B, C, H, W); tokens: (B, L, D) for cross attention; labels: (B, P), projected and added to the time embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.errors import WeightsError
from anyform.nn.attention import attention, join_heads, split_heads

_PLAIN = {"DownBlock2D": False, "CrossAttnDownBlock2D": True, "UpBlock2D": False, "CrossAttnUpBlock2D": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class UNet2DConfig:
    """Sizes. Defaults: Stable Diffusion 1's U-Net; heads: attention heads of each level (diffusers calls them
    `attention_head_dim`); labels: width of the class labels, 0 = none; linear: token projections instead of 1×1."""

    channels_in: int = 4
    channels_out: int = 4
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    attends: tuple[bool, ...] = (True, True, True, False)
    layers: int = 2
    heads: tuple[int, ...] = (8, 8, 8, 8)
    groups: int = 32
    token_width: int = 768
    labels: int = 0
    linear: bool = False

    def __post_init__(self) -> None:
        levels = len(self.widths)
        bad = [width for width in self.widths if width % self.groups]
        if len(self.attends) != levels or len(self.heads) != levels or bad or levels < 1 or self.layers < 1:
            raise WeightsError(f"a U-Net needs as many heads and attention flags as levels, whole groups, not {self}")


def config_of_diffusers(table: Mapping[str, Any]) -> UNet2DConfig:
    """The `unet/config.json` of a diffusers folder -> ours. Raises WeightsError for a structure that is another."""
    down, widths = tuple(table["down_block_types"]), tuple(table["block_out_channels"])
    attends = tuple(_PLAIN.get(kind) for kind in down)
    mirrored = tuple(_PLAIN.get(kind) for kind in reversed(tuple(table["up_block_types"])))
    class_embed = table.get("class_embed_type")
    odd = {
        "down_block_types": down if None in attends or attends != mirrored else None,
        "class_embed_type": class_embed if class_embed not in (None, "projection") else None,
        "resnet_time_scale_shift": _other(table, "resnet_time_scale_shift", "default"),
        "time_embedding_type": _other(table, "time_embedding_type", "positional"),
        "act_fn": _other(table, "act_fn", "silu"),
        "transformer_layers_per_block": _other(table, "transformer_layers_per_block", 1),
        "flip_sin_to_cos": _other(table, "flip_sin_to_cos", True),
        "freq_shift": _other(table, "freq_shift", 0),
        "only_cross_attention": _other(table, "only_cross_attention", False),
        "dual_cross_attention": _other(table, "dual_cross_attention", False),
        "addition_embed_type": table.get("addition_embed_type"),
        "encoder_hid_dim": table.get("encoder_hid_dim"),
    }
    found = {key: value for key, value in odd.items() if value is not None}
    if found:
        raise WeightsError(f"this U-Net is of another structure than Stable Diffusion's: {found}")
    heads = table.get("num_attention_heads") or table.get("attention_head_dim", 8)
    return UNet2DConfig(
        channels_in=table["in_channels"],
        channels_out=table["out_channels"],
        widths=widths,
        attends=tuple(bool(one) for one in attends),
        layers=table["layers_per_block"],
        heads=(heads,) * len(widths) if isinstance(heads, int) else tuple(heads),
        groups=table.get("norm_num_groups", 32),
        token_width=table["cross_attention_dim"],
        labels=(table.get("projection_class_embeddings_input_dim") or 0) if class_embed else 0,
        linear=bool(table.get("use_linear_projection", False)),
    )


def _other(table: Mapping[str, Any], key: str, usual: object) -> object:
    return None if table.get(key, usual) == usual else table[key]


def sinusoid(t: Tensor, width: int) -> Float[Tensor, "b w"]:
    """(B,) -> (B, width) float32: cos(t f) then sin(t f), f = 10000^(−i / (width/2)), i = 0 .. width/2 − 1."""
    half = width // 2
    frequency = torch.exp(-math.log(10_000) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


class Embedding(nn.Module):
    """Linear, SiLU, Linear: of the timestep's sinusoid, and of class labels."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in) -> (B, width)."""
        return self.linear_2(functional.silu(self.linear_1(x)))


class ResidualBlock(nn.Module):
    """Two normalised 3×3 convolutions, the embedding (if any) added between them, and the input around them."""

    def __init__(self, width_in: int, width: int, embedding: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, eps)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, width) if embedding else None
        self.norm2 = nn.GroupNorm(groups, width, eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B, E) -> (B, C', H, W)."""
        hidden = self.conv1(functional.silu(self.norm1(x)))
        if self.time_emb_proj is not None and embedding is not None:
            hidden = hidden + self.time_emb_proj(functional.silu(embedding))[:, :, None, None]
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Multi-head attention of x to `context` (None = to itself), with diffusers' names. slice: queries at once."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads, self.slice = heads, 0
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, N, W), (B, M, D) -> (B, N, W)."""
        source = x if context is None else context
        q, k, v = (split_heads(part, self.heads) for part in (self.to_q(x), self.to_k(source), self.to_v(source)))
        queries = q.split(self.slice, dim=2) if self.slice else (q,)
        mixed = [attention(some, k, v) for some in queries]
        return self.to_out[0](join_heads(mixed[0] if len(mixed) == 1 else torch.cat(mixed, 2)))


class GatedGelu(nn.Module):
    """a · gelu(b) of one projection (Shazeer, "GLU Variants Improve Transformer")."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, hidden)."""
        value, gate = self.proj(x).chunk(2, -1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """Gated GELU to four times the width and back; the middle entry of `net` is diffusers' dropout, without weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, W) -> the same shape."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self attention, cross attention to the tokens, feed-forward; each pre-normalised and added."""

    def __init__(self, width: int, token_width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, width, heads)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, token_width, heads)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, N, W), (B, L, D) -> (B, N, W)."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), tokens)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of a feature map, between two projections, added to the map."""

    def __init__(self, width: int, token_width: int, heads: int, groups: int, linear: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.linear = linear
        self.proj_in = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, token_width, heads)])
        self.proj_out = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, C, H, W), (B, L, D) -> (B, C, H, W)."""
        hidden, size = self.norm(x), x.shape[-2:]
        hidden = self.proj_in(hidden.flatten(2).mT) if self.linear else self.proj_in(hidden).flatten(2).mT
        hidden = self.transformer_blocks[0](hidden, tokens)
        if self.linear:
            return x + self.proj_out(hidden).mT.unflatten(2, size)
        return x + self.proj_out(hidden.mT.unflatten(2, size))


class Resample(nn.Module):
    """Half the size by a strided 3×3 convolution, or twice the size by repeating pixels and a 3×3 convolution.

    symmetric False: zeros are padded right and below only, as in the autoencoder.
    """

    def __init__(self, width: int, *, up: bool, symmetric: bool = True) -> None:
        super().__init__()
        self.up, self.symmetric = up, symmetric
        padding = 1 if up or symmetric else 0
        self.conv = nn.Conv2d(width, width, 3, stride=1 if up else 2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W) or (B, C, H/2, W/2)."""
        if self.up:
            return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(x if self.symmetric else functional.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """One resolution of either half: residual blocks, their transformers, and the change of size at its end."""

    def __init__(self, widths_in: Sequence[int], level: int, config: UNet2DConfig, resample: Resample | None) -> None:
        super().__init__()
        width, embedding = config.widths[level], 4 * config.widths[0]
        self.resnets = nn.ModuleList(ResidualBlock(one, width, embedding, config.groups) for one in widths_in)
        self.attentions = nn.ModuleList(_transformer(config, level) for _ in widths_in if config.attends[level])
        change = [] if resample is None else [resample]
        self.downsamplers = nn.ModuleList(one for one in change if not one.up)
        self.upsamplers = nn.ModuleList(one for one in change if one.up)
        self.resamples = resample is not None

    def block(self, index: int, x: Tensor, embedding: Tensor, tokens: Tensor) -> Tensor:
        """Residual block `index` and its transformer where the level attends."""
        x = self.resnets[index](x, embedding)
        return self.attentions[index](x, tokens) if len(self.attentions) else x


class Middle(nn.Module):
    """Residual block, transformer, residual block at the coarsest size."""

    def __init__(self, config: UNet2DConfig) -> None:
        super().__init__()
        width = config.widths[-1]
        self.attentions = nn.ModuleList([_transformer(config, -1)])
        self.resnets = nn.ModuleList(ResidualBlock(width, width, 4 * config.widths[0], config.groups) for _ in range(2))

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        x = self.attentions[0](self.resnets[0](x, embedding), tokens)
        return self.resnets[1](x, embedding)


def _transformer(config: UNet2DConfig, level: int) -> SpatialTransformer:
    heads, width = config.heads[level], config.widths[level]
    return SpatialTransformer(width, config.token_width, heads, config.groups, config.linear)


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What the first half says: skips, finest first, and the coarsest map after the middle. A control branch adds to
    each of them (`plus`) before `UNet2D.decode`."""

    skips: tuple[Tensor, ...]
    middle: Tensor

    def plus(self, skips: Sequence[Tensor], middle: Tensor) -> Encoded:
        """Residuals of the same shapes added."""
        added = tuple(mine + other for mine, other in zip(self.skips, skips, strict=True))
        return Encoded(added, self.middle + middle)


class UNet2D(nn.Module):
    """The whole network. `forward` = `embed`, `encode`, `decode`."""

    def __init__(self, config: UNet2DConfig) -> None:
        super().__init__()
        self.config = config
        widths, embedding, last = config.widths, 4 * config.widths[0], len(config.widths) - 1
        self.conv_in = nn.Conv2d(config.channels_in, widths[0], 3, padding=1)
        self.time_embedding = Embedding(widths[0], embedding)
        self.class_embedding = Embedding(config.labels, embedding) if config.labels else None
        down, skips, width = [], [widths[0]], widths[0]
        for level, wide in enumerate(widths):
            inputs = [width, *[wide] * (config.layers - 1)]
            down.append(Level(inputs, level, config, None if level == last else Resample(wide, up=False)))
            skips += [wide] * (config.layers + (level != last))
            width = wide
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = Middle(config)
        up = []
        for level in range(last, -1, -1):
            wide, inputs = widths[level], []
            for _ in range(config.layers + 1):
                inputs.append(width + skips.pop())
                width = wide
            up.append(Level(inputs, level, config, None if level == 0 else Resample(wide, up=True)))
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[0], 1e-5)
        self.conv_out = nn.Conv2d(widths[0], config.channels_out, 3, padding=1)

    def embed(self, t: Tensor, labels: Tensor | None = None) -> Float[Tensor, "b e"]:
        """Timesteps (B,) and class labels (B, P), where the network has them, -> (B, E)."""
        dtype = self.time_embedding.linear_1.weight.dtype
        embedding = self.time_embedding(sinusoid(t, self.config.widths[0]).to(dtype))
        if (labels is None) != (self.class_embedding is None):
            wanted = "needs class labels" if labels is None else "takes no class labels"
            raise ValueError(f"this U-Net {wanted}: its config says labels={self.config.labels}")
        return embedding if self.class_embedding is None else embedding + self.class_embedding(labels)

    def encode(self, x: Tensor, embedding: Tensor, tokens: Tensor) -> Encoded:
        """(B, C, H, W) -> the first half's features; H and W divisible by 2^(levels − 1)."""
        x = self.conv_in(x)
        skips = [x]
        for level in cast(Iterable[Level], self.down_blocks):
            for index in range(len(level.resnets)):
                x = level.block(index, x, embedding, tokens)
                skips.append(x)
            if level.resamples:
                x = level.downsamplers[0](x)
                skips.append(x)
        return Encoded(tuple(skips), self.mid_block(x, embedding, tokens))

    def decode(self, encoded: Encoded, embedding: Tensor, tokens: Tensor) -> Tensor:
        """The second half: (B, channels_out, H, W)."""
        x, skips = encoded.middle, list(encoded.skips)
        for level in cast(Iterable[Level], self.up_blocks):
            for index in range(len(level.resnets)):
                x = level.block(index, torch.cat([x, skips.pop()], 1), embedding, tokens)
            if level.resamples:
                x = level.upsamplers[0](x)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), t (B,), tokens (B, L, D), labels (B, P) -> (B, channels_out, H, W)."""
        embedding = self.embed(t, labels)
        return self.decode(self.encode(x, embedding, tokens), embedding, tokens)
