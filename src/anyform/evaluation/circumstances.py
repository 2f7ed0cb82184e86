"""When, where and with what a measurement was made: a number without these cannot be compared."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "scipy", "torch")


def circumstances() -> dict[str, Any]:
    """JSON: date (UTC), machine, versions of Python and packages, git revision; no host or user name, no path."""
    from anyform import __version__

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "anyform": __version__,
        "revision": revision(),
    }


def machine() -> str:
    """Processor, cores that this process may use, system: one line."""
    cores = len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 1
    return f"{processor()}, {cores} cores, {platform.system()} {platform.machine()}"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model where the system tells it."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def revision(folder: Path = Path(__file__).parent) -> str:
    """Git revision of the running checkout, "+" for uncommitted changes to tracked files; "" outside a checkout."""
    answers = []
    for question in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *question], capture_output=True, text=True, check=False, timeout=20
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return ""
        if done.returncode:
            return ""
        answers.append(done.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
