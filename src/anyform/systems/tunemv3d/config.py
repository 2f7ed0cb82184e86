"""Sizes of a branch, and what a user may set when generating.

Numbers with a section are the paper's (P), its supplement's (S) or those of specs/tunemv3d.md, measured on CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from anyform.errors import BadSetting
from anyform.fields.sparse_neus import FieldConfig

Pairwise = Literal["geometry", "global", "none"]
Quality = Literal["draft", "standard", "high"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchConfig:
    """Everything that is trained: noise encoder E, field, light encoder L, copy O with zero convolutions, attention."""

    num_views: int = 8  # S B.1
    encoder_widths: tuple[int, int, int] = (32, 64, 96)  # §3.1, CPU
    time_width: int = 128
    light_widths: tuple[int, int] = (16, 32)  # §10
    field: FieldConfig = field(default_factory=FieldConfig)
    evaluator: Literal["lattice", "points"] = "lattice"  # points: as published, for GPUs
    lattice: int = 32  # samples an edge
    sections: int = 32  # along a ray
    importance: int = 64  # more of them where the surface is, `points` only
    pairwise: Pairwise = "geometry"  # global: every pixel of the other views alike, as MVDream does
    pair_size: int = 16  # edge of the feature maps that attend
    pair_heads: int = 4
    pair_samples: int = 8  # of a ray

    def __post_init__(self) -> None:
        if self.num_views < 2 or self.lattice < 4 or self.sections < 2:
            raise BadSetting(
                f"a branch has 2 views, 4 lattice samples and 2 sections at least, not {self.num_views}, {self.lattice}"
                f" and {self.sections}"
            )


def faithful() -> BranchConfig:
    """The paper's evaluator and the GPU sizes of specs/tunemv3d.md §3: networks at every sample of every ray."""
    return BranchConfig(
        encoder_widths=(64, 128, 192),
        light_widths=(64, 64),
        field=FieldConfig(feature_channels=64, hidden=128),
        evaluator="points",
        sections=64,
        importance=64,
        pair_size=32,
        pair_heads=8,
    )


def tiny() -> BranchConfig:
    """Seconds on one core: for tests and for `--preset smoke`; too small to look good."""
    return BranchConfig(
        num_views=4,
        encoder_widths=(8, 16, 16),
        time_width=16,
        light_widths=(8, 8),
        field=FieldConfig(feature_channels=8, hidden=16, time_width=8),
        lattice=12,
        sections=12,
        pair_size=4,
        pair_heads=2,
        pair_samples=4,
    )


# quality -> (sampling steps, marching-cubes resolution, refinement steps, faces, texture edge)
QUALITIES: dict[str, tuple[int, int, int, int, int]] = {
    "draft": (12, 64, 0, 12_000, 0),
    "standard": (25, 96, 60, 12_000, 512),
    "high": (50, 128, 200, 30_000, 1024),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneMV3DSettings:
    """Settings of one generation. None = what the quality or the foundation says."""

    quality: Quality = "standard"
    num_inference_steps: int | None = None  # 2..1000; P 4.2: 50
    guidance_scale: float | None = None  # of the text; 1 = none
    consistency_fraction: float = 0.3  # K, share of the steps guided by consistency, 0..0.5 (not published)
    consistency_strength: float = 7.5  # P 3.3
    compose: bool = False  # text guidance on the consistency steps too: a third pass of the foundation
    share_control: bool = True  # one control pass for both text branches
    reference_elevation: float = 20.0  # degrees, of a picture given as prompt
    foundation: str | None = None  # where the foundation of a branch of your own lies; None = embedded
    preview_every: int = 5  # steps; 0 = no previews
    refinement_steps: int | None = None  # of the surface against the views
    faces: int | None = None  # triangles at most
    resolution: int | None = None  # edge of the grid that is meshed, 32..512
    texture_size: int | None = None  # pixels; 0 = colours on vertices
    smoothing: int = 8  # rounds of Taubin smoothing

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise BadSetting(f"quality is one of {', '.join(QUALITIES)}, got {str(self.quality)[:40]!r}")
        limits = {
            "num_inference_steps": (2, 1000),
            "guidance_scale": (0.0, 50.0),
            "consistency_fraction": (0.0, 1.0),
            "consistency_strength": (0.0, 50.0),
            "reference_elevation": (-80.0, 80.0),
            "preview_every": (0, 1000),
            "refinement_steps": (0, 10_000),
            "faces": (100, 2_000_000),
            "resolution": (32, 512),
            "texture_size": (0, 8192),
            "smoothing": (0, 100),
        }
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in limits and value is not None:
                low, high = limits[each.name]
                if not low <= value <= high:
                    raise BadSetting(f"{each.name} lies between {low} and {high}, got {value}")

    @property
    def steps(self) -> int:
        """Sampling steps."""
        return self.num_inference_steps or QUALITIES[self.quality][0]

    @property
    def mesh_resolution(self) -> int:
        """Edge of the grid that is meshed."""
        return self.resolution or QUALITIES[self.quality][1]

    @property
    def refinement(self) -> int:
        """Optimiser steps of the surface against the views."""
        return QUALITIES[self.quality][2] if self.refinement_steps is None else self.refinement_steps

    @property
    def max_faces(self) -> int:
        """Triangles at most."""
        return self.faces or QUALITIES[self.quality][3]

    @property
    def texture(self) -> int:
        """Texture edge in pixels; 0 = colours on vertices."""
        return QUALITIES[self.quality][4] if self.texture_size is None else self.texture_size
