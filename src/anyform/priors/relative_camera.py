"""Where a view lies as seen from the reference view, in the four numbers of Zero-1-to-3 (Liu et al., section 3.2).

(ε_ref − ε, sin(φ − φ_ref), cos(φ − φ_ref), Δd). The first is a difference of polar angles, so a higher camera gives a
negative one. Angles and the sign of azimuth are those of `types/camera.py`: the map from z up to ours keeps both.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

TRAINED_DISTANCE = 1.85  # middle of the distances 1.5 to 2.2 of Zero-1-to-3's renders
REACH = 0.7  # largest change of distance in those renders


def relative_camera(
    elevation: float | Tensor,
    azimuth: float | Tensor,
    distance: float | Tensor,
    fov_y: float | Tensor,
    reference: tuple[float, float, float, float] = (0.0, 0.0, 2.5, math.radians(40)),
    *,
    stable: bool = False,
) -> Float[Tensor, "b 4"]:
    """Cameras looking at the origin -> (B, 4) float32. reference: its elevation, azimuth, distance, fov_y; radians.

    Δd is the change of distance that gives the same framing at the reference's field of view, in the units of the
    training renders and within their range: clamp(1.85 · (d_eq / d_ref − 1), −0.7, 0.7), d_eq = d · tan(fov/2) /
    tan(fov_ref/2) (specs/xbind.md §3.5; for d_ref = 2.5 this is 0.74 · (d_eq − d_ref)). stable: Stable Zero123, whose
    fourth number is the reference's polar angle, π/2 − ε_ref, instead.
    """
    parts = [torch.as_tensor(part, dtype=torch.float64).reshape(-1) for part in (elevation, azimuth, distance, fov_y)]
    higher, around, away, angle = torch.broadcast_tensors(*parts)
    framed = away * torch.tan(angle / 2) / math.tan(reference[3] / 2)
    change = (TRAINED_DISTANCE * (framed / reference[2] - 1)).clamp(-REACH, REACH)
    if stable:
        change = torch.full_like(change, math.pi / 2 - reference[0])
    turn = around - reference[1]
    return torch.stack([reference[0] - higher, turn.sin(), turn.cos(), change], -1).float()
