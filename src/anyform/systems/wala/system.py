"""WaLa as a user meets it: prompt in, asset out; and its parts by name for researchers.

`load()` gives the embedded model, `load(weights=…)` a released checkpoint; both are a `Wala`, which differs only in its
parts: codec, network, conditions. Sampling is the ancestral chain of specs/wala.md §6.2 for both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyform.diffusion.prior import Condition
from anyform.diffusion.samplers import Variance, ancestral, spaced_timesteps
from anyform.errors import BadInput, GateFailed
from anyform.faults import fault_point
from anyform.geometry.asset import Asset, Provenance, Source, WeightsRecord
from anyform.systems.wala import finishing
from anyform.systems.wala.codec import ShapeCodec
from anyform.systems.wala.conditioning import EmbeddedConditions, Read
from anyform.systems.wala.config import WalaSettings
from anyform.systems.wala.denoiser import UVitDenoiser
from anyform.systems.wala.retrieval import FAR_TEXT, Neighbour
from anyform.systems.wala.vqvae import VQVAE
from anyform.types.progress import Progress, Report, silent
from anyform.types.prompt import Points, Prompt, Text, Voxels, describe
from anyform.weights import RELEASED

CITATION = (
    "Sanghi et al., Wavelet Latent Diffusion (WaLa): Billion-Parameter 3D Generative Model with Compact Wavelet "
    "Encodings, 2024"
)
CANDIDATES = 6  # retrieved shapes that seeds choose among
SHARPNESS = 40.0  # of that choice: probability ∝ exp(sharpness · cosine)

GUIDANCE = 2.0  # of the embedded model, for every kind of prompt; fixed on val (docs/results.md)


@runtime_checkable
class Conditions(Protocol):
    """What turns prompts into conditions."""

    def condition(self, prompt: Any) -> Condition: ...

    def null_condition(self) -> Condition: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """How a released model is to be sampled where the settings leave it open (specs/wala.md §6.2)."""

    guidance_scale: float = 1.5
    num_inference_steps: int = 5
    variance: Variance = "fixed_small"


class Wala:
    """One set of WaLa weights, ready to generate."""

    def __init__(
        self,
        codec: ShapeCodec,
        denoiser: UVitDenoiser,
        conditions: Conditions,
        settings: WalaSettings,
        weights: tuple[WeightsRecord, ...],
        accepts: tuple[type, ...],
    ) -> None:
        self.codec, self.denoiser, self.conditions = codec, denoiser, conditions
        self.settings, self.weights, self.accepts = settings, weights, accepts
        self.recommended = Recommended()

    @property
    def vqvae(self) -> VQVAE:
        """Encoder, codebook and decoder on packed coefficients."""
        return self.codec.vqvae

    def condition(self, prompt: Prompt) -> Condition:
        """The prompt as the network reads it; `.tokens` with position and camera embeddings included."""
        return self.conditions.condition(prompt)

    def null_condition(self) -> Condition:
        """The condition of no prompt."""
        return self.conditions.null_condition()

    @torch.inference_mode()
    def sample(
        self,
        condition: Condition,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        seed: int,
        variance: Variance = "fixed_small",
        start: Tensor | None = None,
        variation: float = 1.0,
        report: Report = silent,
    ) -> Tensor:
        """Latents (B, C, g, g, g) before quantisation, as the network sees them.

        Noise by `torch.randn`: x_T first, then one draw a step, the last included. start: clean latents to begin from,
        noised to `variation` of the chain (0 = as they are, 1 = pure noise) before denoising.
        """
        config, device = self.denoiser.network.config, self.denoiser.network.head.weight.device
        generator = torch.Generator().manual_seed(seed)
        tensor = condition.tokens if condition.tokens is not None else condition.grid
        count = 1 if tensor is None else len(tensor)
        noise = torch.randn(count, config.latent_channels, *(config.grid,) * 3, generator=generator)
        noise = noise.to(device)  # drawn on the CPU, so that a seed means the same everywhere
        timesteps, x = spaced_timesteps(num_inference_steps), noise
        if start is not None and variation < 1:
            timesteps = shortened(timesteps, variation)
            if len(timesteps) < 2:
                return start
            x = self.denoiser.schedule.add_noise(start, noise, timesteps[-1])
        denoise = self.denoiser.guided(condition, self.null_condition(), timesteps, guidance_scale)
        total = len(timesteps)

        def guarded(x_t: Tensor, t: int) -> Any:
            step = timesteps[::-1].index(t)
            prediction = denoise(x_t * float("nan") if fault_point("denoise", step) else x_t, t)
            if not torch.isfinite(prediction.value).all():
                raise GateFailed(f"the sampler made NaN or infinity in step {step} of {total}; try another seed")
            return prediction

        return ancestral(
            guarded, x, self.denoiser.schedule, timesteps, generator=generator, variance=variance,
            on_step=lambda done: report(Progress("denoise", done, total)),
        )  # fmt: skip

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> NDArray[np.float32]:
        """Latents of `sample` -> (B, N, N, N) distances in world units, negative inside."""
        spoil = fault_point("decode")
        sdf = self.codec.decode(latent).float().cpu().numpy()
        return sdf * np.float32("nan") if spoil else sdf

    def generate_sdf(self, prompt: Prompt, *, seed: int, report: Report = silent) -> NDArray[np.float32]:
        """The prompt's distance field (N, N, N) in world units: what `generate` meshes."""
        return self.sdf_of(self.condition(prompt), seed=seed, report=report)

    def sdf_of(self, condition: Condition, *, seed: int, report: Report = silent) -> NDArray[np.float32]:
        """The distance field of a condition of one sample, as the settings or the model's authors recommend."""
        best, scale = self.recommended, self.settings.guidance_scale
        latent = self.sample(
            condition,
            num_inference_steps=self.settings.num_inference_steps or best.num_inference_steps,
            guidance_scale=best.guidance_scale if scale is None else scale,
            seed=seed,
            variance=best.variance,
            report=report,
        )
        return self.decode(latent)[0]

    def generate(self, prompt: Prompt, *, seed: int, report: Report = silent) -> Asset:
        """A mesh of the prompt; without colours, since WaLa makes shapes, unless `settings.paint` asks for ours."""
        sdf = self.generate_sdf(prompt, seed=seed, report=report)
        mesh, notes = finishing.shape(sdf, self.settings, self.codec.config.first, report)
        if self.settings.paint:  # only when asked: the colours would be ours, not the released model's
            from anyform.systems.wala import paint

            mesh, told = finishing.coloured(mesh, paint.paint(sdf), self.settings, report)
            notes = (*notes, *told, "the colours are anyform's own, not WaLa's")
        return Asset(mesh, self.provenance(prompt, seed, notes=notes))

    def provenance(
        self, prompt: Prompt, seed: int, sources: tuple[Source, ...] = (), notes: tuple[str, ...] = ()
    ) -> Provenance:
        """How to make the same asset again."""
        from anyform import __version__

        return Provenance(
            system="wala",
            version=__version__,
            seed=seed,
            quality=self.settings.quality,
            settings=asdict(self.settings),
            prompt=describe(prompt),
            weights=self.weights,
            sources=sources,
            citations=(CITATION,),
            notes=notes,
        )


class EmbeddedWala(Wala):
    """The model that comes with the package: retrieval-initialised sampling, and colours of our own."""

    conditions: EmbeddedConditions

    def plan(self, read: Read, seed: int) -> Neighbour | None:
        """The retrieved shape this seed begins from; None for geometry prompts and `from_scratch`."""
        found = [] if self.settings.from_scratch else self.conditions.neighbours(read, CANDIDATES)
        if not found:
            return None
        similarity = np.array([neighbour.similarity for neighbour in found])
        chance = np.exp(SHARPNESS * (similarity - similarity.max()))
        return found[int(np.random.default_rng(seed).choice(len(found), p=chance / chance.sum()))]

    def generate_sdf(self, prompt: Prompt, *, seed: int, report: Report = silent) -> NDArray[np.float32]:
        """The prompt's distance field (64, 64, 64), cell-centred, world units."""
        read = self.conditions.read(prompt)
        return self.decode(self._sample(read, self.plan(read, seed), seed, report))[0]

    def _sample(self, read: Read, neighbour: Neighbour | None, seed: int, report: Report) -> Tensor:
        settings = self.settings
        condition = self.conditions.encode(self.conditions.features(read, neighbour))
        start, variation = None, 1.0
        if neighbour is not None:
            start, variation = self.conditions.latent(neighbour), settings.variation
        elif read.lifted is not None and not settings.from_scratch:
            start, variation = self.mean(condition), settings.variation / 2
        return self.sample(
            condition,
            num_inference_steps=settings.steps,
            guidance_scale=GUIDANCE if settings.guidance_scale is None else settings.guidance_scale,
            seed=seed,
            start=start,
            variation=variation,
            report=report,
        )

    @torch.inference_mode()
    def mean(self, condition: Condition) -> Tensor:
        """The clean latent expected under the condition alone: one network call on an empty input at the last timestep.

        On prompts that carry geometry it was as near to the truth as any sample (docs/results.md), so sampling begins
        there with half the variation.
        """
        config = self.denoiser.network.config
        count = len(condition.grid) if condition.grid is not None else 1
        empty = torch.zeros(count, config.latent_channels, *(config.grid,) * 3)
        return self.denoiser(empty, self.denoiser.schedule.num_timesteps - 1, condition).x0

    def decode(self, latent: Tensor) -> NDArray[np.float32]:
        """Standardised latents -> distances; the codec knows the scale."""
        return super().decode(self.codec.destandardise(latent))

    def generate(self, prompt: Prompt, *, seed: int, report: Report = silent) -> Asset:
        """A coloured mesh of the prompt, with the shape it started from in its provenance."""
        report(Progress("read the prompt"))
        read = self.conditions.read(prompt)
        neighbour = self.plan(read, seed)
        sdf = self.decode(self._sample(read, neighbour, seed, report))[0]
        mesh, notes = finishing.shape(sdf, self.settings, self.codec.config.first, report)
        sources, notes = (), (*self._warnings(read), *notes)
        if self.settings.paint is not False:
            colours = self._colours(prompt, read, neighbour, sdf, mesh)
            mesh, told = finishing.coloured(mesh, colours, self.settings, report)
            notes = (*notes, *told)
        if neighbour is not None:
            credit = self.conditions.index.owners[neighbour.row]
            share = round(1 - self.settings.variation, 3)
            sources = (Source(credit.title, credit.author, credit.licence, credit.id, share),)
        return Asset(mesh, self.provenance(prompt, seed, sources, notes))

    def _warnings(self, read: Read) -> tuple[str, ...]:
        if read.text is None:
            return ()
        nearest = self.conditions.index.near_text(read.text, 1)[0]
        if nearest.similarity >= FAR_TEXT:
            return ()
        name = self.conditions.index.owners[nearest.row].caption
        return (f"this is far from everything the embedded model knows; nearest: {name}",)

    def _colours(
        self, prompt: Prompt, read: Read, neighbour: Neighbour | None, sdf: NDArray[np.float32], mesh: Any
    ) -> finishing.Colors:
        """Our paint; colours that a prompt brings along win."""
        from anyform.systems.wala import image_colours, paint

        reference = None if neighbour is None else self.conditions.index.colours(neighbour)
        if isinstance(prompt, Points) and prompt.colors is not None:
            from anyform.systems.wala.conditioning import box_points

            reference = paint.splat(box_points(prompt.points), prompt.colors / 255)
        if isinstance(prompt, Voxels) and prompt.colors is not None:
            cells = np.argwhere(prompt.occupancy)
            size = prompt.occupancy.shape[0]
            reference = paint.splat((cells + 0.5) * 2 / size - 1, prompt.colors[prompt.occupancy] / 255)
        if read.picture is not None:
            reference = image_colours.draped(read.picture, mesh)
            picture, camera, overlap = image_colours.fit_view(read.picture, mesh)
            if overlap > 0.6:
                return image_colours.paint_from_images(sdf, picture, camera, mesh, reference)
        return paint.paint(sdf, read.text if isinstance(prompt, Text) else None, reference)


def shortened(timesteps: list[int], variation: float) -> list[int]:
    """The same number of steps over the first `variation` of the chain, so that few steps stay fine ones."""
    last = variation * timesteps[-1]
    return sorted({round(t * last / timesteps[-1]) for t in timesteps})


def load(weights: str | Path | None = None, device: str = "auto", settings: WalaSettings | None = None) -> Wala:
    """WaLa with embedded weights (None), a folder that `anyform train wala` wrote, or a released checkpoint.

    Raises WeightsError where the weights are missing, damaged or of another model, LicenceNotAccepted where a released
    licence was not accepted, DeviceUnavailable for a device that is not there.
    """
    from anyform.systems.wala import loading, trained

    settings = settings or WalaSettings()
    if weights is None:
        return loading.embedded(settings)
    if trained.is_trained(Path(weights)):
        return loading.of_run(Path(weights), settings)
    if settings.from_scratch:
        raise BadInput("--from-scratch concerns the embedded model: released checkpoints always start from noise")
    name = str(weights)
    if name in RELEASED and RELEASED[name].needs:
        return loading.released_text(name, device, settings)
    return loading.released(weights, device, settings)
