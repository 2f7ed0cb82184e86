"""From noise to V consistent views: one DDIM loop, with text guidance on most steps and consistency guidance on others.

Views that the user gives are clean throughout: they enter E and O at timestep 0, the foundation never runs on them and
they leave as they came (TuneMV3D 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anyform.diffusion.guidance import classifier_free, consistency, consistency_steps
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.samplers import ddim_step
from anyform.errors import BadSetting, GateFailed
from anyform.faults import fault_point
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundation import Caption, Foundation, joined
from anyform.systems.tunemv3d.latent_neus import Rig, Seen

MAX_THRESHOLD = 1.5  # of dynamic thresholding, as DeepFloyd-IF sets it


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """How to sample. Defaults of specs/tunemv3d.md §6."""

    steps: int = 50  # P 4.2
    guidance_scale: float = 5.0  # 1 = the text alone, without a null pass
    consistency_fraction: float = 0.3  # K: share of the steps
    consistency_strength: float = 7.5  # alpha, P 3.3
    compose: bool = False  # text guidance on consistency steps too
    share_control: bool = True  # the null text reuses the control of the text
    without: Literal["nothing", "pairwise", "render"] = "nothing"  # what is left out, for ablations


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a caller may look at after each step: steps done, the clean views expected now (V, C, s, s), the field."""

    done: int
    views: Tensor
    seen: Seen | None


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """views (V, C, s, s) in the space of x_0; seen: the field read once more from them, all at timestep 0."""

    views: Tensor
    seen: Seen | None


OnStep = Callable[[Step], None]


def trailing_timesteps(steps: int, num_timesteps: int = 1000) -> list[int]:
    """`steps` descending timesteps that end the chain's even parts: the first is always T − 1, where noise is pure."""
    if not 2 <= steps <= num_timesteps:
        raise BadSetting(f"{steps} sampling steps cannot be taken from {num_timesteps}: use 2 to {num_timesteps}")
    return [round(num_timesteps - i * num_timesteps / steps) - 1 for i in range(steps)]


def dynamic_threshold(x0: Tensor, quantile: float) -> Tensor:
    """Each sample's values cut at the quantile of their size (1 to `MAX_THRESHOLD`) and divided by it (Imagen, 2.3)."""
    size = torch.quantile(x0.abs().flatten(1).float(), quantile, dim=1).clamp(1, MAX_THRESHOLD)
    size = size.to(x0).reshape(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-size, size) / size


class Guide:
    """The guided reading of one step; every combination's weights sum to 1, so guiding eps, x0 or v is the same."""

    def __init__(self, branch: ControlBranch | None, foundation: Foundation, rig: Rig, plan: SamplingPlan) -> None:
        self.branch, self.foundation, self.rig, self.plan = branch, foundation, rig, plan
        self.null = foundation.captions([""]).to(rig.projection.device)

    def __call__(
        self, x: Tensor, t: int, noisy: Tensor, caption: Caption, is_consistency: bool
    ) -> tuple[Prediction, Seen | None]:
        """x (V, C, s, s), indices of the noisy views (N,), one caption -> prediction of the noisy views, the field."""
        views, plan = len(x), self.plan
        times = torch.zeros(views, dtype=torch.long, device=x.device)
        times[noisy] = t
        text, null = caption.repeated(views), self.null.repeated(views)
        seen, control, control_null, control_plain = None, None, None, None
        guided = plan.guidance_scale != 1 and (plan.compose or not is_consistency)
        if self.branch is not None:
            seen = self.branch.perceive(x, times, torch.tensor([t], device=x.device), text, self.rig)
            mass = None if plan.without == "pairwise" else self.branch.mass(seen, self.rig)
            base = x if plan.without == "render" else seen.views
            control = self.branch.residuals(base, x, times, text, mass)
            control_null = control
            if guided and not plan.share_control:
                control_null = self.branch.residuals(base, x, times, null, mass)
            if is_consistency:
                control_plain = self.branch.residuals(x, x, times, text, None)
        passes = [(text, control)]
        if guided:
            passes.append((null, control_null))
        if is_consistency:
            passes.append((text, control_plain))
        values = self._foundation(x[noisy], t, noisy, passes)
        value = values[0]
        if guided:
            value = classifier_free(values[0], values[1], plan.guidance_scale)
        if is_consistency:  # Eq. 4, alone or on top of the text's guidance
            value = value + consistency(values[0], values[-1], plan.consistency_strength) - values[0]
        alpha, sigma = self.foundation.schedule.alpha_sigma(t)
        return Prediction(self.foundation.spec.reading, value, x[noisy], alpha, sigma), seen

    def _foundation(
        self, x: Tensor, t: int, noisy: Tensor, passes: list[tuple[Caption, list[Tensor] | None]]
    ) -> list[Tensor]:
        """One batch of the foundation for all passes -> a value (N, C, s, s) of each."""
        count = len(passes)
        captions = joined([text.rows(noisy) for text, _ in passes])
        residuals = None
        controls = [control for _, control in passes if control is not None]
        if controls:
            residuals = [torch.cat([level[noisy] for level in levels]) for levels in zip(*controls, strict=True)]
        times = torch.full((count * len(x),), t, dtype=torch.long, device=x.device)
        said = self.foundation.predict(x.repeat(count, 1, 1, 1), times, captions, residuals)
        return list(said.value.chunk(count))


@torch.no_grad()
def sample_views(
    branch: ControlBranch | None,
    foundation: Foundation,
    caption: Caption,
    rig: Rig,
    plan: SamplingPlan,
    *,
    seed: int,
    references: Mapping[int, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Sampled:
    """V views of what one caption says, from the rig's cameras.

    references: clean views (C, s, s) by slot, returned bit for bit. branch None = independent views of the foundation
    alone, the baseline. The same seed gives the same views on the same machine. Raises BadSetting where every slot is
    given, GateFailed where NaN or infinity appears.
    """
    spec, given = foundation.spec, references or {}
    views, device = len(rig.projection), rig.projection.device
    if branch is None and plan.consistency_fraction > 0:
        raise BadSetting("consistency guidance needs the branch: set consistency_fraction=0 for independent views")
    noisy = torch.tensor([slot for slot in range(views) if slot not in given], device=device)
    if not len(noisy):
        raise BadSetting(f"all {views} views are given: there is nothing left to sample")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(views, spec.channels, spec.size, spec.size, generator=generator).to(device)
    for slot, picture in given.items():
        x[slot] = picture.to(device)
    timesteps = trailing_timesteps(plan.steps, foundation.schedule.num_timesteps)
    alpha_bar = foundation.schedule.alphas_cumprod
    guide, seen = Guide(branch, foundation, rig, plan), None
    consistent = consistency_steps(plan.steps, plan.consistency_fraction)
    for index, (t, is_consistency) in enumerate(zip(timesteps, consistent, strict=True)):
        if fault_point("views", index):
            x[noisy] = float("nan")
        prediction, seen = guide(x, t, noisy, caption, is_consistency)
        if not torch.isfinite(prediction.value).all():
            raise GateFailed(f"the sampler made NaN or infinity in step {index} of {plan.steps}; try another seed")
        if spec.thresholding is not None:
            x0 = dynamic_threshold(prediction.x0, spec.thresholding)
            prediction = Prediction("x0", x0, prediction.x_t, prediction.alpha, prediction.sigma)
        last = index + 1 == plan.steps
        x[noisy] = prediction.x0 if last else ddim_step(prediction, float(alpha_bar[timesteps[index + 1]]))
        if on_step is not None:
            expected = x.clone()
            expected[noisy] = prediction.x0
            on_step(Step(index + 1, expected, seen))
    if branch is not None:
        clean = torch.zeros(views, dtype=torch.long, device=device)
        seen = branch.perceive(x, clean, clean[:1], caption.repeated(views), rig)
    return Sampled(x, seen)
