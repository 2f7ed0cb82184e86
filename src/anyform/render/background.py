"""What stands behind an object: one colour for all, a colour a view, or a picture."""

from __future__ import annotations

import torch
from torch import Tensor

from anyform.errors import BadInput


def per_pixel(background: Tensor, views: int, height: int, width: int) -> Tensor:
    """(3,), (V, 3) or (V, H, W, 3) sRGB -> (V, H, W, 3)."""
    if background.shape == (views, 3):
        background = background[:, None, None]
    if background.shape not in ((3,), (views, 1, 1, 3), (views, height, width, 3)):
        raise BadInput(
            f"a background is (3,), ({views}, 3) or ({views}, {height}, {width}, 3), not {tuple(background.shape)}"
        )
    return background.expand(views, height, width, 3)


def augmented(views: int, probability: float = 0.5, plain: float = 1.0) -> Tensor:
    """(V, 3): with `probability` a random colour, else `plain` grey; from torch's global generator.

    Behind white alone, white floaters cost nothing and pruning carves holes: what is compared with a reference is
    composed over the same colours (`over`).
    """
    colors = torch.rand(views, 3)
    changed = torch.rand(views, 1) < probability
    return torch.where(changed, colors, torch.full_like(colors, plain))


def over(rgba: Tensor, background: Tensor) -> Tensor:
    """Pictures (V, H, W, 4) with straight alpha -> (V, H, W, 3) over a background as `per_pixel` takes it."""
    views, height, width, _ = rgba.shape
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + per_pixel(background.to(rgba), views, height, width) * (1 - alpha)
