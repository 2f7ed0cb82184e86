"""Our own U-Net as a foundation: the embedded 2D prior (specs/embedded.md §4) and Stable Diffusion 1."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from torch import Tensor, nn

from anyform.nn.unet2d import Level, UNet2D
from anyform.systems.tunemv3d.foundation import Caption, Hook, Trunk


class UNetTrunk(Trunk):
    """The first half of a `UNet2D`, its middle included."""

    def __init__(self, network: UNet2D) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.network.up_blocks = nn.ModuleList()
        for unused in ("conv_norm_out", "conv_out"):
            self.network.add_module(unused, nn.Identity())
        self.requires_grad_(True)

    def stem(self, x: Tensor) -> Tensor:
        return self.network.conv_in(x)

    def forward(self, start: Tensor, t: Tensor, caption: Caption, hook: Hook) -> list[Tensor]:
        network, x, residuals = self.network, start, [start]
        embedding = network.embed(t, caption.vectors.get("labels"))
        for number, level in enumerate(cast(Iterable[Level], network.down_blocks)):
            for index in range(len(level.resnets)):
                x = level.block(index, x, embedding, caption.tokens)
                residuals.append(x)
            if level.resamples:
                x = level.downsamplers[0](x)
                residuals.append(x)
            x = residuals[-1] = hook(number, x)
        middle = network.mid_block(x, embedding, caption.tokens)
        return [*residuals, hook(len(network.down_blocks), middle)]


class UNetBackbone:
    """A frozen `UNet2D`."""

    def __init__(self, network: UNet2D) -> None:
        self.network = network.eval().requires_grad_(False)

    def predict(self, x: Tensor, t: Tensor, caption: Caption, residuals: Sequence[Tensor] | None) -> Tensor:
        """(B, C, s, s) -> the network's own reading, its learned variance too where it has one."""
        embedding = self.network.embed(t, caption.vectors.get("labels"))
        encoded = self.network.encode(x, embedding, caption.tokens)
        if residuals is not None:
            encoded = encoded.plus(residuals[:-1], residuals[-1])
        return self.network.decode(encoded, embedding, caption.tokens)

    def trunk(self) -> UNetTrunk:
        """A fresh trainable copy of the first half."""
        return UNetTrunk(self.network)

    def config(self) -> Mapping[str, Any]:
        """What decides the structure."""
        return asdict(self.network.config)
