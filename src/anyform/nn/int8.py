"""Weights on disk as int8: large matrices per output channel, everything else in fp16.

A matrix W (out, in, …) is stored as q = round(W / s), an int8 tensor under `<name>.int8`, and its scales
s = max|W[o]| / 127, an fp32 vector (out,) under `<name>.scale`. Reading multiplies them back, so that a model computes
in fp32 whatever its file holds. An embedding table counts as a matrix whose output channels are its rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from anyform.errors import WeightsError

LARGE = 16384  # values from which a matrix is worth int8; below it a scale vector and the rounding gain nothing


def quantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float state dict -> the tensors to store. Matrices (ndim >= 2) of at least `LARGE` values become int8 + scale."""
    stored: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.ndim < 2 or value.numel() < LARGE:
            stored[name] = value.to(torch.float16).contiguous()
            continue
        rows = value.detach().float().flatten(1)
        scale = rows.abs().amax(1).clamp_min(1e-12) / 127
        stored[f"{name}.int8"] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape).contiguous()
        stored[f"{name}.scale"] = scale
    return stored


def dequantise(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors -> fp32 state dict. Raises WeightsError when a matrix and its scales do not fit together."""
    state: dict[str, Tensor] = {}
    for name, value in stored.items():
        if name.endswith(".scale") and f"{name[:-6]}.int8" in stored:
            continue
        if not name.endswith(".int8"):
            state[name] = value.float()
            continue
        scale = stored.get(f"{name[:-5]}.scale")
        if scale is None or scale.shape != value.shape[:1]:
            found = "none" if scale is None else f"shape {tuple(scale.shape)}"
            shape = tuple(value.shape)
            raise WeightsError(f"{name} {shape} needs one scale per row, found {found}: the file is damaged")
        state[name[:-5]] = value.float().mul_(scale.float().reshape(-1, *[1] * (value.ndim - 1)))
    return state
