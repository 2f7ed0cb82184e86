from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from anyform import configuration
from anyform.errors import BadSetting
from anyform.systems.xbind import presets
from anyform.systems.xbind.config import PhaseSettings, XBindSettings
from anyform.systems.xbind.phases import LossTerm
from anyform.systems.xbind.terms import phase_terms
from anyform.training.ramp import Ramp


def test_the_paper_s_preset_has_the_published_numbers() -> None:
    """Each number with its source, specs/xbind.md §3 to §6."""
    paper = presets.paper()
    one, two, three = paper.shape, paper.geometry, paper.texture
    assert (one.steps, two.steps, three.steps) == (10_000, 3000, 10_000)
    assert (one.size, two.size, three.size) == (128, 512, 512)
    assert (one.optimiser, two.optimiser, three.optimiser) == ("adam", "adan", "adam")
    assert (one.learning_rate, one.network_rate, two.learning_rate, three.learning_rate) == (0.01, 0.001, 0.01, 0.001)
    assert one.sampling.distance == three.sampling.distance == (2.5, 2.5) and two.sampling.distance == (1.5, 2.0)
    assert (one.planar.weight, one.planar.image_weight, one.planar.timesteps) == (0.025, 0.01, (0.2, 0.6))
    assert (one.stereo.weight, one.stereo.guidance, one.reference.rgb, one.reference.mask) == (1.0, 5.0, 1000.0, 100.0)
    assert isinstance(one.regularisers.z_variance, Ramp) and one.regularisers.z_variance.at(0.5) == 100.0
    assert one.regularisers.normal_variation == 1000.0
    assert (two.regularisers.normal_consistency, two.regularisers.laplacian) == (100.0, 100.0)
    assert two.planar.rule == "cds" and two.planar.noise == "fixed" and two.planar.timesteps == (0.02, 0.5)
    assert two.planar.annealed is not None and [two.planar.annealed.at(p) for p in (0.0, 0.25, 1.0)] == [300, 160, 20]
    assert isinstance(two.planar.clamp, Ramp) and (two.planar.clamp.at(0), two.planar.clamp.at(1)) == (2, 8)
    assert isinstance(two.planar.guidance, Ramp) and (two.planar.guidance.at(0), two.planar.guidance.at(1)) == (101, 31)
    assert (paper.fields.levels, paper.fields.log2_rows, paper.fields.density_threshold) == (16, 19, 10.0)
    assert paper.init == "blob" and paper.reference == "generated"


@pytest.mark.parametrize("quality", list(presets.QUALITIES))
def test_qualities_are_themselves_and_run_all_phases(quality: str) -> None:
    settings = presets.QUALITIES[quality]()
    assert settings.quality == quality
    assert [name for name, _ in settings.phases] == ["shape", "geometry", "texture"]


def test_kept_geometry_runs_the_last_phase_only() -> None:
    assert [name for name, _ in XBindSettings(keep_geometry=True).phases] == ["texture"]


def test_settings_are_reached_by_dotted_names() -> None:
    settings = configuration.apply(
        presets.standard(), {"geometry.planar.clamp.end": 3.0, "shape.steps": 7, "shape.planar.guidance": 2}
    )
    assert isinstance(settings.geometry.planar.clamp, Ramp) and settings.geometry.planar.clamp.end == 3.0
    assert settings.shape.steps == 7 and settings.shape.planar.guidance == 2.0


@pytest.mark.parametrize("quality", list(presets.QUALITIES))
def test_settings_survive_the_way_through_a_file(quality: str) -> None:
    settings = configuration.override(presets.QUALITIES[quality](), "shape.steps", 11)
    assert configuration.apply(presets.QUALITIES[quality](), asdict(settings)) == settings


@pytest.mark.parametrize("bad", [{"candidates": 0}, {"texture_size": -1}, {"mesh_resolution": 4}])
def test_numbers_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(BadSetting, match="lies between"):
        XBindSettings(**bad)  # type: ignore[arg-type]
    with pytest.raises(BadSetting):
        PhaseSettings(learning_rate=0.0)


def names(phase: PhaseSettings, guides: Any) -> set[str]:
    return {term.name for term in phase_terms(phase, guides)}


EXPECTED: dict[str, tuple[set[str], set[str], set[str]]] = {
    "zero-stable-cds": ({"2d", "3d", "reference"},) * 3,
    "stable-sds": ({"2d"},) * 3,
    "zero-sds": ({"3d", "reference"},) * 3,
    "dreamfusion": ({"2d"}, set(), set()),
    "magic3d": ({"2d"}, {"2d"}, set()),
    "fantasia3d": (set(), {"2d"}, {"2d"}),
    "prolificdreamer": ({"2d"},) * 3,
    "without-stereo": ({"2d", "similarity"},) * 3,
    "without-planar": ({"similarity", "3d", "reference"},) * 3,
    "without-similarity": ({"2d", "3d", "reference"},) * 3,
    "without-phases": ({"2d", "similarity", "3d", "reference"}, set(), set()),
    "without-geometry": ({"2d", "similarity", "3d", "reference"}, set(), {"2d", "similarity", "3d", "reference"}),
    "without-texture": ({"2d", "similarity", "3d", "reference"}, {"2d", "similarity", "3d", "reference"}, set()),
}
REGULARISERS = {"z variance", "normal variation", "normal consistency", "laplacian", "sparsity", "opaque"}


@pytest.mark.parametrize("variant", list(presets.VARIANTS))
@pytest.mark.parametrize("start", [presets.paper, presets.draft])
def test_baselines_and_ablations_have_exactly_their_terms(
    variant: str, start: Callable[[], XBindSettings], guides: Any
) -> None:
    settings = presets.VARIANTS[variant](start())
    for name, expected in zip(("shape", "geometry", "texture"), EXPECTED[variant], strict=True):
        phase = getattr(settings, name)
        assert (names(phase, guides) - REGULARISERS if phase.steps else set()) == expected, name


def test_the_rules_of_the_baselines() -> None:
    def rules(name: str) -> list[str]:
        made = presets.VARIANTS[name](None)
        return [getattr(made, phase).planar.rule for phase in ("shape", "geometry", "texture")]

    assert rules("zero-stable-cds") == ["cds"] * 3
    assert rules("prolificdreamer") == ["vsd", "sds", "vsd"]
    assert presets.dreamfusion().shape.planar.prompt == "text"
    assert presets.stable_sds().shape.planar.prompt == "joint"


def test_a_phase_without_any_term_is_refused(guides: Any) -> None:
    nothing = PhaseSettings(
        planar=presets.NO_PLANAR,
        stereo=presets.NO_STEREO,
        similarity=presets.NO_SIMILARITY,
        reference=presets.NO_REFERENCE,
    )
    with pytest.raises(BadSetting, match="switched off"):
        phase_terms(nothing, guides)


def test_terms_are_loss_terms(guides: Any, tmp_path: Path) -> None:
    assert all(isinstance(term, LossTerm) for term in phase_terms(presets.paper().shape, guides))
