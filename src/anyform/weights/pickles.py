"""Pickled checkpoints (`.ckpt`, `.pt`, `.pth`, `.bin`) -> where their tensors lie, as a locked-down child finds it.

A pickle is a program, so this process never reads one: `pickle_child.py` does, without network, files, programs or
torch, and answers with numbers only. The tensors themselves are then plain bytes at known places of the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyform.errors import WeightsError

_TIMEOUT_S = 600
_CHILD = Path(__file__).with_name("pickle_child.py")


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor on disk. dtype: safetensors' name of its format; offset: first byte in the file; stride: in numbers."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    stride: tuple[int, ...]


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor without gaps, last axis fastest."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def read_layout(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """({dotted name: where it lies}, {dotted name: text of a number or string beside the tensors}).

    Raises WeightsError where the file is damaged, needs code to be read, or holds no tensor; nothing of it was run.
    """
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint file {path.name!r}")
    command = [sys.executable, "-I", "-S", str(_CHILD), str(path.resolve())]
    environment = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    try:
        done = subprocess.run(
            command, env=environment, cwd=path.parent, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"{path.name!r} was not read: its table of contents took over {_TIMEOUT_S} s") from error
    except OSError as error:
        raise WeightsError(f"{path.name!r} was not read: {error.strerror}") from error
    answer = _answer(done.stdout)
    if done.returncode != 0 or "error" in answer:
        why = answer.get("error", f"the child process that reads it ended with code {done.returncode}")
        raise WeightsError(f"{path.name!r} was not converted: {why}")
    tensors = {
        name: Stored(code, tuple(shape), offset, tuple(stride))
        for name, (code, shape, stride, offset) in answer["tensors"].items()
    }
    return tensors, answer["metadata"]


def _answer(stdout: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(stdout)
    except ValueError:
        return {"error": "the child process that reads it gave no answer"}
    return answer if isinstance(answer, dict) else {}
