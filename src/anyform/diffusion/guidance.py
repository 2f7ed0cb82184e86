"""Guidance: how two readings of a denoiser are combined while sampling. Linear, so eps, x0 and v all will do."""

from __future__ import annotations

import itertools
import math

from torch import Tensor


def classifier_free(conditional: Tensor, null: Tensor, scale: float) -> Tensor:
    """null + scale·(conditional − null) (Ho and Salimans, "Classifier-Free Guidance"); 1 = condition alone."""
    return null + scale * (conditional - null)


def consistency(conditional: Tensor, plain: Tensor, strength: float = 7.5) -> Tensor:
    """conditional + strength·(conditional − plain): away from what the denoiser says without the 3D-aware branch.

    Implements: TuneMV3D Eq. 4
    Differs: stated there for x_{t−1}; applied to eps it is the same for deterministic DDIM without thresholding, since
    x_{t−1} is then linear in eps, and it stays meaningful with thresholding (specs/tunemv3d.md §6.2).
    """
    return conditional + strength * (conditional - plain)


def consistency_steps(num_steps: int, fraction: float) -> list[bool]:
    """Which of `num_steps` steps use consistency guidance: floor(fraction · num_steps) of them, spread evenly."""
    reached = [math.floor(i * fraction + 1e-12) for i in range(num_steps + 1)]
    return [after > before for before, after in itertools.pairwise(reached)]
