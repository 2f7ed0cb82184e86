"""check, cite, models, doctor, weights convert, and the verbs that hand over to long work."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from anyform import cli, weights
from anyform.cli import doctor, work
from anyform.geometry.asset import Asset, Provenance, Source, WeightsRecord
from anyform.geometry.marching_cubes import surface
from anyform.geometry.mesh import Mesh
from anyform.types.progress import Progress

Command = Callable[..., int]
Record = Callable[[], dict[str, Any]]


def ball(*centres: float, radius: float = 0.3) -> Mesh:
    axis = np.linspace(-1, 1, 33, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    fields = [np.sqrt((x - centre) ** 2 + y**2 + z**2) - np.float32(radius) for centre in centres]
    return surface(np.minimum.reduce(fields), -1.0, 2 / 32)


def made(mesh: Mesh, **more: Any) -> Asset:
    return Asset(mesh, Provenance(system="sphere", version="9", seed=7, quality="draft", **more))


FREE = WeightsRecord("text", "0" * 64, "Apache-2.0", "yes")
CLOSED = WeightsRecord("ADSKAILab/WaLa-SV-1B", "1" * 64, "Autodesk Non-Commercial", "no")


@pytest.mark.parametrize("suffix, up", [("glb", "y"), ("stl", "z"), ("3mf", "z"), ("obj", "y"), ("ply", "y")])
def test_check_passes_a_ball_in_every_format(anyform: Command, record: Record, suffix: str, up: str) -> None:
    made(ball(0.0)).save(f"ball.{suffix}")
    assert anyform("check", f"ball.{suffix}", "--json") == 0
    found = record()
    assert found["ok"] and found["watertight"] and found["bodies"] == 1 and found["up"] == up
    if suffix != "obj" and suffix != "ply":
        assert found["stands_on_ground"] and max(found["size_mm"]) == pytest.approx(1000, rel=1e-3)


def test_check_says_what_falls_short(anyform: Command, capsys: Any) -> None:
    whole = ball(0.0)
    made(Mesh(whole.vertices, whole.faces[:-5])).save("torn.glb")
    assert anyform("check", "torn.glb") == 5
    printed = capsys.readouterr()
    assert "torn.glb: falls short" in printed.out and "watertight no" in printed.out
    assert printed.err.startswith("anyform: torn.glb falls short: ")


@pytest.mark.parametrize(
    "name, options, code", [("a.glb", [], 0), ("a.glb", ["--one-body"], 5), ("a.stl", [], 5), ("a.3mf", [], 5)]
)
def test_check_wants_one_body_where_it_is_printed(anyform: Command, name: str, options: list[str], code: int) -> None:
    made(ball(-0.5, 0.5)).save(name)
    assert anyform("check", name, *options) == code


@pytest.mark.parametrize(
    "records, sources, answer",
    [
        ((FREE,), (), "yes"),
        ((FREE, CLOSED), (), "no"),
        ((), (), "unknown"),
        ((FREE,), (Source("Chair", "A. Author", "CC-BY-4.0", "c1", 0.5),), "yes"),
        ((FREE,), (Source("Chair", "A. Author", "CC-BY-NC-4.0", "c1", 0.5),), "no"),
    ],
)
@pytest.mark.parametrize("suffix", ["glb", "3mf"])
def test_cite_answers_may_i_sell_this(
    anyform: Command, record: Record, capsys: Any, records: Any, sources: Any, answer: str, suffix: str
) -> None:
    made(ball(0.0), weights=records, sources=sources, citations=("Paper, 2024",)).save(f"a.{suffix}")
    assert anyform("cite", f"a.{suffix}", "--json") == 0
    found = record()
    assert found["commercial_use"] == answer and found["citations"] == ["Paper, 2024"] and found["seed"] == 7
    assert anyform("cite", f"a.{suffix}") == 0
    text = capsys.readouterr().out
    assert f"May I sell this? {answer}" in text and "cite: Paper, 2024" in text
    assert all(source.title in text and source.licence in text for source in sources)
    assert anyform("check", f"a.{suffix}", "--json") == 0 and record()["commercial_use"] == answer


def test_cite_reads_the_sidecar_and_cleans_what_it_prints(anyform: Command, capsys: Any) -> None:
    hostile = made(ball(0.0), citations=("\x1b]0;pwned\x07Paper",)).provenance.to_json()
    Path("provenance.json").write_text(json.dumps(hostile), encoding="utf-8")
    assert anyform("cite", ".") == 0
    printed = capsys.readouterr()
    assert "Paper" in printed.out and "\x1b" not in printed.out


def test_cite_refuses_files_of_others(anyform: Command, capsys: Any) -> None:
    import trimesh

    trimesh.creation.box().export("box.glb")
    assert anyform("cite", "box.glb") == 2 and "not made by anyform" in capsys.readouterr().err
    assert anyform("check", "box.glb") == 0


def test_models_lists_embedded_and_released(anyform: Command, record: Record, capsys: Any) -> None:
    assert anyform("models", "--json") == 0
    rows = {row["id"]: row for row in record()["models"]}
    assert rows["text"]["commercial_use"] == "yes" and rows["text"]["parameters"] > 1e7
    released = rows["ADSKAILab/WaLa-SV-1B"]
    assert (
        released["commercial_use"] == "no" and released["accepted"] is False and "Non-Commercial" in released["licence"]
    )
    weights.accept_licence("ADSKAILab/WaLa-SV-1B")
    assert anyform("models", "--json") == 0
    assert {row["id"]: row for row in record()["models"]}["ADSKAILab/WaLa-SV-1B"]["accepted"] is True
    assert anyform("models") == 0 and "ADSKAILab/WaLa-PC-1B" in capsys.readouterr().out


def test_doctor_proves_its_backends(anyform: Command, record: Record, capsys: Any) -> None:
    assert anyform("doctor", "--json") == 0
    found = record()
    assert found["ok"] and found["device"]["reason"] and found["devices"][0]["name"] == "cpu"
    assert {test["name"] for test in found["self_tests"]} >= {"linear", "attention", "conv3d", "sphere volume"}
    assert all(test["error"] < 2e-3 for test in found["self_tests"] if "float32" in test["backend"])
    assert anyform("doctor") == 0 and "self-test cpu float32 conv3d: ok" in capsys.readouterr().out


def test_doctor_fails_a_backend_that_computes_wrongly(anyform: Command, capsys: Any, monkeypatch: Any) -> None:
    right = torch.nn.functional.conv3d

    def wrong(grid: Any, kernel: Any, **options: Any) -> Any:
        return right(grid, kernel, **options) * (1 if grid.dtype == torch.float64 else float("nan"))

    monkeypatch.setattr(torch.nn.functional, "conv3d", wrong)
    assert anyform("doctor") == 5
    assert "conv3d on cpu float32 is off by nan: do not use it" in capsys.readouterr().err


def test_doctor_warms_up_with_a_real_asset(sphere: None) -> None:
    assert doctor.warm() >= 0


def test_convert(anyform: Command, record: Record) -> None:
    torch.save({"a": torch.arange(3.0)}, "a.ckpt")
    assert anyform("weights", "convert", "a.ckpt", "-o", "a.safetensors", "--json") == 0
    assert record()["tensors"] == 1
    assert torch.equal(weights.read_safetensors("a.safetensors")[0]["a"], torch.arange(3.0))
    assert anyform("weights", "convert", "a.ckpt", "-o", "a.safetensors") == 2
    assert anyform("weights", "convert", "a.ckpt", "-o", "a.safetensors", "--force") == 0


def test_long_work_reads_its_own_options(anyform: Command, record: Record, capsys: Any, monkeypatch: Any) -> None:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--steps", type=int, required=True)

    def run(arguments: argparse.Namespace, report: Callable[[Progress], None]) -> dict[str, Any]:
        report(Progress("train", 1, arguments.steps))
        return {"steps": arguments.steps}

    task = SimpleNamespace(add_arguments=add_arguments, run=run, __doc__="A task.")
    monkeypatch.setitem(work.TRAIN, "wala", lambda: task)
    assert anyform("train", "wala", "--steps", 5, "--json") == 0 and record() == {"ok": True, "steps": 5}
    assert anyform("train", "--json", "wala", "--steps", 6) == 0 and record()["steps"] == 6
    assert anyform("train", "wala", "--steps", 5) == 0
    printed = capsys.readouterr()
    assert printed.out == "steps: 5\n" and "train  1/5" in printed.err
    assert anyform("train", "wala") == 2 and "--steps" in capsys.readouterr().err
    assert anyform("train", "wala", "--steps", "x") == 2


def test_data_prepare_hands_its_options_over(anyform: Command, record: Record, monkeypatch: Any) -> None:
    calls: list[Any] = []
    module = ModuleType("anyform.data.prepare")

    from dataclasses import dataclass

    @dataclass
    class Prepared:
        samples: int = 3

    def prepare(folder: Path, out: Path, **options: Any) -> Prepared:
        calls.append((folder, out, options["size"], options["workers"]))
        return Prepared()

    module.prepare = prepare  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "anyform.data.prepare", module)
    assert anyform("data", "prepare", "meshes", "-o", "out", "--size", 32, "--workers", 0, "--json") == 0
    assert record() == {"ok": True, "samples": 3} and calls == [(Path("meshes"), Path("out"), 32, 0)]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["generate", "--help"], ["weights", "convert", "--help"]]
)
def test_help_is_a_success(arguments: list[str], capsys: Any) -> None:
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert "anyform" in printed.out and printed.err == ""
