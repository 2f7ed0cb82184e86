"""Fitting a large prior into little memory: attention in slices, and networks that visit the device one at a time.

Both are exact. The parts of an offloaded network live on the CPU and are moved by hooks around each of their calls, so
the device never holds more than one of them; every call pays the way there and back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anyform.errors import BadSetting, OutOfMemory
from anyform.nn.unet2d import Attention

SLICE = 1024  # queries of attention at once, where it is sliced
_ACTIVATIONS = 0.6  # of the largest network's weights, both halves of guidance at the trained size
_SLICED = 0.25  # the same with sliced attention
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What is done to stay within a limit. needed: bytes on the device that the plan expects to use."""

    slice_attention: bool
    offload: bool
    needed: int


def parse_memory(text: str) -> int:
    """ "6GB", "800 MB" -> bytes, in powers of ten. Raises BadSetting."""
    found = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,3})?)\s*([kmgt]b)\s*", text.lower())
    if not found or float(found.group(1)) == 0:
        raise BadSetting(f"{text[:40]!r} is no amount of memory: write a number and MB or GB, such as 6GB")
    return int(float(found.group(1)) * _UNITS[found.group(2).upper()])


def plan(networks: Sequence[nn.Module], limit: int) -> MemoryPlan:
    """The fastest of the plans that fits `limit` bytes: as it is, sliced, sliced and offloaded. Raises OutOfMemory with
    the number that the smallest one needs."""
    sizes = [_bytes(network) for network in networks]
    largest, whole = max(sizes), sum(sizes)
    for slices, offload in ((False, False), (True, False), (True, True)):
        needed = int((largest if offload else whole) + (_SLICED if slices else _ACTIVATIONS) * largest)
        if needed <= limit:
            return MemoryPlan(slice_attention=slices, offload=offload, needed=needed)
    raise OutOfMemory(
        f"this prior needs {needed / 1e9:.2f} GB at the least, {limit / 1e9:.2f} GB are allowed: raise --memory, or "
        "use the embedded prior"
    )


def apply(networks: Sequence[nn.Module], chosen: MemoryPlan, device: str | torch.device) -> None:
    """Slice and place the networks as the plan says."""
    for network in networks:
        if chosen.slice_attention:
            for module in network.modules():
                if isinstance(module, Attention):
                    module.slice = SLICE
        if chosen.offload:
            offload(network, device)
        else:
            network.to(device)


def offload(network: nn.Module, device: str | torch.device) -> None:
    """Keep a network on the CPU; its parts are moved to `device` around their own calls.

    Parts, not the whole, because networks are also entered by other methods than `forward` (the halves of a U-Net);
    a part is the outermost module below the network that defines `forward`. Inputs follow, outputs come back.
    """
    network.to("cpu")
    for child in network.children():
        if type(child).forward is nn.Module.forward:
            offload(child, device)
        elif next(child.parameters(), None) is not None:
            child.register_forward_pre_hook(_Arrive(device), with_kwargs=True)
            child.register_forward_hook(_leave)


class _Arrive:
    """Moves a module and its tensors to a device before its call."""

    def __init__(self, device: str | torch.device) -> None:
        self.device = device

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module.to(self.device)
        moved = tuple(_moved(one, self.device) for one in args)
        return moved, {name: _moved(one, self.device) for name, one in kwargs.items()}


def _leave(module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
    module.to("cpu")
    return _moved(output, "cpu")


def _moved(value: Any, device: str | torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _bytes(network: nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in (*network.parameters(), *network.buffers()))
