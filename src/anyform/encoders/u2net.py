"""U²-Net, small version: which pixels of a photo belong to its main object. Plain torch, for inference.

Source: Qin et al., U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection, 2020, Fig. 2 and 5;
widths of its 1.1 M parameter version. Differs: batch normalisation is folded into the convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_DEPTHS = (7, 6, 5, 4)  # of the U-blocks at the four finest levels; the two coarsest use dilation instead of pooling
_INNER, _OUTER = 16, 64


class Convolution(nn.Module):
    """3 x 3 convolution and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x))


class UBlock(nn.Module):
    """A residual U-block: (B, in, H, W) -> (B, `_OUTER`, H, W).

    Either `depth` levels with pooling between all but the last two, or, flat, four with dilations 1, 2, 4, 8.
    """

    def __init__(self, in_channels: int, depth: int, flat: bool = False) -> None:
        super().__init__()
        dilations = [2**i for i in range(4)] if flat else [1] * (depth - 1) + [2]
        depth, self.flat = len(dilations), flat
        self.enter = Convolution(in_channels, _OUTER)
        widths = [_OUTER] + [_INNER] * (depth - 1)
        self.down = nn.ModuleList(Convolution(w, _INNER, d) for w, d in zip(widths, dilations, strict=True))
        # from the deepest to the shallowest
        outs = [_INNER] * (depth - 2) + [_OUTER]
        ups = reversed(dilations[:-1]) if flat else [1] * (depth - 1)
        self.up = nn.ModuleList(Convolution(2 * _INNER, w, d) for w, d in zip(outs, ups, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        levels = [self.down[0](entered)]
        for i, convolution in enumerate(self.down[1:], 2):
            pooled = levels[-1] if self.flat or i == len(self.down) else _halved(levels[-1])
            levels.append(convolution(pooled))
        out = levels.pop()
        for convolution in self.up:
            level = levels.pop()
            out = convolution(torch.cat([_resized(out, level), level], 1))
        return out + entered


class U2Net(nn.Module):
    """(B, 3, H, W) normalised RGB -> (B, 1, H, W) saliency in [0, 1]; trained at 320 x 320."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(depth, False) for depth in _DEPTHS] + [(4, True)] * 2
        inputs = [3] + [_OUTER] * 5
        self.encoder = nn.ModuleList(UBlock(c, *shape) for c, shape in zip(inputs, shapes, strict=True))
        self.decoder = nn.ModuleList(UBlock(2 * _OUTER, *shape) for shape in reversed(shapes[:-1]))
        # from the finest to the coarsest
        self.side = nn.ModuleList(nn.Conv2d(_OUTER, 1, 3, padding=1) for _ in shapes)
        self.fuse = nn.Conv2d(len(shapes), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for i, block in enumerate(self.encoder):
            levels.append(block(_halved(levels[-1]) if i else x))
        decoded = [levels.pop()]
        for block in self.decoder:
            level = levels.pop()
            decoded.append(block(torch.cat([_resized(decoded[-1], level), level], 1)))
        maps = [side(level) for side, level in zip(self.side, reversed(decoded), strict=True)]
        return torch.sigmoid(self.fuse(torch.cat([_resized(m, maps[0]) for m in maps], 1)))


def _halved(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 2, ceil_mode=True)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
