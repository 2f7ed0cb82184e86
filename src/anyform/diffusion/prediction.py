"""The three readings of a denoiser's output, and the only conversion between them.

With x_t = α x_0 + σ ε and α² + σ² = 1 (variance preserving), v = α ε − σ x_0 (Salimans and Ho, "Progressive
Distillation", Appendix D). Every reading is a sum a·value + b·x_t, whose coefficients are made in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anyform.diffusion.schedule import broadcast

Reading = Literal["eps", "x0", "v"]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a denoiser says about x_t (B, ...); read it as `.eps`, `.x0` or `.v`.

    alpha, sigma: √ᾱ_t and √(1 − ᾱ_t), float64 scalars or (B,). The reading it was made from comes back bit for bit.
    Where a coefficient does not exist (x0 from eps at α = 0, eps from x0 at σ = 0) the result is not finite.
    """

    reading: Reading
    value: Tensor
    x_t: Tensor
    alpha: Tensor
    sigma: Tensor

    @classmethod
    def from_eps(cls, value: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Prediction:
        """`value` is the predicted noise ε."""
        return cls("eps", value, x_t, _double(alpha), _double(sigma))

    @classmethod
    def from_x0(cls, value: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Prediction:
        """`value` is the predicted clean sample."""
        return cls("x0", value, x_t, _double(alpha), _double(sigma))

    @classmethod
    def from_v(cls, value: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Prediction:
        """`value` is the predicted velocity v = α ε − σ x_0."""
        return cls("v", value, x_t, _double(alpha), _double(sigma))

    @property
    def eps(self) -> Tensor:
        """The noise: x0 -> (x_t − α x_0) / σ; v -> σ x_t + α v."""
        if self.reading == "eps":
            return self.value
        if self.reading == "x0":
            return self._mix(-self.alpha / self.sigma, 1 / self.sigma)
        return self._mix(self.alpha, self.sigma)

    @property
    def x0(self) -> Tensor:
        """The clean sample: eps -> (x_t − σ ε) / α; v -> α x_t − σ v."""
        if self.reading == "x0":
            return self.value
        if self.reading == "eps":
            return self._mix(-self.sigma / self.alpha, 1 / self.alpha)
        return self._mix(-self.sigma, self.alpha)

    @property
    def v(self) -> Tensor:
        """The velocity: eps -> (ε − σ x_t) / α; x0 -> (α x_t − x_0) / σ, both by α² + σ² = 1."""
        if self.reading == "v":
            return self.value
        if self.reading == "eps":
            return self._mix(1 / self.alpha, -self.sigma / self.alpha)
        return self._mix(-1 / self.sigma, self.alpha / self.sigma)

    def _mix(self, of_value: Tensor, of_x_t: Tensor) -> Tensor:
        return broadcast(of_value, self.x_t) * self.value + broadcast(of_x_t, self.x_t) * self.x_t


def _double(coefficient: float | Tensor) -> Tensor:
    return torch.as_tensor(coefficient, dtype=torch.float64)
