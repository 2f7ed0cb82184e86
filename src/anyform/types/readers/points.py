"""Reading point clouds: PLY, NPY, NPZ, HDF5 and text tables; meshes give points sampled from their surface.

Every reader streams: counts are compared with the bytes present before anything is allocated, and clouds above
`MAX_POINTS` are thinned evenly on the way.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.prompt import MAX_POINTS
from anyform.types.readers.archive import read_array, read_h5
from anyform.types.readers.limits import MEBI, regular_file, shown
from anyform.types.readers.ply import read_ply

MAX_FILE_BYTES = 65_536 * MEBI
MAX_LINE = 4096  # bytes
MAX_ROWS, MAX_COLUMNS = 10**10, 64  # of an array; rows beyond `MAX_POINTS` are thinned
ADVICE = "give points as PLY, NPY, NPZ, XYZ, TXT, CSV or H5DF, or a mesh as GLB, OBJ, STL or PLY"
KEYS = ("points", "xyz", "positions", "vertices", "arr_0")
_LINES = 1 << 16  # lines parsed at a time

Cloud = tuple[NDArray[np.floating], NDArray[np.uint8] | None]


def read_points(path: str | Path) -> Cloud:
    """(points (N, 3), colours (N, 3) uint8 sRGB or None). Raises BadInput; see the limits above."""
    path = regular_file(path, MAX_FILE_BYTES, ADVICE)
    suffix, name = path.suffix.lower(), shown(path)
    if suffix == ".ply":
        cloud = read_ply(path, MAX_POINTS)
        return _sampled(path) if cloud is None else _near_origin(*cloud, name)
    if suffix in (".npy", ".npz"):
        return _columns(read_array(path, KEYS, (MAX_ROWS, MAX_COLUMNS), MAX_POINTS), name)
    if suffix in (".h5", ".hdf5", ".h5df"):
        return _columns(read_h5(path, KEYS[0], MAX_POINTS), name)
    if suffix in (".xyz", ".txt", ".csv", ".pts", ".asc"):
        with path.open("rb") as file:
            return _columns(read_table(file, name), name)
    if suffix in (".obj", ".stl", ".glb", ".3mf"):
        return _sampled(path)
    raise BadInput(f"{name} has no suffix of a point cloud or mesh: {ADVICE}")


def read_table(file: IO[bytes], name: str) -> NDArray[np.float64]:
    """Rows of x y z, or x y z r g b, from lines of numbers parted by blanks, commas, semicolons or tabs.

    A first line of column names chooses the columns; a first line with one number (PTS) is the count and is skipped;
    seven columns are x y z intensity r g b (PTS), others beyond the sixth are dropped. Lines from # or // are comments.
    """
    lines = _lines(file, name)
    first = next(lines, None)
    if first is not None and len(first.split()) == 1 and first.strip().isdigit():
        first = next(lines, None)
    if first is None:
        raise BadInput(f"{name} has no line of numbers: {ADVICE}")
    delimiter = next((mark for mark in ",;\t" if mark in first), None)
    tokens = [token.strip().strip('"').lower() for token in first.split(delimiter)]
    chosen = _named(tokens, name)
    if chosen is None:
        width = len(tokens)
        chosen = (0, 1, 2, 4, 5, 6) if width == 7 else tuple(range(6 if width >= 6 else 3))
        lines = itertools.chain([first], lines)
    kept, count, step = [], 0, 1
    while block := list(itertools.islice(lines, _LINES)):
        try:
            rows = np.loadtxt(block, np.float64, delimiter=delimiter, comments=None, usecols=chosen, ndmin=2)
        except (ValueError, IndexError) as error:
            raise BadInput(
                f"{name} has a line after row {count} that is not {len(chosen)} numbers: {ADVICE}"
            ) from error
        kept.append(rows[-count % step :: step])
        count += len(rows)
        if sum(map(len, kept)) > MAX_POINTS:
            kept, step = [np.concatenate(kept)[::2]], step * 2
    return np.concatenate(kept) if kept else np.empty((0, 3))


def _lines(file: IO[bytes], name: str) -> Iterator[str]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise BadInput(f"{name} has a line of more than {MAX_LINE} bytes: it is no table of points")
        text = line.decode("utf-8", "replace").strip()
        if text and not text.startswith(("#", "//")):
            yield text


def _named(tokens: list[str], name: str) -> tuple[int, ...] | None:
    """The columns x y z [r g b] of a line of names; None where the line holds numbers."""
    if _is_number(tokens[0]):
        return None
    if {"x", "y", "z"} <= set(tokens):
        colours = next((c for c in (("r", "g", "b"), ("red", "green", "blue")) if set(c) <= set(tokens)), ())
        return tuple(tokens.index(column) for column in ("x", "y", "z", *colours))
    raise BadInput(f"{name} starts with a line that is neither numbers nor the column names x, y and z")


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def _columns(rows: NDArray[np.generic], name: str) -> Cloud:
    """Split (N, C): x y z, then r g b where the next three columns can be colours (0..255, or 0..1 and no normals)."""
    if rows.ndim != 2 or rows.shape[1] < 3 or rows.dtype.kind not in "iuf":
        raise BadInput(f"{name} holds {rows.dtype} {rows.shape}: points are numbers (N, 3), or (N, 6) with colours")
    points = rows[:, :3].astype(np.float64 if rows.dtype.itemsize > 4 else np.float32)
    colours = None
    if rows.shape[1] >= 6:
        colours = as_colours(rows[:, 3:6])
    return _near_origin(points, colours, name)


def as_colours(values: NDArray[np.generic]) -> NDArray[np.uint8] | None:
    """(N, 3) uint8 from numbers in 0..255 or 0..1; None where they can be no colours, such as normals."""
    numbers = values.astype(np.float32)
    if not numbers.size or not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 255:
        return None
    if numbers.max() > 1 or values.dtype == np.uint8:
        return np.rint(numbers).astype(np.uint8)
    if np.abs((numbers**2).sum(1) - 1).max() < 0.02:  # unit length all over: normals of one octant
        return None
    return np.rint(numbers * 255).astype(np.uint8)


def _near_origin(points: NDArray[np.floating], colours: NDArray[np.uint8] | None, name: str) -> Cloud:
    """Move clouds far from the origin (map coordinates) to it, before float32 eats their detail."""
    if len(points) and np.isfinite(points).all():
        centre = points.mean(0, dtype=np.float64)
        size = float(np.ptp(points, axis=0).max())
        if float(np.abs(centre).max()) > 1000 * size > 0:
            warnings.warn(f"{name}: the points lie far from the origin and were moved to it", UserWarning, stacklevel=2)
            points = points - centre
    return points, colours


def _sampled(path: Path) -> Cloud:
    from anyform.types.readers.surface import sample_mesh_file

    return sample_mesh_file(path)
