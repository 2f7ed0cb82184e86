"""What a user may set when generating with XBind. Defaults of the groups are the published numbers.

"P" marks a number of the paper, "TS" one of threestudio's magic123-hifa configurations and "C3D" one of Consistent3D's
consistency-refine, whose values the paper repeats where it gives any; "ours" where nothing public fixes it
(specs/xbind.md §3 and §16). The presets are in `presets.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from anyform.errors import BadSetting
from anyform.training.ramp import Ramp

Quality = Literal["draft", "standard", "high"]
PHASES = ("shape", "geometry", "texture")  # I: NeRF; II: DMTet; III: colours on the frozen surface


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewSettings:
    """Where random cameras stand; ranges are (low, high), angles in degrees."""

    distance: tuple[float, float] = (2.5, 2.5)  # P
    fov_y_deg: tuple[float, float] = (40.0, 40.0)  # P
    elevation_deg: tuple[float, float] = (-45.0, 45.0)  # P
    azimuth_deg: tuple[float, float] = (-180.0, 180.0)  # P
    on_sphere: float = 0.5  # share of views with elevations uniform on the sphere, TS
    sectors: int | None = None  # parts of the azimuth range; None = as many as views, TS
    narrow_deg: float = 30.0  # ours: views begin within ± this ...
    widened_at: float = 0.1  # ... and have the whole range when this share of the phase is done
    framing: Literal["paper", "whole"] = "paper"  # "whole": distances grow until half of the views hold the object


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanarSettings:
    """Distillation of the 2D prior."""

    rule: Literal["sds", "cds", "vsd", "none"] = "sds"
    prompt: Literal["joint", "text"] = "joint"  # what conditions it: the joint embedding (unCLIP) or the words
    weight: float = 0.025  # TS λ_sd
    image_weight: float = 0.01  # TS λ_sd_img / λ_sd; 0 = no decoding
    guidance: float | Ramp = 50.0  # ours for unCLIP (TS 100 for text)
    timesteps: tuple[float, float] = (0.2, 0.6)  # TS, shares of the schedule; of CDS its bounds
    annealed: Ramp | None = None  # CDS: the cleaner timestep over the phase, in steps of 1,000
    weighting: Literal["one_minus_abar", "one_minus_sqrt_abar", "uniform", "sqrt_abar"] = "one_minus_sqrt_abar"
    clamp: float | Ramp | None = None  # largest absolute value of a CDS gradient
    noise: Literal["fixed", "fresh"] = "fixed"  # CDS: one noise for all views and steps (C3D), or a new one each time
    subject: Literal["rgb", "normal", "mixed"] = "rgb"  # "mixed": normals, and colours at every fourth step


@dataclass(frozen=True, kw_only=True, slots=True)
class StereoSettings:
    """Distillation of the 3D-aware prior."""

    weight: float = 1.0  # TS λ_3d; 0 = off
    guidance: float = 5.0  # TS
    timesteps: tuple[float, float] = (0.2, 0.6)  # TS
    weighting: Literal["one_minus_abar", "one_minus_sqrt_abar", "uniform", "sqrt_abar"] = "one_minus_sqrt_abar"
    subject: Literal["rgb", "normal"] = "rgb"


@dataclass(frozen=True, kw_only=True, slots=True)
class SimilaritySettings:
    """The modality similarity term. Its weight is not published: it is balanced against the 2D prior's gradient."""

    ratio: float = 0.3  # ours: of the norm of the 2D term's gradient on the picture; 0 = off
    weight: float | None = None  # a fixed ω_ms instead
    num_global: int = 1
    num_local: int = 2
    num_plain: int = 1
    area: tuple[float, float] = (0.3, 0.6)  # of local views: share of the picture
    subject: Literal["rgb", "normal", "mixed"] = "rgb"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceSettings:
    """The reference picture at its own camera; weights of 0 leave it out."""

    rgb: float = 1000.0  # TS
    mask: float = 100.0  # TS
    mask_loss: Literal["l2", "bce"] = "l2"  # P; TS takes the cross entropy


@dataclass(frozen=True, kw_only=True, slots=True)
class RegulariserSettings:
    """Weights of what no prior says; 0 = off."""

    z_variance: float | Ramp = 0.0
    normal_variation: float = 0.0
    normal_form: Literal["tv", "blur9"] = "tv"
    normal_consistency: float = 0.0
    laplacian: float = 0.0
    sparsity: float = 0.0
    opaque: float | Ramp = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseSettings:
    """One phase."""

    steps: int = 10_000  # TS; 0 = the phase is left out
    size: int = 128  # pixels an edge of renders
    views: int = 1  # random views a step, beside the reference
    sampling: ViewSettings = field(default_factory=ViewSettings)
    optimiser: Literal["adam", "adan"] = "adam"
    learning_rate: float = 0.01  # of the grid encoding, or of everything where there is none
    network_rate: float = 0.001  # of the small networks behind the encoding
    random_background: float = 0.5  # ours: chance that 2D terms see the object over a random colour instead of white
    planar: PlanarSettings = field(default_factory=PlanarSettings)
    stereo: StereoSettings = field(default_factory=StereoSettings)
    similarity: SimilaritySettings = field(default_factory=SimilaritySettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    regularisers: RegulariserSettings = field(default_factory=RegulariserSettings)

    def __post_init__(self) -> None:
        _within(self, steps=(0, 1_000_000), size=(8, 2048), views=(1, 64), random_background=(0.0, 1.0))
        if not (self.learning_rate > 0 and self.network_rate > 0):
            raise BadSetting(f"learning rates are above 0, got {self.learning_rate} and {self.network_rate}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldSettings:
    """Sizes of the representations."""

    encoding: Literal["hash", "dense"] = "hash"
    levels: int = 16  # TS, of the hash grid
    log2_rows: int = 19  # TS, entries a level
    resolutions: tuple[int, ...] = (16, 16, 32, 32, 64, 64)  # ours, of the dense grid: two numbers each
    width: int = 64  # TS, of the networks
    layers: int = 2  # hidden ones, TS
    samples: int = 256  # on the longest ray, TS
    occupancy: int = 32  # cells an edge, TS
    tets: int = 64  # cells an edge of the Kuhn grid: about the quartet grid called "128"
    density_threshold: float = 10.0  # C3D: where the surface of the NeRF is
    blob_density: float = 10.0  # TS, in the middle of the first ball


@dataclass(frozen=True, kw_only=True, slots=True)
class XBindSettings:
    """Settings of one generation."""

    quality: Quality = "standard"
    shape: PhaseSettings = field(default_factory=PhaseSettings)
    geometry: PhaseSettings = field(default_factory=PhaseSettings)
    texture: PhaseSettings = field(default_factory=PhaseSettings)
    fields: FieldSettings = field(default_factory=FieldSettings)
    init: Literal["blob", "draft"] = "blob"  # begin with a ball (P), or with the fastest system's shape
    keep_geometry: bool = False  # only colours: the mesh that was given stays as it is
    reference: Literal["auto", "user", "generated"] = "auto"  # "generated" (P) re-imagines pictures; auto keeps them
    candidates: int = 4  # reference pictures to choose from
    reference_steps: int = 25  # sampling steps of each
    embed_scale: float = 1.0  # of the joint embedding that unCLIP reads
    caption: bool = True  # the words of a prompt go to the 2D prior too; P: the embedding alone
    mesh_resolution: int = 128  # where a phase has to be meshed
    faces: int | None = None  # triangles at most; None = 20,000
    texture_size: int | None = None  # pixels; None = 1024, 0 = colours on vertices
    turntable: bool = True  # a small animation next to the result
    checkpoint_every: int = 100  # steps between files that --resume continues from
    preview_every: int = 50  # steps between live previews; 0 = none
    resume: bool = False  # continue the interrupted run of the same prompt, seed and settings

    def __post_init__(self) -> None:
        _within(
            self,
            candidates=(1, 64),
            reference_steps=(2, 1000),
            embed_scale=(0.0, 10.0),
            mesh_resolution=(16, 512),
            faces=(100, 2_000_000),
            texture_size=(0, 8192),
            checkpoint_every=(1, 100_000),
            preview_every=(0, 100_000),
        )

    @property
    def phases(self) -> tuple[tuple[str, PhaseSettings], ...]:
        """The phases that are run, in order; with kept geometry the last one only."""
        named = tuple((name, getattr(self, name)) for name in PHASES)
        return tuple(
            (name, phase) for name, phase in named if phase.steps and (name == "texture" or not self.keep_geometry)
        )

    @property
    def max_faces(self) -> int:
        """Triangles at most."""
        return self.faces or 20_000

    @property
    def texture_edge(self) -> int:
        """Texture edge in pixels; 0 = colours on vertices."""
        return 1024 if self.texture_size is None else self.texture_size


def _within(settings: object, **limits: tuple[int | float, int | float]) -> None:
    """Raise BadSetting for a number outside its limits; None is always allowed."""
    for name in (f.name for f in fields(settings) if f.name in limits):  # type: ignore[arg-type]
        value, (low, high) = getattr(settings, name), limits[name]
        if value is not None and not low <= value <= high:
            raise BadSetting(f"{name} lies between {low} and {high}, got {value}")
