"""What a user may set when generating with WaLa, and what the three qualities mean."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from anyform.errors import BadSetting

Quality = Literal["draft", "standard", "high"]
Precision = Literal["auto", "float32", "bfloat16"]

# quality -> (sampling steps, marching-cubes resolution, faces, texture edge; 0 = colours on vertices)
QUALITIES: dict[str, tuple[int, int, int, int]] = {
    "draft": (6, 64, 12_000, 0),
    "standard": (10, 128, 12_000, 1024),
    "high": (20, 192, 30_000, 2048),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WalaSettings:
    """Settings of one generation. None = what the quality (or the released model's recommendation) says."""

    quality: Quality = "standard"
    num_inference_steps: int | None = None  # 2..1000
    guidance_scale: float | None = None  # 1 = no guidance; None: by kind of prompt
    variation: float = 0.5  # noise laid over the shape that embedded sampling starts from, 0..1 (half of it where the
    # prompt carries geometry, which then gives the start itself)
    from_scratch: bool = False  # the model alone: no retrieved shape, pure noise
    paint: bool | None = None  # our colours; None = yes for embedded weights, no for released ones
    faces: int | None = None  # triangles at most
    resolution: int | None = None  # edge of the grid that is meshed, 64..512
    texture_size: int | None = None  # pixels; 0 = colours on vertices
    front_end_steps: int = 50  # of the multi-view network before released models that read text; a divisor of 1000
    precision: Precision = "auto"  # of released networks; auto: bfloat16 where the hardware multiplies it natively
    smoothing: int = 8  # rounds of Taubin smoothing of the surface; 0 = as the network left it

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise BadSetting(f"quality is one of {', '.join(QUALITIES)}, got {str(self.quality)[:40]!r}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise BadSetting(f"precision is auto, float32 or bfloat16, got {str(self.precision)[:40]!r}")
        limits = {
            "num_inference_steps": (2, 1000),
            "guidance_scale": (0.0, 50.0),
            "variation": (0.0, 1.0),
            "front_end_steps": (2, 1000),
            "faces": (100, 2_000_000),
            "resolution": (64, 512),
            "texture_size": (0, 8192),
            "smoothing": (0, 100),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in limits and value is not None:
                low, high = limits[field.name]
                if not low <= value <= high:
                    raise BadSetting(f"{field.name} lies between {low} and {high}, got {value}")

    @property
    def steps(self) -> int:
        """Sampling steps."""
        return self.num_inference_steps or QUALITIES[self.quality][0]

    @property
    def mesh_resolution(self) -> int:
        """Edge of the grid that is meshed."""
        return self.resolution or QUALITIES[self.quality][1]

    @property
    def max_faces(self) -> int:
        """Triangles at most."""
        return self.faces or QUALITIES[self.quality][2]

    @property
    def texture(self) -> int:
        """Texture edge in pixels; 0 = colours on vertices."""
        return QUALITIES[self.quality][3] if self.texture_size is None else self.texture_size
