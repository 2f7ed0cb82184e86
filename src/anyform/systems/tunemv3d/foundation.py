"""What TuneMV3D needs of a frozen 2D model: its space, its text, its prediction, and a trainable copy of its encoder.

A foundation is never changed. The control branch reaches it through residuals alone, which are added to what its
encoder says, in the encoder's own order. `foundation_unet.py` adapts our own U-Net (the embedded foundation, Stable
Diffusion 1), `foundation_diffusers.py` every diffusers U-Net (DeepFloyd-IF, Karlo, SDXL) and isotropic transformers.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyform.diffusion.prediction import Prediction, Reading
from anyform.diffusion.prior import Codec
from anyform.diffusion.schedule import NoiseSchedule
from anyform.errors import WeightsError
from anyform.geometry.asset import WeightsRecord


@dataclass(frozen=True, slots=True, eq=False)
class Caption:
    """A text as a foundation reads it: tokens (B, L, D), and vectors (B, ...) by the names its network takes."""

    tokens: Tensor
    vectors: Mapping[str, Tensor] = field(default_factory=dict)

    def repeated(self, count: int) -> Caption:
        """One caption (B = 1) for `count` views."""
        vectors = {key: value.expand(count, *value.shape[1:]) for key, value in self.vectors.items()}
        return Caption(self.tokens.expand(count, -1, -1), vectors)

    def rows(self, index: Tensor) -> Caption:
        """The captions at these places of the batch."""
        return Caption(self.tokens[index], {key: value[index] for key, value in self.vectors.items()})

    def to(self, device: torch.device | str) -> Caption:
        """The same on another device."""
        return Caption(self.tokens.to(device), {key: value.to(device) for key, value in self.vectors.items()})


def joined(captions: Sequence[Caption]) -> Caption:
    """Captions one after the other along the batch."""
    names = captions[0].vectors
    vectors = {name: torch.cat([caption.vectors[name] for caption in captions]) for name in names}
    return Caption(torch.cat([caption.tokens for caption in captions]), vectors)


Hook = Callable[[int, Tensor], Tensor]


class Trunk(nn.Module, ABC):
    """A trainable copy of a foundation's encoder.

    `hook(level, x)` is called with the feature map (B, C, h, w) at the end of each level (the middle is the last) and
    its answer goes on; this is where pairwise attention sits.
    """

    @abstractmethod
    def stem(self, x: Tensor) -> Tensor:
        """The network's input (B, C, s, s) -> the first feature map, to which the light encoder's is added."""

    @abstractmethod
    def forward(self, start: Tensor, t: Tensor, caption: Caption, hook: Hook) -> list[Tensor]:
        """From the first feature map to every residual's source, in the order in which the foundation takes them."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen network."""

    def predict(self, x: Tensor, t: Tensor, caption: Caption, residuals: Sequence[Tensor] | None) -> Tensor:
        """(B, C, s, s), timesteps (B,) -> what the network says, in its own prediction type, learned variance too."""
        ...

    def trunk(self) -> Trunk:
        """A fresh trainable copy of the encoder; the network itself stays as it is."""
        ...

    def config(self) -> Mapping[str, Any]:
        """What decides the network's structure, as JSON."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundationSpec:
    """What a branch has to know, and record, about the model it was trained for."""

    id: str  # hub id, or "anyform/foundation"
    revision: str  # of the weights: a commit, or the start of their SHA-256
    kind: Literal["pixel", "latent"]
    channels: int  # of x_t
    size: int  # edge of x_t
    picture_size: int  # edge of the decoded pictures
    packing: int = 1  # the network sees x_t with blocks of packing² samples folded into channels (exact)
    reading: Reading = "eps"
    token_width: int
    background: tuple[float, ...]  # white in the space of x_t, one number a channel
    guidance_scale: float  # classifier-free, where the user names none
    thresholding: float | None = None  # quantile of dynamic thresholding of x_0; None = no thresholding
    licence: str
    commercial_use: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Foundation:
    """A frozen 2D model, ready: backbone, schedule, codec and text encoder."""

    spec: FoundationSpec
    backbone: Backbone
    schedule: NoiseSchedule
    codec: Codec  # pictures (B, 3, S, S) in [0, 1] <-> samples in the space of x_0
    captions: Callable[[Sequence[str]], Caption]  # "" is the null text
    records: tuple[WeightsRecord, ...] = ()

    def predict(
        self, x_t: Tensor, t: Tensor, caption: Caption, residuals: Sequence[Tensor] | None = None
    ) -> Prediction:
        """What the model says about x_t (B, C, s, s) at t (B,), under residuals of the control branch or without.

        A learned variance (twice the channels, as DeepFloyd-IF and Karlo give) is cut off.
        """
        said = self.backbone.predict(fold(x_t, self.spec.packing), t, caption, residuals)
        channels = self.spec.channels * self.spec.packing**2
        value = unfold(said[:, :channels], self.spec.packing)
        alpha, sigma = self.schedule.alpha_sigma(t)
        return Prediction(self.spec.reading, value, x_t, alpha, sigma)

    def fingerprint(self) -> dict[str, str]:
        """What a branch records: id, revision and hash of the network's structure and spaces."""
        spec = asdict(self.spec)
        shape = {key: spec[key] for key in ("kind", "channels", "size", "packing", "reading", "token_width")}
        text = json.dumps([shape, dict(self.backbone.config())], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {"id": self.spec.id, "revision": self.spec.revision, "config_sha256": digest}

    def background(self) -> Tensor:
        """(C,): white in the space of x_0."""
        return torch.tensor(self.spec.background)


def require_same(recorded: Mapping[str, str], foundation: Foundation) -> None:
    """Raises WeightsError unless a branch was trained for this very foundation."""
    own = foundation.fingerprint()
    for key, words in (("id", "model"), ("config_sha256", "structure"), ("revision", "revision")):
        if recorded.get(key) != own[key]:
            raise WeightsError(
                f"this branch was trained for the foundation {recorded.get('id')!r}"
                f" (revision {str(recorded.get('revision'))[:12]}), not for {own['id']!r}"
                f" (revision {own['revision'][:12]}): their {words} differs; give the foundation it belongs to"
            )


def fold(x: Tensor, packing: int) -> Tensor:
    """(B, C, s, s) -> (B, C packing², s/packing, s/packing)."""
    return x if packing == 1 else functional.pixel_unshuffle(x, packing)


def unfold(x: Tensor, packing: int) -> Tensor:
    """Inverse of `fold`."""
    return x if packing == 1 else functional.pixel_shuffle(x, packing)


class PixelCodec:
    """Pictures in [0, 1] <-> [-1, 1]."""

    def encode(self, sample: Tensor) -> Tensor:
        """(B, 3, S, S) -> the same shape."""
        return sample * 2 - 1

    def decode(self, latent: Tensor) -> Tensor:
        """Inverse of `encode`, clipped to [0, 1]."""
        return ((latent + 1) / 2).clamp(0, 1)
