"""Containers of numbers and files: NPY and NPZ arrays, HDF5 data sets, folders and zips of views. Nothing is unpacked.

NPY: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html · ZIP: PKWARE APPNOTE 6.3.10
"""

from __future__ import annotations

import math
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput, MissingDependency
from anyform.types.readers.limits import MEBI, read_bytes, regular_file, shown

if TYPE_CHECKING:
    import h5py

MAX_ARRAY_BYTES = 512 * MEBI  # of one array once read; longer point lists are thinned while they stream
MAX_ENTRIES = 4096
MAX_DIRECTORY_BYTES = 4 * MEBI  # of a zip's own list of contents
MAX_ARCHIVE_BYTES = 1024 * MEBI
_FILTERS = {1, 2, 3, 4, 32000}  # HDF5: deflate, shuffle, fletcher32, szip, lzf; others would load plug-ins
_CHUNK = 8 * MEBI

Member = Callable[[], bytes]


def read_array(
    path: Path, keys: tuple[str, ...], most: tuple[int, ...], max_rows: int | None = None
) -> NDArray[np.generic]:
    """The array of an NPY file, or of an NPZ the one called like the first of `keys` present, else its only one.

    most: the largest length along each axis. max_rows: longer arrays are thinned evenly while they stream in.
    Raises BadInput for pickles, for headers that do not match the bytes, and above `MAX_ARRAY_BYTES`.
    """
    name = shown(path)
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return read_npy(file, path.stat().st_size, name, most, max_rows)
        _check_directory(path, name)
        with zipfile.ZipFile(path) as archive:
            member = _member(archive, keys, name)
            if member.flag_bits & 1:
                raise BadInput(f"{name} is encrypted: save it without a password")
            with archive.open(member) as file:
                return read_npy(file, member.file_size, f"{member.filename[:80]!r} in {name}", most, max_rows)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise BadInput(f"{name} is cut off or damaged: save it again with numpy.save or numpy.savez") from error


def read_npy(
    file: IO[bytes], size: int, name: str, most: tuple[int, ...], max_rows: int | None = None
) -> NDArray[np.generic]:
    """An array from an NPY stream of `size` bytes, in native byte order and C order. See `read_array`."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise BadInput(f"{name} is an NPY file of version {version}: save plain numbers with numpy.save")
    except (ValueError, TypeError, SyntaxError, EOFError, RecursionError, tokenize.TokenError) as error:
        raise BadInput(f"{name} has no valid NPY header: save it again with numpy.save") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise BadInput(f"{name} holds {dtype}, not plain numbers: pickled and structured arrays are not read")
    if len(shape) != len(most) or not all(0 <= length <= limit for length, limit in zip(shape, most, strict=True)):
        limits = " x ".join(map(str, most))
        raise BadInput(f"{name} is an array {shape}: {len(most)} axes of at most {limits} are read")
    total, present = math.prod(shape) * dtype.itemsize, size - file.tell()
    if total != present:
        raise BadInput(f"{name} declares {shape} {dtype}, {total} bytes, and holds {present}: it is cut off or damaged")
    thin = max_rows is not None and not fortran and shape[0] > max_rows
    if total > MAX_ARRAY_BYTES and not thin:
        limit = MAX_ARRAY_BYTES // MEBI
        raise BadInput(f"{name} is an array of {total / MEBI:.0f} MiB, at most {limit} are read: make it smaller")
    if thin and max_rows is not None:
        values = read_rows(file, shape[0], np.dtype((dtype, (shape[1],))), max_rows)
    else:
        values = np.frombuffer(_exactly(file, total), dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(values, dtype.newbyteorder("="))


def read_rows(file: IO[bytes], count: int, row: np.dtype, max_rows: int) -> NDArray[Any]:
    """`count` rows of one type from a stream, thinned to every k-th, k the smallest that leaves at most max_rows.

    Raises BadInput for rows too wide to be points, EOFError where the stream ends early.
    """
    if row.itemsize * min(count, max_rows) > MAX_ARRAY_BYTES:
        limit = f"at most {MAX_ARRAY_BYTES // MEBI} MiB are read"
        raise BadInput(f"{min(count, max_rows)} rows of {row.itemsize} bytes are too many: {limit}")
    step, at_once = math.ceil(count / max_rows), max(1, _CHUNK // row.itemsize)
    kept = []
    for first in range(0, count, at_once):
        block = np.frombuffer(_exactly(file, min(at_once, count - first) * row.itemsize), row)
        kept.append(block[-first % step :: step].copy())
    return np.concatenate(kept)


def _exactly(file: IO[bytes], count: int) -> bytearray:
    """`count` bytes, growing with what really comes, so that a lying zip costs no more than it holds."""
    data = bytearray()
    while len(data) < count:
        part = file.read(min(_CHUNK, count - len(data)))
        if not part:
            raise EOFError(f"{count - len(data)} bytes are missing")
        data += part
    return data


def _member(archive: zipfile.ZipFile, keys: tuple[str, ...], name: str) -> zipfile.ZipInfo:
    members = {info.filename: info for info in archive.infolist() if info.filename.endswith(".npy")}
    for key in keys:
        if f"{key}.npy" in members:
            return members[f"{key}.npy"]
    if len(members) == 1:
        return next(iter(members.values()))
    found = ", ".join(repr(key[:40].removesuffix(".npy")) for key in list(members)[:5]) or "none"
    raise BadInput(f"{name} has {len(members)} arrays ({found}): call the one to read {keys[0]!r}")


def read_h5(path: Path, key: str, max_rows: int) -> NDArray[np.generic]:
    """Data set `key` (N, C) of an HDF5 file, thinned evenly above max_rows. Needs the extra `wala-formats`.

    Raises BadInput for soft and external links, virtual or externally stored data, and filters that need a plug-in.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependency("h5py", extra="wala-formats") from error
    name = shown(path)
    try:
        with h5py.File(path, "r") as file:
            link = file.get(key, getlink=True)
            if link is None:
                raise BadInput(f"{name} has no data set {key!r}: store the points (N, 3) under that name")
            if not isinstance(link, h5py.HardLink):
                raise BadInput(f"{name}: {key!r} is a link to somewhere else; links are not followed")
            data = file[key]
            if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
                raise BadInput(f"{name}: {key!r} is no data set stored in this file")
            plist = data.id.get_create_plist()
            filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
            if not filters <= _FILTERS:
                raise BadInput(
                    f"{name}: {key!r} uses HDF5 filter {max(filters - _FILTERS)}: store it with gzip or plain"
                )
            if data.ndim != 2 or data.dtype.kind not in "iuf" or not 1 <= data.shape[1] <= 64 or data.shape[0] < 1:
                raise BadInput(f"{name}: {key!r} is {data.dtype} {data.shape}, where numbers (N, 3) are needed")
            if math.prod(data.chunks or (1,)) * data.dtype.itemsize > MAX_ARRAY_BYTES:
                raise BadInput(f"{name}: {key!r} is stored in chunks of {data.chunks}: use smaller ones")
            return _h5_rows(data, max_rows)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise BadInput(f"{name} is no HDF5 file that can be read: it is damaged or cut off") from error


def _h5_rows(data: h5py.Dataset, max_rows: int) -> NDArray[np.generic]:
    step, at_once = math.ceil(data.shape[0] / max_rows), 1 << 18
    kept = []
    for first in range(0, data.shape[0], at_once):
        kept.append(data[first : first + at_once][-first % step :: step])
    return np.concatenate(kept)


def open_members(path: Path, max_bytes: int) -> Mapping[str, Member]:
    """The files of a folder, or of a zip, by their path inside it with forward slashes; calling one reads its bytes.

    Hidden files are left out. max_bytes: of one member, once unpacked. Raises BadInput for a zip that is encrypted,
    nested, has links, names that lead outside, the same name twice, or too many or too large members.
    """
    name = shown(path)
    try:
        if path.is_dir():
            return _folder_members(path, max_bytes, name)
    except (OSError, ValueError) as error:
        raise BadInput(f"the folder {name} cannot be read") from error
    path = regular_file(path, MAX_ARCHIVE_BYTES, "give a folder of pictures, or a zip of one")
    try:
        _check_directory(path, name)
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise BadInput(f"{name} is no zip that can be read: pack the folder again") from error
    _check_members(infos, max_bytes, name)
    return {info.filename: _zip_reader(path, info, name) for info in infos if not _hidden(info.filename)}


def _folder_members(path: Path, max_bytes: int, name: str) -> Mapping[str, Member]:
    files: dict[str, Member] = {}
    root = path.resolve()
    for entry in path.rglob("*"):
        inside = entry.relative_to(path).as_posix()
        if _hidden(inside) or not entry.is_file():
            continue
        if len(files) == MAX_ENTRIES:
            raise BadInput(
                f"the folder {name} has more than {MAX_ENTRIES} files: give the folder of one object's views"
            )
        if not entry.resolve().is_relative_to(root):
            raise BadInput(f"{shown(entry)} in {name} is a link that leads outside the folder: copy the file into it")
        files[inside] = _file_reader(entry, max_bytes)
    return files


def _file_reader(entry: Path, max_bytes: int) -> Member:
    return lambda: read_bytes(entry, max_bytes, "give a PNG, NPY or JSON file")


def _zip_reader(path: Path, info: zipfile.ZipInfo, name: str) -> Member:
    def read() -> bytes:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(info) as file:
                return bytes(_exactly(file, info.file_size))
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise BadInput(f"{shown(info.filename)} in {name} is damaged: pack the folder again") from error

    return read


def _check_directory(path: Path, name: str) -> None:
    """Refuse a zip whose list of contents is huge before it is parsed (end of central directory, APPNOTE 4.3.16)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 22 - 65535))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + 22 > len(tail):
        raise zipfile.BadZipFile("no end of central directory")
    entries, length = (
        int.from_bytes(tail[at + 10 : at + 12], "little"),
        int.from_bytes(tail[at + 12 : at + 16], "little"),
    )
    if 0xFFFF in (entries, length >> 16) or entries > MAX_ENTRIES or length > MAX_DIRECTORY_BYTES:
        raise BadInput(f"{name} lists {entries} files or more in {length} bytes: at most {MAX_ENTRIES} are read")


def _check_members(infos: list[zipfile.ZipInfo], max_bytes: int, name: str) -> None:
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise BadInput(f"{name} has two files of the same name: pack the folder again")
    for info in infos:
        inside, file = shown(info.filename), PurePosixPath(info.filename)
        if file.is_absolute() or ".." in file.parts or "\\" in info.filename or ":" in info.filename:
            raise BadInput(f"{name} has a file name that leads outside the archive ({inside}): pack the folder again")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BadInput(f"{inside} in {name} is a symbolic link: pack the file itself")
        if info.flag_bits & 1:
            raise BadInput(f"{name} is encrypted: pack it without a password")
        if file.suffix.lower() in (".zip", ".gz", ".tar", ".7z", ".rar"):
            raise BadInput(f"{inside} in {name} is an archive in an archive: pack the pictures themselves")
        if info.file_size > max_bytes:
            raise BadInput(f"{inside} in {name} unpacks to {info.file_size} bytes, at most {max_bytes} are read")
    total = sum(info.file_size for info in infos)
    if total > MAX_ARCHIVE_BYTES:
        raise BadInput(f"{name} unpacks to {total / MEBI:.0f} MiB, at most {MAX_ARCHIVE_BYTES // MEBI} are read")


def _hidden(inside: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(inside).parts)
