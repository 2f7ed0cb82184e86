"""The demo: its prompts match the fixtures, its pictures show them, a failure is named and returned."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def demo(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "runs" / "demo.py"))


def test_every_modality_has_its_prompt_and_picture(
    demo: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    kinds = {arguments[0] for _, arguments, _ in demo["PROMPTS"] if len(arguments) > 1}
    assert kinds == {"--image", "--sketch", "--points", "--voxels", "--views", "--depths"}
    for _, arguments, _ in demo["PROMPTS"]:
        pixels = demo["prompt_picture"](arguments)
        if len(arguments) > 1:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3
            assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 3


def test_dots_draw_the_nearest_on_top(demo: dict[str, Any]) -> None:
    points = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], np.float32) * 0.9
    colours = np.zeros((6, 3), np.uint8)
    colours[0], colours[1] = (255, 0, 0), (0, 0, 255)
    pixels = demo["dots"](points, colours, 200)  # every dot covers the middle of the picture
    middle = pixels[demo["SIZE"] // 2, demo["SIZE"] // 2].astype(int)
    assert middle[0] > 150 and middle[2] == 0


def test_a_failure_keeps_its_exit_code(demo: dict[str, Any], tmp_path: Path) -> None:
    made = demo["make"]("bad", ("--image", str(tmp_path / "absent.png")), tmp_path / "x.glb")
    assert made.exit_code == 2
    assert "exit code 2" in made.row()
    assert not (tmp_path / "x.glb").exists()
