"""WaLa's voxel encoder: a 16³ occupancy grid -> 512 tokens (supplement D; specs/wala.md §5.3). 8,855,040 parameters."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class VoxelEncoderConfig:
    """Defaults: the released VX16 model. The token grid has half the edge of the voxels."""

    resolution: int = 16
    stem: int = 64
    hidden: int = 128
    context_width: int = 1024
    norm_groups: int = 32

    @property
    def num_tokens(self) -> int:
        """Tokens of one grid: the convolutions halve each side, rounding up."""
        return ((self.resolution + 1) // 2) ** 3


class VoxelResidual(nn.Module):
    """conv(SiLU(norm(conv(SiLU(norm(x)))))) added to x, or to a 3³ convolution of x where the channels change."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in)
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels_out)
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv3d(channels_in, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(functional.silu(self.norm2(h)))


class VoxelEncoder(nn.Module):
    """(B, R, R, R) occupancy, 1 inside, axes x, y, z -> (B, (R/2)³, C) tokens in (x, y, z) order."""

    def __init__(self, config: VoxelEncoderConfig) -> None:
        super().__init__()
        self.config = config
        hidden, groups = config.hidden, config.norm_groups
        self.stem = nn.Conv3d(1, config.stem, 3, padding=1)
        self.fine = nn.Sequential(
            VoxelResidual(config.stem, hidden, groups), *(VoxelResidual(hidden, hidden, groups) for _ in range(2))
        )
        self.coarse = nn.Sequential(*(VoxelResidual(hidden, hidden, groups) for _ in range(3)))
        self.head_norm = nn.GroupNorm(groups, hidden)
        self.head = nn.Conv3d(hidden, config.context_width, 3, padding=1)

    def forward(self, occupancy: Float[Tensor, "b r r r"]) -> Float[Tensor, "b l c"]:
        h = self.fine(self.stem(occupancy[:, None]))
        h = self.coarse(functional.avg_pool3d(h, 3, stride=2, padding=1))  # padded zeros are counted
        return self.head(functional.silu(self.head_norm(h))).flatten(2).transpose(1, 2)
