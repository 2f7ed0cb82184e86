"""The strict exchange between a checkpoint's tensors and a module built on the meta device: all or nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from anyform.errors import WeightsError
from anyform.weights.stream import Tensors

if TYPE_CHECKING:
    import torch
    from torch import nn


def check_complete(expected: Iterable[str], found: Iterable[str], *, ignored: re.Pattern[str], what: str) -> None:
    """Raise WeightsError unless both name the same tensors, up to the ignored ones; the message has the first 3."""
    wanted, present = set(expected), {name for name in found if not ignored.fullmatch(name)}
    missing, extra = sorted(wanted - present), sorted(present - wanted)
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors are missing ({', '.join(missing[:3])})")
    if extra:
        parts.append(f"{len(extra)} are unexpected ({', '.join(extra[:3])})")
    if parts:
        raise WeightsError(f"these are not the weights of {what}: {' and '.join(parts)}; nothing was loaded")


def fill(
    module: nn.Module,
    tensors: Tensors,
    names: Mapping[str, str],
    device: str | torch.device = "cpu",
    *,
    what: str,
) -> None:
    """Stream `tensors`, called by `names[ours]`, into the module (built on the meta device); all shapes must agree.

    Each tensor is read straight into the dtype that the module has for it, on `device`. A 1×1 convolution may stand
    for a matrix.
    """
    own = module.state_dict()
    wrong = [
        f"{names[name]} is {tensors.shape(names[name])}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if _as_matrix(tensors.shape(names[name]), value.ndim) != tuple(value.shape)
    ]
    if wrong:
        raise WeightsError(
            f"these are not the weights of {what}: {len(wrong)} tensors have another shape "
            f"({'; '.join(wrong[:3])}); nothing was loaded"
        )
    state = {name: tensors.read(names[name], value.dtype, device).reshape(value.shape) for name, value in own.items()}
    module.load_state_dict(state, strict=True, assign=True)


def _as_matrix(shape: tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    """(C, D, 1, 1) as (C, D) where two dimensions are wanted."""
    return shape[:2] if dimensions == 2 and shape[2:] == (1, 1) else shape
