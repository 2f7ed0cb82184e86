"""Sampling: schedule of K, guidance in any reading, references, determinism, permutation, what runs where."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from anyform.diffusion.guidance import consistency, consistency_steps
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.samplers import ddim_step
from anyform.diffusion.schedule import cosine
from anyform.errors import BadSetting, GateFailed
from anyform.systems.tunemv3d.config import tiny
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundation import Foundation
from anyform.systems.tunemv3d.latent_neus import Rig
from anyform.systems.tunemv3d.sampling import (
    Guide,
    SamplingPlan,
    Step,
    dynamic_threshold,
    sample_views,
    trailing_timesteps,
)

FAST = SamplingPlan(steps=4, guidance_scale=2.0, consistency_fraction=0.5)


@pytest.fixture(scope="module")
def foundation(tiny_foundation: ModuleType) -> Foundation:
    return tiny_foundation.ours()


@pytest.fixture(scope="module")
def branch(foundation: Foundation) -> ControlBranch:
    torch.manual_seed(0)
    made = ControlBranch(foundation, tiny()).eval().requires_grad_(False)
    for parameter in made.zeros.parameters():
        parameter.normal_(0, 0.05)
    return made


@pytest.fixture(scope="module")
def rig(tiny_foundation: ModuleType) -> Rig:
    return Rig.of(tiny_foundation.orbit(), tiny_foundation.SIZE)


def views_of(branch: ControlBranch | None, foundation: Foundation, rig: Rig, **more: Any) -> Tensor:
    arguments: dict[str, Any] = {"plan": FAST, "seed": 3, **more}
    plan = arguments.pop("plan")
    return sample_views(branch, foundation, foundation.captions(["a chair"]), rig, plan, **arguments).views


def test_trailing_steps_start_at_the_end_of_the_chain() -> None:
    assert trailing_timesteps(50)[:2] == [999, 979] and trailing_timesteps(50)[-1] == 19
    for steps in (2, 7, 333, 1000):
        found = trailing_timesteps(steps)
        assert len(set(found)) == steps and found[0] == 999 and found == sorted(found, reverse=True) and found[-1] >= 0
    with pytest.raises(BadSetting, match="2 to 1000"):
        trailing_timesteps(1)


@pytest.mark.parametrize(("steps", "fraction"), [(50, 0.3), (25, 0.3), (10, 0.7), (10, 1.0), (7, 0.0), (1000, 0.1)])
def test_consistency_steps_are_floor_of_k_times_steps_and_spread(steps: int, fraction: float) -> None:
    chosen = consistency_steps(steps, fraction)
    assert sum(chosen) == int(fraction * steps + 1e-9)
    places = [i for i, one in enumerate(chosen) if one]
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("reading", ["eps", "x0", "v"])
def test_consistency_in_any_reading_is_equation_4_on_the_next_sample(reading: str) -> None:
    """x̂ = x_g + a (x_g − x_b) of the DDIM results equals one DDIM step of the guided reading."""
    schedule, generator = cosine(1000), torch.Generator().manual_seed(0)
    x, one, two = torch.randn(3, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for t, following in ((979, 959), (499, 479), (19, 9)):
        alpha, sigma = schedule.alpha_sigma(t)
        previous = float(schedule.alphas_cumprod[following])

        def step(value: Tensor, alpha: Tensor = alpha, sigma: Tensor = sigma, previous: float = previous) -> Tensor:
            return ddim_step(Prediction(reading, value, x, alpha, sigma), previous)  # type: ignore[arg-type]

        expected = step(one) + 7.5 * (step(one) - step(two))
        assert torch.allclose(step(consistency(one, two, 7.5)), expected, rtol=1e-9, atol=1e-9)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    branch: ControlBranch, foundation: Foundation, rig: Rig
) -> None:
    first = views_of(branch, foundation, rig)
    torch.randn(7)  # nothing hangs on the global generator
    assert torch.equal(first, views_of(branch, foundation, rig))
    assert not torch.equal(first, views_of(branch, foundation, rig, seed=4))
    assert torch.isfinite(first).all()


def test_references_are_untouched_and_the_foundation_never_sees_them(
    branch: ControlBranch, foundation: Foundation, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Tensor] = []
    predict = type(foundation).predict

    def counted(self: Foundation, x_t: Tensor, *rest: Any) -> Prediction:
        batches.append(x_t)
        return predict(self, x_t, *rest)

    monkeypatch.setattr(type(foundation), "predict", counted)
    given = {0: torch.rand(3, 16, 16), 2: torch.rand(3, 16, 16)}
    views = views_of(branch, foundation, rig, references=given)
    assert torch.equal(views[0], given[0]) and torch.equal(views[2], given[2])
    assert [len(batch) for batch in batches] == [4, 4, 4, 4]  # two noisy views, two passes
    assert not any(torch.equal(row, picture) for batch in batches for row in batch for picture in given.values())
    free = views_of(branch, foundation, rig)
    assert not torch.allclose(views[1], free[1])  # what is given reaches the others


def test_every_slot_given_is_refused(branch: ControlBranch, foundation: Foundation, rig: Rig) -> None:
    with pytest.raises(BadSetting, match="all 4 views"):
        views_of(branch, foundation, rig, references={slot: torch.zeros(3, 16, 16) for slot in range(4)})


def test_an_untrained_branch_samples_what_the_foundation_samples(foundation: Foundation, rig: Rig) -> None:
    torch.manual_seed(5)
    untrained = ControlBranch(foundation, tiny()).eval()
    plan = replace(FAST, consistency_fraction=0.0)
    alone = views_of(None, foundation, rig, plan=plan)
    assert torch.equal(alone, views_of(untrained, foundation, rig, plan=plan))
    with pytest.raises(BadSetting, match="needs the branch"):
        views_of(None, foundation, rig)


def test_guidance_combines_the_passes_it_says(branch: ControlBranch, foundation: Foundation, rig: Rig) -> None:
    caption, noisy = foundation.captions(["a chair"]), torch.arange(4)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def value(is_consistency: bool, **changes: Any) -> Tensor:
        guide = Guide(branch, foundation, rig, replace(FAST, **changes))
        with torch.no_grad():
            return guide(x, 600, noisy, caption, is_consistency)[0].value

    alone = value(False, guidance_scale=1.0)
    assert torch.allclose(value(True, guidance_scale=3.0, consistency_strength=0.0), alone, atol=1e-5)
    text, cons = value(False, guidance_scale=3.0), value(True, consistency_strength=2.0)
    both = value(True, guidance_scale=3.0, consistency_strength=2.0, compose=True)
    assert torch.allclose(both, text + cons - alone, atol=1e-4)
    assert not torch.allclose(cons, alone, atol=1e-3) and not torch.allclose(text, alone, atol=1e-3)
    own = value(False, guidance_scale=3.0, share_control=False)
    assert not torch.allclose(own, text, atol=1e-6)


def test_steps_are_reported_with_the_field(branch: ControlBranch, foundation: Foundation, rig: Rig) -> None:
    steps: list[Step] = []
    sampled = sample_views(branch, foundation, foundation.captions([""]), rig, FAST, seed=0, on_step=steps.append)
    assert [step.done for step in steps] == [1, 2, 3, 4]
    assert torch.equal(steps[-1].views, sampled.views)
    assert all(step.seen is not None and step.seen.views.shape == (4, 3, 16, 16) for step in steps)
    assert sampled.seen is not None and sampled.seen.alpha.shape == (4, 1, 16, 16)


def test_nan_is_noticed_and_named(
    branch: ControlBranch, foundation: Foundation, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", "nan:step=2")
    with pytest.raises(GateFailed, match="step 2 of 4"):
        views_of(branch, foundation, rig)


def test_dynamic_thresholding_bounds_and_leaves_small_values() -> None:
    small = torch.rand(1, 3, 8, 8) * 2 - 1
    assert torch.equal(dynamic_threshold(small, 0.95), small)
    loud = dynamic_threshold(torch.randn(2, 3, 8, 8) * 4, 0.95)
    assert loud.abs().max() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("family", ["deepfloyd-if", "stable-diffusion", "transformer"])
def test_other_families_sample_too(family: str, tiny_foundation: ModuleType, rig: Rig) -> None:
    other = tiny_foundation.ALL[family]()
    config = tiny()
    field = replace(config.field, channels=other.spec.channels, is_color=other.spec.channels == 3)
    views = views_of(ControlBranch(other, replace(config, field=field)), other, rig)
    assert views.shape == (4, other.spec.channels, 16, 16) and torch.isfinite(views).all()
