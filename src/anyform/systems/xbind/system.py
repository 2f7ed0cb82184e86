"""XBind as a user meets it: any prompt, or an asset with one, in; a textured mesh out."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from anyform import device as devices
from anyform.errors import BadInput
from anyform.geometry.asset import Asset, Provenance, Start
from anyform.geometry.coloring import with_colors
from anyform.geometry.mesh import Mesh
from anyform.systems.xbind import presets
from anyform.systems.xbind.config import XBindSettings
from anyform.systems.xbind.models import Models, load_models
from anyform.systems.xbind.pipeline import Draft, Run
from anyform.systems.xbind.request import Request, understand
from anyform.types.progress import Progress, Report, silent
from anyform.types.prompt import Audio, Image, Points, Sketch, Text

CITATION = (
    "XBind: any modality to textured 3D by distilling a 2D and a 3D-aware diffusion prior, arXiv:2411.14715, 2024"
)
ACCEPTS: tuple[type, ...] = (Text, Image, Audio, Sketch, Points, Asset, Start, list)
_HOW_ONLY = ("resume", "preview_every", "checkpoint_every")  # settings that do not change the result
KEPT_RUNS = 20  # interrupted runs that are kept for --resume; older ones go


class XBind:
    """One set of priors, ready to generate. `draft` makes the shape that `init="draft"` begins with."""

    accepts = ACCEPTS

    def __init__(self, models: Models, settings: XBindSettings, draft: Draft | None = None) -> None:
        self.models, self.settings, self.draft = models, settings, draft

    def generate(self, prompt: Any, *, seed: int, report: Report = silent) -> Asset:
        """The textured mesh of a prompt. With `settings.resume` an interrupted run of the same prompt, seed and
        settings is continued; its files are removed once the asset is made.

        Raises GateFailed where a phase failed twice, Interrupted after Ctrl-C: the last good state is kept then.
        """
        report(Progress("read the prompt"))
        request = understand(prompt)
        folder = run_folder(request, self.settings, seed)
        if not self.settings.resume:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        _forget_old(folder)
        run = Run(
            models=self.models,
            settings=self.settings,
            request=request,
            seed=seed,
            folder=folder,
            report=report,
            draft=self.draft,
        )
        painted, notes = run.painted()
        mesh, told = with_colors(_of_output(painted.mesh), painted, self.settings.texture_edge, report)
        shutil.rmtree(folder, ignore_errors=True)
        return Asset(mesh, self.provenance(request, seed, (*notes, *told)))

    def provenance(self, request: Request, seed: int, notes: tuple[str, ...] = ()) -> Provenance:
        """How to make the same asset again; what the asset began with keeps its own sources and weights."""
        from anyform import __version__

        before = None if request.asset is None else request.asset.provenance
        weights = self.models.weights if before is None else (*self.models.weights, *before.weights)
        settings = {key: value for key, value in asdict(self.settings).items() if key not in _HOW_ONLY}
        return Provenance(
            system="xbind",
            version=__version__,
            seed=seed,
            quality=self.settings.quality,
            settings=settings,
            prompt=request.described(),
            weights=weights,
            sources=() if before is None else before.sources,
            citations=(CITATION,) if before is None else (CITATION, *before.citations),
            notes=notes,
        )


def run_folder(request: Request, settings: XBindSettings, seed: int) -> Path:
    """Where the checkpoints of a run lie: the same for the same prompt, start, seed and settings."""
    plain = {key: value for key, value in asdict(settings).items() if key not in _HOW_ONLY}
    told: dict[str, Any] = {"prompt": request.described(), "settings": plain}
    if request.asset is not None:
        told["mesh"] = hashlib.sha256(request.asset.mesh.vertices.tobytes()).hexdigest()
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    return devices.home() / "runs" / f"xbind-{digest}" / str(seed)


def unfinished(prompt: Any, settings: XBindSettings) -> int | None:
    """The seed of the newest interrupted run of a prompt and settings; None where there is none."""
    folder = run_folder(understand(prompt), settings, 0).parent
    seeds = [place for place in folder.iterdir() if place.name.isdigit()] if folder.is_dir() else []
    return int(max(seeds, key=lambda place: place.stat().st_mtime).name) if seeds else None


def settings_of(quality: str) -> XBindSettings:
    """The preset of a quality."""
    return presets.QUALITIES[quality]()


def smaller(settings: XBindSettings) -> XBindSettings | None:
    """Half the pixels and tets with one view a step; None where nothing is left to save."""
    if settings.geometry.size <= 48 and settings.geometry.views == 1:
        return None

    def less(phase: Any) -> Any:
        return replace(phase, size=max(32, phase.size // 2), views=1)

    fields = replace(settings.fields, tets=max(12, settings.fields.tets // 2))
    return replace(
        settings,
        shape=less(settings.shape),
        geometry=less(settings.geometry),
        texture=less(settings.texture),
        fields=fields,
    )


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    settings: XBindSettings | None = None,
    draft: Draft | None = None,
) -> XBind:
    """XBind with the embedded networks (None) or those of a folder.

    draft: what makes the shape that `init="draft"` begins with, from a prompt, a seed and a report. Raises WeightsError
    where a network is missing, damaged or not trained yet; DeviceUnavailable.
    """
    settings = settings or presets.standard()
    if not settings.phases:
        raise BadInput("no phase has any steps: raise shape.steps, geometry.steps or texture.steps")
    return XBind(load_models(weights, device), settings, draft)


def _of_output(mesh: Mesh) -> Mesh:
    """The surface without its working colours."""
    return Mesh(mesh.vertices, mesh.faces)


def _forget_old(folder: Path) -> None:
    """Only the newest interrupted runs are kept."""
    runs = [place for place in folder.parent.parent.glob("xbind-*/*") if place.is_dir() and place != folder]
    runs.sort(key=lambda place: place.stat().st_mtime, reverse=True)
    for place in runs[KEPT_RUNS:]:
        shutil.rmtree(place, ignore_errors=True)
