from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anyform.errors import BadSetting
from anyform.systems.xbind import presets, terms
from anyform.systems.xbind.config import PlanarSettings, SimilaritySettings
from anyform.systems.xbind.looks import Bus, Look
from anyform.systems.xbind.phases import LossTerm
from anyform.systems.xbind.terms import phase_terms, planar_cds_terms, planar_sds_terms, stereo_terms
from anyform.systems.xbind.views import turntable

SMALL = presets.smoke()


def look(toys: ModuleType, step: int = 0, part: float = 0.5, radius: float = 0.5, seed: int = 0) -> tuple[Bus, Look]:
    points = turntable(1, 32, 0.2)
    render = toys.Ball(radius).eval().render(points.cameras, torch.ones(3), normal=True)
    bus = Bus(render, points, torch.ones(3))
    return bus, bus.look(0, step, part, np.random.default_rng(seed))


def pull(term: LossTerm, toys: ModuleType, **how: Any) -> Tensor:
    """Where steps against the term's gradient move the mean colour of the object, over 12 draws."""
    bus, _ = look(toys, **how)
    inside = bus.leaves["alpha"].detach() > 0.9
    total = torch.zeros(3)
    for seed in range(12):
        bus, seen = look(toys, **how, seed=seed)
        total -= (bus.gradient(term.loss(seen))["rgb"] * inside).sum((0, 1, 2))
    return total


def named(found: list[LossTerm], name: str) -> LossTerm:
    return next(term for term in found if term.name == name)


@pytest.mark.parametrize("name", ["2d", "similarity", "3d"])
def test_every_prior_pulls_a_grey_ball_towards_red(toys: ModuleType, guides: Any, name: str) -> None:
    towards = pull(named(phase_terms(SMALL.texture, guides), name), toys)
    assert towards[0] > 0 and towards[0] > 1.5 * towards[1:].max()


def test_consistency_pulls_towards_red_on_colour_steps_and_looks_at_normals_on_others(
    toys: ModuleType, guides: Any
) -> None:
    term = named(planar_cds_terms(SMALL.geometry, guides), "2d")
    towards = pull(term, toys, step=3)
    assert towards[0] > towards[1:].max()
    for step in (0, 1, 2):
        bus, seen = look(toys, step=step)
        gradient = bus.gradient(term.loss(seen))
        assert "normal" in gradient and float(gradient["normal"].abs().sum()) > 0
        assert "rgb" not in gradient


def test_the_reference_term_wants_the_disc(toys: ModuleType, guides: Any) -> None:
    term = named(stereo_terms(replace(SMALL.shape, size=32), guides), "reference")
    small, large = (float(term.loss(look(toys, radius=r)[1]).detach()) for r in (0.2, 0.6))
    assert term.on == "reference" and large < small


def test_noise_of_consistency_is_shared_by_all_steps_unless_fresh(toys: ModuleType, guides: Any) -> None:
    fixed = replace(SMALL.geometry, planar=replace(SMALL.geometry.planar, subject="rgb"))
    fresh = replace(fixed, planar=replace(fixed.planar, noise="fresh"))

    def gradient(phase: Any, seed: int) -> Tensor:
        bus, seen = look(toys)
        object.__setattr__(seen, "rng", _OneTimestep(seed))
        return bus.gradient(named(planar_cds_terms(phase, guides), "2d").loss(seen))["rgb"]

    assert float((gradient(fixed, 1) - gradient(fixed, 2)).abs().max()) == 0
    assert float((gradient(fresh, 1) - gradient(fresh, 2)).abs().max()) > 0.01


class _OneTimestep:
    """Draws the same timestep always, and a seed that differs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def integers(self, low: int, high: int | None = None) -> int:
        return self.seed if high is None else low


def test_weights_do_not_depend_on_the_size_of_the_latent(toys: ModuleType, guides: Any) -> None:
    """A prior of twice the edge has four times the values; what it does to the whole picture stays."""
    planar = PlanarSettings(weight=1.0, image_weight=0.0, guidance=1.0, timesteps=(0.4, 0.4))
    phase = replace(SMALL.texture, planar=planar)
    values = []
    for size in (16, 32):
        prior = toys.gaussian_prior(size=size)
        own = replace(guides, planar=prior)
        means = []
        for seed in range(12):
            bus, seen = look(toys, seed=seed)
            g = bus.gradient(named(planar_sds_terms(phase, own), "2d").loss(seen))["rgb"]
            means.append(float(g.sum()))
        values.append(np.mean(means))
    assert values[1] == pytest.approx(values[0], rel=0.2)


def test_z_variance_is_a_term_on_rays(toys: ModuleType, guides: Any) -> None:
    term = named(planar_sds_terms(SMALL.shape, guides), "z variance")
    bus, _ = look(toys)
    rays = bus.rays()
    assert term.on == "rays" and rays is not None
    assert float(term.loss(*rays).detach()) == pytest.approx(0.05**2, rel=1e-3)


def test_the_low_rank_copy_begins_as_the_prior_and_learns_the_renders(toys: ModuleType) -> None:
    copy = toys.copy_of(toys.gaussian_prior())
    latent, noise = torch.full((1, 3, 8, 8), 0.5), torch.randn(1, 3, 8, 8)
    prior = toys.gaussian_prior()
    assert torch.allclose(copy(latent, 300).eps, prior.denoiser(latent, 300, prior.condition()).eps, atol=1e-5)
    copy.optimiser.param_groups[0]["lr"] = 0.02
    losses = [copy.learn(latent, 300, noise) for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]
    assert not copy.active
    other = toys.copy_of(toys.gaussian_prior())
    other.load_state_dict(copy.state_dict())
    assert torch.equal(other(latent, 300).eps, copy(latent, 300).eps)


def test_variational_distillation_is_a_rule(toys: ModuleType, guides: Any) -> None:
    phase = presets.prolificdreamer(SMALL).texture
    bus, seen = look(toys)
    gradient = bus.gradient(named(phase_terms(phase, guides), "2d").loss(seen))["rgb"]
    assert torch.isfinite(gradient).all() and float(gradient.abs().sum()) > 0
    with pytest.raises(BadSetting, match="low-rank copy"):
        named(phase_terms(phase, replace(guides, copy=None)), "2d")


def test_missing_parts_are_named_before_anything_runs(guides: Any) -> None:
    with pytest.raises(BadSetting, match="no 2D prior"):
        phase_terms(SMALL.shape, replace(guides, planar=None))
    with pytest.raises(BadSetting, match="no 3D-aware prior"):
        phase_terms(SMALL.shape, replace(guides, stereo=None))


def test_similarity_counts_each_kind_once(toys: ModuleType, guides: Any) -> None:
    """Without a perspective all looks are alike: the loss is the number of looks times one cosine distance."""
    settings = SimilaritySettings(num_global=0, num_local=0, num_plain=1)
    _, seen = look(toys)
    one = float(terms.similarity_loss(settings, guides)(seen).detach())
    cosine = torch.nn.functional.cosine_similarity(toys.embed(seen.rgb), guides.vector[None])
    assert one == pytest.approx(1 - float(cosine.detach()), abs=1e-4)
    more = replace(settings, num_plain=3)
    assert float(terms.similarity_loss(more, guides)(seen).detach()) == pytest.approx(3 * one, rel=1e-4)
