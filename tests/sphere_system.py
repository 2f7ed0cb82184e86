"""A small real system, so that whole runs are tested in milliseconds: a sphere, its size drawn from the seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from anyform import api
from anyform.errors import BadSetting, GateFailed
from anyform.faults import fault_point
from anyform.geometry.asset import Asset, Provenance, Source, WeightsRecord
from anyform.geometry.marching_cubes import surface
from anyform.types.progress import Progress, Report
from anyform.types.prompt import Image, Points, Text, Views, Voxels, describe
from anyform.weights import resolve


@dataclass(frozen=True, kw_only=True)
class SphereSettings:
    quality: str = "standard"
    resolution: int = 32
    num_inference_steps: int = 4
    faces: int | None = None
    paint: bool = True
    variation: float = 0.5

    def __post_init__(self) -> None:
        if not 8 <= self.resolution <= 64:
            raise BadSetting(f"resolution lies between 8 and 64, got {self.resolution}")


class Sphere:
    accepts = (Text, Image, Points, Voxels, Views)

    def __init__(self, settings: SphereSettings) -> None:
        self.settings = settings

    def generate(self, prompt: Any, *, seed: int, report: Report) -> Asset:
        radius = np.float32(0.5 + 0.3 * np.random.default_rng(seed).random())
        for step in range(self.settings.num_inference_steps):
            report(Progress("denoise", step + 1, self.settings.num_inference_steps))
            if fault_point("denoise", step):
                raise GateFailed(f"NaN in stage denoise at step {step}")
        report(Progress("decode"))
        if self.settings.resolution > 16:
            fault_point("decode")
        axis = np.linspace(-1, 1, self.settings.resolution, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
        mesh = surface(np.sqrt((grid**2).sum(0)) - radius, -1.0, 2 / (self.settings.resolution - 1))
        provenance = Provenance(
            system="sphere",
            version="0",
            seed=seed,
            quality=self.settings.quality,
            settings=asdict(self.settings),
            prompt=describe(prompt),
            weights=(WeightsRecord("text", "0" * 64, "Apache-2.0", "yes"),),
            sources=(Source("Ball", "A. Author", "CC0-1.0", "ball", 0.5),),
            citations=("Sphere, antiquity",),
        )
        return Asset(mesh, provenance)


def smaller(settings: SphereSettings) -> SphereSettings | None:
    return SphereSettings(**{**asdict(settings), "resolution": 16}) if settings.resolution > 16 else None


def load(weights: Any, device: str, settings: SphereSettings) -> Sphere:
    from anyform.device import choose

    choose(device)
    if weights is not None:
        resolve(weights)
    return Sphere(settings)


def entry() -> api.Entry:
    """The row that stands in SYSTEMS."""
    return api.Entry(
        load=load,
        settings=lambda quality: SphereSettings(quality=quality),
        smaller=smaller,
        accepts=Sphere.accepts,
    )
