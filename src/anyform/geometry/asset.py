"""What the user saves: a mesh, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyform.geometry.mesh import Mesh

if TYPE_CHECKING:
    import trimesh

    from anyform.types.prompt import Views


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """One set of weights that touched an asset. commercial_use: "yes", "no" or "unknown", about the *outputs*."""

    id: str
    sha256: str
    licence: str
    commercial_use: str


@dataclass(frozen=True, slots=True)
class Source:
    """A licensed work the result was started from (retrieval-initialised sampling), named so that `cite` can say it."""

    title: str
    author: str
    licence: str
    id: str
    share: float  # 1 - variation: how much of its latent survived the noise, in [0, 1]


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an asset was made: enough to make it again. Dates, timings and host facts go to the sidecar only."""

    system: str
    version: str
    seed: int
    quality: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompt: Mapping[str, Any] = field(default_factory=dict)  # {"kind": "text", "text": …} or kind + SHA-256 of the data
    weights: tuple[WeightsRecord, ...] = ()
    sources: tuple[Source, ...] = ()
    citations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # warnings a user should see: far from the corpus, colours are ours, …
    digital_source_type: str = "trainedAlgorithmicMedia"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, the value of `asset.extras.anyform` in a GLB."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Asset:
    """A mesh in world units (object in [-1, 1]³, +y up, front +z) with its provenance.

    `metres` is the real length of the longest side that exporters apply (default 1 m). `views`: what it was made
    from, where its system draws them; they are saved beside it, never inside.
    """

    mesh: Mesh
    provenance: Provenance
    metres: float = 1.0
    views: Views | None = None

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the asset atomically; the suffix chooses the format (`geometry.formats.FORMATS`). Never overwrites."""
        from anyform.geometry.formats import save_asset

        return save_asset(self, Path(path), force=force)

    def to_trimesh(self) -> trimesh.Trimesh:
        """The mesh as a `trimesh.Trimesh` with its colours or texture, in world units."""
        from anyform.geometry.formats import to_trimesh

        return to_trimesh(self.mesh)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002
        """What a notebook shows: an orbitable model that needs no network, and a still picture of it."""
        from anyform.notebook import mimebundle

        return mimebundle(self)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """An asset to go on from and the prompt that says where to: what a refining system takes beside a bare asset."""

    asset: Asset
    prompt: Any
