"""The losses of the branch, and one training step on objects with known views."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anyform.data.multiview import ViewArrays
from anyform.evaluation.metrics import head_noun
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundation import Caption, Foundation
from anyform.systems.tunemv3d.latent_neus import Rig, Seen


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchRecipe:
    """Batches and weights. S: the supplement; the rest is specs/tunemv3d.md §5."""

    batch: int = 1  # objects a step; S B.3: 4
    weight_denoise: float = 1.0  # λ1, S B.3
    weight_render: float = 1.0  # λ2, S B.3
    weight_mask: float = 0.1
    weight_eikonal: float = 0.1
    weight_sparse: float = 0.02
    drop_text: float = 0.1
    drop_render: float = 0.1  # P 3.3: the views without each other, for consistency guidance
    references: float = 0.25  # share of objects with clean views among their inputs
    max_references: int = 3
    held_out: float = 0.1  # share of the nouns whose objects are never shown to the branch


def paper_recipe() -> BranchRecipe:
    """The two published terms alone, batches of 4."""
    return BranchRecipe(batch=4, weight_mask=0.0, weight_eikonal=0.0, weight_sparse=0.0)


def denoising_loss(said: Tensor, target: Tensor, noisy: Tensor) -> Tensor:
    """Mean over the noisy views (V,) bool of the squared error of the foundation's reading, both (V, C, s, s).

    Implements: TuneMV3D-supp Eq. 1
    Differs: the supplement compares x_{t−1}, which is this times a factor of 1e-5 to 4e-2 that depends on t (§5.1);
    clean reference views have no noise to predict and are left out.
    """
    return (said - target)[noisy].float().square().mean()


def rendering_loss(rendered: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of x_0r against x_0 over the n input and n' novel views, both (V, C, s, s).

    Implements: TuneMV3D-supp Eq. 2
    """
    return (rendered - truth).float().abs().mean()


def total_loss(denoise: Tensor, render: Tensor, weight_denoise: float = 1.0, weight_render: float = 1.0) -> Tensor:
    """λ1 · L_denoise + λ2 · L_neus.

    Implements: TuneMV3D-supp Eq. 3
    """
    return weight_denoise * denoise + weight_render * render


def target_of(foundation: Foundation, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What a perfect network of the foundation's kind would say about x_t; exact where α or σ is 0."""
    if foundation.spec.reading == "eps":
        return noise
    if foundation.spec.reading == "x0":
        return x0
    alpha, sigma = (part.to(x0).reshape(-1, 1, 1, 1) for part in foundation.schedule.alpha_sigma(t))
    return alpha * noise - sigma * x0


def eikonal(lattice: Tensor) -> Tensor:
    """Mean of (|∇sdf| − 1)² by central differences on a lattice (1 + C, G, G, G) over [-1, 1]³."""
    sdf, spacing = lattice[0], 2 / (lattice.shape[-1] - 1)
    inner = slice(1, -1)
    steps = (
        sdf[2:, inner, inner] - sdf[:-2, inner, inner],
        sdf[inner, 2:, inner] - sdf[inner, :-2, inner],
        sdf[inner, inner, 2:] - sdf[inner, inner, :-2],
    )
    length = (torch.stack([step.square() for step in steps]).sum(0) + 1e-9).sqrt() / (2 * spacing)
    return (length - 1).square().mean()


def sparsity(lattice: Tensor) -> Tensor:
    """Mean of exp(−100 |sdf|): surfaces where no view asks for them cost something (SparseNeuS)."""
    return (-100 * lattice[0].abs()).exp().mean()


def is_held_out(caption: str, share: float) -> bool:
    """Whether objects of this head noun are kept from the branch; the same for every object of a noun, for ever."""
    return hashlib.sha256(head_noun(caption).encode()).digest()[0] / 256 < share


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One object in a step: x0 (n + n', C, s, s), mask (n + n', 1, s, s), rgb in [-1, 1], cameras and its text."""

    x0: Tensor
    mask: Tensor
    rgb: Tensor
    rig: Rig
    caption: Caption

    def part(self, views: slice) -> Rig:
        """The rig of some of the views."""
        return Rig(self.rig.projection[views], self.rig.origins[views], self.rig.directions[views])


class Samples:
    """Objects of a folder of views as a foundation's samples; text and pictures are encoded when asked for."""

    def __init__(self, foundation: Foundation, arrays: ViewArrays, rows: list[dict[str, Any]], device: str) -> None:
        self.foundation, self.arrays, self.rows, self.device = foundation, arrays, rows, device

    def sample(self, row: Mapping[str, Any], text: str) -> Sample:
        """One object with one of its captions ("" = the null text)."""
        size = self.foundation.spec.size
        rgba = torch.from_numpy(self.arrays.pictures(row["index"])).permute(0, 3, 1, 2)
        pictures = rgba[:, :3] * rgba[:, 3:] + (1 - rgba[:, 3:])
        small = functional.adaptive_avg_pool2d(torch.cat([pictures * 2 - 1, rgba[:, 3:]], 1), size)
        wanted = self.foundation.spec.picture_size
        if wanted != pictures.shape[-1]:
            pictures = functional.interpolate(pictures, size=wanted, mode="bilinear", antialias=True)
        with torch.no_grad():
            x0 = self.foundation.codec.encode(pictures.to(self.device))
        cameras = self.arrays.cameras(row["index"])
        return Sample(
            x0, small[:, 3:].to(self.device), small[:, :3].to(self.device), Rig.of(cameras, size, self.device),
            self.foundation.captions([text]).to(self.device),
        )  # fmt: skip


class BranchLoss:
    """`loss(branch, rng)` for `training.loop.fit`. only_field: E and the field alone, without the foundation (§5.3)."""

    def __init__(self, samples: Samples, recipe: BranchRecipe, only_field: bool) -> None:
        self.samples, self.recipe, self.only_field = samples, recipe, only_field

    def __call__(self, model: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        assert isinstance(model, ControlBranch)
        rows = [self.samples.rows[int(i)] for i in rng.integers(len(self.samples.rows), size=self.recipe.batch)]
        losses, numbers = [], []
        for row in rows:
            loss, logged = self._object(model, row, rng)
            losses.append(loss)
            numbers.append(logged)
        means = {key: float(np.mean([each[key] for each in numbers if key in each])) for key in numbers[0]}
        return torch.stack(losses).mean(), means

    def _object(
        self, branch: ControlBranch, row: Mapping[str, Any], rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        recipe, foundation = self.recipe, self.samples.foundation
        text = "" if rng.random() < recipe.drop_text else str(rng.choice(row["captions"]))
        sample = self.samples.sample(row, text)
        views = branch.config.num_views
        x0, rig = sample.x0[:views], sample.part(slice(views))
        caption = sample.caption.repeated(views)
        time = int(rng.integers(foundation.schedule.num_timesteps))
        t, noisy = self._times(views, time, rng)
        t, noisy = t.to(x0.device), noisy.to(x0.device)
        noise = torch.randn(x0.shape).to(x0)
        x_t = torch.where(noisy[:, None, None, None], foundation.schedule.add_noise(x0, noise, t), x0)
        field_time = torch.tensor([time], device=x0.device)
        seen = branch.perceive(x_t, t, field_time, caption, rig, jitter=True)
        loss, logged = self._field_loss(branch, seen, sample, views)
        if self.only_field:
            return loss, logged
        apart = rng.random() < recipe.drop_render
        base, mass = (x_t, None) if apart else (seen.views, branch.mass(seen, rig))
        residuals = branch.residuals(base, x_t, t, caption, mass)
        said = foundation.predict(x_t, t, caption, residuals).value
        denoise = denoising_loss(said, target_of(foundation, x0, noise, t), noisy)
        return total_loss(denoise, loss, recipe.weight_denoise, 1.0), {"denoise": float(denoise.detach()), **logged}

    def _times(self, views: int, time: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A timestep for each view and which are noisy; some objects get 1 to 3 clean views at timestep 0."""
        t, noisy = torch.full((views,), time), torch.ones(views, dtype=torch.bool)
        if rng.random() < self.recipe.references:
            count = int(rng.integers(1, min(self.recipe.max_references, views - 1) + 1))
            clean = torch.from_numpy(rng.permutation(views)[:count])
            t[clean], noisy[clean] = 0, False
        return t, noisy

    def _field_loss(
        self, branch: ControlBranch, seen: Seen, sample: Sample, views: int
    ) -> tuple[Tensor, dict[str, float]]:
        """λ2 · L_neus over all views of the object, and the regularisers; the novel views render the same field."""
        recipe = self.recipe
        parts = [seen]
        if len(sample.x0) > views:
            novel = sample.part(slice(views, None))
            parts.append(branch.latent_neus.render(seen.scene, seen.lattice, novel, jitter=True))
        rendered = torch.cat([part.views for part in parts])
        render = rendering_loss(rendered, sample.x0)
        alpha = torch.cat([part.alpha for part in parts])
        mask = (alpha - sample.mask).abs().mean()
        loss = recipe.weight_render * render + recipe.weight_mask * mask
        if seen.render.rgb is not None:
            rgb = torch.cat([part.rgb for part in parts if part.rgb is not None])
            loss = loss + recipe.weight_render * rendering_loss(rgb, sample.rgb)
        if seen.lattice is not None:
            loss = loss + recipe.weight_eikonal * eikonal(seen.lattice) + recipe.weight_sparse * sparsity(seen.lattice)
        slope = float(branch.latent_neus.field.inv_s.detach())
        return loss, {"render": float(render.detach()), "mask": float(mask.detach()), "inv_s": slope}


@torch.no_grad()
def scores(branch: ControlBranch, samples: Samples, rows: list[dict[str, Any]]) -> dict[str, float]:
    """On held-out objects at three noise levels: PSNR of x_0r on input and novel views, and the foundation's squared
    error under the branch over its error alone (below 1 = the views help each other)."""
    foundation, found = samples.foundation, {}
    views = branch.config.num_views
    for time in (200, 600, 900):
        given, novel, ratio = [], [], []
        for number, row in enumerate(rows):
            sample = samples.sample(row, str(row["captions"][0]))
            generator = torch.Generator().manual_seed(number)
            x0, t = sample.x0[:views], torch.full((views,), time, device=sample.x0.device)
            noise = torch.randn(x0.shape, generator=generator).to(x0)
            x_t, rig = foundation.schedule.add_noise(x0, noise, t), sample.part(slice(views))
            caption = sample.caption.repeated(views)
            seen = branch.perceive(x_t, t, t[:1], caption, rig)
            given.append(psnr(seen.views, x0))
            if len(sample.x0) > views:
                other = branch.latent_neus.render(seen.scene, seen.lattice, sample.part(slice(views, None)))
                novel.append(psnr(other.views, sample.x0[views:]))
            target = target_of(foundation, x0, noise, t)
            residuals = branch.residuals(seen.views, x_t, t, caption, branch.mass(seen, rig))
            errors = [
                float((foundation.predict(x_t, t, caption, some).value - target).square().mean())
                for some in (residuals, None)
            ]
            ratio.append(errors[0] / errors[1])
        found[f"psnr_input_{time}"] = float(np.mean(given))
        found[f"denoise_ratio_{time}"] = float(np.mean(ratio))
        if novel:
            found[f"psnr_novel_{time}"] = float(np.mean(novel))
    return {key: round(value, 4) for key, value in found.items()}


def psnr(a: Tensor, b: Tensor, span: float = 2.0) -> float:
    """Peak signal to noise in dB of values that span `span`."""
    return float(-10 * torch.log10((((a - b) / span).float().square().mean()).clamp(min=1e-12)))
