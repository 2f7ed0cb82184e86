"""DINOv2 ViT with registers, as released WaLa uses it: an image -> one token a patch (Oquab et al.; Darcet et al.).

Written from the published architecture, so that positions are resized exactly as those checkpoints expect: bicubic,
not antialiased, by the *scale factor* (cells + 0.1)/trained cells, whose sampling points differ slightly from a resize
to the output size. Images: (B, 3, H, W), (value − 0.5)/0.5, not ImageNet's mean (specs/wala.md §5.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.nn.transformer import Mlp, SelfAttention, Stack

_INTERPOLATE_OFFSET = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Dinov2Config:
    """Defaults: ViT-L/14 with 4 registers, trained at 518² pixels (304 M parameters)."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 14
    trained_cells: int = 37
    registers: int = 4
    mlp_ratio: int = 4


class Dinov2Block(nn.Module):
    """Pre-normalised attention and MLP, each scaled per channel before it is added."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, config.heads, head_norm=False)
        self.mlp = Mlp(width, config.mlp_ratio * width, width, nn.GELU())
        self.scale1, self.scale2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        x = x + self.scale1 * self.attention(self.norm1(x))
        return x + self.scale2 * self.mlp(self.norm2(x))


class Dinov2(nn.Module):
    """(B, 3, H, W) -> (B, H/patch · W/patch, width): normalised patch tokens, row-major; the others dropped."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch = nn.Conv2d(3, width, config.patch, stride=config.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.registers = nn.Parameter(torch.zeros(1, config.registers, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + config.trained_cells**2, width))
        self.blocks = Stack(lambda: Dinov2Block(config), config.depth)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for start in (self.class_token, self.registers, self.positions):
            nn.init.trunc_normal_(start, std=0.02)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n w2"]:
        cells = self.patch(image)
        batch, _, rows, columns = cells.shape
        first, positions = self.positions[:, :1], self.patch_positions(rows, columns)
        x = torch.cat(
            [
                (self.class_token + first).expand(batch, -1, -1),
                self.registers.expand(batch, -1, -1),
                cells.flatten(2).transpose(1, 2) + positions,
            ],
            1,
        )
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1 + self.config.registers :]

    def patch_positions(self, rows: int, columns: int) -> Float[Tensor, "1 n w"]:
        """The trained position grid at another size."""
        trained = self.config.trained_cells
        positions = self.positions[:, 1:]
        if rows == columns == trained:
            return positions
        grid = positions.reshape(1, trained, trained, -1).permute(0, 3, 1, 2)
        scale = ((rows + _INTERPOLATE_OFFSET) / trained, (columns + _INTERPOLATE_OFFSET) / trained)
        resized = functional.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
        return resized.flatten(2).transpose(1, 2)
