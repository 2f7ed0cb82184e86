"""`anyform.generate`, `anyform.load` and what may be passed as a prompt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anyform
from anyform import api
from anyform.errors import BadInput, BadSetting, DeviceUnavailable, GateFailed, OutOfMemory
from anyform.geometry.mesh import Mesh
from anyform.types.progress import Progress

POINTS = np.random.default_rng(0).random((100, 3))


def test_importing_loads_nothing_heavy() -> None:
    source = Path(anyform.__file__).resolve().parents[1]
    body = "import sys, anyform; sys.exit(len({'torch', 'numpy', 'rich', 'argparse'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", body], env={"PYTHONPATH": str(source)}, check=False)
    assert done.returncode == 0


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(anyform, name) is not None for name in anyform.__all__)
    assert set(anyform.__all__) <= set(dir(anyform))
    with pytest.raises(AttributeError, match="no attribute 'Txet'"):
        _ = anyform.Txet


def test_generate_picks_gates_and_reports(sphere: None) -> None:
    seen: list[Progress] = []
    asset = anyform.generate("a ball", seed=3, quality="draft", settings={"sphere.resolution": 24}, report=seen.append)
    assert asset.provenance.seed == 3 and asset.provenance.settings["resolution"] == 24
    assert asset.provenance.quality == "draft" and asset.provenance.prompt == {"kind": "text", "text": "a ball"}
    assert seen[0].stage == "loading sphere" and {event.stage for event in seen} >= {"denoise", "decode"}
    again = anyform.generate(anyform.Text("a ball"), seed=3, quality="draft", settings={"resolution": 24})
    assert np.array_equal(asset.mesh.vertices, again.mesh.vertices)


def test_absent_seeds_differ(sphere: None) -> None:
    assert len({anyform.generate("x").provenance.seed for _ in range(3)}) == 3


def test_loaded_systems_are_used_as_they_are(sphere: None, sphere_system: ModuleType) -> None:
    system = anyform.load("sphere", settings={"num_inference_steps": 2})
    assert system.settings.num_inference_steps == 2
    asset = anyform.generate("x", system=system, seed=1)
    assert asset.provenance.settings["num_inference_steps"] == 2
    assert type(anyform.from_pretrained("sphere")) is type(system)
    exact = sphere_system.SphereSettings(resolution=12)
    assert anyform.load("sphere", settings=exact).settings is exact
    with pytest.raises(BadInput, match=r"anyform\.load"):
        anyform.generate("x", system=system, settings={"resolution": 12})


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"system": "dreamfusion"}, BadInput, "there are sphere"),
        ({"quality": "best"}, BadSetting, "draft, standard, high"),
        ({"device": "tpu"}, BadInput, "no device"),
        ({"device": "cuda:7"}, DeviceUnavailable, "cuda:7"),
        ({"settings": {"resolutoin": 1}}, BadSetting, "did you mean 'resolution'"),
        ({"refine": "sphere"}, BadInput, "accepts the prompt type Asset"),
        ({"seed": -1}, BadSetting, "whole number"),
    ],
)
def test_wrong_options(sphere: None, options: dict[str, Any], error: type[Exception], words: str) -> None:
    if options.get("device", "").startswith("cuda") and _has_cuda():
        pytest.skip("this machine has GPUs")
    with pytest.raises(error, match=words):
        anyform.generate("x", **{"seed": 0, **options})


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_prompts_that_no_system_takes(sphere: None) -> None:
    sketch = anyform.Sketch(np.eye(32, dtype=np.float32))
    with pytest.raises(BadInput, match="no system accepts the prompt type Sketch"):
        anyform.generate(sketch)
    with pytest.raises(BadInput, match="no system accepts a mix of prompts"):
        anyform.generate([("a ball", 1.0), ("a cube", 0.5)])


def test_an_open_result_fails_its_gate(sphere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    system = anyform.load("sphere")
    whole = system.generate(anyform.Text("x"), seed=0, report=lambda progress: None)
    torn = api.dataclasses.replace(whole, mesh=Mesh(whole.mesh.vertices, whole.mesh.faces[:-3]))
    monkeypatch.setattr(type(system), "generate", lambda *arguments, **options: torn)
    with pytest.raises(GateFailed, match="not good enough"):
        anyform.generate("x", system=system)


@pytest.mark.parametrize("resolution, retried", [(32, True), (16, False)])
def test_memory(sphere: None, monkeypatch: pytest.MonkeyPatch, resolution: int, retried: bool) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", "oom:stage=decode")
    asset = anyform.generate("x", settings={"resolution": resolution})
    assert asset.provenance.settings["resolution"] == 16
    assert any("memory ran out" in note for note in asset.provenance.notes) is retried
    monkeypatch.setenv("ANYFORM_FAULT", "oom:step=1")
    with pytest.raises(OutOfMemory, match="resolution"):
        anyform.generate("x", settings={"resolution": resolution})


def test_other_runtime_errors_are_not_swallowed(sphere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    system = anyform.load("sphere")

    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(type(system), "generate", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        anyform.generate("x", system=system)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, np.int64(5)])
def test_seeds_in_range(seed: Any) -> None:
    assert api.check_seed(seed) == int(seed)


@given(
    seed=st.one_of(
        st.integers(max_value=-1), st.integers(min_value=2**32), st.floats(), st.booleans(), st.text(), st.binary()
    )
)
def test_seeds_out_of_range(seed: Any) -> None:
    with pytest.raises(BadSetting, match="whole number from 0 to 4294967295"):
        api.check_seed(seed)


def test_the_real_table_is_whole() -> None:
    assert next(iter(api.SYSTEMS)) == "wala"  # the fastest: what a prompt gets by itself
    for name, floor in (("wala", 64), ("tunemv3d", 32)):
        entry = api.SYSTEMS[name]
        for quality in api.QUALITIES:
            settings = entry.settings(quality)
            assert settings.quality == quality
            while (less := entry.smaller(settings)) is not None:
                assert less.mesh_resolution < settings.mesh_resolution
                settings = less
            assert settings.mesh_resolution == floor
