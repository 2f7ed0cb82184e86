"""From a generated shape to one that prints: one body without voids, flat on the plate, with its walls measured.

Lengths are in millimetres of the finished print, whose longest side is the size asked for. Axes stay +y up here; the
writers of STL and 3MF turn them. Wall thickness is measured along rays: from points spread evenly over the surface
straight into the solid, to where the ray leaves it. It is reported, not changed: thickening a shape changes what the
user asked for, while a larger size or a thicker nozzle line does not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadSetting, GateFailed
from anyform.geometry.color import vertex_colors
from anyform.geometry.marching_cubes import keep_bodies
from anyform.geometry.mesh import Mesh
from anyform.geometry.simplify import separate
from anyform.geometry.topology import face_cross, topology, weld

if TYPE_CHECKING:
    import manifold3d

OVERHANG_DEG = 45.0
_CUTS = (0.002, 0.004, 0.008, 0.015, 0.03)  # of the height: how much may be cut off to make a base
_ENOUGH_BASE = 0.05  # of the footprint's bounding rectangle
_RAYS = 1500
_THINNEST_PERCENTILE = 2.0  # single rays through a corner or an edge say nothing about a wall


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintReport:
    """What a printer will find. size_mm: width (x), height (y, up), depth (z). overhang_share: share of the surface
    that faces down by more than 45° and does not lie on the plate. thinnest_wall_mm: 2nd percentile over the surface.
    notes: one sentence for everything that was changed or that the user should decide.
    """

    watertight: bool
    bodies: int
    size_mm: tuple[float, float, float]
    thinnest_wall_mm: float
    min_wall_mm: float
    base_area_mm2: float
    overhang_share: float
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Closed, one body, flat base; thin walls are the user's decision and stand in the notes."""
        return self.watertight and self.bodies == 1 and self.base_area_mm2 > 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with `ok` first."""
        return {"ok": self.ok, **asdict(self)}


def prepare_for_print(mesh: Mesh, millimetres: float, min_wall_mm: float = 0.8) -> tuple[Mesh, PrintReport]:
    """A printable copy of a closed mesh, in world units, and its report at a longest side of `millimetres`.

    Overlapping bodies are united, loose ones and voids dropped, the underside cut flat. Colours and textures become
    vertex colours of the nearest old vertex. Raises BadSetting for a size that is not positive, GateFailed where the
    mesh is not closed.
    """
    if not (np.isfinite(millimetres) and millimetres > 0) or not (np.isfinite(min_wall_mm) and min_wall_mm >= 0):
        raise BadSetting(f"size and wall must be positive lengths, not {millimetres:g} mm and {min_wall_mm:g} mm")
    notes: list[str] = []
    solid, dropped = _one_body(mesh)
    if dropped > 0:
        notes.append(f"loose bodies with {dropped:.1%} of the volume were left out")
    solid, cut = _flat_base(solid)
    printable = _to_mesh(solid)
    if cut:
        notes.append(
            f"{cut * millimetres / float(np.ptp(printable.bounds, 0).max()):.2f} mm were cut off the underside"
        )
    report = print_report(printable, millimetres, min_wall_mm)
    colors = vertex_colors(mesh)
    if colors is not None:
        from scipy.spatial import KDTree

        _, nearest = KDTree(mesh.vertices).query(printable.vertices)
        printable = replace(printable, vertex_color=colors[nearest].astype(np.float32))
    return printable, replace(report, notes=(*notes, *report.notes))


def print_report(mesh: Mesh, millimetres: float, min_wall_mm: float = 0.8) -> PrintReport:
    """Measures a mesh (+y up) at a longest side of `millimetres` without changing it."""
    low, high = mesh.bounds.astype(np.float64)
    scale = millimetres / float((high - low).max())
    facts = topology(mesh)
    watertight = facts.open_edges == 0 and facts.flipped_edges == 0
    wall = float("nan")
    if watertight:
        wall = float(np.percentile(wall_thickness(mesh), _THINNEST_PERCENTILE)) * scale
    cross = face_cross(mesh.vertices, mesh.faces)
    down = cross[:, 1] < -np.sin(np.radians(OVERHANG_DEG)) * np.linalg.norm(cross, axis=1)
    base = down & (mesh.vertices[mesh.faces][:, :, 1].max(1) <= low[1] + 1e-5 * (high - low).max())
    base_area = float(facts.area[base].sum()) * scale**2
    notes = []
    if wall < min_wall_mm:
        enough = millimetres * min_wall_mm / wall if wall > 0 else float("inf")
        notes.append(
            f"the thinnest wall is {wall:.2f} mm, under {min_wall_mm:g} mm: use --size {np.ceil(enough):.0f}mm or more"
        )
    if not base_area:
        notes.append("no part of the underside is flat: it needs supports or a raft")
    size = (high - low) * scale
    return PrintReport(
        watertight=watertight,
        bodies=len(facts.volumes),
        size_mm=(float(size[0]), float(size[1]), float(size[2])),
        thinnest_wall_mm=wall,
        min_wall_mm=min_wall_mm,
        base_area_mm2=base_area,
        overhang_share=float(facts.area[down & ~base].sum() / facts.area.sum()),
        notes=tuple(notes),
    )


def wall_thickness(mesh: Mesh, rays: int = _RAYS) -> NDArray[np.float64]:
    """(rays,) distances through the solid, straight in from points spread evenly by area over a closed mesh."""
    solid = _to_manifold(mesh)
    cross = face_cross(mesh.vertices, mesh.faces)
    length = np.linalg.norm(cross, axis=1)
    reach = float(np.ptp(mesh.bounds, 0).max()) * 2
    # Systematic sampling: every ray stands for the same area, and the same mesh gives the same rays.
    face = np.searchsorted(np.cumsum(length), (np.arange(rays) + 0.5) / rays * length.sum())
    face = np.minimum(face, len(length) - 1)
    inward = -cross[face] / np.maximum(length[face, None], np.finfo(np.float64).tiny)
    start = mesh.vertices.astype(np.float64)[mesh.faces[face]].mean(1)
    skin = 1e-5 * reach
    found = np.zeros(rays)
    for i in range(rays):
        hits = solid.ray_cast(tuple(start[i] + skin * inward[i]), tuple(start[i] + reach * inward[i]))
        found[i] = skin + hits[0].distance * (reach - skin) if hits else 0.0
    return found


def _to_manifold(mesh: Mesh) -> manifold3d.Manifold:
    """The solid a mesh bounds. Raises GateFailed where it bounds none."""
    import manifold3d

    label = weld(mesh.vertices)
    _, first = np.unique(label, return_index=True)
    solid = manifold3d.Manifold(manifold3d.Mesh(mesh.vertices[first], label[mesh.faces].astype(np.uint32)))
    if solid.status() != manifold3d.Error.NoError or solid.is_empty():
        raise GateFailed(
            f"the mesh bounds no solid ({solid.status().name}), so it cannot be printed; run `anyform check` on it"
        )
    return solid


def _to_mesh(solid: manifold3d.Manifold) -> Mesh:
    found = solid.to_mesh()
    mesh = Mesh(np.asarray(found.vert_properties)[:, :3], np.asarray(found.tri_verts).astype(np.int32))
    if topology(mesh).open_edges:
        # Rounding to float32 can press two corners into one; drawn apart they print the same.
        return separate(mesh) or mesh
    return mesh


def _one_body(mesh: Mesh) -> tuple[manifold3d.Manifold, float]:
    """The largest solid after uniting what overlaps, without voids, and the share of the volume left out."""
    import manifold3d

    outer = keep_bodies(mesh, min_share=0.0)
    united = manifold3d.Manifold.batch_boolean(_to_manifold(outer).decompose(), manifold3d.OpType.Add)
    bodies = sorted(united.decompose(), key=lambda body: -body.volume())
    if not bodies or bodies[0].volume() <= 0:
        raise GateFailed("the mesh encloses no volume, so it cannot be printed; try another seed")
    filled = keep_bodies(_to_mesh(bodies[0]), single=True)
    return _to_manifold(filled), max(0.0, 1 - bodies[0].volume() / sum(body.volume() for body in bodies))


def _flat_base(solid: manifold3d.Manifold) -> tuple[manifold3d.Manifold, float]:
    """The solid with the least slice off its underside that gives a base in one piece, and the slice's height."""
    x0, y0, z0, x1, y1, z1 = solid.bounding_box()
    needed = _ENOUGH_BASE * (x1 - x0) * (z1 - z0)
    best, best_cut = solid, 0.0
    best_area = _base_area(solid, y0)
    for share in _CUTS:
        if best_area >= needed:
            break
        cut = share * (y1 - y0)
        pieces = solid.trim_by_plane((0.0, 1.0, 0.0), y0 + cut).decompose()
        if len(pieces) != 1:
            break
        area = _base_area(pieces[0], y0 + cut)
        if area > best_area:
            best, best_cut, best_area = pieces[0], cut, area
    return best, best_cut


def _base_area(solid: manifold3d.Manifold, level: float) -> float:
    mesh = _to_mesh(solid)
    corners = mesh.vertices[mesh.faces]
    flat = np.abs(corners[:, :, 1] - level).max(1) <= 1e-5 * float(np.ptp(mesh.vertices, 0).max())
    return float(-face_cross(mesh.vertices, mesh.faces)[flat, 1].sum() / 2)
