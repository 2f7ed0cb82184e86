"""What the embedded denoiser is told: one encoder for every kind of prompt, trained together with it.

Tokens (attention and pooled modulation) tell the kind of prompt, the sentence, the picture. A grid beside x_t holds the
prompt lifted to a crude distance field (`lifting`), linearly projected per latent cell; the codec's own latent of that
field, where the prompt carries geometry; the picture's tokens, each repeated along the view axis that it saw along; and
the latent of a retrieved shape (`retrieval`). Each may be absent; absent everything is the null condition of guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from anyform.diffusion.prior import Condition

KINDS = ("none", "text", "image", "sketch", "points", "voxels", "depth", "views")
GEOMETRY = tuple(KINDS.index(kind) for kind in ("points", "voxels", "depth", "views"))


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptEncoderConfig:
    """Sizes of the embedded prompt encoder; `width` is the U-ViT's condition_width."""

    width: int = 192
    heads: int = 3
    image_blocks: int = 2
    image_size: int = 64
    text_width: int = 384  # MiniLM sentence vector
    text_tokens: int = 4
    grid: int = 8
    field_size: int = 64
    lift_channels: int = 48
    latent_channels: int = 16  # of a retrieved shape
    encoded_lift: bool = False  # whether the codec's latent of a lifted geometry is told too
    picture_channels: int = 0  # of each picture token, repeated in depth

    @property
    def grid_channels(self) -> int:
        """What `UVitConfig.grid_condition_channels` has to be: lifted field, picture, latents, and two flags."""
        return self.lift_channels + self.picture_channels + self.latent_channels * (1 + self.encoded_lift) + 2


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A batch of prompts as plain tensors; rows that a `has_*` mask marks False hold zeros and are not read."""

    kind: Int[Tensor, " b"]  # index into KINDS
    text: Float[Tensor, "b d"]  # MiniLM sentence vectors
    has_text: Bool[Tensor, " b"]
    image: Float[Tensor, "b 4 h w"]  # framed; colours in [-1, 1] with 0 outside, alpha in [0, 1]
    has_image: Bool[Tensor, " b"]
    lifted: Float[Tensor, "b n n n"]  # crude field in [-1, 1]
    has_lifted: Bool[Tensor, " b"]
    encoded: Float[Tensor, "b c g g g"]  # standardised latent of the lifted field; zero unless `with_encoded` made it
    retrieved: Float[Tensor, "b c g g g"]  # standardised latent
    has_retrieved: Bool[Tensor, " b"]

    def to(self, device: torch.device) -> Features:
        """The same batch on another device."""
        return Features(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def keep(self, rows: Bool[Tensor, " b"]) -> Features:
        """The same batch with everything but `rows` made the null condition."""
        masks = {name: getattr(self, name) & rows for name in ("has_text", "has_image", "has_lifted", "has_retrieved")}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Features(**{**values, **masks, "kind": torch.where(rows, self.kind, 0)})


class PictureBlock(nn.Module):
    """Pre-norm self-attention and MLP over picture tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        x = x + self.out((scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class PictureEncoder(nn.Module):
    """(B, 4, 64, 64) framed picture or sketch -> (B, 64, width) tokens, an 8×8 grid in row-major order."""

    def __init__(self, config: PromptEncoderConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(4, 48, 4, 2, 1), nn.SiLU(), nn.GroupNorm(8, 48),
            nn.Conv2d(48, 96, 4, 2, 1), nn.SiLU(), nn.GroupNorm(8, 96),
            nn.Conv2d(96, config.width, 4, 2, 1),
        )  # fmt: skip
        self.positions = nn.Parameter(0.02 * torch.randn(1, (config.image_size // 8) ** 2, config.width))
        self.blocks = nn.ModuleList(PictureBlock(config.width, config.heads) for _ in range(config.image_blocks))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, image: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b l d"]:
        x = self.stem(image).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class PromptEncoder(nn.Module):
    """`Features` -> `Condition` (tokens and grid) of the embedded U-ViT."""

    def __init__(self, config: PromptEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.kind = nn.Embedding(len(KINDS), config.width)
        self.text = nn.Sequential(
            nn.Linear(config.text_width, config.width), nn.SiLU(),
            nn.Linear(config.width, config.text_tokens * config.width),
        )  # fmt: skip
        self.picture = PictureEncoder(config)
        picture_tokens = (config.image_size // 8) ** 2
        self.no_text = nn.Parameter(0.02 * torch.randn(config.text_tokens, config.width))
        self.no_picture = nn.Parameter(0.02 * torch.randn(picture_tokens, config.width))
        block = (config.field_size // config.grid) ** 3
        self.lift = nn.Linear(block, config.lift_channels)
        self.deepen = nn.Linear(config.width, config.picture_channels) if config.picture_channels else None

    def forward(self, features: Features) -> Condition:
        picture = self._picture(features)
        tokens = torch.cat([self.kind(features.kind)[:, None], self._text(features), picture], 1)
        grid = self._grid(features)
        if self.deepen is not None:
            grid = torch.cat([self._deep(features, picture), grid], 1)
        return Condition(tokens=tokens, grid=grid)

    def _deep(self, features: Features, picture: Tensor) -> Float[Tensor, "b c g g g"]:
        """Picture tokens over the whole depth: token (row, column) fills the cells at y = top − row, x = column."""
        assert self.deepen is not None
        size = self.config.image_size // 8
        plane = self.deepen(picture) * features.has_image[:, None, None]
        plane = plane.unflatten(1, (size, size)).permute(0, 3, 2, 1).flip(3)  # (B, C, x, y)
        return plane[..., None].expand(*plane.shape, self.config.grid).float()

    def _text(self, features: Features) -> Tensor:
        tokens = self.no_text.expand(len(features.kind), -1, -1).float()
        rows = features.has_text.nonzero()[:, 0]
        if len(rows):
            found = self.text(features.text[rows]).unflatten(-1, (self.config.text_tokens, -1))
            tokens = tokens.index_copy(0, rows, found.float())
        return tokens

    def _picture(self, features: Features) -> Tensor:
        tokens = self.no_picture.expand(len(features.kind), -1, -1).float()
        rows = features.has_image.nonzero()[:, 0]
        if len(rows):
            tokens = tokens.index_copy(0, rows, self.picture(features.image[rows]).float())
        return tokens

    def _grid(self, features: Features) -> Float[Tensor, "b c g g g"]:
        config, batch = self.config, len(features.kind)
        grid, part = config.grid, config.field_size // config.grid
        lifted = features.lifted.new_zeros(batch, grid**3, config.lift_channels)
        rows = features.has_lifted.nonzero()[:, 0]
        if len(rows):
            cells = features.lifted[rows].reshape(-1, grid, part, grid, part, grid, part)
            flat = cells.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(rows), grid**3, part**3)
            lifted = lifted.index_copy(0, rows, F.silu(self.lift(flat)).float())
        volume = lifted.transpose(1, 2).reshape(batch, -1, grid, grid, grid)
        retrieved = features.retrieved * features.has_retrieved[:, None, None, None, None]
        if config.encoded_lift:
            encoded = features.encoded * features.has_lifted[:, None, None, None, None]
            volume = torch.cat([volume, encoded.to(volume.dtype)], 1)
        flags = torch.stack([features.has_lifted, features.has_retrieved], 1).to(volume.dtype)
        return torch.cat([volume, retrieved, flags[:, :, None, None, None].expand(-1, -1, grid, grid, grid)], 1)


def empty_features(config: PromptEncoderConfig, batch: int) -> dict[str, Tensor]:
    """Zero-filled fields of `Features` for a batch, to be overwritten where a prompt has something."""
    no = torch.zeros(batch, dtype=torch.bool)
    return {
        "kind": torch.zeros(batch, dtype=torch.int64),
        "text": torch.zeros(batch, config.text_width),
        "has_text": no.clone(),
        "image": torch.zeros(batch, 4, config.image_size, config.image_size),
        "has_image": no.clone(),
        "lifted": torch.zeros(batch, *(config.field_size,) * 3),
        "has_lifted": no.clone(),
        "encoded": torch.zeros(batch, config.latent_channels, *(config.grid,) * 3),
        "retrieved": torch.zeros(batch, config.latent_channels, *(config.grid,) * 3),
        "has_retrieved": no.clone(),
    }


def stack_features(rows: Sequence[Features]) -> Features:
    """Batches joined along the first axis."""
    return Features(**{f.name: torch.cat([getattr(row, f.name) for row in rows]) for f in fields(Features)})


def with_encoded(features: Features, encode: Callable[[Tensor], Tensor]) -> Features:
    """The codec's latents of geometry prompts filled in; a picture's extruded silhouette is too crude for it.

    encode: fields (B, N, N, N) in [-1, 1] -> standardised latents (B, C, g, g, g).
    """
    rows = (torch.isin(features.kind, features.kind.new_tensor(GEOMETRY)) & features.has_lifted).nonzero()[:, 0]
    if not len(rows):
        return features
    with torch.no_grad():
        found = encode(features.lifted[rows]).to(features.encoded.dtype)
    return replace(features, encoded=features.encoded.index_copy(0, rows, found))
