"""What may be passed as a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import anyform
from anyform.errors import BadInput
from anyform.prompts import as_prompt

POINTS = np.random.default_rng(0).random((100, 3))


def test_plain_values_become_prompts(fixtures: Path) -> None:
    from PIL import Image as Pillow

    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    cases = [
        ("a chair", anyform.Text),
        (POINTS, anyform.Points),
        (np.ones((4, 4, 4), bool), anyform.Voxels),
        (picture, anyform.Image),
        (Pillow.fromarray(picture), anyform.Image),
        (fixtures / "image.png", anyform.Image),
        (fixtures / "points.ply", anyform.Points),
        (fixtures / "voxels.json", anyform.Voxels),
    ]
    for value, kind in cases:
        assert type(as_prompt(value)) is kind
    mix = as_prompt([("a chair", 1), (picture, 0.5)])
    assert isinstance(mix, list) and [type(part) for part, _ in mix] == [anyform.Text, anyform.Image]


@pytest.mark.parametrize(
    "value",
    [
        3,
        None,
        b"a chair",
        [],
        ["a chair"],
        [("a chair", -1.0)],
        [("a chair", float("nan"))],
        [("a chair", True)],
        [([("a", 1)], 1)],
        np.zeros((4, 4)),
        np.zeros((4, 4, 4), np.uint8),
        Path("thing.npz"),
        Path("thing"),
        Path(),
    ],
    ids=repr,
)
def test_ambiguous_values_are_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        as_prompt(value)
