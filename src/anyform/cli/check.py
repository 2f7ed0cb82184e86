"""`anyform check FILE`: the gate on any mesh file, its size, how it stands, its licence. Exit 5 where it fails."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyform.cli.terminal import clean, print_out, say
from anyform.errors import GateFailed

if TYPE_CHECKING:
    from anyform.geometry.gate import GateReport
    from anyform.geometry.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Convention:
    """What a format says: the up axis of its numbers, millimetres a unit of `read_mesh` (None = unstated), one body."""

    up: str
    millimetres: float | None
    is_solid: bool


_CONVENTIONS = {
    ".glb": Convention("y", 1000.0, False),
    ".stl": Convention("z", 1000.0, True),
    ".3mf": Convention("z", 1000.0, True),
    ".obj": Convention("y", None, False),
    ".ply": Convention("y", None, False),
}


def run(arguments: argparse.Namespace) -> int:
    """The verb. Returns 0 or 5; raises BadInput for a file that cannot be read as a mesh."""
    from anyform.geometry.formats import read_mesh
    from anyform.geometry.gate import gate

    path = Path(arguments.file)
    mesh = read_mesh(path)
    convention = _CONVENTIONS.get(path.suffix.lower(), Convention("y", None, False))
    report = gate(mesh, allow_parts=not (arguments.one_body or convention.is_solid))
    record = {"file": clean(path.name), **report.to_json(), **_stance(mesh, report, convention), **_licence(path)}
    if convention.is_solid and report.ok:
        record["print"] = _printing(mesh)
    if arguments.json:
        print(json.dumps(record), flush=True)
    else:
        for line in _lines(record):
            print_out(line)
    for failure in report.failures:
        say(f"anyform: {clean(path.name)} falls short: {clean(failure)}")
    return 0 if report.ok else GateFailed.exit_code


def _stance(mesh: Mesh, report: GateReport, convention: Convention) -> dict[str, Any]:
    """Size as width, height, depth, and whether it stands on the ground: `read_mesh` turns every format to +y up."""
    if not report.finite or not len(mesh.faces):
        return {"up": convention.up}
    low, high = mesh.bounds
    extent = float((high - low).max())
    sides = [float(side) for side in high - low]
    record: dict[str, Any] = {
        "up": convention.up,
        "stands_on_ground": bool(abs(float(low[1])) <= 0.005 * extent),
    }
    if convention.millimetres is not None:
        record["size_mm"] = [round(side * convention.millimetres, 3) for side in sides]
    return record


def _printing(mesh: Mesh) -> dict[str, Any]:
    """What a printer will find in a solid: walls, base, overhang."""
    from anyform.geometry.printing import print_report

    low, high = mesh.bounds
    return print_report(mesh, float((high - low).max()) * 1000).to_json()


def _licence(path: Path) -> dict[str, Any]:
    """The answer of `cite` where the file says who made it; "unknown" otherwise."""
    from anyform.errors import BadInput
    from anyform.geometry.formats import read_extras
    from anyform.licensing import commercial_use

    if path.suffix.lower() not in {".glb", ".3mf"}:
        return {"commercial_use": "unknown"}
    try:
        made = read_extras(path)
    except BadInput:  # a file of someone else: its mesh is still worth checking
        return {"commercial_use": "unknown"}
    return {"commercial_use": commercial_use(made).answer, "system": made.get("system"), "seed": made.get("seed")}


def _lines(record: dict[str, Any]) -> list[str]:
    """The record for people."""
    words = {True: "yes", False: "no"}
    lines = [
        f"{record['file']}: {'passes' if record['ok'] else 'falls short'}",
        f"  faces {record['faces']}  vertices {record['vertices']}  bodies {record['bodies']}",
        f"  finite {words[record['finite']]}  watertight {words[record['watertight']]}"
        f"  winding consistent {words[record['winding_consistent']]}",
    ]
    if "size_mm" in record:
        lines.append("  size " + " x ".join(f"{side:g}" for side in record["size_mm"]) + " mm")
    if "stands_on_ground" in record:
        lines.append(f"  up {record['up']}  stands on the ground {words[record['stands_on_ground']]}")
    if "print" in record:
        found = record["print"]
        lines.append(
            f"  thinnest wall {found['thinnest_wall_mm']:.2f} mm  flat base {found['base_area_mm2']:.0f} mm²"
            f"  overhang {found['overhang_share']:.0%}"
        )
        lines += [f"  {note}" for note in found["notes"]]
    if record["texture_coverage"] is not None:
        lines.append(f"  texture covers {record['texture_coverage']:.1%}")
    lines.append(f"  commercial use {record['commercial_use']}")
    return lines
