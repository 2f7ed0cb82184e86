"""What a prior is made of: a condition, a denoiser, a codec, and the licence that comes with its weights.

A prior is assembled by a plain function of `anyform.priors`; nothing here knows which network is inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from anyform.diffusion.guidance import classifier_free
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition:
    """What an encoder makes of a prompt, as a denoiser reads it.

    tokens: (B, L, D) for attention, position and camera embeddings included. grid: (B, C, g, g, g) on the latent grid,
    axes x, y, z. labels: (B, P), projected and added to the time embedding. image_latent: (B, C, h, w), laid beside
    x_t along the channels. A part that a model does not use is None.
    """

    tokens: Float[Tensor, "b l d"] | None = None
    grid: Float[Tensor, "b c g g g"] | None = None
    labels: Float[Tensor, "b p"] | None = None
    image_latent: Float[Tensor, "b c h w"] | None = None

    def expanded(self, batch: int) -> Condition:
        """A condition of one sample for `batch` of them; one of `batch` samples is itself. Others: ValueError."""
        sizes = {len(part) for part in self._parts().values()}
        if sizes <= {batch}:
            return self
        if sizes != {1}:
            raise ValueError(f"a condition of {sorted(sizes)} samples cannot serve {batch}: give 1 or {batch}")
        return Condition(**{name: part.expand(batch, *part.shape[1:]) for name, part in self._parts().items()})

    def joined(self, other: Condition) -> Condition:
        """The samples of this one, then those of the other. Both have to use the same parts."""
        mine, theirs = self._parts(), other._parts()
        if mine.keys() != theirs.keys():
            raise ValueError(f"conditions of {sorted(mine)} and of {sorted(theirs)} cannot be joined")
        return Condition(**{name: torch.cat([mine[name], theirs[name]]) for name in mine})

    def to(self, place: torch.device | str) -> Condition:
        """The same on another device."""
        return Condition(**{name: part.to(place) for name, part in self._parts().items()})

    def _parts(self) -> dict[str, Tensor]:
        return {one.name: part for one in fields(self) if (part := getattr(self, one.name)) is not None}


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

    codec: images (B, 3, S, S) in [0, 1] with S = `image_size` <-> latents as the denoiser wants them. condition: the
    prior's own arguments -> Condition; null: a Condition -> the unconditional one of the same shapes.
    latent_shape: (C, h, w) of such a latent. licence: SPDX name or the licence's own name, as `anyform cite` prints it.
    """

    denoiser: Denoiser
    codec: Codec
    schedule: NoiseSchedule
    condition: Callable[..., Condition]
    null: Callable[[Condition], Condition]
    licence: str
    image_size: int
    latent_shape: tuple[int, int, int]


def guided(prior: Prior, condition: Condition, scale: float) -> Callable[[Tensor, int | Tensor], Prediction]:
    """`denoise(x_t, t)` under classifier-free guidance, conditional and null in one batch; scale 1 = condition alone.

    condition: of one sample or of as many as x_t. The result keeps the reading that the network predicts.
    """
    null = prior.null(condition)

    def denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        if scale == 1:
            return prior.denoiser(x_t, t, condition)
        count = len(x_t)
        twice = condition.expanded(count).joined(null.expanded(count))
        times = t.repeat(2) if isinstance(t, Tensor) and t.ndim else t
        said = prior.denoiser(torch.cat([x_t, x_t]), times, twice)
        conditional, unconditional = said.value.chunk(2)
        value = classifier_free(conditional, unconditional, scale)
        alpha, sigma = (part[:count] if part.ndim else part for part in (said.alpha, said.sigma))
        return Prediction(said.reading, value, x_t, alpha, sigma)

    return denoise
