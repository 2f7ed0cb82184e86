"""Reading safetensors files: the header is checked against the bytes present before anything is allocated.

Format: 8 bytes little-endian header length, a JSON object name -> {dtype, shape, data_offsets}, then the data, which
the tensors cover exactly once. https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from anyform.errors import WeightsError
from anyform.weights.digest import verify
from anyform.weights.embedded import pinned_hash

if TYPE_CHECKING:
    from torch import Tensor

_MAX_HEADER = 32 * 2**20
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip


def read_header(path: str | Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """({name: {"dtype", "shape", "data_offsets"}}, metadata) of a safetensors file, checked, without its data.

    Raises WeightsError where the declared lengths, shapes or offsets do not describe exactly the bytes present.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise WeightsError(_damaged(path, f"its header claims {length} bytes, the file has {size}"))
            text = file.read(length)
    except OSError as error:
        raise WeightsError(f"the weights {path.name!r} cannot be read: {error.strerror}") from error
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(_damaged(path, "its header is no JSON")) from error
    if not isinstance(header, dict):
        raise WeightsError(_damaged(path, "its header is no JSON object"))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(_damaged(path, "its metadata is not a table of strings"))
    _check_layout(path, header, size - 8 - length)
    return header, metadata


def _check_layout(path: Path, header: dict[str, Any], data_bytes: int) -> None:
    """The tensors must tile [0, data_bytes) with sizes that follow from dtype and shape."""
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.get("dtype") not in _BITS:
            raise WeightsError(_damaged(path, f"tensor {name[:80]!r} has no known number format"))
        shape: object = entry.get("shape")
        offsets: object = entry.get("data_offsets")
        if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
            raise WeightsError(_damaged(path, f"tensor {name[:80]!r} has no valid shape or offsets"))
        if math.prod(shape) * _BITS[entry["dtype"]] // 8 != offsets[1] - offsets[0]:
            raise WeightsError(_damaged(path, f"tensor {name[:80]!r} has a shape that its bytes do not hold"))
        spans.append((offsets[0], offsets[1], name))
    reached = 0
    for start, stop, name in sorted(spans):
        if start != reached:
            raise WeightsError(_damaged(path, f"tensor {name[:80]!r} starts at byte {start}, expected {reached}"))
        reached = stop
    if reached != data_bytes:
        raise WeightsError(_damaged(path, f"its tensors need {reached} bytes, {data_bytes} are present"))


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _damaged(path: Path, why: str) -> str:
    return f"{path.name!r} is no intact safetensors file: {why}; fetch it again"


def read_safetensors(path: str | Path, *, sha256: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(name -> CPU tensor in its stored dtype, metadata strings) of a safetensors file.

    sha256: the hash the file must have; embedded files are always compared with their pinned one. Raises WeightsError
    for a damaged file, another hash, or a tensor with NaN or infinity, and loads nothing then.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    _, metadata = read_header(path)
    expected = sha256 or pinned_hash(path)
    if expected is not None:
        verify(path, expected)
    try:
        tensors = load_file(path, device="cpu")
    except SafetensorError as error:
        raise WeightsError(_damaged(path, str(error).splitlines()[0])) from error
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise WeightsError(_damaged(path, f"{len(bad)} tensors hold NaN or infinity, first {', '.join(bad[:3])}"))
    return tensors, metadata
