"""Losses by their closed forms, and what one step does to whom."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch

from anyform.data.multiview import MultiviewPlan, ViewArrays
from anyform.diffusion.prediction import Prediction
from anyform.systems.tunemv3d.config import tiny
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.training import (
    BranchLoss,
    BranchRecipe,
    Samples,
    denoising_loss,
    eikonal,
    is_held_out,
    paper_recipe,
    psnr,
    rendering_loss,
    scores,
    sparsity,
    target_of,
    total_loss,
)

PLAN = MultiviewPlan(num_ring=4, num_free=2, size=16)


@pytest.fixture
def samples(tiny_foundation: ModuleType) -> Samples:
    """Three objects whose pictures are noise."""
    rng = np.random.default_rng(0)
    angles = np.tile(np.linspace(0, 5, 6), (3, 1)).astype(np.float32)
    rows = tuple(
        {"index": i, "captions": [f"thing {i}", "a thing"], "caption": "thing", "split": "train"} for i in range(3)
    )
    rgba = rng.integers(0, 256, (3, 6, 16, 16, 4), dtype=np.uint8)
    arrays = ViewArrays(PLAN, rgba, np.stack([angles, 0.2 * np.ones_like(angles)], -1), rows)
    return Samples(tiny_foundation.ours(), arrays, list(rows), "cpu")


def test_the_three_losses_of_the_supplement() -> None:
    said, target = torch.zeros(4, 3, 2, 2), torch.ones(4, 3, 2, 2)
    target[2] = 100.0  # a clean reference view has no noise to predict
    noisy = torch.tensor([True, True, False, True])
    assert denoising_loss(said, target, noisy) == 1.0
    assert rendering_loss(torch.tensor([1.0, -3.0]), torch.zeros(2)) == 2.0
    assert total_loss(torch.tensor(2.0), torch.tensor(5.0), 0.5, 2.0) == 11.0
    assert total_loss(torch.tensor(2.0), torch.tensor(5.0)) == 7.0


@pytest.mark.parametrize("reading", ["eps", "x0", "v"])
def test_a_perfect_network_reaches_the_target(reading: str, tiny_foundation: ModuleType) -> None:
    foundation = tiny_foundation.ours(reading=reading)
    x0, noise = torch.randn(2, 2, 3, 4, 4).unbind(0)
    t = torch.tensor([40, 900])
    x_t = foundation.schedule.add_noise(x0, noise, t)
    target = target_of(foundation, x0, noise, t)
    alpha, sigma = foundation.schedule.alpha_sigma(t)
    said = Prediction(reading, target, x_t, alpha, sigma)  # type: ignore[arg-type]
    assert torch.allclose(said.x0, x0, atol=2e-2) and torch.allclose(said.eps, noise, atol=2e-2)


def test_a_distance_field_has_no_eikonal_loss_and_a_scaled_one_has() -> None:
    along = torch.linspace(-1, 1, 17)
    z, _, x = torch.meshgrid(along, along, along, indexing="ij")
    plane = (0.6 * x + 0.8 * z)[None]
    assert eikonal(plane) < 1e-8
    assert eikonal(3 * plane).item() == pytest.approx(4.0, abs=1e-3)
    assert sparsity(torch.zeros(1, 4, 4, 4)) == 1.0
    assert sparsity(torch.full((1, 4, 4, 4), 0.1)).item() == pytest.approx(math.exp(-10))


def test_nouns_are_held_out_as_a_whole() -> None:
    chairs = {is_held_out(text, 0.3) for text in ("red chair", "a chair", "chairs", "chair with arms")}
    assert len(chairs) == 1
    nouns = [f"noun{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)]
    share = np.mean([is_held_out(noun, 0.25) for noun in nouns])
    assert 0.18 < share < 0.32
    assert not any(is_held_out(noun, 0.0) for noun in nouns) and all(is_held_out(noun, 1.0) for noun in nouns)


def test_a_joint_step_reaches_every_part_of_the_branch_and_nothing_else(
    samples: Samples, tiny_foundation: ModuleType
) -> None:
    branch = tiny_foundation.shaken(ControlBranch(samples.foundation, tiny()))
    loss = BranchLoss(samples, BranchRecipe(drop_render=0.0, batch=2), only_field=False)
    torch.manual_seed(0)
    value, logged = loss(branch, np.random.default_rng(0))
    value.backward()
    assert {"denoise", "render", "mask", "inv_s"} <= logged.keys()
    silent = [name for name, p in branch.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    network = samples.foundation.backbone.network  # type: ignore[attr-defined]
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_field_alone_leaves_the_copy_alone(samples: Samples) -> None:
    branch = ControlBranch(samples.foundation, tiny())
    value, logged = BranchLoss(samples, BranchRecipe(), only_field=True)(branch, np.random.default_rng(1))
    value.backward()
    assert "denoise" not in logged
    assert all(parameter.grad is None for parameter in branch.trunk.parameters())
    assert branch.latent_neus.field.sharpness.grad is not None


def test_dropping_the_render_trains_the_branch_that_sees_no_other_view(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    residuals = ControlBranch.residuals

    def noted(self, base, x_t, t, caption, mass):  # noqa: ANN
        seen.append((base is x_t, mass is None))
        return residuals(self, base, x_t, t, caption, mass)

    monkeypatch.setattr(ControlBranch, "residuals", noted)
    branch = ControlBranch(samples.foundation, tiny())
    for drop in (0.0, 1.0):
        BranchLoss(samples, BranchRecipe(drop_render=drop), only_field=False)(branch, np.random.default_rng(0))
    assert seen == [(False, False), (True, True)]


def test_references_are_clean_and_few(samples: Samples) -> None:
    loss = BranchLoss(samples, BranchRecipe(references=1.0), only_field=False)
    counts = set()
    for seed in range(40):
        t, noisy = loss._times(4, 700, np.random.default_rng(seed))
        assert ((t == 0) == ~noisy).all() and (t[noisy] == 700).all()
        counts.add(int((~noisy).sum()))
    assert counts == {1, 2, 3}
    t, noisy = BranchLoss(samples, BranchRecipe(references=0.0), False)._times(4, 5, np.random.default_rng(0))
    assert noisy.all() and (t == 5).all()


def test_a_few_steps_lower_the_loss(samples: Samples) -> None:
    torch.manual_seed(0)
    branch = ControlBranch(samples.foundation, tiny())
    optimiser = torch.optim.AdamW([{"params": list(p), "lr": 1e-3 * pace} for pace, p in branch.paces()])
    loss = BranchLoss(samples, BranchRecipe(references=0.0, drop_text=0.0), only_field=True)
    values = []
    for _ in range(16):
        torch.manual_seed(0)
        value, _ = loss(branch, np.random.default_rng(0))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert np.mean(values[-4:]) < 0.95 * np.mean(values[:4])


def test_paces_name_every_parameter_once(tiny_foundation: ModuleType) -> None:
    branch = ControlBranch(tiny_foundation.ours(), tiny())
    listed = [id(parameter) for _, some in branch.paces() for parameter in some]
    assert sorted(listed) == sorted(id(parameter) for parameter in branch.parameters())
    assert [pace for pace, _ in branch.paces()] == [1.0, 10.0, 50.0]


def test_scores_of_an_untrained_branch_are_those_of_no_branch(samples: Samples) -> None:
    found = scores(ControlBranch(samples.foundation, tiny()).eval(), samples, samples.rows[:1])
    assert all(found[f"denoise_ratio_{t}"] == 1.0 for t in (200, 600, 900))
    assert all(np.isfinite(value) for value in found.values()) and "psnr_novel_900" in found


def test_psnr_and_the_published_weights() -> None:
    assert psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)) == pytest.approx(20.0, abs=1e-4)
    paper = paper_recipe()
    assert (paper.weight_denoise, paper.weight_render, paper.weight_mask, paper.weight_sparse) == (1.0, 1.0, 0.0, 0.0)
