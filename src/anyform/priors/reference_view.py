"""From a prompt to ranked reference views: which prior, which encoder, which embedding (specs/xbind.md §2).

The embedded foundation reads the embedded joint space. A Stable unCLIP folder reads embeddings of its own picture
encoder, or of ImageBind where its file is given: pictures and sentences as the head gives them, sound with its gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anyform.device import choose, is_out_of_memory
from anyform.diffusion.prior import Condition, Prior
from anyform.errors import BadInput, OutOfMemory
from anyform.priors import embedded, sd_unclip
from anyform.priors.denoiser import UNetDenoiser
from anyform.priors.imagine import Candidates, imagine
from anyform.priors.latent_codec import LatentCodec
from anyform.priors.memory import MemoryPlan, apply, parse_memory, plan
from anyform.types.progress import Progress, Report, silent
from anyform.types.prompt import Audio, Image, Prompt, Text

GUIDANCE = {"embedded": 3.0, "unclip": 10.0}
MAX_CANDIDATES = 64


class Encoder(Protocol):
    """What ranks candidates: prompts of several kinds to vectors (D,) of one space."""

    def embed(self, prompt: Prompt) -> Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class Imagination:
    """A 2D prior with the encoder whose embeddings it reads. feature: a prompt to (D,) as the prior's condition wants
    it; guidance_scale: where the user names none; device: where the networks run."""

    prior: Prior
    encoder: Encoder
    feature: Callable[[Prompt], Tensor]
    guidance_scale: float
    device: str = "cpu"

    def condition(self, parts: Sequence[tuple[Prompt, float]]) -> Condition:
        """The weighted mean of the parts' embeddings, and the words of the first text among them."""
        total = sum(weight for _, weight in parts)
        mixed = torch.stack([self.feature(prompt) * (weight / total) for prompt, weight in parts]).sum(0)
        if self.guidance_scale == GUIDANCE["embedded"]:
            mixed = functional.normalize(mixed, dim=-1)
        words = next((prompt.text for prompt, _ in parts if isinstance(prompt, Text)), "")
        generator = torch.Generator().manual_seed(0)  # one draw for every run: level 0 adds very little
        noise = torch.randn(1, len(mixed), generator=generator)
        return self.prior.condition(text=words, embedding=mixed[None], noise=noise)

    def similarity(self, parts: Sequence[tuple[Prompt, float]]) -> Callable[[NDArray[np.uint8]], float]:
        """A picture's cosine to the mix of the parts."""
        mixed = torch.stack([self._unit(prompt) * weight for prompt, weight in parts]).sum(0)
        target = functional.normalize(mixed, dim=0)

        def cosine(picture: NDArray[np.uint8]) -> float:
            if (picture == picture[0, 0]).all():
                return -1.0  # an empty picture is like nothing
            return float(self._unit(Image.from_rgba(picture)) @ target)

        return cosine

    def _unit(self, prompt: Prompt) -> Tensor:
        """(D,) of length 1: an encoder's own gains are no part of a cosine."""
        return functional.normalize(self.encoder.embed(prompt).reshape(-1), dim=0)

    def candidates(
        self,
        prompt: Prompt | Sequence[tuple[Prompt, float]],
        *,
        count: int = 4,
        seed: int = 0,
        num_inference_steps: int = 30,
        guidance_scale: float | None = None,
        report: Report = silent,
    ) -> Candidates:
        """`count` pictures of seeds seed, seed + 1, …, ranked. Raises BadInput for a count outside 1..64."""
        if not 1 <= count <= MAX_CANDIDATES:
            raise BadInput(f"{count} candidates were asked for: 1 to {MAX_CANDIDATES} are made at once")
        parts = list(prompt) if isinstance(prompt, Sequence) else [(prompt, 1.0)]
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        return imagine(
            self.prior,
            self.condition(parts),
            self.similarity(parts),
            [(seed + k) % 2**32 for k in range(count)],
            num_inference_steps=num_inference_steps,
            guidance_scale=scale,
            device=self.device,
            on_step=lambda done: report(Progress("imagining", done, num_inference_steps)),
        )


def load(
    prior: str | Path | None = None,
    *,
    encoder: str | Path | None = None,
    device: str = "cpu",
    limit: int | None = None,
) -> Imagination:
    """prior: None = the embedded foundation, a file of its recipe, or a Stable unCLIP folder. encoder: ImageBind's file
    for such a folder; None = the folder's own picture encoder. limit: bytes on the device, as `memory.plan` keeps them.

    Raises WeightsError, OutOfMemory.
    """
    path = None if prior is None else Path(prior)
    if path is None or not path.is_dir():
        if encoder is not None:
            raise BadInput("the embedded foundation reads the embedded encoder alone: leave --encoder out")
        return _fitted(_embedded(path), device, limit)
    return _fitted(_unclip(path, encoder), device, limit)


def _embedded(path: Path | None) -> Imagination:
    prior = embedded.foundation(path)
    from anyform.encoders import embedded as joint

    encoder = joint.load()
    return Imagination(prior, encoder, lambda prompt: encoder.embed(prompt).reshape(-1), GUIDANCE["embedded"])


def _unclip(folder: Path, encoder: str | Path | None) -> Imagination:
    prior = sd_unclip.load(folder)
    if encoder is None:
        from anyform.encoders import clip

        tower = clip.load(folder)
        return Imagination(prior, tower, tower.features, GUIDANCE["unclip"])
    from anyform.encoders import imagebind

    bind = imagebind.load(encoder)

    def feature(prompt: Prompt) -> Tensor:
        loud = isinstance(prompt, Audio)
        return (bind.embed(prompt) if loud else bind.features(prompt)).reshape(-1)

    return Imagination(prior, bind, feature, GUIDANCE["unclip"])


def _fitted(made: Imagination, device: str, limit: int | None) -> Imagination:
    """Its U-Net and autoencoder on the device, within the limit where there is one."""
    networks: list[torch.nn.Module] = []
    if isinstance(made.prior.denoiser, UNetDenoiser):
        networks.append(made.prior.denoiser.unet)
    if isinstance(made.prior.codec, LatentCodec):
        networks.append(made.prior.codec.vae)
    chosen = MemoryPlan(slice_attention=False, offload=False, needed=0)
    if limit is not None:
        chosen = plan(networks, limit)
    apply(networks, chosen, device)
    return Imagination(made.prior, made.encoder, made.feature, made.guidance_scale, "cpu" if chosen.offload else device)


def imagined(
    prompt: Prompt | Sequence[tuple[Prompt, float]],
    *,
    seed: int,
    candidates: int = 4,
    prior: str | Path | None = None,
    encoder: str | Path | None = None,
    device: str = "auto",
    memory: str | None = None,
    num_inference_steps: int = 30,
    report: Report = silent,
) -> Candidates:
    """Load, imagine, rank. memory: what the device may spend on the prior, such as "6GB". Raises as `load`."""
    limit = None if memory is None else parse_memory(memory)
    report(Progress("loading the prior"))
    try:
        made = load(prior, encoder=encoder, device=choose(device).name, limit=limit)
        return made.candidates(
            prompt, count=candidates, seed=seed, num_inference_steps=num_inference_steps, report=report
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "the pictures do not fit into memory: give --memory with what the device has, or fewer --candidates"
        ) from error
