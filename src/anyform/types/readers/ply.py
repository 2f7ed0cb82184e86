"""Reading the points of a PLY file, ASCII or binary. Format: Greg Turk, The PLY Polygon File Format, 1994."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.readers.archive import read_rows
from anyform.types.readers.limits import shown

MAX_HEADER = 65_536  # bytes
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float": "f4", "double": "f8", "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the header: its rows, and the NumPy type of each property (None for a list)."""

    name: str
    count: int
    properties: tuple[tuple[str, str | None], ...]


def read_ply(path: Path, max_points: int) -> tuple[NDArray[np.floating], NDArray[np.uint8] | None] | None:
    """(points (N, 3), colours (N, 3) uint8 or None), thinned to max_points; None for a file with faces: a mesh.

    Raises BadInput where the header is damaged, or promises more than the bytes present can hold.
    """
    name = shown(path)
    with path.open("rb") as file:
        order, elements = read_header(file, name)
        if any(element.name == "face" and element.count for element in elements):
            return None
        before = list(itertools.takewhile(lambda element: element.name != "vertex", elements))
        if len(before) == len(elements):
            raise BadInput(f"{name} has no vertices: give a PLY with an element 'vertex'")
        vertex = elements[len(before)]
        wanted = _wanted(vertex, name)
        left = path.stat().st_size - file.tell()
        try:
            if order == "ascii":
                rows = _ascii(file, before, vertex, wanted, left, name, max_points)
            else:
                rows = _binary(file, before, vertex, wanted, left, name, max_points, _ORDERS[order])
        except (ValueError, IndexError, EOFError) as error:
            raise BadInput(f"{name} is cut off or damaged in its list of vertices: save it again") from error
    return _split(rows, [dict(vertex.properties)[key] for key in wanted[3:]])


def read_header(file: IO[bytes], name: str) -> tuple[str, list[Element]]:
    """(format, elements) up to end_header, within `MAX_HEADER` bytes."""
    lines, used = [], 0
    while not lines or lines[-1] != ["end_header"]:
        line = file.readline(MAX_HEADER)
        used += len(line)
        if not line or used > MAX_HEADER or (not lines and line.strip() != b"ply"):
            raise BadInput(f"{name} has no PLY header of at most {MAX_HEADER} bytes: save it again")
        lines.append(line.decode("ascii", "replace").split())
    order, elements = "", []
    for words in lines[1:-1]:
        try:
            if words[:1] == ["format"]:
                order = words[1]
            elif words[:1] == ["element"]:
                if not (words[2].isdigit() and len(words[2]) <= 18):
                    raise BadInput(f"{name} declares {words[2][:20]} rows of {words[1][:40]!r}: that is no count")
                elements.append(Element(words[1], int(words[2]), ()))
            elif words[:1] == ["property"]:
                kind = None if words[1] == "list" else _TYPES[words[1]]
                last = elements.pop()
                elements.append(Element(last.name, last.count, (*last.properties, (words[-1], kind))))
        except (IndexError, KeyError) as error:
            raise BadInput(f"{name} has a header line that means nothing: {' '.join(words)[:60]!r}") from error
    if order not in _ORDERS:
        raise BadInput(f"{name} has the PLY format {order[:40]!r}: save it as ascii or binary_little_endian")
    return order, elements


def _wanted(vertex: Element, name: str) -> tuple[str, ...]:
    """The properties to read: x y z, and three colours where the file has them."""
    kinds = dict(vertex.properties)
    if len(kinds) < len(vertex.properties) or None in kinds.values():
        raise BadInput(f"{name} has vertices with lists or with two properties of one name: give plain x, y and z")
    if not {"x", "y", "z"} <= set(kinds):
        raise BadInput(f"{name} has vertices without x, y and z")
    return "x", "y", "z", *next((names for names in _COLOURS if set(names) <= set(kinds)), ())


def _ascii(
    file: IO[bytes],
    before: list[Element],
    vertex: Element,
    wanted: tuple[str, ...],
    left: int,
    name: str,
    max_points: int,
) -> NDArray[np.float64]:
    """Parse the vertex lines in blocks. A row takes two bytes a value at least, its line end included."""
    if sum(element.count for element in before) + vertex.count * 2 * len(vertex.properties) > left + 1:
        raise BadInput(f"{name} promises {vertex.count} vertices and holds {left} bytes of them: it is cut off")
    columns = [[key for key, _ in vertex.properties].index(key) for key in wanted]
    lines = (line.decode("ascii", "replace") for line in iter(lambda: file.readline(MAX_HEADER), b"") if line.strip())
    for _ in range(sum(element.count for element in before)):
        next(lines, None)
    step, kept, count = -(-vertex.count // max_points), [], 0
    while block := list(itertools.islice(lines, min(1 << 16, vertex.count - count))):
        rows = np.loadtxt(block, np.float64, comments=None, usecols=columns, ndmin=2)
        kept.append(rows[-count % step :: step])
        count += len(block)
    if count < vertex.count:
        raise EOFError(f"{count} of {vertex.count} lines")
    return np.concatenate(kept) if kept else np.empty((0, len(wanted)))


def _binary(
    file: IO[bytes],
    before: list[Element],
    vertex: Element,
    wanted: tuple[str, ...],
    left: int,
    name: str,
    max_points: int,
    order: str,
) -> NDArray[np.float64]:
    """Read the vertex rows; elements in front of them are skipped, which needs rows of one size."""
    skip = 0
    for element in before:
        sizes = [np.dtype(kind).itemsize if kind else None for _, kind in element.properties]
        if None in sizes:
            raise BadInput(f"{name} has lists ({element.name[:40]!r}) before its vertices: save the vertices first")
        skip += element.count * sum(size for size in sizes if size)
    row = np.dtype([(key, order + str(kind)) for key, kind in vertex.properties])
    if skip + vertex.count * row.itemsize > left:
        raise BadInput(
            f"{name} promises {vertex.count} vertices, {skip + vertex.count * row.itemsize} bytes, and holds {left}:"
            " it is cut off or damaged"
        )
    file.seek(skip, 1)
    if vertex.count == 0:
        return np.empty((0, len(wanted)))
    rows = read_rows(file, vertex.count, row, max_points)
    return np.stack([rows[key].astype(np.float64) for key in wanted], 1)


def _split(
    rows: NDArray[np.float64], colour_kinds: list[str | None]
) -> tuple[NDArray[np.floating], NDArray[np.uint8] | None]:
    """x y z and the colours: integers are 0..255 (16-bit ones 0..65535), floats 0..1."""
    if not colour_kinds:
        return rows, None
    scale = {"u1": 1.0, "u2": 1 / 257, "f4": 255.0, "f8": 255.0}.get(str(colour_kinds[0]))
    values = rows[:, 3:] * scale if scale else np.full((1, 3), np.nan)
    if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 255.5:
        return rows[:, :3], None
    return rows[:, :3], np.rint(values).clip(0, 255).astype(np.uint8)
