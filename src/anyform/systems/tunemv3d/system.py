"""TuneMV3D as a user meets it: text, a picture or a few views in; eight views and their surface out."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyform import device as devices
from anyform.errors import BadInput, WeightsError
from anyform.geometry.asset import Asset, Provenance, WeightsRecord
from anyform.systems.tunemv3d import references
from anyform.systems.tunemv3d.branch_file import describe_branch, read_branch
from anyform.systems.tunemv3d.config import TuneMV3DSettings
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundation import Foundation
from anyform.systems.tunemv3d.foundations import load_foundation
from anyform.systems.tunemv3d.latent_neus import Rig, Seen
from anyform.systems.tunemv3d.references import Arrangement
from anyform.systems.tunemv3d.refine import foreground
from anyform.systems.tunemv3d.sampling import SamplingPlan, Step, sample_views
from anyform.systems.tunemv3d.surface import MESH_LATTICE, colored_lattice, mesh_of
from anyform.types.camera import Cameras
from anyform.types.progress import Progress, Report, silent
from anyform.types.prompt import Image, Prompt, Text, Views, describe
from anyform.weights import EMBEDDED, embedded_file, embedded_index, read_header, sha256

CITATION = "TuneMV3D: tuning a frozen 2D diffusion model to draw consistent views of an object and its surface"
BRANCH = "branch.safetensors"  # in the folder of a run
RECIPE = "anyform data views CORPUS -o VIEWS, then anyform train tunemv3d VIEWS --out RUN"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A prompt as it is understood: words, and pictures with all cameras."""

    text: str
    arrangement: Arrangement


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """pictures (V, 3, S, S) in [0, 1] on white; cameras at their size; the field read from them."""

    pictures: Tensor
    cameras: Cameras
    seen: Seen


def as_views(pictures: Tensor, cameras: Cameras, scale: float = 1.0) -> Views:
    """Pictures (V, 3, S, S) on white as a prompt or a folder takes them, background transparent.

    scale: of our world, in which the cameras are, against the user's.
    """
    alpha = foreground(pictures)
    straight = torch.where(alpha > 0, (pictures - 1 + alpha) / alpha.clamp(min=1e-3), pictures)
    rgba = torch.cat([straight.clamp(0, 1), alpha], 1).permute(0, 2, 3, 1).numpy()
    pose = cameras.camera_to_world.copy()
    pose[:, :3, 3] /= scale
    return Views("rgb", rgba, Cameras(pose, cameras.fov_y, *rgba.shape[1:3]))


class TuneMV3D:
    """One branch on its foundation, ready to generate."""

    accepts: tuple[type, ...] = (Text, Image, Views, list)

    def __init__(
        self,
        branch: ControlBranch,
        foundation: Foundation,
        settings: TuneMV3DSettings,
        weights: tuple[WeightsRecord, ...] = (),
        device: str = "cpu",
    ) -> None:
        self.branch, self.foundation, self.settings = branch.to(device), foundation, settings
        self.weights, self.device = (*weights, *foundation.records), device

    def understand(self, prompt: Any) -> Request:
        """What a prompt, or a mix of a text with pictures, asks for. Raises BadInput for any other mix."""
        parts = [part for part, _ in prompt] if isinstance(prompt, list) else [prompt]
        texts = [part.text for part in parts if isinstance(part, Text)]
        shown = [part for part in parts if not isinstance(part, Text)]
        if len(texts) > 1 or len(shown) > 1 or any(not isinstance(part, Image | Views) for part in shown):
            kinds = ", ".join(type(part).__name__ for part in parts)
            raise BadInput(f"TuneMV3D takes a text, a picture or views, or a text with one of these, not {kinds}")
        count, size = self.branch.config.num_views, self.foundation.spec.picture_size
        arrangement = Arrangement(references.preset(count, size), {})
        if shown and isinstance(shown[0], Image):
            elevation = float(np.radians(self.settings.reference_elevation))
            arrangement = references.of_image(shown[0], elevation, count, size)
        elif shown:
            arrangement = references.of_views(shown[0], count, size)
        return Request(texts[0] if texts else "", arrangement)

    def plan(self) -> SamplingPlan:
        """How the settings sample."""
        settings, scale = self.settings, self.settings.guidance_scale
        return SamplingPlan(
            steps=settings.steps,
            guidance_scale=self.foundation.spec.guidance_scale if scale is None else scale,
            consistency_fraction=settings.consistency_fraction,
            consistency_strength=settings.consistency_strength,
            compose=settings.compose,
            share_control=settings.share_control,
        )

    @torch.no_grad()
    def draw(self, prompt: Any, *, seed: int, report: Report = silent) -> Drawn:
        """The views alone; those that the prompt gave come back as they were put in."""
        request, plan = self.understand(prompt), self.plan()
        cameras = request.arrangement.cameras
        given = {
            slot: self.foundation.codec.encode(picture[None].to(self.device))[0]
            for slot, picture in request.arrangement.pictures.items()
        }

        def on_step(step: Step) -> None:
            preview = None
            if self.settings.preview_every and step.done % self.settings.preview_every == 0:
                preview = write_preview(self.foundation.codec.decode(step.views).cpu())
            report(Progress("views", step.done, plan.steps, preview=preview))

        rig = Rig.of(cameras, self.foundation.spec.size, self.device)
        caption = self.foundation.captions([request.text]).to(torch.device(self.device))
        sampled = sample_views(
            self.branch, self.foundation, caption, rig, plan, seed=seed, references=given, on_step=on_step
        )
        assert sampled.seen is not None
        pictures = self.foundation.codec.decode(sampled.views).cpu()
        for slot, picture in request.arrangement.pictures.items():
            pictures[slot] = picture  # no codec between what was given and what is shown
        return Drawn(pictures, cameras, sampled.seen)

    def generate(self, prompt: Prompt | list[Any], *, seed: int, report: Report = silent) -> Asset:
        """The textured surface of the views, which come along as `asset.views`."""
        report(Progress("read the prompt"))
        scale = self.understand(prompt).arrangement.scale
        drawn = self.draw(prompt, seed=seed, report=report)
        lattice = colored_lattice(self.branch, drawn.seen, MESH_LATTICE)
        mesh, notes = mesh_of(lattice, drawn.pictures, drawn.cameras, self.settings, seed=seed, report=report)
        if scale != 1.0:
            mesh = mesh.moved(1 / scale)
        provenance = self.provenance(prompt, seed, notes)
        return Asset(mesh, provenance, views=as_views(drawn.pictures, drawn.cameras, scale))

    def provenance(self, prompt: Any, seed: int, notes: tuple[str, ...] = ()) -> Provenance:
        """How to make the same asset again."""
        from anyform import __version__

        return Provenance(
            system="tunemv3d",
            version=__version__,
            seed=seed,
            quality=self.settings.quality,
            settings=asdict(self.settings),
            prompt=_described(prompt),
            weights=self.weights,
            citations=(CITATION,),
            notes=notes,
        )


def _described(prompt: Any) -> dict[str, Any]:
    """JSON of a prompt or a mix for the provenance."""
    if isinstance(prompt, list):
        return {"kind": "mix", "parts": [{**describe(part), "weight": weight} for part, weight in prompt]}
    return describe(prompt)


def write_preview(pictures: Tensor) -> Path:
    """The views so far, four a row, in one PNG of this process, replaced whole at every call; its path."""
    from PIL import Image as Pillow

    folder = devices.home() / "previews"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tunemv3d-{os.getpid()}.png"
    rows = [torch.cat(list(row), 2) for row in pictures.split(4) if len(row) == min(4, len(pictures))]
    pixels = torch.cat(rows, 1).permute(1, 2, 0).clamp(0, 1)
    partial = path.with_suffix(".partial")
    Pillow.fromarray((pixels * 255).round().byte().numpy()).save(partial, "PNG")
    partial.replace(path)
    return path


def load(weights: str | Path | None = None, device: str = "auto", settings: TuneMV3DSettings | None = None) -> TuneMV3D:
    """The embedded branch (None), or one of `anyform train tunemv3d`: its file or its run's folder.

    The foundation is the one that the branch names, or lies where `settings.foundation` says. Raises WeightsError where
    either is missing, damaged, or not made for the other.
    """
    settings = settings or TuneMV3DSettings()
    path = branch_path(weights)
    chosen = devices.choose(device)
    _, recorded = describe_branch(path)
    place = settings.foundation
    if place is None and recorded.get("id") != "anyform/foundation":
        place = recorded.get("id")
    foundation = load_foundation(place, chosen.name)
    return TuneMV3D(read_branch(path, foundation), foundation, settings, (_record(path, weights),), chosen.name)


def branch_path(weights: str | Path | None) -> Path:
    """The file of a branch: the embedded one, a file, or that of a run's folder. Raises WeightsError."""
    if weights is None and "tunemv3d" not in EMBEDDED:
        raise WeightsError(f"the embedded branch of TuneMV3D is not trained yet: {RECIPE}, and give --weights RUN")
    path = embedded_file("tunemv3d") if weights is None else Path(weights)
    found = path / BRANCH if path.is_dir() else path
    if not found.is_file():
        raise WeightsError(f"there is no branch of TuneMV3D at {path.name[:80]!r}: {RECIPE}, and give --weights RUN")
    return found


def _record(path: Path, weights: str | Path | None) -> WeightsRecord:
    """Licence and hash of a branch, as provenance carries it."""
    if weights is None:
        entry = embedded_index()["tunemv3d"]
        return WeightsRecord("anyform/tunemv3d", entry["sha256"], entry["licence"], entry["commercial_use"])
    _, metadata = read_header(path)
    licence, sale = metadata.get("licence", "unknown: a local run"), metadata.get("commercial_use", "unknown")
    return WeightsRecord(f"{path.parent.name}/{path.name}", sha256(path), licence, sale)


def smaller(settings: TuneMV3DSettings) -> TuneMV3DSettings | None:
    """Half the resolution that is meshed, down to 32."""
    if settings.mesh_resolution <= 32:
        return None
    return replace(settings, resolution=max(32, settings.mesh_resolution // 2))
