"""The branch: E, the field, the copy O of the foundation's encoder with zero convolutions, L and pairwise attention.

Only this is trained and saved. At the start every residual is exactly zero, so the foundation says what it always said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from anyform.systems.tunemv3d.config import BranchConfig
from anyform.systems.tunemv3d.foundation import Caption, Foundation, fold
from anyform.systems.tunemv3d.latent_neus import LatentNeuS, Rig, Seen
from anyform.systems.tunemv3d.pair_attention import PairAttention, PairAttentions, mass_of


class LightEncoder(nn.Module):
    """L: the raw noisy view beside the rendered one; supplement D reports slower convergence without it."""

    def __init__(self, channels: int, width: int, hidden: tuple[int, int], stride: int) -> None:
        super().__init__()
        first, second = hidden
        last = nn.Conv2d(second, width, stride, stride=stride)
        nn.init.normal_(last.weight, 0, 1e-2)
        nn.init.zeros_(cast(Tensor, last.bias))
        self.layers = nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.SiLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(V, C, s, s) -> (V, W, s / stride, s / stride)."""
        return self.layers(x)


class ZeroProjection(nn.Module):
    """A 1×1 convolution (maps) or a Linear (tokens) that begins as zero (supplement B.2)."""

    def __init__(self, channels: int, *, of_tokens: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, channels) if of_tokens else nn.Conv2d(channels, channels, 1)
        for parameter in self.layer.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class ControlBranch(nn.Module):
    """Everything that TuneMV3D trains on one foundation."""

    def __init__(self, foundation: Foundation, config: BranchConfig) -> None:
        super().__init__()
        spec = foundation.spec
        self.config, self.packing, self.size = config, spec.packing, spec.size
        self.latent_neus = LatentNeuS(spec, config)
        self.trunk = foundation.backbone.trunk()
        start, sources, levels = self._probe(foundation)
        stride = spec.size // spec.packing // start.shape[-1]
        channels = spec.channels * spec.packing**2
        self.light = LightEncoder(channels, start.shape[1], config.light_widths, stride)
        self.zeros = nn.ModuleList(
            ZeroProjection(one.shape[1] if one.ndim == 4 else one.shape[2], of_tokens=one.ndim == 3) for one in sources
        )
        self.pairs = PairAttentions(
            {
                str(number): PairAttention(shape[1], config.pair_heads)
                for number, shape in enumerate(levels)
                if config.pairwise != "none" and shape[-1] == config.pair_size
            }
        )

    @torch.no_grad()
    def _probe(self, foundation: Foundation) -> tuple[Tensor, list[Tensor], list[torch.Size]]:
        """The stem's map, every residual's source, and the shape at the end of each level, of an empty picture."""
        spec, levels = foundation.spec, []
        device = next(self.trunk.parameters()).device
        with torch.random.fork_rng(devices=[]):  # a text encoder may be loaded here, whose construction draws numbers
            caption = foundation.captions([""]).to(device)

        def note(_: int, x: Tensor) -> Tensor:
            levels.append(x.shape)
            return x

        empty = torch.zeros(1, spec.channels, spec.size, spec.size, device=device)
        start = self.trunk.stem(fold(empty, spec.packing))
        return start, self.trunk(start, torch.zeros(1, dtype=torch.long, device=device), caption, note), levels

    def perceive(
        self, x_t: Tensor, t: Tensor, t_field: Tensor, caption: Caption, rig: Rig, *, jitter: bool = False
    ) -> Seen:
        """The centralised condition of views x_t (V, C, s, s) at t (V,); t_field (1,): the noisy views' timestep."""
        return self.latent_neus(self.latent_neus.scene(x_t, t, t_field, caption, rig), rig, jitter=jitter)

    def mass(self, seen: Seen, rig: Rig) -> Tensor | None:
        """(1, V h h, V h h) for pairwise attention on what was seen; None where the branch has no such attention."""
        if not len(self.pairs):
            return None
        size, views = self.config.pair_size, len(seen.views)
        if self.config.pairwise == "global":
            owner = torch.arange(views, device=seen.views.device).repeat_interleave(size * size)
            return (owner[:, None] != owner).float()[None]
        found = mass_of(seen.render, rig.origins, rig.directions, rig.projection, size, self.config.pair_samples)
        return found[None]

    def residuals(self, base: Tensor, x_t: Tensor, t: Tensor, caption: Caption, mass: Tensor | None) -> list[Tensor]:
        """What the foundation's encoder gets added, for B V views.

        base (B V, C, s, s): x_0r, or x_t itself for the branch that knows nothing of the other views (then without
        mass). mass (B, V h h, V h h) for pairwise attention.
        """

        def attend(level: int, x: Tensor) -> Tensor:
            pair = self.pairs.at(level)
            return x if pair is None or mass is None else pair(x, mass)

        start = self.trunk.stem(fold(base, self.packing)) + self.light(fold(x_t, self.packing))
        sources = self.trunk(start, t, caption, attend)
        return [zero(source) for zero, source in zip(self.zeros, sources, strict=True)]

    def paces(self) -> Sequence[tuple[float, Sequence[nn.Parameter]]]:
        """Factors on the learning rate (§5.3): 1 for what starts as a copy or as zero, 10 for what starts from nothing,
        50 for the slope of the distances, which otherwise hardly moves."""
        slope = self.latent_neus.field.sharpness
        scratch = (self.latent_neus, self.light, self.pairs)
        return [
            (1.0, [p for part in (self.trunk, self.zeros) for p in part.parameters()]),
            (10.0, [p for part in scratch for p in part.parameters() if p is not slope]),
            (50.0, [slope]),
        ]
