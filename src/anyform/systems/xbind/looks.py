"""What a loss is shown: detached copies of a render, whose gradients are gathered and sent back through it once.

This is the image-gradient bus of specs/xbind.md §0.10: whatever a prior or encoder needs for its gradient is freed
before the next one begins, and the renderer's own graph is walked a single time, however many terms there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyform.systems.xbind.views import Viewpoints
from anyform.types.render import Render


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """One view as a loss sees it, pictures with a leading 1.

    rgb (1, 3, H, W) over white, alpha (1, 1, H, W), normal (1, 3, H, W) = (n + 1) / 2 over black or None: all
    differentiable. background (3,): the colour that 2D terms put behind the object at this step. told (4,): the camera
    as a 3D-aware prior is told it. step, part: done of the phase; rng: draws of this step.
    """

    rgb: Tensor
    alpha: Tensor
    normal: Tensor | None
    background: Tensor
    told: Tensor
    step: int
    part: float
    rng: np.random.Generator

    def over_background(self) -> Tensor:
        """rgb over `background` instead of white."""
        return self.rgb + (1 - self.alpha) * (self.background.reshape(1, 3, 1, 1) - 1)

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape of `like`, drawn on the CPU so that every device sees the same."""
        generator = torch.Generator().manual_seed(int(self.rng.integers(2**63)))
        return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


class Bus:
    """Detached parts of one render, one gradient each."""

    def __init__(self, render: Render[Tensor], points: Viewpoints, background: Tensor) -> None:
        self.render, self.points, self.background = render, points, background
        sources: dict[str, Tensor | None] = {"rgb": render.rgb, "alpha": render.alpha, "normal": render.normal}
        if render.samples is not None:
            sources["ray_weights"] = render.samples.ray_weights
        self.sources = {name: part for name, part in sources.items() if part is not None}
        self.leaves = {name: part.detach().requires_grad_() for name, part in self.sources.items()}
        self.gradients: dict[str, Tensor] = {}

    def look(self, view: int, step: int, part: float, rng: np.random.Generator) -> Look:
        """View number `view`, attached to the leaves."""
        rgb, alpha = (self.leaves[name][view : view + 1].permute(0, 3, 1, 2) for name in ("rgb", "alpha"))
        normal = None
        if "normal" in self.leaves:
            normal = (self.leaves["normal"][view : view + 1].permute(0, 3, 1, 2) + alpha) / 2
        told = self.points.told(view).to(rgb)
        return Look(
            rgb=rgb, alpha=alpha, normal=normal, background=self.background, told=told, step=step, part=part, rng=rng
        )

    def rays(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """(ray_weights, t, start) of all views, or None for a representation without rays."""
        samples = self.render.samples
        return None if samples is None else (self.leaves["ray_weights"], samples.t, samples.start)

    def gradient(self, loss: Tensor) -> dict[str, Tensor]:
        """The loss's gradient in each part that it depends on; its graph is freed."""
        if not loss.requires_grad:
            return {}
        names = list(self.leaves)
        found = torch.autograd.grad(loss, [self.leaves[name] for name in names], allow_unused=True)
        return {name: part for name, part in zip(names, found, strict=True) if part is not None}

    def add(self, gradient: dict[str, Tensor], scale: float) -> None:
        """Gather `scale` times a gradient."""
        for name, part in gradient.items():
            if name in self.gradients:
                self.gradients[name].add_(part, alpha=scale)
            else:
                self.gradients[name] = part * scale

    def send(self) -> None:
        """One backward pass of everything gathered through the renderer; parts that are constants are left out."""
        names = [name for name in self.gradients if self.sources[name].requires_grad]
        tensors: list[Any] = [self.sources[name] for name in names]
        if tensors:
            torch.autograd.backward(tensors, [self.gradients[name] for name in names])


def picture_norm(gradient: dict[str, Tensor]) -> float:
    """Norm of a gradient over the pictures it concerns (colours, alphas, normals)."""
    parts = [float(part.norm()) for name, part in gradient.items() if name != "ray_weights"]
    return float(np.sqrt(np.sum(np.square(parts))))
