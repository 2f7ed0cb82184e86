"""Is a mesh good enough to be called a result? One function measures it, one report says so with numbers.

Every system's result passes `gate` before it is saved, and `anyform check` prints the same report for any file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import GateFailed
from anyform.geometry.mesh import Mesh
from anyform.geometry.topology import topology

MAX_DEGENERATE_SHARE = 0.01
MIN_COVERAGE = 0.99
MIN_TEXTURE_STD = 1 / 255
# Where a face looks at its texture: corners pulled inwards, edge middles, centre (barycentric).
_PROBES = np.array(
    [
        *([0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]),
        *([0.45, 0.45, 0.1], [0.1, 0.45, 0.45], [0.45, 0.1, 0.45]),
        [1 / 3, 1 / 3, 1 / 3],
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """Measured facts about a mesh and what it fails.

    failures: one sentence each, empty when the mesh passes. bodies counts voids too. extents in the mesh's own units;
    volume and area in their cube and square; volume is 0 where the surface is open. texture_coverage: share of the
    surface area that shows a written texel, None without a texture.
    """

    failures: tuple[str, ...]
    vertices: int
    faces: int
    finite: bool
    watertight: bool = False
    winding_consistent: bool = False
    bodies: int = 0
    voids: int = 0
    volume: float = 0.0
    area: float = 0.0
    extents: tuple[float, float, float] = (0.0, 0.0, 0.0)
    open_edges: int = 0
    degenerate_faces: int = 0
    texture_coverage: float | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with `ok` first."""
        return {"ok": self.ok, **asdict(self)}

    def require(self) -> None:
        """Raises GateFailed with every failure in one sentence, unless the mesh passed."""
        if self.failures:
            reasons = "; ".join(self.failures)
            raise GateFailed(f"the mesh did not pass its gate: {reasons}; try another seed or a higher quality")


def gate(mesh: Mesh, *, allow_parts: bool = False) -> GateReport:
    """Measure a mesh. `allow_parts` lets a shape that really has several bodies pass; inner voids never pass.

    Fails what is empty, non-finite, flat, open, wound inconsistently, inside out, in several bodies, made of more than
    1 % degenerate faces, or coloured by non-finite numbers or by a texture that is constant or covers under 99 %.
    """
    broken = _unreadable(mesh)
    finite = bool(np.isfinite(mesh.vertices).all())
    if broken:
        return GateReport(failures=broken, vertices=len(mesh.vertices), faces=len(mesh.faces), finite=finite)

    low, high = mesh.bounds
    extents = (high - low).astype(np.float64)
    facts = topology(mesh)
    watertight = facts.open_edges == 0 and len(facts.volumes) > 0
    volume = float(facts.volumes.sum()) if watertight else 0.0
    voids = int((facts.volumes <= 0).sum()) if watertight and facts.volumes.max() > 0 else 0
    degenerate = int(facts.degenerate.sum())
    failures = []
    if extents.min() <= 1e-6 * extents.max():
        failures.append(f"it is flat: {extents[0]:.3g} × {extents[1]:.3g} × {extents[2]:.3g}")
    if not watertight:
        failures.append(f"it is not watertight: {facts.open_edges} edges do not have two faces")
    if facts.flipped_edges:
        failures.append(f"{facts.flipped_edges} edges join faces that wind in opposite ways")
    if watertight and volume <= 0:
        failures.append(f"it is inside out or encloses nothing: volume {volume:.3g}")
    if voids:
        failures.append(f"it has {voids} inner voids or inverted bodies")
    if not allow_parts and len(facts.volumes) - voids > 1:
        failures.append(f"it falls into {len(facts.volumes) - voids} bodies")
    if degenerate > MAX_DEGENERATE_SHARE * len(mesh.faces):
        failures.append(f"{degenerate} of {len(mesh.faces)} faces have no area")
    coverage, colour_failures = _colours(mesh, facts.area)
    return GateReport(
        failures=tuple(failures + colour_failures),
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        finite=finite,
        watertight=watertight,
        winding_consistent=facts.flipped_edges == 0,
        bodies=len(facts.volumes),
        voids=voids,
        volume=volume,
        area=float(facts.area.sum()),
        extents=(float(extents[0]), float(extents[1]), float(extents[2])),
        open_edges=facts.open_edges,
        degenerate_faces=degenerate,
        texture_coverage=coverage,
    )


def _unreadable(mesh: Mesh) -> tuple[str, ...]:
    """Failures that make every further measurement meaningless."""
    if not len(mesh.faces) or not len(mesh.vertices):
        return (f"it is empty: {len(mesh.vertices)} vertices and {len(mesh.faces)} faces",)
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        return (f"faces refer to vertex {mesh.faces.max()} or below 0, but there are {len(mesh.vertices)} vertices",)
    bad = len(mesh.vertices) - int(np.isfinite(mesh.vertices).all(1).sum())
    if bad:
        return (f"{bad} of {len(mesh.vertices)} vertices are not finite",)
    return ()


def _colours(mesh: Mesh, area: NDArray[np.float64]) -> tuple[float | None, list[str]]:
    """Texture coverage (None without one) and what is wrong with the colours."""
    failures = []
    if mesh.vertex_color is not None and (
        mesh.vertex_color.shape != (len(mesh.vertices), 3) or not np.isfinite(mesh.vertex_color).all()
    ):
        failures.append("its vertex colours are not one finite RGB triple for each vertex")
    texture = None if mesh.material is None else mesh.material.base_color
    if texture is None:
        return None, failures
    if mesh.uv is None or mesh.uv.shape != (len(mesh.vertices), 2):
        return 0.0, [*failures, "it has a texture but no texture coordinates"]
    coverage, spread = _probe_texture(mesh.faces, area, mesh.uv, texture)
    if coverage < MIN_COVERAGE:
        failures.append(f"its texture covers {coverage:.1%} of the surface, {MIN_COVERAGE:.0%} is needed")
    elif spread <= MIN_TEXTURE_STD:
        failures.append(f"its texture is one constant colour (standard deviation {spread:.2g} of 1)")
    return coverage, failures


def _probe_texture(
    faces: NDArray[np.int32], area: NDArray[np.float64], uv: NDArray[np.float32], texture: NDArray[np.uint8]
) -> tuple[float, float]:
    """Area share of faces that show written texels, and the largest channel deviation over those, in [0, 1].

    A face counts where its coordinates are finite, inside the texture, and every probe hits a texel with alpha > 0.
    """
    height, width = texture.shape[:2]
    corners = uv.astype(np.float64)[faces]
    inside: NDArray[np.bool_] = (corners > -1e-4) & (corners < 1 + 1e-4)  # NaN fails both
    usable = np.logical_and.reduce(inside, axis=(1, 2))
    spots = np.einsum("pk,fkc->fpc", _PROBES, corners[usable])
    column = np.clip((spots[..., 0] * width).astype(np.int64), 0, width - 1)
    row = np.clip(((1 - spots[..., 1]) * height).astype(np.int64), 0, height - 1)
    seen = texture[row, column]
    if texture.shape[2] == 4:
        written = (seen[..., 3] > 0).all(1)
        usable = np.flatnonzero(usable)[written]
        seen = seen[written]
    coverage = float(area[usable].sum() / max(area.sum(), np.finfo(np.float64).tiny))
    spread = float((seen[..., :3].reshape(-1, 3) / 255.0).std(0).max()) if len(seen) else 0.0
    return coverage, spread
