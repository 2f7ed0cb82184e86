from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anyform.errors import BadInput, GateFailed, Interrupted
from anyform.systems.xbind import phases
from anyform.systems.xbind.looks import Look
from anyform.systems.xbind.phases import LossTerm, PhaseConfig, optimise, seeded
from anyform.systems.xbind.views import Viewpoints, turntable
from anyform.types.progress import Progress, silent


def cameras(part: float, rng: np.random.Generator) -> Viewpoints:
    return turntable(3, 12, float(rng.uniform(-0.3, 0.3)))


def covered(wanted: float) -> Callable[[Look], Tensor]:
    return lambda look: (look.alpha.mean() - wanted).square()


def adam(field: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(field.parameters(), lr=0.02)


def descent(rate: float) -> Callable[[torch.nn.Module], torch.optim.Optimizer]:
    return lambda field: torch.optim.SGD(field.parameters(), lr=rate)


AREA = LossTerm(name="area", weight=10.0, loss=covered(0.4))
NOISY = LossTerm(name="noisy", weight=0.1, loss=lambda look: (look.rgb * look.noise(look.rgb)).mean())


def config(**changes: Any) -> PhaseConfig:
    return replace(PhaseConfig(name="shape", steps=30, seed=3, optimiser=adam, check_every=5), **changes)


def test_it_minimises_its_terms(toys: ModuleType) -> None:
    ball = toys.Ball(0.3)
    done = optimise(ball, cameras, [AREA], config(steps=120), silent)
    with torch.no_grad():
        alpha = done.render(turntable(1, 24).cameras, torch.ones(3)).alpha
    assert float(alpha.mean()) == pytest.approx(0.4, abs=0.03)
    assert not ball.training


def test_the_gradient_is_that_of_the_sum_over_the_mean_of_the_views(toys: ModuleType) -> None:
    """The bus against plain autograd of the whole sum, reference view included."""
    seen: list[Look] = []

    def noticed(look: Look) -> Tensor:
        seen.append(look)
        return (look.rgb * look.alpha).square().mean()

    reference = LossTerm(name="reference", weight=3.0, loss=lambda look: look.rgb.mean(), on="reference")
    spread = LossTerm(name="z", weight=0.7, loss=lambda w, t, start: (w * t).mean(), on="rays")
    mesh = LossTerm(name="mesh", weight=0.2, loss=lambda ball: ball.surface()[0].square().sum(), on="object")
    terms = [LossTerm(name="views", weight=2.0, loss=noticed), reference, spread, mesh]

    ball = toys.Ball(0.5)
    optimise(ball, cameras, terms, config(steps=1, optimiser=descent(0.01)), silent)
    moved = (toys.Ball(0.5).radius.detach() - ball.radius.detach()) / 0.01

    twin = toys.Ball(0.5)
    rng = seeded(3, "shape", 0)
    torch.manual_seed(int(rng.integers(2**63)))
    points = cameras(0.0, rng)
    render = twin.render(points.cameras, torch.ones(3))
    rgb, alpha = render.rgb, render.alpha
    views = torch.stack([(rgb[v] * alpha[v]).square().mean() for v in (1, 2)]).mean()
    rays = render.samples
    total = 2 * views + 3 * rgb[0].mean() + 0.7 * (rays.ray_weights * rays.t).mean()
    (total + 0.2 * twin.surface()[0].square().sum()).backward()
    assert float(moved) == pytest.approx(float(twin.radius.grad), rel=1e-4)
    assert len(seen) == 2 and all(look.rgb.shape == (1, 3, 12, 12) for look in seen)


def interrupting(at: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == at:
            raise KeyboardInterrupt

    return report


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(toys: ModuleType, tmp_path: Path) -> None:
    whole = optimise(toys.Ball(), cameras, [AREA, NOISY], config(), silent)
    with pytest.raises(Interrupted, match=r"shape, step 15 of 30.*--resume"):
        optimise(toys.Ball(), cameras, [AREA, NOISY], config(folder=tmp_path), interrupting(17))
    again = optimise(toys.Ball(), cameras, [AREA, NOISY], config(folder=tmp_path, resume=True), silent)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_finished_phase_is_read_not_repeated(toys: ModuleType, tmp_path: Path) -> None:
    first = optimise(toys.Ball(), cameras, [AREA], config(folder=tmp_path), silent)

    def never(look: Look) -> Tensor:
        raise AssertionError("a finished phase was optimised again")

    term = LossTerm(name="never", weight=1.0, loss=never)
    second = optimise(toys.Ball(0.1), cameras, [term], config(folder=tmp_path, resume=True), silent)
    assert torch.equal(first.radius, second.radius)


def test_without_resume_a_checkpoint_is_ignored(toys: ModuleType, tmp_path: Path) -> None:
    optimise(toys.Ball(), cameras, [AREA], config(folder=tmp_path, steps=5), silent)
    fresh = optimise(toys.Ball(0.2), cameras, [AREA], config(folder=tmp_path, steps=5), silent)
    alone = optimise(toys.Ball(0.2), cameras, [AREA], config(steps=5), silent)
    assert torch.equal(fresh.radius, alone.radius)


def test_a_foreign_checkpoint_is_refused(toys: ModuleType, tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "shape.pt")
    with pytest.raises(BadInput, match=r"shape\.pt is no checkpoint of this run"):
        optimise(toys.Ball(), cameras, [AREA], config(folder=tmp_path, resume=True), silent)


def test_nan_is_answered_by_one_restart_at_a_lower_rate(
    toys: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient that is NaN once: the run goes back to step 10, logs it, and reaches its end."""
    spoilt = iter([True])
    monkeypatch.setattr(phases, "fault_point", lambda stage, step: step == 12 and next(spoilt, False))
    told: list[Progress] = []
    ball = optimise(toys.Ball(0.3), cameras, [AREA], config(folder=tmp_path), told.append)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    restarts = [row for row in rows if "restart" in row]
    assert len(restarts) == 1 and "once more from step 10" in restarts[0]["restart"]
    assert [row["rate"] for row in rows if "rate" in row][-1] == pytest.approx(phases.LOWER_RATE)
    assert any("not finite" in progress.message for progress in told)
    assert told[-1].step == 30 and torch.isfinite(ball.radius)


def test_nan_again_ends_the_phase_and_keeps_the_last_good_state(
    toys: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", "nan:step=12")
    with pytest.raises(GateFailed, match="phase shape failed in step 12 of 30"):
        optimise(toys.Ball(), cameras, [AREA], config(folder=tmp_path), silent)
    monkeypatch.delenv("ANYFORM_FAULT")
    ball = optimise(toys.Ball(), cameras, [AREA], config(folder=tmp_path, resume=True), silent)
    assert torch.equal(ball.radius, optimise(toys.Ball(), cameras, [AREA], config(), silent).radius)


@pytest.mark.parametrize(("wanted", "word"), [(-5.0, "vanished"), (6.0, "filled the whole box")])
def test_a_collapsed_object_is_noticed_and_named(toys: ModuleType, wanted: float, word: str) -> None:
    def runaway(look: Look) -> Tensor:
        return (look.alpha - wanted).square().mean()

    told: list[Progress] = []
    fast = config(steps=400, optimiser=descent(0.003))
    with pytest.raises(GateFailed, match=word):
        optimise(toys.Ball(), cameras, [LossTerm(name="runaway", weight=5.0, loss=runaway)], fast, told.append)
    first = next(progress for progress in told if progress.message)
    assert word in first.message and first.step <= 50


def test_a_balanced_term_has_the_asked_share_of_the_other_gradient(toys: ModuleType, tmp_path: Path) -> None:
    one = LossTerm(name="2d", weight=0.5, loss=lambda look: look.rgb.mean())
    two = LossTerm(name="similarity", weight=0.0, loss=lambda look: 7 * look.rgb.mean(), balance=("2d", 0.3))
    optimise(toys.Ball(), cameras, [one, two], config(folder=tmp_path, optimiser=descent(1e-4)), silent)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["similarity weight"] for row in rows] == pytest.approx([0.3 * 0.5 / 7] * len(rows))


def test_previews_appear_while_it_runs_and_change_nothing(toys: ModuleType, tmp_path: Path) -> None:
    told: list[Progress] = []
    picture = np.zeros((8, 8, 3), np.uint8)
    shown = config(folder=tmp_path, preview_every=10, preview=lambda field: picture)
    ball = optimise(toys.Ball(), cameras, [AREA, NOISY], shown, told.append)
    assert [p.step for p in told if p.preview is not None] == [10, 20, 30]
    assert (tmp_path / "preview.webp").stat().st_size > 0
    assert torch.equal(ball.radius, optimise(toys.Ball(), cameras, [AREA, NOISY], config(), silent).radius)


def test_2d_terms_see_random_backgrounds_and_the_object_stays(toys: ModuleType) -> None:
    corners: list[Tensor] = []

    def keep(look: Look) -> Tensor:
        picture = look.over_background()
        corners.append(picture[0, :, 0, 0].detach())
        assert torch.allclose(look.rgb[0, :, 0, 0], torch.ones(3), atol=1e-3)
        return covered(0.4)(look)

    optimise(
        toys.Ball(), cameras, [LossTerm(name="keep", weight=1.0, loss=keep)], config(random_background=0.5), silent
    )
    white = [bool((corner > 0.99).all()) for corner in corners[::3]]
    assert 5 < sum(white) < 25


def test_a_companion_travels_in_the_checkpoint(toys: ModuleType, tmp_path: Path) -> None:
    learner = torch.nn.Linear(1, 1, bias=False)

    def learn(field: Any, step: int) -> None:
        with torch.no_grad():
            learner.weight.add_(step)

    torch.nn.init.zeros_(learner.weight)
    with pytest.raises(Interrupted):
        optimise(
            toys.Ball(), cameras, [AREA], config(folder=tmp_path, before_step=learn, companion=learner), interrupting(8)
        )
    torch.nn.init.zeros_(learner.weight)
    optimise(
        toys.Ball(), cameras, [AREA], config(folder=tmp_path, before_step=learn, companion=learner, resume=True), silent
    )
    assert float(learner.weight.detach()) == sum(range(30))
