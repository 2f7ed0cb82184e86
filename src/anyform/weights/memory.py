"""How much memory a device has left, and a refusal in numbers before anything is loaded that cannot fit."""

from __future__ import annotations

import re
from pathlib import Path

from anyform.errors import OutOfMemory


def available(device: str, meminfo: Path = Path("/proc/meminfo"), control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be allocated on "cpu" or "cuda:N"; -1 where the system does not say.

    On Linux the smaller of what the machine has and what the process's control group still allows.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    if device != "cpu" or not meminfo.is_file():
        return -1
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="utf-8"), re.MULTILINE)
    limits = [int(found.group(1)) * 1024] if found else []
    limit, used = _number(control_group / "memory.max"), _number(control_group / "memory.current")
    if limit is not None and used is not None:
        cache = re.search(r"^inactive_file (\d+)$", _text(control_group / "memory.stat"), re.MULTILINE)
        limits.append(max(0, limit - used + (int(cache.group(1)) if cache else 0)))  # file cache gives way
    return min(limits, default=-1)


def require(needed: int, device: str, what: str) -> None:
    """Raise OutOfMemory, with both numbers, where `needed` bytes are more than the device has left."""
    left = available(device)
    if 0 <= left < needed:
        raise OutOfMemory(
            f"{what} needs {needed / 1e9:.1f} GB on {device}, {left / 1e9:.1f} GB are free: "
            "close other programs, use a machine with more, or the embedded weights"
        )


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
