"""3MF (https://github.com/3MFConsortium/spec_core, and its materials extension for colours): own writer and reader.

Written +z up in millimetres: the unit is named and the coordinates are scaled, since programs differ in which of the
two they believe. Colours are a colour group with one entry per distinct sRGB colour; provenance is metadata.
Read back as +y up in metres.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.geometry.asset import Asset
from anyform.geometry.color import vertex_colors
from anyform.geometry.formats.archive import read_member, zipped
from anyform.geometry.formats.files import read_limited
from anyform.geometry.formats.glb import credit
from anyform.geometry.formats.parts import Part, check_counts, join
from anyform.geometry.mesh import Mesh
from anyform.geometry.placement import on_the_plate, z_up_to_y_up
from anyform.geometry.topology import weld

MAX_3MF_BYTES = 512 << 20
MAX_MODEL_BYTES = 1 << 30
MAX_DEPTH = 16
_CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_MATERIAL = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
_METRES = {"micron": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2, "inch": 0.0254, "foot": 0.3048, "meter": 1.0}
_PROVENANCE = "anyform:provenance"
_CONTENT_TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)


def write_3mf(asset: Asset, name: str) -> dict[str, bytes]:
    """{name: the file}. A texture becomes vertex colours, with a warning."""
    mesh = on_the_plate(asset.mesh, asset.metres)
    if mesh.material is not None and mesh.material.base_color is not None:
        warnings.warn("3MF is written without a texture: its colours go to the vertices", stacklevel=4)
    label = weld(mesh.vertices)
    _, first = np.unique(label, return_index=True)
    faces = label[mesh.faces]
    solid = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces, corners = faces[solid], mesh.faces[solid]
    groups, triangles = _triangles(vertex_colors(mesh), faces, corners)
    points = mesh.vertices[first]
    vertices = ('<vertex x="%.9g" y="%.9g" z="%.9g"/>' * len(points)) % tuple(points.ravel().tolist())
    # The mesh stands around the origin; the build moves it to where all coordinates are positive, as the spec asks.
    x, y, _ = -points.min(0).astype(np.float64)
    pid = ' pid="1" pindex="0"' if groups else ""
    model = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<model unit="millimeter" xml:lang="en-US" xmlns="{_CORE}" xmlns:m="{_MATERIAL}" xmlns:anyform="urn:anyform">'
        f"{_metadata(asset)}<resources>{groups}"
        f'<object id="2" type="model"{pid}><mesh><vertices>{vertices}</vertices>'
        f"<triangles>{triangles}</triangles></mesh></object></resources>"
        f'<build><item objectid="2" transform="1 0 0 0 1 0 0 0 1 {x:.9g} {y:.9g} 0"/></build></model>\n'
    )
    return {
        name: zipped(
            {
                "[Content_Types].xml": _CONTENT_TYPES.encode(),
                "_rels/.rels": _RELATIONS.encode(),
                "3D/3dmodel.model": model.encode("utf-8"),
            }
        )
    }


def _metadata(asset: Asset) -> str:
    entries = {"Application": f"anyform {asset.provenance.version}"}
    rights = credit(asset.provenance)
    if rights:
        entries["Copyright"] = rights
    entries[_PROVENANCE] = json.dumps(asset.provenance.to_json(), separators=(",", ":"), allow_nan=False)
    # json keeps to ASCII; titles and licences may hold what XML forbids.
    clean = {key: re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", "", value) for key, value in entries.items()}
    return "".join(f'<metadata name="{key}">{escape(value)}</metadata>' for key, value in clean.items())


def _triangles(
    colors: NDArray[np.float64] | None, faces: NDArray[np.int64], corners: NDArray[np.int32]
) -> tuple[str, str]:
    """The colour group, empty without colours, and the triangle elements."""
    if colors is None:
        return "", ('<triangle v1="%d" v2="%d" v3="%d"/>' * len(faces)) % tuple(faces.ravel().tolist())
    levels = np.round(colors * 255).astype(np.int64)
    distinct, entry = np.unique(levels @ np.array([65536, 256, 1]), return_inverse=True)
    group = ('<m:color color="#%06XFF"/>' * len(distinct)) % tuple(distinct.tolist())
    rows = np.concatenate([faces, entry[corners]], 1)
    element = '<triangle v1="%d" v2="%d" v3="%d" pid="1" p1="%d" p2="%d" p3="%d"/>'
    return f'<m:colorgroup id="1">{group}</m:colorgroup>', (element * len(rows)) % tuple(rows.ravel().tolist())


@dataclass(slots=True)
class _Model:
    """What one pass over the XML collects."""

    metres: float = 1e-3
    colors: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    meshes: dict[str, Part] = field(default_factory=dict)
    components: dict[str, list[tuple[str, NDArray[np.float64]]]] = field(default_factory=dict)
    items: list[tuple[str, NDArray[np.float64]]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def read_3mf(path: Path) -> Mesh:
    """All items of the build as one mesh, with colours. Raises BadInput where it is malformed."""
    model = _parse(_model_bytes(path))
    parts: list[Part] = []
    room = [1_000_000]
    for identity, transform in model.items:
        _place(model, identity, transform, parts, 0, room)
    mesh = join(parts)
    return z_up_to_y_up(mesh.moved(model.metres))


def read_3mf_extras(path: Path) -> dict[str, Any]:
    """The provenance in a 3MF made by anyform, else an empty dictionary."""
    content = re.search(rb'<metadata name="anyform:provenance">([^<]*)</metadata>', _model_bytes(path))
    if content is None:
        return {}
    text = content[1].decode("utf-8").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _model_bytes(path: Path) -> bytes:
    content = read_limited(path, MAX_3MF_BYTES)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".model")]
        if not names:
            raise BadInput("it holds no 3D model")
        model = read_member(archive, "3D/3dmodel.model" if "3D/3dmodel.model" in names else names[0], MAX_MODEL_BYTES)
    if b"<!DOCTYPE" in model or b"<!ENTITY" in model:
        raise BadInput("its XML defines entities, which no 3MF needs")
    return model


def _parse(content: bytes) -> _Model:
    model = _Model()
    vertices: list[tuple[float, float, float]] = []
    triangles: list[dict[str, str]] = []
    owner: dict[str, str] = {}
    for event, element in ET.iterparse(io.BytesIO(content), ("start", "end")):
        name = element.tag.rpartition("}")[2]
        if event == "start":
            if name == "model":
                model.metres = _METRES.get(element.get("unit", "millimeter"), 1e-3)
            elif name == "object":
                owner = dict(element.attrib)
            continue
        if name == "vertex":
            vertices.append((float(element.attrib["x"]), float(element.attrib["y"]), float(element.attrib["z"])))
        elif name == "triangle":
            triangles.append(dict(element.attrib))
            check_counts(len(vertices), len(triangles))
        elif name == "mesh":
            model.meshes[owner["id"]] = _mesh_part(vertices, triangles, owner, model.colors)
            vertices, triangles = [], []
        elif name in ("color", "base"):
            model.colors.setdefault("", []).append(_hex(element.get("color") or element.get("displaycolor") or ""))
        elif name in ("colorgroup", "basematerials"):
            model.colors[element.attrib["id"]] = model.colors.pop("", [])
        elif name == "component":
            placed = (element.attrib["objectid"], _transform(element.get("transform")))
            model.components.setdefault(owner["id"], []).append(placed)
        elif name == "item":
            model.items.append((element.attrib["objectid"], _transform(element.get("transform"))))
        elif name == "metadata":
            model.metadata[element.get("name", "")] = element.text or ""
        element.clear()
    return model


def _hex(text: str) -> tuple[float, float, float]:
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?", text):
        raise BadInput(f"its colour {text[:20]!r} is not #RRGGBB")
    return int(text[1:3], 16) / 255, int(text[3:5], 16) / 255, int(text[5:7], 16) / 255


def _transform(text: str | None) -> NDArray[np.float64]:
    """(4, 3): rows as the attribute lists them; a point is [x y z 1] @ it."""
    values = np.array((text or "1 0 0 0 1 0 0 0 1 0 0 0").split(), np.float64)
    if values.shape != (12,) or not np.isfinite(values).all():
        raise BadInput(f"its transform {str(text)[:60]!r} is not twelve finite numbers")
    return values.reshape(4, 3)


def _mesh_part(
    vertices: list[tuple[float, float, float]],
    triangles: list[dict[str, str]],
    owner: dict[str, str],
    colors: dict[str, list[tuple[float, float, float]]],
) -> Part:
    """A mesh with one vertex per corner colour, so that faces of different colours keep their borders sharp."""
    faces = np.array([[int(t["v1"]), int(t["v2"]), int(t["v3"])] for t in triangles], np.int64).reshape(-1, 3)
    points = np.array(vertices, np.float64).reshape(-1, 3)
    if len(faces) and (faces.min() < 0 or faces.max() >= len(points)):
        raise BadInput(f"a triangle names vertex {faces.max()}, but there are {len(points)} vertices")
    groups = {t.get("pid", owner.get("pid", "")) for t in triangles}
    if not any(colors.get(group) for group in groups):
        return Part(points, faces)
    rows = []
    for t in triangles:
        palette = colors.get(t.get("pid", owner.get("pid", "")))
        p1 = t.get("p1", owner.get("pindex", "0"))
        keys = (p1, t.get("p2", p1), t.get("p3", p1))
        rows.append([palette[int(k)] if palette else (1.0, 1.0, 1.0) for k in keys])
    corner = np.concatenate([faces.reshape(-1, 1), np.round(np.array(rows).reshape(-1, 3) * 255)], 1).astype(np.int64)
    distinct, merged = np.unique(corner, axis=0, return_inverse=True)
    return Part(points[distinct[:, 0]], merged.reshape(-1, 3), vertex_color=distinct[:, 1:] / 255)


def _place(
    model: _Model, identity: str, transform: NDArray[np.float64], parts: list[Part], depth: int, room: list[int]
) -> None:
    """Adds the meshes of an object and of its components. `room` counts down over all placements."""
    room[0] -= 1
    if depth > MAX_DEPTH or room[0] < 0:
        raise BadInput(f"its components are nested more than {MAX_DEPTH} deep or without end")
    part = model.meshes.get(identity)
    if part is not None:
        present = [*parts, part]
        check_counts(sum(len(p.vertices) for p in present), sum(len(p.faces) for p in present))
        moved = part.vertices @ transform[:3] + transform[3]
        faces = part.faces if np.linalg.det(transform[:3]) >= 0 else part.faces[:, ::-1]
        parts.append(Part(moved, faces, vertex_color=part.vertex_color))
    for child, local in model.components.get(identity, []):
        combined = np.concatenate([local[:3] @ transform[:3], (local[3] @ transform[:3] + transform[3])[None]])
        _place(model, child, combined, parts, depth + 1, room)
