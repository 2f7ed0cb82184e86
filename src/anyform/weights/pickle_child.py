"""The child process of `weights.pickles`: argv = a torch checkpoint; prints where its tensors lie, as one JSON object.

A pickle is a program for a small machine. Here that machine knows no function but those that *record* a tensor's place
in the file: stricter than `torch.load(weights_only=True)`, which old Lightning files fail because callback classes are
keys in them. torch itself is never loaded. Classes of the training tools below become empty stand-ins, options
(`argparse.Namespace`) plain tables, and any other name ends the reading. Run by path in isolated mode, standard library
alone; before the first byte is read the process gives up network, programs, and every file but the checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_MAX_PICKLE = 256 * 2**20
_MAX_MEMORY = 4 * 2**30
_MAX_LEAVES, _MAX_DEPTH, _MAX_TEXT = 1_000_000, 40, 65_536
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

# torch's name of a number format -> (the one of safetensors, bytes)
DTYPES = {
    "float64": ("F64", 8), "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2),
    "int64": ("I64", 8), "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1), "uint8": ("U8", 1),
    "bool": ("BOOL", 1), "float8_e4m3fn": ("F8_E4M3", 1), "float8_e5m2": ("F8_E5M2", 1),
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
}  # fmt: skip
# Classes that training tools leave in checkpoints, by module. Nothing of them is imported: they become stand-ins.
_TOOLS = (
    "pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "torchmetrics", "omegaconf", "numpy",
    "pathlib", "datetime", "collections", "argparse", "typing", "enum", "_codecs", "copyreg", "torch.optim",
)  # fmt: skip
# Families of audit events that reading a file never raises: https://docs.python.org/3/library/audit_events.html
_GUARDED = {
    "os", "socket", "subprocess", "ctypes", "shutil", "pty", "glob", "tempfile", "ftplib", "http", "urllib", "smtplib",
    "webbrowser", "mmap", "fcntl", "winreg", "msvcrt", "sqlite3", "signal", "syslog", "code", "marshal",
}  # fmt: skip
_PLAIN = {"set", "frozenset", "bytearray", "complex", "int", "float", "bool", "str", "list", "tuple", "object", "bytes"}
_TABLES = {("argparse", "Namespace"), ("pytorch_lightning.utilities.parsing", "AttributeDict")}


class Refused(Exception):
    """The checkpoint cannot be read; the message ends the sentence "it was not converted: …"."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in the file: `dtype` is torch's name of their format."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Record:
    """A tensor as the pickle describes it; offset and stride count numbers, not bytes."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """Where the pickle names a storage class or a dtype."""

    dtype: str


class StandIn(dict):
    """An instance of a class that is not here: it takes every argument and state, and does nothing with them."""

    is_table = False
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __new__(cls, *_: object, **__: object) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        if self.is_table and isinstance(state, dict):
            self.update(state)

    def append(self, _: object) -> None:
        """A list's elements go nowhere."""

    def extend(self, _: object) -> None:
        """As above."""

    def add(self, _: object) -> None:
        """A set's."""


def _record(storage: object, offset: object, shape: object, stride: object, dtype: str | None = None) -> Record:
    shape, stride = _naturals(shape), _naturals(stride)
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0 or len(shape) != len(stride):
        raise Refused("a tensor in it is described wrongly")
    return Record(storage, dtype or storage.dtype, offset, shape, stride)


def _naturals(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(n) is int and 0 <= n < 2**48 for n in value):
        raise Refused("a tensor in it is described wrongly")
    return tuple(value)


def _tensor(storage: object, offset: object, shape: object, stride: object, *_: object) -> Record:
    return _record(storage, offset, shape, stride)


def _typed_tensor(storage: object, offset: object, shape: object, stride: object, *rest: object) -> Record:
    wanted = rest[2] if len(rest) > 2 else None
    return _record(storage, offset, shape, stride, wanted.dtype if isinstance(wanted, Format) else None)


def _parameter(data: object, *_: object) -> object:
    return data


def _subclass(build: object, _: object, arguments: object, *__: object) -> Record:
    for known in (_tensor, _typed_tensor):
        if build is known and isinstance(arguments, tuple):
            return known(*arguments)
    raise Refused("a tensor of a class of its own is in it")


def _size(value: object = ()) -> tuple[int, ...]:
    return _naturals(value)


class Table(dict):
    """A dict whose attributes go nowhere: `Module.state_dict()` hangs `_metadata` on its OrderedDict."""

    def __setstate__(self, _: object) -> None:
        return


def _table(*_: object) -> dict[Any, Any]:
    return Table()


_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("torch", "Size"): _size,
    ("collections", "OrderedDict"): _table,
    ("collections", "defaultdict"): _table,
    ("collections", "Counter"): _table,
    ("builtins", "dict"): _table,
    ("__builtin__", "dict"): _table,
}


class Machine(pickle.Unpickler):
    """The pickle machine without a single function that does anything."""

    def find_class(self, module: str, name: str) -> Any:
        """A builder of records, a format, or a stand-in. Raises Refused for any other name."""
        if (module, name) in _BUILDERS:
            return _BUILDERS[module, name]
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return Format(_STORAGES[name])
        if module == "torch" and name in DTYPES:
            return Format(name)
        known = module.split(".")[0] in _TOOLS or module in _TOOLS or module.startswith("torch.optim.")
        known = known or (module in ("builtins", "__builtin__") and name in _PLAIN)
        known = known or (module, name) in {("torch", "device"), ("torch.nn.parameter", "Parameter")}
        if not known:
            raise Refused(
                f"it asks for {f'{module}.{name}'[:80]!r}, which could run code; ask its author for safetensors"
            )
        return type(name, (StandIn,), {"is_table": (module, name) in _TABLES})

    def persistent_load(self, pid: Any) -> Storage:
        """("storage", class, key, device, count[, view]) -> where those numbers are."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Format):
            raise Refused("it refers to something that is no storage")
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("it is of a torch version before 0.4")
        return Storage(pid[1].dtype, str(pid[2]), _naturals((pid[4],))[0])


def leaves(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(dotted name, leaf) of nested dicts, lists and tuples; the contents of stand-ins are not looked at."""
    if depth > _MAX_DEPTH:
        raise Refused(f"its tables are nested more than {_MAX_DEPTH} deep")
    if isinstance(value, StandIn) and not value.is_table:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            word = key.__name__ if isinstance(key, type) else str(key)
            yield from leaves(item, f"{name}.{word}" if name else word, depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{name}.{index}" if name else str(index), depth + 1)
    else:
        yield name, value


def read_zip(file: IO[bytes]) -> tuple[Any, dict[str, tuple[int, int]]]:
    """(what the pickle of a torch >= 1.6 file builds, storage key -> (first byte, bytes))."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or len(set(names)) != len(names) or any("/code/" in name for name in names):
            raise Refused("it is no torch checkpoint, or a compiled TorchScript program")
        if pickles[0].file_size > _MAX_PICKLE:
            raise Refused(f"its table of contents has {pickles[0].file_size} bytes, at most {_MAX_PICKLE} are read")
        root = pickles[0].filename.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise Refused("its numbers are big-endian")
        with archive.open(pickles[0]) as stream:
            value = Machine(stream, encoding="utf-8").load()
        places: dict[str, tuple[int, int]] = {}
        for entry in entries:
            if entry.filename.startswith(f"{root}data/"):
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    raise Refused("its numbers are compressed or encrypted, which torch never does")
                places[entry.filename.removeprefix(f"{root}data/")] = (_start(file, entry), entry.file_size)
    return value, places


def _start(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """The first data byte: behind the 30 bytes of the local header, the name and the padding."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise Refused("it is no intact torch checkpoint")
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def read_legacy(file: IO[bytes]) -> tuple[Any, dict[str, tuple[int, int]]]:
    """The same of a file from before torch 1.6: five pickles, then each storage behind its own length."""
    seen: dict[str, int] = {}

    class Reader(Machine):
        def persistent_load(self, pid: Any) -> Storage:
            storage = super().persistent_load(pid)
            seen[storage.key] = DTYPES[storage.dtype][1]
            return storage

    if Machine(file).load() != _LEGACY_MAGIC or Machine(file).load() != _LEGACY_PROTOCOL:
        raise Refused("it is no intact torch checkpoint")
    system = Machine(file).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("its numbers are big-endian")
    value, keys = Reader(file, encoding="utf-8").load(), Machine(file).load()
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        length = int.from_bytes(file.read(8), "little") * seen.get(str(key), 1)
        places[str(key)] = (file.tell(), length)
        file.seek(length, os.SEEK_CUR)
    return value, places


def layout(value: Any, places: dict[str, tuple[int, int]], size: int) -> dict[str, Any]:
    """{"tensors": {name: [format, shape, stride, first byte]}, "metadata": {name: text}}; all inside the file."""
    tensors: dict[str, list[Any]] = {}
    metadata: dict[str, str] = {}
    for count, (name, leaf) in enumerate(leaves(value)):
        if count >= _MAX_LEAVES:
            raise Refused(f"it holds more than {_MAX_LEAVES} values")
        if isinstance(leaf, Record):
            code, width = DTYPES[leaf.dtype]
            start, length = places.get(leaf.storage.key, (0, -1))
            last = leaf.offset + sum((n - 1) * step for n, step in zip(leaf.shape, leaf.stride, strict=True)) + 1
            needed = 0 if 0 in leaf.shape else last * width
            if needed > length or start + length > size:
                raise Refused(f"the numbers of {name[:80]!r} are not all there")
            tensors[name] = [code, leaf.shape, leaf.stride, start + (leaf.offset * width if needed else 0)]
        elif isinstance(leaf, str | int | float | bool):
            metadata[name] = str(leaf)[:_MAX_TEXT] if not isinstance(leaf, float) or math.isfinite(leaf) else "none"
    if not tensors:
        raise Refused("it holds no tensor")
    return {"tensors": tensors, "metadata": metadata}


def read(source: str) -> dict[str, Any]:
    """The layout of a checkpoint, or {"error": why it was refused}."""
    try:
        with Path(source).open("rb") as file:
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            value, places = (read_zip if is_zip else read_legacy)(file)
            return layout(value, places, os.fstat(file.fileno()).st_size)
    except Refused as refusal:
        return {"error": str(refusal)}
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, MemoryError, RecursionError):
        return {"error": "it is no intact torch checkpoint"}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, NotImplementedError):
        return {"error": "it is no intact torch checkpoint"}  # what a damaged pickle makes the machine stumble over


def lock_down(source: str) -> None:
    """Give up everything that reading `source` does not need, for the rest of this process."""
    "name".encode("cp437")  # the one module that zip files load late
    with contextlib.suppress(ImportError, ValueError, OSError):  # absent on Windows; a limit may be lower already
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event == "open"
            and str(arguments[0]) == source
            and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            return
        family = event.split(".")[0]
        if event in ("open", "import", "compile", "exec") or family in _GUARDED:
            raise PermissionError(f"{event} is not needed to read a checkpoint")

    sys.addaudithook(refuse)


if __name__ == "__main__":
    lock_down(sys.argv[1])
    print(json.dumps(read(sys.argv[1])))
