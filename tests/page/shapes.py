"""A server for the journeys: everything real but the system, which makes a rounded box in milliseconds.

    python tests/page/shapes.py serve HOME PORT [TOKEN]
    python tests/page/shapes.py work
    python tests/page/shapes.py embedded HOME PORT      the shipped systems instead, as `anyform serve` has them

The prompt's text steers it: "slow …" reports step after step until it is cancelled, "fail …" fails its gate.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from anyform import api
from anyform.errors import GateFailed
from anyform.geometry.asset import Asset, Provenance, WeightsRecord
from anyform.geometry.marching_cubes import surface
from anyform.types.progress import Progress, Report
from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Views, Voxels, describe

STEPS = 6
SIDE = 20  # samples along an edge of the grid
SLOW_STEPS, SLOW_SIDE = 2000, 64  # a finer grid at each step: real work, tens of milliseconds


@dataclass(frozen=True, kw_only=True)
class ShapesSettings:
    quality: str = "standard"
    faces: int | None = None


class Shapes:
    """|x|^p + |y|^p + |z|^p = r^p, its p and colour drawn from the seed."""

    accepts = (Text, Image, Sketch, Audio, Points, Voxels, Views, Asset)

    def __init__(self, settings: ShapesSettings) -> None:
        self.settings = settings

    def generate(self, prompt: Any, *, seed: int, report: Report) -> Asset:
        text = prompt.text if isinstance(prompt, Text) else ""
        steps = SLOW_STEPS if text.startswith("slow") else STEPS
        with tempfile.TemporaryDirectory() as folder:
            for step in range(1, steps + 1):
                preview = draw(Path(folder), step) if step in (2, 4) else None
                report(Progress("denoise", step, steps, preview=preview))
                if steps == SLOW_STEPS:
                    superquadric(2 + step / steps, SLOW_SIDE)
        if text.startswith("fail"):
            raise GateFailed("the result of shapes is not good enough to save: it is not watertight; try another seed")
        random = np.random.default_rng(seed)
        mesh = surface(superquadric(random.uniform(2, 6), SIDE), -1.0, 2 / (SIDE - 1))
        color = np.tile(random.uniform(0.2, 0.9, 3).astype(np.float32), (len(mesh.vertices), 1))
        provenance = Provenance(
            system="shapes",
            version="0",
            seed=seed,
            quality=self.settings.quality,
            settings=asdict(self.settings),
            prompt={"kind": "asset"} if isinstance(prompt, Asset) else describe(prompt),
            weights=(WeightsRecord("shapes", "0" * 64, "CC0-1.0", "yes"),),
            notes=("a note with <b>no markup</b>",),
        )
        return Asset(replace(mesh, vertex_color=color), provenance)


def superquadric(power: float, side: int) -> np.ndarray:
    """Values (side, side, side) of the shape over [-1, 1]³, negative inside."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    field = (np.abs(x) ** power + np.abs(y / 0.8) ** power + np.abs(z) ** power) ** (1 / power) - 0.7
    return field.astype(np.float32)


def draw(folder: Path, step: int) -> Path:
    """A preview that grows."""
    path = folder / f"{step}.webp"
    picture = Picture.new("RGB", (128, 128), "#dfe4ec")
    ImageDraw.Draw(picture).ellipse([64 - 12 * step, 64 - 12 * step, 64 + 12 * step, 64 + 12 * step], fill="#3b4fd0")
    picture.save(path)
    return path


def install() -> None:
    """The table of systems holds this one alone."""
    api.SYSTEMS.clear()
    api.SYSTEMS["shapes"] = api.Entry(
        load=lambda weights, device, settings: Shapes(settings),
        settings=lambda quality: ShapesSettings(quality=quality),
        smaller=lambda settings: None,
        accepts=Shapes.accepts,
    )


def main(verb: str, *rest: str) -> None:
    if verb != "embedded":
        install()
    if verb == "work":
        from anyform.server.worker import main as work

        work()
        return
    from anyform.server.jobs import Settings
    from anyform.server.serving import Address, serve

    home, port, token = Path(rest[0]), int(rest[1]), (*rest[2:], "")[0]
    real = Settings(home=home)
    settings = real if verb == "embedded" else replace(real, command=(sys.executable, __file__, "work"))
    serve(settings, Address(port=port, token=token), lambda url: print(url, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
