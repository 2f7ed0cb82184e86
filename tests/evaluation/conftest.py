"""A corpus of balls and boxes, and a system whose mistakes are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from anyform.errors import GateFailed
from anyform.evaluation.protocol import CONDITIONS, Target
from anyform.evaluation.reference import Reference
from anyform.geometry.marching_cubes import surface
from anyform.geometry.mesh import Mesh
from anyform.types.camera import wala_cameras
from anyform.types.prompt import Image, Points, Prompt, Sketch, Text, Views, Voxels

SIZE = 16
ALONG = -1 + (2 * np.arange(SIZE) + 1) / SIZE
X, Y, Z = np.meshgrid(ALONG, ALONG, ALONG, indexing="ij")


def ball(radius: float) -> np.ndarray:
    return (np.sqrt(X**2 + Y**2 + Z**2) - radius).astype(np.float32)


def box(x: float, y: float, z: float, shift: float = 0.0) -> np.ndarray:
    return np.maximum.reduce([np.abs(X - shift) - x, np.abs(Y) - y, np.abs(Z) - z]).astype(np.float32)


def every_prompt(sdf: np.ndarray, caption: str) -> dict[str, Prompt]:
    """A prompt of every kind; the picture prompts only have to be distinct."""
    inside = sdf < 0
    pixels = np.full((16, 16, 4), 255, np.uint8)
    pixels[4:12, 4:12, :3] = len(caption) * 5
    ink = np.zeros((16, 16), np.float32)
    ink[3:13, 3:13] = 1
    cameras = wala_cameras((3, 6), 16)
    cells = ALONG[np.argwhere(inside)]
    points = np.concatenate([cells] * (64 // len(cells) + 1)).astype(np.float32)
    return {
        "voxels": Voxels(inside),
        "points": Points(points),
        "depth": Views("depth", np.full((2, 16, 16, 1), 4.0, np.float32), cameras),
        "views": Views("rgb", np.repeat(pixels[None] / np.float32(255), 2, 0), cameras),
        "image": Image(pixels),
        "sketch": Sketch(ink),
        "text": Text(caption),
    }


@dataclass
class Known:
    """Generates the truth, shifted by whole cells: `error` (condition, seed) -> cells, None = nothing comes out."""

    targets: Sequence[Target]
    error: Callable[[str, int], int | None] = lambda condition, seed: 0
    asked: list[tuple[str, int, float | None]] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {"name": "known", "weights": {"known": "0" * 64}}

    def reconstruct(self, sdf: np.ndarray) -> np.ndarray:
        return sdf

    def find(self, prompt: Prompt) -> tuple[Target, str]:
        for target in self.targets:
            for condition, other in target.prompts.items():
                if other is prompt:
                    return target, condition
        raise AssertionError("a prompt of nobody")

    def generate(self, prompt: Prompt, seed: int, guidance: float | None) -> np.ndarray:
        target, condition = self.find(prompt)
        self.asked.append((condition, seed, guidance))
        shift = self.error(condition, seed) if guidance is None else round(abs(guidance - 2))
        if shift is None:
            raise GateFailed("nothing came out")
        return np.roll(target.truth(condition), shift, 1)

    def crude(self, prompt: Prompt) -> np.ndarray | None:
        return np.where(prompt.occupancy, -1, 1).astype(np.float32) if isinstance(prompt, Voxels) else None

    def retrieve(self, prompt: Prompt) -> tuple[str, int] | None:
        _, condition = self.find(prompt)
        return ("plank", 1) if condition in ("image", "sketch") else None

    def text_vectors(self, captions: Sequence[str]) -> np.ndarray:
        words = ("ball", "plank", "cube")
        return np.array([[word in caption for word in words] for caption in captions], float)

    def mesh(self, sdf: np.ndarray) -> Mesh:
        return surface(np.ascontiguousarray(sdf), -1 + 1 / SIZE, 2 / SIZE)


@pytest.fixture
def reference() -> Reference:
    """Three training shapes."""
    fields = [ball(0.6), box(0.8, 0.2, 0.3), box(0.5, 0.5, 0.5)]
    return Reference.of(["ball", "plank", "cube"], ["red ball", "a plank", "cube small"], [f < 0 for f in fields])


@pytest.fixture
def targets() -> list[Target]:
    """A ball like the one in training, and a plank whose picture is taken from the right."""
    plank = box(0.8, 0.2, 0.3)
    return [
        Target("t0", "ball blue", ball(0.6), every_prompt(ball(0.6), "ball blue"), {}),
        Target("t1", "plank", plank, every_prompt(plank, "plank"), {"image": 1, "sketch": 1}),
    ]


@pytest.fixture
def known(targets: list[Target]) -> Known:
    """A system without mistakes."""
    assert set(targets[0].prompts) == set(CONDITIONS)
    return Known(targets)
