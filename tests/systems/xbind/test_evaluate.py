from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from anyform.errors import BadInput, GateFailed
from anyform.geometry.asset import Asset, Provenance
from anyform.geometry.marching_cubes import surface
from anyform.systems.xbind import evaluate as task
from anyform.systems.xbind import presets
from anyform.systems.xbind.evaluate import Retriever, evaluate, retriever
from anyform.systems.xbind.system import XBind
from anyform.types.progress import Progress, Report, silent
from anyform.types.prompt import Image, Text


class Painter(XBind):
    """Makes a ball in the colour that the prompt names; refuses green."""

    def __init__(self, space: Any) -> None:
        self.models = type("Models", (), {"space": space})()  # type: ignore[assignment]

    def generate(self, prompt: Any, *, seed: int, report: Report = silent) -> Asset:
        report(Progress("paint", seed))
        color = {"red": (0.9, 0.1, 0.1), "blue": (0.1, 0.1, 0.9)}.get(getattr(prompt, "text", "red"))
        if color is None:
            raise GateFailed("phase shape failed in step 3 of 4")
        axis = np.linspace(-1, 1, 16, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
        mesh = surface(np.sqrt((grid**2).sum(0)) - np.float32(0.6), -1.0, float(axis[1] - axis[0]))
        colors = np.tile(np.float32(color), (len(mesh.vertices), 1))
        return Asset(replace(mesh, vertex_color=colors), Provenance(system="x", version="0", seed=0, quality="draft"))


class Eye:
    """The mean colour is the embedding; a word is the colour that it names."""

    def embed(self, prompt: Any) -> Any:
        import torch

        if isinstance(prompt, Image):
            return torch.tensor([0.8, -0.4, -0.4])
        return torch.tensor({"red": [1.0, -1, -1], "blue": [-1.0, -1, 1], "green": [-1.0, 1, -1]}[prompt.text])

    def images(self, pictures: Any) -> Any:
        inside = (pictures < 0.99).any(1, keepdim=True)
        return ((pictures - 0.5) * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)


def judge() -> Retriever:
    return Retriever(Eye(), "colour", independent=True)


def test_what_shows_its_prompt_is_retrieved_and_a_failure_is_a_miss() -> None:
    told: list[Progress] = []
    prompts = [Text("red"), Text("blue"), Text("green")]
    record = evaluate(Painter(Eye()), prompts, judge(), views=(8, 32), seed=0, report=told.append)
    assert record["clip_r"]["mean"] == pytest.approx(2 / 3, abs=1e-4)
    assert record["clip_r"]["n"] == 3 and record["clip_r_chance"] == pytest.approx(1 / 3, abs=1e-4)
    assert record["failed"] == [{"prompt": 2, "reason": "phase shape failed in step 3 of 4"}]
    assert record["closed"] == 1.0 and record["bodies"] == 1.0 and record["views"] == 8
    assert abs(record["janus"]["mean"]) < 0.05  # a ball
    assert "clip_i" not in record and "arcc" not in record
    assert record["clip_r"]["interval90"][0] <= record["clip_r"]["mean"] <= record["clip_r"]["interval90"][1]


def test_pictures_are_compared_with_their_views() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    record = evaluate(Painter(Eye()), [Image.from_rgba(noise)], judge(), views=(4, 32), seed=0)
    assert record["clip_i"]["mean"] > 0.85 and record["clip_i"]["interval90"] is None


def test_nothing_made_is_an_error() -> None:
    with pytest.raises(GateFailed, match="none of the 1 prompts"):
        evaluate(Painter(Eye()), [Text("green")], judge(), views=(4, 32), seed=0)


def test_without_clip_the_joint_space_judges_and_says_so() -> None:
    found = retriever(Painter(Eye()), None)
    assert not found.independent and "no CLIP scores" in found.name


def arguments(**changes: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    task.add_arguments(parser)
    return argparse.Namespace(**{**vars(parser.parse_args([])), **changes})


def test_prompts_are_spread_over_the_frozen_list_or_read_from_a_file(tmp_path: Path) -> None:
    found = [prompt.text for prompt in task._prompts(arguments(prompts=4))]  # type: ignore[union-attr]
    assert len(set(found)) == 4 and found == sorted(found)
    file = tmp_path / "own.txt"
    file.write_text("a mug\n\n a jug \n", encoding="utf-8")
    own = task._prompts(arguments(captions=file, prompts=2))
    assert [prompt.text for prompt in own] == ["a mug", "a jug"]  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="between 1 and 136"):
        task._prompts(arguments(prompts=137))


def test_the_whole_verb_on_random_networks(tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt through every phase; the record holds what `--json` prints."""
    monkeypatch.setenv("ANYFORM_HOME", str(tmp_path / "home"))
    settings = replace(presets.smoke(), texture_size=0)
    monkeypatch.setattr(task, "load", lambda *_: XBind(tiny.models(), settings))
    record = task.run(arguments(prompts=1, save=tmp_path / "made"), silent)
    assert record["clip_r"]["mean"] == 1.0 and record["list"] == "df136-v1" and record["independent"] is False
    assert (tmp_path / "made" / "000.glb").is_file()
    assert {"date", "machine"} <= set(record["circumstances"])
