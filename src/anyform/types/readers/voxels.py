"""Reading voxel grids: JSON, NPY, NPZ, binvox and MagicaVoxel. Result: bool [x, y, z], y up.

binvox: https://www.patrickmin.com/binvox/binvox.html · MagicaVoxel: github.com/ephtracy/voxel-model
"""

from __future__ import annotations

import itertools
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.prompt import MAX_RESOLUTION
from anyform.types.readers.archive import read_array
from anyform.types.readers.limits import MEBI, parse_json, read_bytes, regular_file, shown

MAX_JSON_BYTES = 16 * MEBI  # about two million voxels; Python lists take ten times as much memory
MAX_GRID_BYTES = 256 * MEBI
KEYS = ("occupancy", "voxels", "arr_0")
ADVICE = "give voxels as JSON, NPY, NPZ, binvox or MagicaVoxel .vox"

Grid = tuple[NDArray[np.bool_], NDArray[np.uint8] | None]


def read_voxels(path: str | Path) -> Grid:
    """(occupancy (R, R, R) bool, colours (R, R, R, 3) uint8 or None).

    Boxes that are no cubes are put in the middle of one, with a warning. Raises BadInput; what a file declares is
    compared with `MAX_RESOLUTION` and with its bytes before a grid is made.
    """
    name, suffix = shown(path), Path(path).suffix.lower()
    if suffix == ".json":
        return _from_json(parse_json(read_bytes(path, MAX_JSON_BYTES, ADVICE), name), name)
    if suffix in (".npy", ".npz"):
        return _cube(
            _from_array(read_array(regular_file(path, MAX_GRID_BYTES, ADVICE), KEYS, (MAX_RESOLUTION,) * 3), name),
            None,
            name,
        )
    if suffix == ".binvox":
        return _cube(_from_binvox(read_bytes(path, MAX_GRID_BYTES, ADVICE), name), None, name)
    if suffix == ".vox":
        return _cube(*_from_vox(read_bytes(path, MAX_GRID_BYTES, ADVICE), name), name)
    regular_file(path, MAX_GRID_BYTES, ADVICE)
    raise BadInput(f"{name} has no suffix of a voxel file: {ADVICE}")


def _from_json(table: object, name: str) -> Grid:
    """{"resolution": R, "occupancy": [[x, y, z], …], "color": [[r, g, b], …] or absent}: WaLa's own form."""
    if not isinstance(table, dict) or not {"resolution", "occupancy"} <= set(table):
        raise BadInput(f"{name} has to be an object with 'resolution' and 'occupancy' (a list of [x, y, z])")
    size = table["resolution"]
    if type(size) is not int or not 2 <= size <= MAX_RESOLUTION:
        raise BadInput(f"{name}: resolution has to be a whole number in 2..{MAX_RESOLUTION}, not {str(size)[:40]}")
    index = _triples(table["occupancy"], "occupancy", name)
    if index.dtype.kind != "i":
        raise BadInput(f"{name}: occupancy holds {index.dtype} values, where whole voxel indices are needed")
    outside = ((index < 0) | (index >= size)).any(1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise BadInput(f"{name}: occupancy[{first}] = {index[first].tolist()} lies outside 0..{size - 1}")
    occupancy, colours = np.zeros((size, size, size), np.bool_), None
    occupancy[tuple(index.T)] = True
    if table.get("color"):
        values = _triples(table["color"], "color", name)
        if len(values) != len(index):
            raise BadInput(f"{name} has {len(values)} colours for {len(index)} voxels: give one a voxel, or none")
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise BadInput(f"{name}: colours lie in 0..255, or in 0..1 as fractions")
        fractions = values.dtype.kind == "f" and values.max() <= 1
        colours = np.zeros((size, size, size, 3), np.uint8)
        colours[tuple(index.T)] = np.rint(values * (255 if fractions else 1)).astype(np.uint8)
    return occupancy, colours


def _triples(values: object, key: str, name: str) -> NDArray[Any]:
    """A list of triples of numbers as an array (N, 3), int64 or float64."""
    if not isinstance(values, list) or not values:
        raise BadInput(f"{name}: {key} has to be a list of triples with at least one entry")
    # np.array would take true for 1 and "3" for text without a word
    wrong = next((i for i, v in enumerate(values) if type(v) is not list or len(v) != 3), None)
    if wrong is None and not set(map(type, itertools.chain.from_iterable(values))) <= {int, float}:
        wrong = next(i for i, v in enumerate(values) if not {type(item) for item in v} <= {int, float})
    if wrong is not None:
        raise BadInput(f"{name}: {key}[{wrong}] is not a triple of numbers")
    try:
        array = np.array(values)
    except OverflowError as error:
        raise BadInput(f"{name}: {key} holds numbers that are too large") from error
    if array.dtype.kind not in "if":
        raise BadInput(f"{name}: {key} holds numbers that are too large")
    return array


def _from_array(values: NDArray[np.generic], name: str) -> NDArray[np.bool_]:
    """(X, Y, Z) bool; 0/1 numbers are taken as they are, fractions are cut at one half with a warning."""
    if values.size == 0:
        raise BadInput(f"{name} is an empty array {values.shape}: a grid (X, Y, Z) is needed")
    if values.dtype == np.bool_:
        return values.astype(np.bool_)
    numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 1:
        raise BadInput(f"{name} holds values outside 0..1, or NaN: give occupancy, not distances or colours")
    if not np.isin(numbers, (0, 1)).all():
        warnings.warn(f"{name}: occupancy fractions were cut at 0.5", UserWarning, stacklevel=2)
    return numbers > 0.5


def _from_binvox(data: bytes, name: str) -> NDArray[np.bool_]:
    """Run-length pairs (value, count) with y running fastest, then z, then x."""
    head, found, body = data[:1024].partition(b"data\n")
    lines = [line.split() for line in head.split(b"\n")]
    if not found or lines[0][:1] != [b"#binvox"]:
        raise BadInput(f"{name} has no binvox header: voxelise the mesh again")
    body = data[len(head) + len(found) :]
    words = next((line[1:] for line in lines if line[:1] == [b"dim"]), [])
    if len(words) != 3 or not all(word.isdigit() and 1 <= int(word[:9]) <= MAX_RESOLUTION for word in words):
        sizes = b" x ".join(words)[:40].decode("ascii", "replace")
        raise BadInput(f"{name} declares a grid of {sizes or 'no size'}: 1 to {MAX_RESOLUTION} a side are read")
    width, depth, height = (int(word) for word in words)
    pairs = np.frombuffer(body[: len(body) // 2 * 2], np.uint8).reshape(-1, 2)
    total = int(pairs[:, 1].sum(dtype=np.int64))
    if total != width * depth * height or (pairs[:, 0] > 1).any():
        raise BadInput(f"{name} declares {width * depth * height} voxels and holds {total}: it is damaged")
    return np.repeat(pairs[:, 0] == 1, pairs[:, 1]).reshape(width, depth, height).transpose(0, 2, 1)


def _from_vox(data: bytes, name: str) -> Grid:
    """The only model of a MagicaVoxel file (z up, front towards −y) turned to y up, front towards +z."""
    chunks = _vox_chunks(data, name)
    models = [i for i, (kind, _) in enumerate(chunks) if kind == b"XYZI"]
    if len(models) != 1 or models[0] == 0 or chunks[models[0] - 1][0] != b"SIZE" or len(chunks[models[0] - 1][1]) < 12:
        raise BadInput(f"{name} holds {len(models)} models: export one model by itself")
    size = struct.unpack("<III", chunks[models[0] - 1][1][:12])
    if not all(1 <= length <= MAX_RESOLUTION for length in size):
        raise BadInput(f"{name} declares a grid of {size}: 1 to {MAX_RESOLUTION} a side are read")
    content = chunks[models[0]][1]
    count = int.from_bytes(content[:4], "little")
    if len(content) < 4 or count * 4 != len(content) - 4:
        raise BadInput(f"{name} declares {count} voxels and holds {len(content) // 4 - 1}: it is cut off or damaged")
    x, y, z, colour = np.frombuffer(content, np.uint8, offset=4).reshape(-1, 4).T.astype(np.int64)
    if count == 0 or x.max() >= size[0] or y.max() >= size[1] or z.max() >= size[2]:
        raise BadInput(f"{name} has no voxels, or some outside its grid of {size}")
    where = x, z, size[1] - 1 - y
    occupancy = np.zeros((size[0], size[2], size[1]), np.bool_)
    occupancy[where] = True
    palette = next((body for kind, body in chunks if kind == b"RGBA" and len(body) == 1024), None)
    if palette is None:
        return occupancy, None
    colours = np.zeros((*occupancy.shape, 3), np.uint8)
    colours[where] = np.frombuffer(palette, np.uint8).reshape(256, 4)[(colour - 1) % 256, :3]
    return occupancy, colours


def _vox_chunks(data: bytes, name: str) -> list[tuple[bytes, bytes]]:
    """(id, content) of the children of MAIN in file order."""
    if data[:4] != b"VOX " or data[8:12] != b"MAIN":
        raise BadInput(f"{name} is no MagicaVoxel file: {ADVICE}")
    at, chunks = 20 + int.from_bytes(data[12:16], "little"), []
    while at + 12 <= len(data):
        length, children = struct.unpack("<II", data[at + 4 : at + 12])
        if at + 12 + length + children > len(data):
            raise BadInput(f"{name} has a chunk of {length} bytes that goes beyond its end: it is cut off or damaged")
        if len(chunks) == 100_000:
            raise BadInput(f"{name} has more than {len(chunks)} chunks: export one model by itself")
        chunks.append((data[at : at + 4], data[at + 12 : at + 12 + length]))
        at += 12 + length + children
    return chunks


def _cube(occupancy: NDArray[np.bool_], colours: NDArray[np.uint8] | None, name: str) -> Grid:
    """Put a box into a cube of its longest side: in the middle of x and z, on the floor in y."""
    size = max(occupancy.shape)
    if occupancy.shape == (size, size, size):
        return occupancy, colours
    warnings.warn(f"{name}: a grid of {occupancy.shape} was put into one of {size}³", UserWarning, stacklevel=2)
    x, z = ((size - occupancy.shape[axis]) // 2 for axis in (0, 2))
    inside = np.s_[x : x + occupancy.shape[0], : occupancy.shape[1], z : z + occupancy.shape[2]]
    cube = np.zeros((size, size, size), np.bool_)
    cube[inside] = occupancy
    painted = None
    if colours is not None:
        painted = np.zeros((size, size, size, 3), np.uint8)
        painted[inside] = colours
    return cube, painted
