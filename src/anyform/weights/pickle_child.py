"""The child process of `weights.pickles`: argv = checkpoint, output; prints one JSON line, `{}` or `{"error": …}`."""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import save_file


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, leaf) of nested dicts, lists and tuples."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{name}.{index}" if name else str(index))
    else:
        yield name, value


def convert(source: str, target: str) -> str | None:
    """Convert; None, or why it was refused."""
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return "it holds Python objects besides tensors, which could run code; ask its author for safetensors"
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile):
        return "it is no intact torch checkpoint"
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, str] = {}
    for name, value in leaves(loaded):
        if isinstance(value, torch.Tensor):
            tensors[name] = value.detach().contiguous().clone()
        elif isinstance(value, str | int | float | bool):
            metadata[name] = str(value)
    if not tensors:
        return "it holds no tensor"
    save_file(tensors, target, metadata=metadata)
    return None


if __name__ == "__main__":
    refusal = convert(sys.argv[1], sys.argv[2])
    print(json.dumps({} if refusal is None else {"error": refusal}))
