"""Whole runs on tiny random networks: every phase and hand-over is real, only what is drawn means nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from anyform.errors import BadInput, GateFailed, Interrupted, WeightsError
from anyform.geometry.asset import Asset, Provenance, Start
from anyform.geometry.gate import gate
from anyform.geometry.marching_cubes import surface
from anyform.systems.xbind import presets
from anyform.systems.xbind.config import XBindSettings
from anyform.systems.xbind.request import understand
from anyform.systems.xbind.system import XBind, load, run_folder, smaller, unfinished
from anyform.types.progress import Progress, silent
from anyform.types.prompt import Image, Text

SMOKE = replace(presets.smoke(), texture_size=0)
PROMPT = Text("a red chair")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own; the cut-out network, a second of work a picture, has its own tests."""
    monkeypatch.setenv("ANYFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("anyform.encoders.cutout.salient", lambda rgb: np.where(rgb[..., 0] < 200, 255, 0).astype("u1"))


@pytest.fixture
def system(tiny: ModuleType) -> Callable[..., XBind]:
    def build(settings: XBindSettings = SMOKE, **changes: Any) -> XBind:
        return XBind(tiny.models(), replace(settings, **changes))

    return build


def ball() -> Asset:
    axis = np.linspace(-1, 1, 24, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    mesh = surface(np.sqrt((grid**2).sum(0)) - np.float32(0.6), -1.0, float(axis[1] - axis[0]))
    red = np.tile(np.float32([0.8, 0.1, 0.1]), (len(mesh.vertices), 1))
    provenance = Provenance(
        system="wala", version="0", seed=5, quality="draft", prompt={"kind": "text", "text": "a red ball"}
    )
    return Asset(replace(mesh, vertex_color=red), provenance)


def interrupted_in(stage: str, step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.stage == stage and progress.step == step:
            raise KeyboardInterrupt

    return report


def test_text_goes_through_all_three_phases_to_a_closed_coloured_mesh(system: Callable[..., XBind]) -> None:
    told: list[Progress] = []
    asset = system().generate(PROMPT, seed=1, report=told.append)
    assert gate(asset.mesh, allow_parts=True).ok
    assert asset.mesh.vertex_color is not None and asset.mesh.vertex_color.shape == asset.mesh.vertices.shape
    done = {p.stage: p.step for p in told if p.total}
    assert (done["shape"], done["geometry"], done["texture"]) == (4, 3, 3)
    assert any(p.preview is not None for p in told)
    made = asset.provenance
    assert made.system == "xbind" and made.prompt == {"kind": "text", "text": "a red chair"}
    assert made.settings["shape"]["steps"] == 4 and "resume" not in made.settings


def test_a_run_that_was_stopped_anywhere_ends_as_if_it_had_not_been(system: Callable[..., XBind]) -> None:
    """Stopped in phase I and again in phase III, continued twice: the same bytes."""
    whole = system().generate(PROMPT, seed=2, report=silent)
    with pytest.raises(Interrupted, match=r"shape, step \d of 4"):
        system().generate(PROMPT, seed=2, report=interrupted_in("shape", 3))
    assert unfinished(PROMPT, SMOKE) == 2
    with pytest.raises(Interrupted, match=r"texture, step \d of 3"):
        system(resume=True).generate(PROMPT, seed=2, report=interrupted_in("texture", 2))
    again = system(resume=True).generate(PROMPT, seed=2, report=silent)
    assert np.array_equal(whole.mesh.vertices, again.mesh.vertices)
    assert np.array_equal(whole.mesh.vertex_color, again.mesh.vertex_color)
    assert whole.provenance == again.provenance
    assert unfinished(PROMPT, SMOKE) is None  # what is finished leaves nothing behind


def test_nan_is_named_and_never_exported(system: Callable[..., XBind], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", "nan:stage=geometry")
    with pytest.raises(GateFailed, match="phase geometry failed in step 0 of 3"):
        system().generate(PROMPT, seed=3, report=silent)
    monkeypatch.delenv("ANYFORM_FAULT")
    assert unfinished(PROMPT, SMOKE) == 3
    assert gate(system(resume=True).generate(PROMPT, seed=3, report=silent).mesh, allow_parts=True).ok


def test_an_asset_is_refined_and_keeps_its_place_in_the_provenance(system: Callable[..., XBind]) -> None:
    asset = system(shape=replace(SMOKE.shape, steps=2)).generate(ball(), seed=4, report=silent)
    size = np.ptp(asset.mesh.bounds, axis=0)[0]
    assert np.allclose(size, 2 * 0.78, atol=0.25)
    assert asset.provenance.prompt["text"] == "a red ball"
    assert asset.provenance.prompt["start"] == {"system": "wala", "seed": 5}


def test_kept_geometry_stays_to_the_last_vertex(system: Callable[..., XBind]) -> None:
    before = ball()
    start = Start(before, Text("made of gold"))
    asset = system(keep_geometry=True).generate(start, seed=5, report=silent)
    assert np.array_equal(asset.mesh.vertices, before.mesh.vertices)
    assert np.array_equal(asset.mesh.faces, before.mesh.faces)
    assert asset.mesh.vertex_color is not None
    assert not np.allclose(asset.mesh.vertex_color, before.mesh.vertex_color, atol=0.05)
    with pytest.raises(BadInput, match="--init or --refine"):
        system(keep_geometry=True).generate(PROMPT, seed=5, report=silent)


@pytest.mark.slow
def test_draft_begins_with_another_system_s_shape(tiny: ModuleType) -> None:
    asked: list[Any] = []

    def draft(prompt: Any, seed: int, report: Any) -> Asset:
        asked.append((prompt, seed))
        return ball()

    settings = replace(SMOKE, init="draft")
    asset = XBind(tiny.models(), settings, draft).generate(PROMPT, seed=6, report=silent)
    assert asked == [(PROMPT, 6)]
    assert np.allclose(np.ptp(asset.mesh.bounds, axis=0)[0], 2 * 0.78, atol=0.25)


@pytest.mark.slow
def test_a_draft_that_refuses_the_prompt_is_said_and_the_ball_taken(tiny: ModuleType) -> None:
    def draft(prompt: Any, seed: int, report: Any) -> Asset:
        raise BadInput("no system here listens")

    few = replace(SMOKE, init="draft", geometry=replace(SMOKE.geometry, steps=0))
    asset = XBind(tiny.models(), few, draft).generate(PROMPT, seed=6, report=silent)
    assert any("no system here listens" in note for note in asset.provenance.notes)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["stable-sds", "prolificdreamer", "zero-stable-cds", "without-geometry"])
def test_baselines_run(tiny: ModuleType, variant: str) -> None:
    settings = presets.VARIANTS[variant](SMOKE)
    asset = XBind(tiny.models(), settings).generate(PROMPT, seed=7, report=silent)
    assert gate(asset.mesh, allow_parts=True).ok


def test_a_picture_is_its_own_reference_and_a_mix_is_one_request(system: Callable[..., XBind], fixtures: Path) -> None:
    picture = Image.open(fixtures / "image.png")
    mix = [(picture, 1.0), (Text("blue"), 0.5)]
    request = understand(mix)
    assert request.image is picture and request.text == "blue"
    few = system(geometry=replace(SMOKE.geometry, steps=0), texture=replace(SMOKE.texture, steps=0))
    asset = few.generate(mix, seed=8, report=silent)
    assert asset.provenance.prompt["kind"] == "mix" and len(asset.provenance.prompt["parts"]) == 2


def test_a_text_prior_needs_words(tiny: ModuleType, fixtures: Path) -> None:
    with pytest.raises(BadInput, match="prompt with words"):
        XBind(tiny.models(), presets.dreamfusion(SMOKE)).generate(
            Image.open(fixtures / "image.png"), seed=1, report=silent
        )


def test_the_run_s_folder_hangs_on_what_changes_the_result_only() -> None:
    request = understand(PROMPT)
    one = run_folder(request, SMOKE, 1)
    assert run_folder(request, replace(SMOKE, resume=True, preview_every=9), 1) == one
    assert run_folder(request, replace(SMOKE, candidates=3), 1) != one
    assert run_folder(understand(Text("a blue chair")), SMOKE, 1) != one
    assert run_folder(understand(Start(ball(), PROMPT)), SMOKE, 1) != one


def test_with_less_memory_everything_is_smaller_until_nothing_is() -> None:
    settings: XBindSettings | None = presets.high()
    sizes = []
    while settings is not None:
        sizes.append(settings.geometry.size)
        settings = smaller(settings)
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes) < 5


def test_without_trained_weights_one_sentence_names_the_recipe(tmp_path: Path) -> None:
    from anyform.weights import EMBEDDED

    (tmp_path / "run").mkdir()
    with pytest.raises(WeightsError, match=r"foundation\.safetensors.*runs/embedded_foundation\.py"):
        load(tmp_path / "run")
    if "foundation" not in EMBEDDED:
        with pytest.raises(WeightsError, match=r"not trained yet.*runs/embedded_foundation\.py"):
            load()


@pytest.mark.slow
def test_a_folder_of_files_in_the_real_format_loads_and_runs(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "weights")
    system = load(folder, "cpu", SMOKE)
    asset = system.generate(PROMPT, seed=1, report=silent)
    assert gate(asset.mesh, allow_parts=True).ok
    assert [record.id for record in asset.provenance.weights] == ["local/foundation", "local/view"]
    assert torch.is_inference_mode_enabled() is False
