"""`anyform doctor`: what this machine can do, proven by small computations with known answers."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from anyform.cli.terminal import clean, print_out, say
from anyform.errors import GateFailed

if TYPE_CHECKING:
    import torch

    _Operation = tuple[str, Callable[..., torch.Tensor], tuple[torch.Tensor, ...], dict[str, Any]]

# Largest error relative to the float64 answer that a backend may show.
_TOLERANCE = {"float32": 2e-3, "bfloat16": 5e-2}
_VERSIONS = ("numpy", "torch", "safetensors", "tokenizers", "trimesh", "xatlas", "manifold3d", "scipy", "pillow")
_OPTIONAL = {
    "soundfile": "audio",
    "h5py": "wala-formats",
    "embreex": "data",
    "igl": "data",
    "accelerate": "train",
    "fastapi": "serve",
    "rembg": "matting",
    "pxr": "usd",
    "ray": "ray",
}


def run(arguments: argparse.Namespace) -> int:
    """The verb. Returns 0, or 5 where a self-test computes wrong numbers."""
    from anyform import __version__
    from anyform.device import choose, cpu_features, home, is_offline

    chosen = choose()
    tests = self_tests()
    record: dict[str, Any] = {
        "ok": all(test["ok"] for test in tests),
        "anyform": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": {"name": chosen.name, "dtype": chosen.dtype, "autocast": chosen.autocast, "reason": chosen.reason},
        "devices": devices(),
        "cpu": {
            "cores": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2) if sys.platform != "win32" else None,
            "features": sorted(cpu_features() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_vnni"}),
        },
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
        "optional": {name: importlib.util.find_spec(name) is not None for name in _OPTIONAL},
        "offline": is_offline(),
        "home_is_set": bool(os.environ.get("ANYFORM_HOME")) and home().is_absolute(),
        "self_tests": tests,
    }
    if arguments.warm:
        record["warm_seconds"] = warm()
    if arguments.json:
        print(json.dumps(record), flush=True)
    else:
        for line in _lines(record):
            print_out(clean(line))
    for test in tests:
        if not test["ok"]:
            say(f"anyform: {test['name']} on {test['backend']} is off by {test['error']:.2g}: do not use it")
    return 0 if record["ok"] else GateFailed.exit_code


def devices() -> list[dict[str, Any]]:
    """The CPU and every GPU that torch sees, with whether this build of torch has code for it."""
    import torch

    from anyform.device import arch_supported

    found: list[dict[str, Any]] = [{"name": "cpu", "arch_supported": True}]
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        supported = arch_supported(capability, torch.cuda.get_arch_list())
        entry = {
            "name": f"cuda:{index}",
            "model": torch.cuda.get_device_name(index),
            "capability": f"{capability[0]}.{capability[1]}",
            "arch_supported": supported,
            "memory_bytes": torch.cuda.get_device_properties(index).total_memory,
        }
        advice = (
            {} if supported else {"advice": f"install a build of torch newer than {torch.__version__} for this GPU"}
        )
        found.append(entry | advice)
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "arch_supported": True})
    return found


def self_tests() -> list[dict[str, Any]]:
    """One row a backend and operation: {"backend", "name", "error", "ok"}; errors against float64 on the CPU."""
    from anyform.device import choose

    rows = []
    for device in devices():
        if not device["arch_supported"]:
            continue
        rows += _network_tests(device["name"], "float32")
        if choose(device["name"]).autocast:
            rows += _network_tests(device["name"], "bfloat16")
    return [*rows, _surface_test()]


def _network_tests(device: str, dtype: str) -> list[dict[str, Any]]:
    import torch

    rows = []
    for name, operation, inputs, options in _operations():
        exact = operation(*inputs, **options)
        computed = operation(*(x.to(device, getattr(torch, dtype)) for x in inputs), **options)
        computed = computed.to("cpu", torch.float64)
        error = float((computed - exact).norm() / exact.norm())
        passed = math.isfinite(error) and error < _TOLERANCE[dtype]
        rows.append({"backend": f"{device} {dtype}", "name": name, "error": error, "ok": passed})
    return rows


def _operations() -> list[_Operation]:
    """What the networks are made of: (name, function, float64 inputs, options)."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    query, key, value = (draw(2, 4, 64, 32) for _ in range(3))
    grid, kernel, matrix = draw(2, 8, 10, 10, 10), draw(16, 8, 3, 3, 3), draw(48, 32)
    return [
        ("linear", functional.linear, (query, matrix), {}),
        ("attention", functional.scaled_dot_product_attention, (query, key, value), {}),
        ("conv3d", functional.conv3d, (grid, kernel), {"padding": 1}),
        ("group_norm", functional.group_norm, (grid,), {"num_groups": 4}),
    ]


def _surface_test() -> dict[str, Any]:
    """The volume of a sphere through the iso-surface code: 4/3 π r³ within 1 %."""
    import numpy as np

    from anyform.geometry.gate import gate
    from anyform.geometry.marching_cubes import surface

    axis = np.linspace(-1, 1, 33, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    report = gate(surface(np.sqrt(x**2 + y**2 + z**2) - np.float32(0.7), -1.0, 2 / 32))
    error = abs(report.volume / (4 / 3 * math.pi * 0.7**3) - 1)
    return {"backend": "numpy", "name": "sphere volume", "error": error, "ok": report.ok and error < 0.01}


def warm() -> float:
    """Seconds of one draft asset: fills compiled and file caches."""
    from anyform.api import generate

    start = time.monotonic()
    generate("a wooden chair", quality="draft", seed=0)
    return round(time.monotonic() - start, 2)


def _lines(record: dict[str, Any]) -> list[str]:
    """The record for people."""
    device, cpu = record["device"], record["cpu"]
    lines = [
        f"anyform {record['anyform']}  Python {record['python']}  {record['platform']}",
        f"device {device['name']} {device['dtype']}: {device['reason']}",
        f"cpu: {cpu['cores']} cores, load {cpu['load_1min']}, {', '.join(cpu['features']) or 'no vector units known'}",
    ]
    for other in record["devices"][1:]:
        lines.append(f"{other['name']}: {other.get('model', '')} {other.get('advice', 'usable')}")
    lines.append("  ".join(f"{name} {version}" for name, version in record["versions"].items()))
    for name, present in record["optional"].items():
        if not present:
            lines.append(f"{name} is not installed: pip install 'anyform[{_OPTIONAL[name]}]' if you need it")
    for test in record["self_tests"]:
        verdict = "ok" if test["ok"] else "WRONG"
        lines.append(f"self-test {test['backend']} {test['name']}: {verdict} (error {test['error']:.1e})")
    lines.append(
        "network: " + ("forbidden (offline)" if record["offline"] else "used only where released weights are named")
    )
    if "warm_seconds" in record:
        lines.append(f"warmed up: one draft asset in {record['warm_seconds']} s")
    return lines
