"""WaLa at the released size: U-ViT fast path against its own plain float32, inverse wavelets against PyWavelets.

    python benchmarks/wala.py [--part uvit|wavelet|all] [--depth 32] [--threads 1] [--rounds 3] [--json]
    python benchmarks/wala.py --part released --weights FOLDER [--steps 5] [--threads 1] [--json]

Weights are random and nowhere zero. Both sides run in this process, rounds interleaved, best round of each, in CPU
seconds divided by the threads, which other jobs on the machine inflate least. A guided step is one network call on the
null and the true condition together; the fast side's share of `prepare` (made once for 5 steps) is counted.
Bars: U-ViT at least 2.5 times faster with its output within 2.5 %; wavelets at least 3 times faster. The full depth
needs 8 GB and, on one busy core, several minutes; --depth 4 shows nearly the same ratio much sooner.

Part `released` goes the whole way, prompt to saved GLB, on a voxel checkpoint (random ones at full size are written by
tests/systems/wala/full_size.py), each side in a process of its own, one after the other: "plain" is float32 without
anything hoisted, "fast" what `anyform generate` does. Bars: 3 times faster, latent within 3 %, peak at most 6 GB.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from anyform.diffusion.prediction import Prediction
from anyform.diffusion.prior import Condition
from anyform.diffusion.samplers import ancestral, spaced_timesteps
from anyform.diffusion.schedule import cosine
from anyform.systems.wala import wavelet_tree
from anyform.systems.wala.denoiser import UVitDenoiser
from anyform.systems.wala.system import Wala
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
    both = null.joined(condition)
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


def released_side(side: str, folder: Path, steps: int, out: Path) -> dict[str, float]:
    """One run from the prompt to `out`.glb; CPU seconds divided by the threads of each part, and the peak in bytes."""
    from anyform.geometry.asset import Asset
    from anyform.systems.wala import finishing
    from anyform.systems.wala.config import WalaSettings
    from anyform.systems.wala.system import load
    from anyform.types.progress import silent
    from anyform.types.prompt import Voxels

    clock = [time.process_time()]
    precision = "float32" if side == "plain" else "bfloat16"
    settings = WalaSettings(num_inference_steps=steps, precision=precision, faces=2_000_000)  # random shapes are rugged
    prompt = Voxels.open(Path(__file__).parents[1] / "fixtures" / "voxels.json")
    wala = load(folder, "cpu", settings)
    clock.append(time.process_time())
    condition, scale = wala.condition(prompt), wala.recommended.guidance_scale
    if side == "plain":
        latent = _plain_sample(wala, condition, steps, scale)
    else:
        latent = wala.sample(condition, num_inference_steps=steps, guidance_scale=scale, seed=0)
    clock.append(time.process_time())
    field = wala.decode(latent)[0]
    clock.append(time.process_time())
    mesh, _ = finishing.shape(field, settings, wala.codec.config.first, silent)
    Asset(mesh, wala.provenance(prompt, 0)).save(out.with_suffix(".glb"), force=True)
    clock.append(time.process_time())
    torch.save({"latent": latent, "field": torch.from_numpy(field)}, out.with_suffix(".pt"))
    parts = [round((b - a) / torch.get_num_threads(), 2) for a, b in itertools.pairwise(clock)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kilobytes
    return {**dict(zip(("load_s", "sample_s", "decode_s", "mesh_s"), parts, strict=True)), "peak_bytes": peak}


def _plain_sample(wala: Wala, condition: Condition, steps: int, scale: float) -> torch.Tensor:
    """The sampler as the formula stands: the whole network at every step, on null and true condition."""
    generator, null = torch.Generator().manual_seed(0), wala.null_condition()
    noise = torch.randn(1, 4, *(wala.denoiser.network.config.grid,) * 3, generator=generator)
    both = null.joined(condition)

    def denoise(x: torch.Tensor, t: int) -> Prediction:
        without, with_condition = wala.denoiser(torch.cat([x, x]), t, both).x0.chunk(2)
        guided = without + scale * (with_condition - without)
        return Prediction.from_x0(guided, x, *wala.denoiser.schedule.alpha_sigma(t))

    return ancestral(denoise, noise, wala.denoiser.schedule, spaced_timesteps(steps), generator=generator)


def released(folder: Path, steps: int, threads: int) -> dict[str, object]:
    """Both sides, each in its own process, and how far apart their latents and their insides are."""
    record: dict[str, object] = {"steps": steps}
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for side in ("fast", "plain"):
            options = ["--weights", str(folder), "--steps", str(steps), "--threads", str(threads)]
            command = [sys.executable, __file__, "--part", "released", "--side", side, "--out", f"{scratch}/{side}"]
            done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
            record[side] = json.loads(done.stdout)
            found[side] = torch.load(Path(scratch) / f"{side}.pt", weights_only=True)
    totals = {side: sum(v for k, v in record[side].items() if k.endswith("_s")) for side in found}  # type: ignore[attr-defined]
    difference = (found["fast"]["latent"] - found["plain"]["latent"]).norm() / found["plain"]["latent"].norm()
    inside = [found[side]["field"] < 0 for side in ("fast", "plain")]
    record |= {
        "fast_total_s": round(totals["fast"], 2),
        "plain_total_s": round(totals["plain"], 2),
        "ratio": round(totals["plain"] / totals["fast"], 2),
        "latent_error": round(float(difference), 4),
        "inside_iou": round(float((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()), 4),
    }
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["uvit", "wavelet", "all", "released"], default="all")
    parser.add_argument("--weights", type=Path, help="folder of a released voxel checkpoint")
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--side", choices=["plain", "fast"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.side:
        with torch.inference_mode():
            print(json.dumps(released_side(options.side, options.weights, options.steps, options.out)))
        return
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
        if options.part == "released":
            if options.weights is None:
                parser.error("--part released needs --weights FOLDER (see tests/systems/wala/full_size.py)")
            record["released"] = released(options.weights, options.steps, options.threads)
    if options.json:
        print(json.dumps(record))
        return
    for name, value in record.items():
        print(f"{name}: {json.dumps(value)}")


if __name__ == "__main__":
    main()
