"""Tensors one at a time: from a safetensors file or a pickled checkpoint straight into their final format and device.

Nothing but the tensor asked for, and a buffer of a few megabytes, is in memory at any time; so a model built on the
meta device and filled from here never needs much more than itself.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, runtime_checkable

from anyform.errors import BadInput, WeightsError
from anyform.weights.digest import verify
from anyform.weights.embedded import pinned_hash
from anyform.weights.pickles import Stored, contiguous, read_layout
from anyform.weights.tensors import read_header

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CHUNK = 2**22  # numbers read, checked and converted together: small enough to stay in cache
_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


@runtime_checkable
class Tensors(Protocol):
    """Named tensors whose values can be asked for one by one."""

    def __iter__(self) -> Iterator[str]: ...

    def __len__(self) -> int: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Tensor: ...


class InMemory:
    """Tensors that are in memory already, as `Tensors`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def read(self, name: str, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Tensor:
        """A copy: where a tensor lies in its file decides its alignment, and that the last bits of a product."""
        tensor = self._tensors[name]
        wanted = dtype if tensor.is_floating_point() else None
        return tensor.detach().to(device=device, dtype=wanted, copy=True).contiguous()


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A weights file of which only the table of contents has been read. names: what callers ask for -> where it is."""

    path: Path
    stored: Mapping[str, Stored]
    metadata: Mapping[str, str]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self.stored[name].shape

    def renamed(self, names: Mapping[str, str]) -> TensorFile:
        """The same file with only these tensors, under new names. names: new -> present."""
        return TensorFile(self.path, {new: self.stored[old] for new, old in names.items()}, self.metadata)

    def read(self, name: str, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Tensor:
        """The tensor in `dtype` (None: as stored; whole numbers always as stored) on `device`.

        Raises WeightsError where the file ends early or the values hold NaN or infinity.
        """
        import torch

        stored = self.stored[name]
        source = getattr(torch, _CODES[stored.dtype])
        wanted = dtype if dtype is not None and source.is_floating_point else source
        target = torch.empty(stored.shape, dtype=wanted, device=device)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(stored.offset)
                if target.numel() and stored.stride != contiguous(stored.shape):
                    target.copy_(self._strided(file, stored, source, name))
                elif target.numel():
                    self._fill(file, target.view(-1), source, name)
        except OSError as error:
            raise WeightsError(f"the weights {self.path.name!r} cannot be read: {error.strerror}") from error
        return target

    def _fill(self, file: IO[bytes], flat: Tensor, source: torch.dtype, name: str) -> None:
        import torch

        is_direct = flat.dtype == source and flat.device.type == "cpu"
        buffer = flat if is_direct else torch.empty(min(_CHUNK, len(flat)), dtype=source)
        for start in range(0, len(flat), _CHUNK):
            part = flat[start : start + _CHUNK]
            piece = part if is_direct else buffer[: len(part)]
            self._into(file, piece, name)
            if not is_direct:
                part.copy_(piece)

    def _strided(self, file: IO[bytes], stored: Stored, source: torch.dtype, name: str) -> Tensor:
        import torch

        steps = zip(stored.shape, stored.stride, strict=True)
        span = torch.empty(1 + sum((length - 1) * step for length, step in steps), dtype=source)
        self._into(file, span, name)
        return span.as_strided(stored.shape, stored.stride)

    def _into(self, file: IO[bytes], piece: Tensor, name: str) -> None:
        """Fill a flat tensor from the file and look whether every value is finite."""
        import torch

        view = piece.view(torch.uint8).numpy().data
        while len(view):
            count = file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise WeightsError(f"{self.path.name!r} ends inside the tensor {name[:80]!r}; fetch it again")
            view = view[count:]
        # attention masks that are saved with a model (ImageBind's text) hold -inf by design
        if piece.is_floating_point() and piece.element_size() > 1 and not name.endswith(".mask"):
            low, high = torch.aminmax(piece)
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise WeightsError(
                    f"{self.path.name!r}: the tensor {name[:80]!r} holds NaN or infinity; fetch it again"
                )


def open_tensors(path: str | Path, *, sha256: str | None = None) -> TensorFile:
    """The table of contents of a safetensors file, or of a pickled checkpoint (names of nested tables join by dots).

    sha256: the hash the file must have; embedded files are always compared with their pinned one. Raises WeightsError
    for a damaged file, another hash, or a pickle that needs code to be read.
    """
    path = Path(path)
    expected = sha256 or pinned_hash(path)
    if path.suffix.lower() != ".safetensors":
        stored, metadata = read_layout(path)
    else:
        header, metadata = read_header(path)
        start = path.stat().st_size - max((entry["data_offsets"][1] for entry in header.values()), default=0)
        stored = {
            name: Stored(entry["dtype"], tuple(entry["shape"]), start + entry["data_offsets"][0],
                         contiguous(tuple(entry["shape"])))
            for name, entry in header.items()
        }  # fmt: skip
    if expected is not None:
        verify(path, expected)
    return TensorFile(path, stored, metadata)


def write_safetensors(
    out: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file one tensor at a time. tensors: name -> (format, shape); read: its values so."""
    import torch

    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (code, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * getattr(torch, _CODES[code]).itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with out.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in tensors:
            tensor = read(name).contiguous()
            if tensor.numel():
                file.write(tensor.view(-1).view(torch.uint8).numpy().data)


def code_of(dtype: torch.dtype) -> str:
    """safetensors' name of a torch dtype."""
    names = {name: code for code, name in _CODES.items()}
    return names[str(dtype).removeprefix("torch.")]


def convert_pickle(path: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Write every tensor of a `.ckpt`, `.pt`, `.pth` or `.bin` to the safetensors file `out`, as it is stored.

    Numbers and strings found beside the tensors become metadata. Raises WeightsError where the pickle is damaged, needs
    code, or holds no tensor; BadInput where `out` exists and `force` is not set. `out` appears whole or not at all.
    """
    path, out = Path(path), Path(out)
    if out.exists() and not force:
        raise BadInput(f"{out.name!r} exists: choose another name or give --force")
    if not out.parent.is_dir():
        raise BadInput(f"the folder of {out.name!r} does not exist")
    stored, metadata = read_layout(path)
    source = TensorFile(path, stored, metadata)
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        write_safetensors(partial, {name: (s.dtype, s.shape) for name, s in stored.items()}, source.read, metadata)
        partial.replace(out)
    except OSError as error:
        raise BadInput(f"{out.name!r} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return out
