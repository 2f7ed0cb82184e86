"""The run of all phases for one request: reference view, guides, phases I to III, each continuing the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anyform.diffusion.prior import Condition
from anyform.errors import BadInput
from anyform.fields.nerf import NeRF
from anyform.geometry.asset import Asset
from anyform.systems.xbind import reference, starts
from anyform.systems.xbind.config import PhaseSettings, XBindSettings
from anyform.systems.xbind.models import Models
from anyform.systems.xbind.painted_mesh import PaintedMesh
from anyform.systems.xbind.phases import Cameras, PhaseConfig, optimise
from anyform.systems.xbind.reference import ReferenceView
from anyform.systems.xbind.request import Request, front
from anyform.systems.xbind.terms import Guides, phase_terms
from anyform.systems.xbind.variational import LowRankCopy
from anyform.systems.xbind.views import Viewpoints, framing_scale, reference_view, sample, turntable
from anyform.types.progress import Progress, Report

Draft = Callable[[Any, int, Report], Asset]  # a prompt, a seed -> the fastest system's asset
RADIUS = 0.75  # of the sphere that close-ups step back from: an object that fills the reference view


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One request with everything it is made with; folder: for checkpoints and previews."""

    models: Models
    settings: XBindSettings
    request: Request
    seed: int
    folder: Path
    report: Report
    draft: Draft | None = None

    def painted(self) -> tuple[PaintedMesh, tuple[str, ...]]:
        """All phases that the settings ask for; the surface with its colours, and what the user should know."""
        torch.manual_seed(self.seed)
        vector = self.request.vector(self.models.space)
        asset, notes = self._start()
        view = self._reference(vector, asset)
        guides = self._guides(vector, view)
        if self.settings.keep_geometry:
            if asset is None:
                raise BadInput("keep_geometry keeps the mesh that a run starts from: give one with --init or --refine")
            field: Any = starts.kept(asset, self.settings.fields, self.models.device)
        else:
            field, told = self._shaped(asset, guides)
            notes = (*notes, *told)
        return self._phase("texture", field, guides), notes

    def _start(self) -> tuple[Asset | None, tuple[str, ...]]:
        """The asset to begin with: the user's, the draft of the fastest system, or none."""
        if self.request.asset is not None:
            return self.request.asset, ()
        if self.settings.init == "blob":
            return None, ()
        if self.draft is None:
            return None, ("started from a ball: no other system was at hand for a draft",)
        parts = list(self.request.parts)
        prompt = parts[0][0] if len(parts) == 1 else parts
        try:
            return self.draft(prompt, self.seed, self.report), ()
        except BadInput as error:
            return None, (f"started from a ball: {error}",)

    def _reference(self, vector: torch.Tensor, asset: Asset | None) -> ReferenceView:
        settings, models = self.settings, self.models
        if settings.reference == "user" and self.request.image is None:
            raise BadInput("reference 'user' needs a picture in the prompt: give --image, or take reference auto")
        if settings.reference != "generated" and self.request.image is not None and not settings.keep_geometry:
            return reference.of_image(self.request.image)
        self.report(Progress("reference"))
        condition = self._condition(vector, text_only=False)
        if asset is not None:
            mesh = asset.mesh if settings.keep_geometry else starts.framed(asset.mesh)
            shape = _as_view(front(replace(asset, mesh=mesh)))
            return reference.repainted(
                models.planar, condition, shape, steps=settings.reference_steps, seed=self.seed, report=self.report
            )
        return reference.imagined(
            models.planar,
            condition,
            vector,
            (models.space.images, models.picture_size),
            candidates=settings.candidates,
            steps=settings.reference_steps,
            seed=self.seed,
            report=self.report,
        )

    def _condition(self, vector: torch.Tensor, *, text_only: bool) -> Condition:
        """What the 2D prior is asked for: the embedding, noised once for the whole run, and the words."""
        text = self.request.text
        if text_only:
            if not text:
                raise BadInput("this preset distils a text prior: give a prompt with words")
            return self.models.planar.condition(text=text)
        noise = torch.randn(1, len(vector), generator=torch.Generator().manual_seed(self.seed))
        scaled = vector * self.settings.embed_scale
        return self.models.planar.condition(
            text=text if self.settings.caption else "", embedding=scaled[None], noise_level=0, noise=noise
        )

    def _guides(self, vector: torch.Tensor, view: ReferenceView) -> Guides:
        models, device = self.models, self.models.device
        return Guides(
            vector=vector.to(device),
            embed=models.space.images,
            embed_size=models.picture_size,
            planar=models.planar,
            stereo=models.stereo,
            picture=view.picture.to(device),
            mask=view.mask.to(device),
            seed=self.seed,
        )

    def _shaped(self, asset: Asset | None, guides: Guides) -> tuple[PaintedMesh, tuple[str, ...]]:
        """Phases I and II, and the surface that phase III paints."""
        settings, models = self.settings, self.models
        fitted = asset is not None and not self._has("shape")
        field: Any = starts.blob(settings.fields, models.device)
        if asset is not None and fitted:
            self.report(Progress("shape", message="begins with the given shape"))
            field = starts.fitted(asset, settings.fields, models.device)
        offset = 0 if asset is None else starts.grown(field)
        field = self._phase("shape", field, guides, offset)
        if settings.geometry.steps:
            field = starts.tetrahedral(field, settings.fields)
            field = self._phase("geometry", field, guides)
        painted, notes = starts.painted(field, settings)
        return painted.to(models.device), notes

    def _has(self, name: str) -> bool:
        """Whether a checkpoint of that phase will be continued, so that its beginning need not be made."""
        return self.settings.resume and (self.folder / f"{name}.pt").is_file()

    def _phase(self, name: str, field: Any, guides: Guides, offset: int = 0) -> Any:
        """One phase, if it has steps."""
        phase: PhaseSettings = getattr(self.settings, name)
        if not phase.steps:
            return field
        text_only = phase.planar.prompt == "text" and phase.planar.rule != "none"
        condition = self._condition(guides.vector.cpu(), text_only=text_only)
        copy = None
        if phase.planar.rule == "vsd":
            if self.models.network is None:
                raise BadInput("variational distillation adapts the 2D prior's network, which these weights hide")
            copy = LowRankCopy(self.models.planar, condition, self.models.network, self.seed)
        guides = replace(guides, planar_condition=condition, copy=copy)
        config = PhaseConfig(
            name=name,
            steps=phase.steps,
            seed=self.seed,
            optimiser=starts.optimiser(phase),
            random_background=phase.random_background,
            folder=self.folder,
            resume=self.settings.resume,
            checkpoint_every=self.settings.checkpoint_every,
            preview_every=self.settings.preview_every,
            preview=preview,
            before_step=(lambda nerf, step: nerf.update(step + offset)) if isinstance(field, NeRF) else None,
            companion=copy,
        )
        return optimise(field, _cameras(phase), phase_terms(phase, guides), config, self.report)


def _cameras(phase: PhaseSettings) -> Cameras:
    """The reference view first where a term looks at it, then the phase's random views."""
    has_reference = bool(phase.reference.rgb or phase.reference.mask)
    scale = framing_scale(phase.sampling, RADIUS) if phase.sampling.framing == "whole" else 1.0

    def cameras(part: float, rng: np.random.Generator) -> Viewpoints:
        points = sample(phase.sampling, phase.views, phase.size, part, rng, scale)
        return reference_view(phase.size).joined(points) if has_reference else points

    return cameras


@torch.no_grad()
def preview(field: Any) -> np.ndarray:
    """Three sides of a representation, 64 pixels each, side by side: (64, 192, 3) uint8. More would cost seconds."""
    device = next(iter(field.parameters())).device
    views = field.render(turntable(3, 64, 0.26).cameras, torch.ones(3, device=device)).rgb
    pixels = (views.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return np.concatenate(list(pixels), 1)


def _as_view(image: Any) -> ReferenceView:
    """A shape's own front, not framed again: it has to lie over the shape."""
    rgba = torch.from_numpy(image.rgba.astype(np.float32) / 255).permute(2, 0, 1)[None]
    color, alpha = rgba[:, :3], rgba[:, 3:]
    return ReferenceView(picture=color * alpha + (1 - alpha), mask=alpha)
