"""Text to a saved GLB: warm, in one process, and cold, as one command beside the imports that any such tool pays.

    python benchmarks/generate.py [--prompts 7] [--rounds 3] [--quality standard] [--json]

Warm: the system is loaded and has made one asset; then every prompt is generated, gated and saved, median of all.
Cold: `python -m anyform generate …` in a new process against `python -c "import torch, trimesh"`, rounds interleaved,
median of each. Bars (2 cores): warm under 3 s, cold at most 4 times the imports. Other work on the machine falsifies
both; the load average is printed beside the result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyform
from anyform.api import check
from anyform.evaluation.circumstances import circumstances
from anyform.types.progress import silent

PROMPTS = (
    *("a wooden chair", "a red mug", "a desk lamp", "a sports car", "a potted plant", "a bookcase", "a sofa"),
    *("a wine glass", "a round table", "a medieval tower", "a pear", "a bed"),
)
WARM_SECONDS, COLD_RATIO = 3.0, 4.0


def warm(prompts: tuple[str, ...], quality: str, folder: Path) -> list[float]:
    """Seconds from each prompt to its saved file, the first asset of the process left out."""
    system = anyform.load("wala", settings={"quality": quality})

    def once(text: str, seed: int) -> float:
        start = time.perf_counter()
        asset = system.generate(anyform.Text(text), seed=seed, report=silent)
        check(asset, "wala")
        asset.save(folder / f"{seed}.glb")
        return time.perf_counter() - start

    once("a stool", 1000)
    return [once(text, seed) for seed, text in enumerate(prompts)]


def cold(quality: str, rounds: int, folder: Path) -> dict[str, float]:
    """Median seconds of a whole command and of the bare imports, each in a new process, taking turns."""

    def timed(arguments: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start

    def command(round_: int) -> float:
        out = str(folder / f"cold-{round_}.glb")
        return timed(
            ["-m", "anyform", "generate", "a wooden chair", "-o", out, "--seed", str(round_), "--quality", quality]
        )

    sides: dict[str, Callable[[int], float]] = {
        "command": command,
        "imports": lambda _: timed(["-c", "import torch, trimesh"]),
    }
    for side in sides.values():
        side(2**32 - 1)  # bytecode and the disk's cache, for both sides
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(side(round_))
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure, print, and say whether the bars are reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=7, help=f"1..{len(PROMPTS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quality", choices=("draft", "standard", "high"), default="standard")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = warm(PROMPTS[: arguments.prompts], arguments.quality, Path(folder))
        fresh = cold(arguments.quality, arguments.rounds, Path(folder))
    ratio, median = fresh["command"] / fresh["imports"], statistics.median(times)
    record = {
        **circumstances(),
        "load_average": round(os.getloadavg()[0], 2),
        "quality": arguments.quality,
        "warm_seconds": {"median": round(median, 3), "worst": round(max(times), 3), "n": len(times)},
        "cold_seconds": {name: round(value, 3) for name, value in fresh.items()},
        "cold_ratio": round(ratio, 2),
        "ok": median < WARM_SECONDS and ratio <= COLD_RATIO,
    }
    if arguments.json:
        print(json.dumps(record))
        return
    print(f"{record['date']}, {record['machine']}, load {record['load_average']}, quality {arguments.quality}")
    print(f"warm, text to saved GLB: median {median:.2f} s, worst {max(times):.2f} s (bar {WARM_SECONDS:g} s)")
    print(f"cold command: {fresh['command']:.2f} s, imports {fresh['imports']:.2f} s: {ratio:.2f} (bar {COLD_RATIO})")


if __name__ == "__main__":
    main()
