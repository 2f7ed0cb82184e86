"""Device and number format, chosen once, with the reason.

`ANYFORM_DEVICE` answers for "auto"; `ANYFORM_HOME` and `ANYFORM_OFFLINE` are read here too. All are read when asked,
never at import.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyform.errors import BadInput, DeviceUnavailable

if TYPE_CHECKING:
    import torch

_FAST_BF16 = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where the networks run.

    name: "cpu", "cuda:0" or "mps". dtype: of the parameters, always "float32" unless a model measured another as good.
    autocast: "bfloat16" where the hardware multiplies it natively, so that a model which *measured* it faster and as
    good may use it; None elsewhere. reason: one line for people.
    """

    name: str
    dtype: str
    autocast: str | None
    reason: str

    def torch_device(self) -> torch.device:
        """The same device as torch wants it."""
        import torch

        return torch.device(self.name)


def home() -> Path:
    """The folder of everything anyform remembers: `ANYFORM_HOME`, else `.anyform` in the user's home."""
    named = os.environ.get("ANYFORM_HOME", "")
    return Path(named).expanduser() if named else Path.home() / ".anyform"


def is_offline() -> bool:
    """Whether the user forbids the network (`ANYFORM_OFFLINE` or `HF_HUB_OFFLINE` set to 1, true, yes or on)."""
    return any(
        os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}
        for name in ("ANYFORM_OFFLINE", "HF_HUB_OFFLINE")
    )


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags of the first processor where the system lists them (Linux); empty elsewhere."""
    if not cpuinfo.is_file():
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def arch_supported(capability: tuple[int, int], compiled: Sequence[str]) -> bool:
    """Whether a CUDA build of torch has code for a GPU.

    capability: (major, minor) of the GPU; compiled: `torch.cuda.get_arch_list()`, such as ["sm_90", "compute_90"].
    Binary code (`sm_`) runs on the same major and an equal or later minor; `compute_` code runs on anything later.
    """
    for arch in compiled:
        kind, _, digits = arch.rstrip("af").partition("_")
        if not digits.isdigit():
            continue
        major, minor = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False


def choose(device: str = "auto") -> Device:
    """Settle the device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises BadInput for another word and DeviceUnavailable for a device that was named but cannot be used here. "auto"
    takes `ANYFORM_DEVICE` if set, else the first usable GPU, else the CPU.
    """
    asked, origin = device, "was asked for"
    if device == "auto" and os.environ.get("ANYFORM_DEVICE", "auto") != "auto":
        asked, origin = os.environ["ANYFORM_DEVICE"], "is what ANYFORM_DEVICE says"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", asked):
        raise BadInput(f"{asked!r} is no device: use auto, cpu, cuda, cuda:N or mps")
    if asked == "cpu":
        return _cpu(f"the CPU {origin}")
    if asked.startswith("cuda"):
        return _cuda(int(asked.partition(":")[2] or 0), f"cuda {origin}")
    return _mps() if asked == "mps" else _automatic()


def _automatic() -> Device:
    import torch

    if torch.cuda.is_available():
        if arch_supported(torch.cuda.get_device_capability(0), torch.cuda.get_arch_list()):
            return _cuda(0, "a CUDA device is here and this torch has code for it")
        name, version = torch.cuda.get_device_name(0), torch.__version__
        return _cpu(f"torch {version} has no code for the {name}: install a newer CUDA build of torch to use it")
    if torch.backends.mps.is_available():
        return _mps()
    return _cpu("no GPU that torch can use was found")


def _cpu(why: str) -> Device:
    native = next((flag for flag in _FAST_BF16 if flag in cpu_features()), None)
    note = f"bfloat16 autocast is possible ({native})" if native else "it has no fast bfloat16"
    return Device(name="cpu", dtype="float32", autocast="bfloat16" if native else None, reason=f"{why}; {note}")


def _cuda(index: int, why: str) -> Device:
    import torch

    if not torch.cuda.is_available():
        raise DeviceUnavailable(
            f"cuda:{index} cannot be used: torch {torch.__version__} sees no CUDA device; "
            "check the driver, install a CUDA build of torch, or use --device cpu"
        )
    if index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceUnavailable(f"cuda:{index} does not exist: this machine has {count} CUDA devices")
    capability = torch.cuda.get_device_capability(index)
    if not arch_supported(capability, torch.cuda.get_arch_list()):
        raise DeviceUnavailable(
            f"torch {torch.__version__} has no code for compute capability {capability[0]}.{capability[1]} "
            f"(cuda:{index}): install a newer CUDA build of torch, or use --device cpu"
        )
    autocast = "bfloat16" if capability >= (8, 0) else None
    return Device(name=f"cuda:{index}", dtype="float32", autocast=autocast, reason=why)


def _mps() -> Device:
    import torch

    if not torch.backends.mps.is_available():
        raise DeviceUnavailable("mps cannot be used: this torch sees no Apple GPU; use --device cpu")
    return Device(name="mps", dtype="float32", autocast=None, reason="an Apple GPU is here")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is Python's, torch's CPU allocator's or a GPU's way of saying that memory is exhausted."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        phrase in text for phrase in ("out of memory", "can't allocate memory", "not enough memory")
    )
