"""The embedded priors: `foundation` (text and joint embedding to picture) and `view` (a picture from another side).

Small twins of SD-unCLIP and Zero-1-to-3 (specs/embedded.md §4). Both are the U-Net of `nn/unet2d.py` on 64² pictures,
folded exactly to 32×32×12; v-prediction under a cosine schedule with zero terminal signal; class labels as in unCLIP,
from the embedded joint space instead of CLIP. `runs/embedded_foundation.py` and `runs/embedded_view.py` train them.

Joint embeddings are unit vectors here and in every argument; inside, times √D, so that an entry is about 1.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.diffusion.prior import Condition, Prior
from anyform.diffusion.schedule import NoiseSchedule, cosine, zero_terminal
from anyform.errors import BadInput, WeightsError
from anyform.nn.int8 import dequantise
from anyform.nn.unet2d import UNet2D, UNet2DConfig
from anyform.priors.arrays import MAX_TOKENS
from anyform.priors.denoiser import UNetDenoiser
from anyform.priors.sd_unclip import class_labels
from anyform.weights import EMBEDDED, embedded_file, read_safetensors

POSE = 4  # numbers of `relative_camera`
RECIPES = {"foundation": "runs/embedded_foundation.py", "view": "runs/embedded_view.py"}

EmbedPicture = Callable[[Tensor], Tensor]  # (B, 3, H, W) in [0, 1] on white -> unit vectors (B, D)
ReadText = Callable[[str], Tensor]  # a sentence -> token states (L, text_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorConfig:
    """Sizes. Defaults: the shipped networks, 11.1 M parameters each. view: one more picture and pose token go in."""

    view: bool = False
    image_size: int = 64
    fold: int = 2  # pictures are folded by this into channels
    widths: tuple[int, ...] = (64, 128, 192)
    attends: tuple[bool, ...] = (False, True, True)
    heads: tuple[int, ...] = (2, 4, 6)
    groups: int = 8
    token_width: int = 128
    text_width: int = 384
    joint: int = 256

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a folded picture."""
        return 3 * self.fold**2, self.image_size // self.fold, self.image_size // self.fold

    def unet(self) -> UNet2DConfig:
        """The network's own sizes."""
        channels = 3 * self.fold**2
        return UNet2DConfig(
            channels_in=channels * (1 + self.view),
            channels_out=channels,
            widths=self.widths,
            attends=self.attends,
            layers=1,
            heads=self.heads,
            groups=self.groups,
            token_width=self.token_width,
            labels=2 * self.joint,
        )

    @classmethod
    def from_json(cls, text: str) -> PriorConfig:
        """From the metadata of a weights file. Raises WeightsError where it is no such configuration."""
        try:
            values: dict[str, Any] = json.loads(text)
            lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
            return cls(**{**values, **lists})
        except (ValueError, TypeError, AttributeError) as error:
            raise WeightsError(f"the weights carry no valid configuration of an embedded prior: {error}") from error

    def to_json(self) -> str:
        """For the metadata of a weights file."""
        return json.dumps(asdict(self))


class PriorNetwork(nn.Module):
    """A U-Net with what makes its tokens: one Linear for word pieces and, for `view`, one for reference and pose."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.text = nn.Linear(config.text_width, config.token_width)
        self.pose = nn.Linear(config.joint + POSE, config.token_width) if config.view else None
        self.unet = UNet2D(config.unet())

    def tokens(self, states: Tensor, pose: Tensor | None = None) -> Float[Tensor, "b l d"]:
        """Token states (B, 16, text_width), zero beyond the sentence, and pose (B, joint + 4) -> (B, 16 or 17, D)."""
        tokens = self.text(states)
        if self.pose is None or pose is None:
            return tokens
        return torch.cat([tokens, self.pose(pose)[:, None]], 1)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, labels: Tensor) -> Tensor:
        """x (B, 12 or 24, h, w), t (B,), tokens of `tokens`, labels (B, 2·joint) -> v (B, 12, h, w)."""
        return self.unet(x, t, tokens, labels)


@dataclass(frozen=True, slots=True)
class FoldCodec:
    """Pictures (B, 3, S, S) in [0, 1] <-> (B, 3·fold², S/fold, S/fold) in [−1, 1]: exact, without parameters."""

    fold: int

    def encode(self, sample: Tensor) -> Tensor:
        """Pixels to channels."""
        return functional.pixel_unshuffle(sample * 2 - 1, self.fold)

    def decode(self, latent: Tensor) -> Tensor:
        """Channels to pixels, cut to [0, 1]."""
        return ((functional.pixel_shuffle(latent, self.fold) + 1) / 2).clamp(0, 1)


def schedule() -> NoiseSchedule:
    """Cosine over 1,000 timesteps, the last one pure noise."""
    return zero_terminal(cosine(1000))


def foundation(weights: str | Path | None = None, *, device: str = "cpu", read_text: ReadText | None = None) -> Prior:
    """Text and joint embeddings to pictures. `condition(text="", embedding=None, noise_level=0, noise=None)`.

    weights: a file of the recipe; None = the shipped one. embedding: (D,) or (1, D) unit vector, None = zero labels.
    read_text: for networks of another text width than MiniLM's, in tests. Raises WeightsError.
    """
    network = load_network("foundation", weights).to(device)
    if network.config.view:
        raise WeightsError("these weights are of the view prior: load them with priors.embedded.view")
    return foundation_of(network, read_text or _read_text)


def foundation_of(network: PriorNetwork, read_text: ReadText) -> Prior:
    """The prior of a network that is already there, as the recipe evaluates it."""
    config, noise_schedule = network.config, schedule()

    def condition(
        text: str = "", embedding: Tensor | None = None, noise_level: int = 0, noise: Tensor | None = None
    ) -> Condition:
        tokens = network.tokens(padded(read_text(text)).to(network.text.weight)[None])
        return Condition(tokens=tokens, labels=_labels(config, embedding, noise_level, noise).to(tokens))

    return Prior(
        denoiser=UNetDenoiser(network.unet, noise_schedule, "v"),
        codec=FoldCodec(config.fold),
        schedule=noise_schedule,
        condition=condition,
        null=lambda condition: _null(condition, network.tokens(padded(read_text("")).to(network.text.weight)[None])),
        licence="Apache-2.0",
        image_size=config.image_size,
        latent_shape=config.latent_shape,
    )


def view(
    weights: str | Path | None = None,
    *,
    device: str = "cpu",
    embed: EmbedPicture | None = None,
    read_text: ReadText | None = None,
) -> Prior:
    """The same object from another side. `condition(image (1, 3, H, W) in [0, 1] on white, camera (B, 4))`.

    camera: `relative_camera`. embed: pictures to the joint space; None = the shipped encoder. Raises WeightsError.
    """
    network = load_network("view", weights).to(device)
    if not network.config.view:
        raise WeightsError("these weights are of the foundation prior: load them with priors.embedded.foundation")
    return view_of(network, embed or _embed_picture, read_text or _read_text)


def view_of(network: PriorNetwork, embed: EmbedPicture, read_text: ReadText) -> Prior:
    """The prior of a network that is already there."""
    config, noise_schedule = network.config, schedule()
    codec = FoldCodec(config.fold)
    silent = padded(read_text(""))

    def condition(image: Tensor, camera: Tensor) -> Condition:
        place, count = network.text.weight, len(camera)
        unit = embed(image).to(place)
        labels = _labels(config, unit, 0, torch.zeros_like(unit)).to(place)
        resized = functional.interpolate(image.to(place), (config.image_size,) * 2, mode="area")
        pose = torch.cat([unit.expand(count, -1) * config.joint**0.5, camera.to(place)], 1)
        tokens = network.tokens(silent.to(place).expand(count, -1, -1), pose)
        made = Condition(labels=labels, image_latent=codec.encode(resized)).expanded(count)
        return dataclasses.replace(made, tokens=tokens)

    def null(condition: Condition) -> Condition:
        tokens = network.tokens(silent.to(network.text.weight)[None])
        return _null(condition, torch.cat([tokens, torch.zeros_like(tokens[:, :1])], 1))

    return Prior(
        denoiser=UNetDenoiser(network.unet, noise_schedule, "v"),
        codec=codec,
        schedule=noise_schedule,
        condition=condition,
        null=null,
        licence="Apache-2.0",
        image_size=config.image_size,
        latent_shape=config.latent_shape,
    )


def load_network(name: str, weights: str | Path | None = None) -> PriorNetwork:
    """The network of a weights file, frozen; int8 matrices become fp32. Raises WeightsError, also while the shipped
    file of that name does not exist."""
    if weights is None and name not in EMBEDDED:
        raise WeightsError(f"the embedded {name} is not trained yet: train it with {RECIPES[name]} and give its file")
    stored, metadata = read_safetensors(embedded_file(name) if weights is None else Path(weights))
    network = PriorNetwork(PriorConfig.from_json(metadata.get("config", "")))
    try:
        network.load_state_dict(dequantise(stored))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise WeightsError(f"the weights do not fit their own configuration: {reason}") from error
    return network.eval().requires_grad_(False)


def padded(states: Tensor) -> Float[Tensor, "l d"]:
    """Token states (L, D) -> (16, D): cut, or zeros after them."""
    return functional.pad(states[:MAX_TOKENS], (0, 0, 0, MAX_TOKENS - min(MAX_TOKENS, len(states))))


def _labels(config: PriorConfig, embedding: Tensor | None, noise_level: int, noise: Tensor | None) -> Tensor:
    """Class labels (B, 2·joint) of unit vectors; zeros without one. Raises BadInput for another width."""
    if embedding is None:
        return torch.zeros(1, 2 * config.joint)
    unit = embedding.reshape(-1, embedding.shape[-1]).float()
    if unit.shape[1] != config.joint:
        raise BadInput(f"the joint embedding has {unit.shape[1]} dimensions, this prior reads {config.joint}")
    return class_labels(unit * config.joint**0.5, noise_level, noise=noise)


def _null(condition: Condition, tokens: Tensor) -> Condition:
    """Zeros for labels and reference, the given tokens for all samples."""
    assert condition.tokens is not None
    return Condition(
        tokens=tokens.expand(len(condition.tokens), -1, -1).to(condition.tokens),
        labels=None if condition.labels is None else torch.zeros_like(condition.labels),
        image_latent=None if condition.image_latent is None else torch.zeros_like(condition.image_latent),
    )


def _read_text(text: str) -> Tensor:
    from anyform.encoders import embedded

    return embedded.load().text([text])[1][0]


def _embed_picture(pictures: Tensor) -> Tensor:
    from anyform.encoders import embedded
    from anyform.types.prompt import Image

    encoder = embedded.load()
    arrays = pictures.detach().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return torch.stack([encoder.embed(Image.from_rgba(array)).reshape(-1) for array in arrays])
