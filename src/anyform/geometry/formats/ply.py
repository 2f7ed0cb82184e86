"""PLY (http://paulbourke.net/dataformats/ply/): binary with vertex colours out; ASCII and both byte orders in.

Written +y up, 1 unit = 1 m. A texture becomes vertex colours, with a warning. Read: vertices with or without colours,
faces of any size as fans; every declared count is checked against the bytes present before anything is allocated.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.geometry.asset import Asset
from anyform.geometry.color import vertex_colors
from anyform.geometry.formats.files import read_limited
from anyform.geometry.formats.glb import credit
from anyform.geometry.formats.parts import Part, check_counts, join
from anyform.geometry.mesh import Mesh
from anyform.geometry.placement import standing

MAX_PLY_BYTES = 2 << 30
_KINDS = {"i1": "char int8", "u1": "uchar uint8", "i2": "short int16", "u2": "ushort uint16", "i4": "int int32"}
_KINDS |= {"u4": "uint uint32", "f4": "float float32", "f8": "double float64"}
_TYPES = {name: kind for kind, names in _KINDS.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class _Property:
    """One column; `length` is the type of a list's count, None for a scalar."""

    name: str
    kind: str
    length: str | None = None


@dataclass(frozen=True, slots=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]


def write_ply(asset: Asset, name: str) -> dict[str, bytes]:
    """{name: the file}: binary, little-endian."""
    mesh = standing(asset.mesh, asset.metres)
    colors = vertex_colors(mesh)
    if mesh.material is not None and mesh.material.base_color is not None:
        warnings.warn("PLY holds no texture: its colours are written to the vertices", stacklevel=4)
    columns: list[tuple[str, str]] = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    columns += [(channel, "u1") for channel in ("red", "green", "blue")] if colors is not None else []
    table = np.zeros(len(mesh.vertices), np.dtype(columns))
    for axis, key in enumerate("xyz"):
        table[key] = mesh.vertices[:, axis]
    if colors is not None:
        for channel, key in enumerate(("red", "green", "blue")):
            table[key] = np.round(colors[:, channel] * 255)
    faces = np.zeros(len(mesh.faces), np.dtype([("count", "u1"), ("index", "<i4", 3)]))
    faces["count"], faces["index"] = 3, mesh.faces
    comment = " ".join(f"anyform {asset.provenance.version}, +y up, metres; {credit(asset.provenance)}".split())
    kinds = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"comment {comment}", f"element vertex {len(table)}"]
    header += [f"property {kinds[kind]} {key}" for key, kind in columns]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return {name: "\n".join(header).encode("utf-8") + table.tobytes() + faces.tobytes()}


def read_ply(path: Path) -> Mesh:
    """The mesh of a PLY file; a file of points alone is refused (it is a prompt, not a mesh)."""
    content = read_limited(path, MAX_PLY_BYTES)
    form, elements, body = _header(content)
    names = [element.name for element in elements]
    if "vertex" not in names or "face" not in names:
        raise BadInput("it has no faces; a point cloud can be a prompt (--points) but is not a mesh")
    if form == "ascii":
        found = _ascii(content[body:].split(), elements)
    else:
        found = _binary(content, body, elements, "<" if form == "binary_little_endian" else ">")
    vertex, polygons = found["vertex"], found["face"]
    if not all(key in vertex for key in "xyz"):
        raise BadInput("its vertices have no x, y and z")
    index = next((polygons[key] for key in ("vertex_indices", "vertex_index") if key in polygons), None)
    if index is None:
        raise BadInput("its faces have no list of vertex indices")
    color = None
    if all(key in vertex for key in ("red", "green", "blue")):
        color = np.stack([vertex[key] for key in ("red", "green", "blue")], 1).astype(np.float64)
        color = color / 255 if vertex["red"].dtype.kind in "ui" or color.max(initial=0) > 1 else color
    positions = np.stack([vertex[key].astype(np.float64) for key in "xyz"], 1)
    return join([Part(positions, _fans(*index), vertex_color=color)])


def _header(content: bytes) -> tuple[str, list[_Element], int]:
    """Format, elements, and where the body starts. The header may take 64 KiB."""
    end = content.find(b"end_header", 0, 1 << 16)
    newline = content.find(b"\n", end)
    if not content.startswith(b"ply") or end < 0 or newline < 0:
        raise BadInput("it does not start with a PLY header")
    form, elements = "", list[_Element]()
    for line in content[:end].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"] and len(words) > 1:
            form = words[1]
        elif words[:1] == ["element"] and len(words) == 3:
            count = int(words[2])
            if count < 0:
                raise BadInput(f"it declares {count} of {words[1][:40]!r}")
            elements.append(_Element(words[1], count, ()))
        elif words[:1] == ["property"] and elements:
            last = elements[-1]
            elements[-1] = _Element(last.name, last.count, (*last.properties, _property(words)))
    if form not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise BadInput(f"its format {form[:40]!r} is unknown")
    room = len(content) - newline - 1
    for element in elements:
        smallest = sum(int(_TYPES[p.length or p.kind][1]) for p in element.properties)
        if element.count * max(1, len(element.properties) if form == "ascii" else smallest) > room:
            raise BadInput(f"it declares {element.count} × {element.name[:40]!r}, but only {room} bytes follow")
        if element.name in ("vertex", "face"):
            check_counts(*((element.count, 0) if element.name == "vertex" else (0, element.count)))
    return form, elements, newline + 1


def _property(words: list[str]) -> _Property:
    kinds = words[2:4] if words[1:2] == ["list"] else words[1:2]
    unknown = [kind for kind in kinds if kind not in _TYPES]
    if unknown or len(words) != 2 + len(kinds) + (len(kinds) == 2):
        raise BadInput(f"its header line {' '.join(words)[:60]!r} is malformed")
    if len(kinds) == 2:
        return _Property(words[4], kinds[1], kinds[0])
    return _Property(words[2], kinds[0])


def _binary(content: bytes, at: int, elements: list[_Element], order: str) -> dict[str, dict[str, Any]]:
    """{element: {scalar: (N,) array, list: (counts (N,), values)}} of a binary body."""
    found: dict[str, dict[str, Any]] = {}
    for element in elements:
        columns = [(p.name, order + _TYPES[p.kind]) for p in element.properties if p.length is None]
        if len(columns) == len(element.properties):
            dtype = np.dtype(columns)
            _room(content, at, dtype.itemsize * element.count)
            table = np.frombuffer(content, dtype, element.count, at)
            found[element.name] = {p.name: table[p.name] for p in element.properties}
            at += dtype.itemsize * element.count
        else:
            found[element.name], at = _binary_lists(content, at, element, order)
    return found


def _room(content: bytes, at: int, needed: int) -> None:
    if at + needed > len(content):
        raise BadInput(f"it ends {at + needed - len(content)} bytes too early")


def _binary_lists(content: bytes, at: int, element: _Element, order: str) -> tuple[dict[str, Any], int]:
    """An element with lists: at once where all lists of the first row's lengths repeat, else row by row."""
    if not element.count:
        return {p.name: (np.zeros(0, np.int64), np.zeros(0)) for p in element.properties}, at
    first, _ = _binary_row(content, at, element, order)
    columns: list[Any] = []
    for index, p in enumerate(element.properties):
        if p.length is not None:
            columns += [(f"count{index}", order + _TYPES[p.length])]
            columns += [(f"value{index}", order + _TYPES[p.kind], (len(first[index]),))]
        else:
            columns += [(f"value{index}", order + _TYPES[p.kind])]
    dtype = np.dtype(columns)
    if at + dtype.itemsize * element.count <= len(content):
        table = np.frombuffer(content, dtype, element.count, at)
        lists = [i for i, p in enumerate(element.properties) if p.length is not None]
        if all((table[f"count{i}"] == len(first[i])).all() for i in lists):
            found: dict[str, Any] = {}
            for index, p in enumerate(element.properties):
                value = table[f"value{index}"]
                found[p.name] = value if p.length is None else (table[f"count{index}"].astype(np.int64), value.ravel())
            return found, at + dtype.itemsize * element.count
    rows = []
    for _ in range(element.count):
        row, at = _binary_row(content, at, element, order)
        rows.append(row)
    return _columns(rows, element), at


def _binary_row(content: bytes, at: int, element: _Element, order: str) -> tuple[list[NDArray[Any]], int]:
    row = []
    for p in element.properties:
        count = 1
        if p.length is not None:
            kind = np.dtype(order + _TYPES[p.length])
            _room(content, at, kind.itemsize)
            count = int(np.frombuffer(content, kind, 1, at)[0])
            at += kind.itemsize
        kind = np.dtype(order + _TYPES[p.kind])
        if count < 0:
            raise BadInput(f"a list of {element.name[:40]!r} has {count} entries")
        _room(content, at, kind.itemsize * count)
        row.append(np.frombuffer(content, kind, count, at))
        at += kind.itemsize * count
    return row, at


def _columns(rows: list[list[NDArray[Any]]], element: _Element) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, p in enumerate(element.properties):
        values = [row[index] for row in rows]
        joined = np.concatenate(values) if values else np.zeros(0)
        found[p.name] = joined if p.length is None else (np.array([len(v) for v in values], np.int64), joined)
    return found


def _ascii(words: list[bytes], elements: list[_Element]) -> dict[str, dict[str, Any]]:
    """As `_binary`, for a body of words."""
    found: dict[str, dict[str, Any]] = {}
    at = 0
    for element in elements:
        width = len(element.properties)
        if all(p.length is None for p in element.properties):
            if at + width * element.count > len(words):
                raise BadInput(f"it ends before the last of its {element.count} × {element.name[:40]!r}")
            table = np.array(words[at : at + width * element.count], np.float64).reshape(element.count, width)
            found[element.name] = {
                p.name: table[:, i].astype(np.int64) if _TYPES[p.kind][0] in "iu" else table[:, i]
                for i, p in enumerate(element.properties)
            }
            at += width * element.count
            continue
        if width == 1 and element.count:
            # One list of the same length in every row, as almost all files have, is read at once.
            size = int(words[at])
            block = words[at : at + (size + 1) * element.count]
            if (
                size >= 0
                and len(block) == (size + 1) * element.count
                and all(w == words[at] for w in block[:: size + 1])
            ):
                table = np.array(block, np.float64).reshape(element.count, size + 1)
                sizes = np.full(element.count, size, np.int64)
                found[element.name] = {element.properties[0].name: (sizes, table[:, 1:].ravel())}
                at += len(block)
                continue
        rows = []
        for _ in range(element.count):
            row = []
            for p in element.properties:
                count = 1
                if p.length is not None:
                    count, at = int(words[at]), at + 1
                if count < 0 or at + count > len(words):
                    raise BadInput(f"a list of {element.name[:40]!r} declares {count} entries, more than there are")
                row.append(np.array(words[at : at + count], np.float64))
                at += count
            rows.append(row)
        found[element.name] = _columns(rows, element)
    return found


def _fans(sizes: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.int64]:
    """(F, 3) triangles of polygons given by their corner counts and all corners in a row."""
    check_counts(0, int(np.maximum(sizes - 2, 0).sum()))
    inner = np.maximum(sizes - 2, 0)
    start = np.repeat(np.cumsum(sizes) - sizes, inner)
    step = np.arange(len(start)) - np.repeat(np.cumsum(inner) - inner, inner) + 1
    corners = values.astype(np.int64)
    return np.stack([corners[start], corners[start + step], corners[start + step + 1]], 1)
