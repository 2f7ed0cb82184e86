"""What a prior is made of: a condition, a denoiser, a codec, and the licence that comes with its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from anyform.diffusion.prediction import Prediction
from anyform.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition:
    """What an encoder makes of a prompt, as a denoiser reads it.

    tokens: (B, L, D) for attention, position and camera embeddings included. grid: (B, C, g, g, g) on the latent grid,
    axes x, y, z. A part that a model does not use is None.
    """

    tokens: Float[Tensor, "b l d"] | None = None
    grid: Float[Tensor, "b c g g g"] | None = None


@runtime_checkable
class Denoiser(Protocol):
    """A network with its schedule: x_t (B, ...), t one timestep or (B,) -> what it says about x_t."""

    def __call__(self, x_t: Tensor, t: int | Tensor, condition: Condition) -> Prediction: ...


@runtime_checkable
class Codec(Protocol):
    """Between samples as people see them and the latents that the denoiser works on, scaled as it expects them."""

    def encode(self, sample: Tensor) -> Tensor: ...

    def decode(self, latent: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prior:
    """A frozen generative model, assembled by a plain function of `anyform.priors`.

    condition: the prior's own arguments -> Condition; null: a Condition -> the unconditional one of the same shapes.
    licence: SPDX name or the licence's own name, as `anyform cite` prints it.
    """

    denoiser: Denoiser
    codec: Codec
    schedule: NoiseSchedule
    condition: Callable[..., Condition]
    null: Callable[[Condition], Condition]
    licence: str
