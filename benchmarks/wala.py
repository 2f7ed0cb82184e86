"""WaLa at the released size: U-ViT fast path against its own plain float32, inverse wavelets against PyWavelets.

    python benchmarks/wala.py [--part uvit|wavelet|all] [--depth 32] [--threads 1] [--rounds 3] [--json]

Weights are random and nowhere zero. Both sides run in this process, rounds interleaved, best round of each, in CPU
seconds divided by the threads, which other jobs on the machine inflate least. A guided step is one network call on the
null and the true condition together; the fast side's share of `prepare` (made once for 5 steps) is counted.
Bars: U-ViT at least 2.5 times faster with its output within 2.5 %; wavelets at least 3 times faster. The full depth
needs 8 GB and, on one busy core, several minutes; --depth 4 shows nearly the same ratio much sooner.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable

import torch

from anyform.diffusion.prior import Condition
from anyform.diffusion.samplers import spaced_timesteps
from anyform.diffusion.schedule import cosine
from anyform.systems.wala import wavelet_tree
from anyform.systems.wala.denoiser import UVitDenoiser
from anyform.systems.wala.uvit import UVit, UVitConfig

NUM_STEPS = 5
GUIDANCE = 1.8


def best(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU seconds, divided by the threads, of each side's best round; the sides take turns."""
    seconds = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.process_time()
            run()
            seconds[name] = min(seconds[name], (time.process_time() - start) / torch.get_num_threads())
    return seconds


def uvit(depth: int, rounds: int) -> dict[str, object]:
    """Seconds for one guided step, and the relative error of the guided prediction."""
    torch.manual_seed(0)
    network = UVit(UVitConfig(depth=depth)).eval().requires_grad_(False)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.normal_(std=0.02)
    fast_network = network.in_bfloat16()
    plain, fast = UVitDenoiser(network, cosine()), UVitDenoiser(fast_network, cosine())
    x = torch.randn(1, 4, 12, 12, 12)
    condition, null = Condition(tokens=torch.randn(1, 256, 1024)), Condition(tokens=torch.zeros(1, 256, 1024))
    timesteps = spaced_timesteps(NUM_STEPS)
    both = Condition(tokens=torch.cat([null.tokens, condition.tokens])) if null.tokens is not None else null
    t = timesteps[2]

    def plain_step() -> torch.Tensor:
        without, with_condition = plain(torch.cat([x, x]), t, both).x0.chunk(2)
        return without + GUIDANCE * (with_condition - without)

    prepared: dict[str, Callable] = {}

    def prepare() -> None:
        prepared["denoise"] = fast.guided(condition, null, timesteps, GUIDANCE)

    prepare()
    seconds = best({"plain": plain_step, "step": lambda: prepared["denoise"](x, t), "prepare": prepare}, rounds)
    exact, found = plain_step(), prepared["denoise"](x, t).x0
    fast_seconds = seconds["step"] + seconds["prepare"] / NUM_STEPS
    return {
        "depth": depth,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "plain_s": round(seconds["plain"], 3),
        "fast_s": round(fast_seconds, 3),
        "prepare_s": round(seconds["prepare"], 3),
        "ratio": round(seconds["plain"] / fast_seconds, 2),
        "error": round(((found - exact).norm() / exact.norm()).item(), 4),
    }


def wavelet(rounds: int) -> dict[str, object]:
    """Seconds for packed coefficients -> SDF 256³, ours from the packed volume, PyWavelets' from unpacked bands."""
    import pywt

    sdf = torch.randn(1, 256, 256, 256) * 0.05
    packed = wavelet_tree.pack(wavelet_tree.decompose(sdf, with_finest=False))
    tree = wavelet_tree.unpack(packed, 256)
    names = ["daa", "ada", "dda", "aad", "dad", "add", "ddd"]
    bands = [{name: level[0, band].numpy() for band, name in enumerate(names)} for level in tree.details]
    coefficients = [tree.coarse[0].numpy(), *bands]
    results: dict[str, torch.Tensor] = {}

    def ours() -> None:
        results["ours"] = wavelet_tree.reconstruct(wavelet_tree.unpack(packed, 256), 256)[0]

    def theirs() -> None:
        results["theirs"] = torch.from_numpy(pywt.waverecn(coefficients, "bior6.8", mode="constant"))

    seconds = best({"theirs": theirs, "ours": ours}, rounds)
    return {
        "pywavelets_s": round(seconds["theirs"], 3),
        "ours_s": round(seconds["ours"], 3),
        "ratio": round(seconds["theirs"] / seconds["ours"], 2),
        "max_difference": (results["ours"] - results["theirs"]).abs().max().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["uvit", "wavelet", "all"], default="all")
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {options.threads} thread(s)",
        "torch": torch.__version__,
    }
    with torch.inference_mode():
        if options.part in ("wavelet", "all"):
            record["wavelet"] = wavelet(options.rounds)
        if options.part in ("uvit", "all"):
            record["uvit"] = uvit(options.depth, options.rounds)
    if options.json:
        print(json.dumps(record))
        return
    for name, value in record.items():
        print(f"{name}: {json.dumps(value)}")


if __name__ == "__main__":
    main()
