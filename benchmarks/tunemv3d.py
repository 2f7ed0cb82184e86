"""TuneMV3D at the embedded sizes: what the views cost against independent samples, and where the time goes.

    python benchmarks/tunemv3d.py [--steps 4] [--rounds 2] [--threads 2] [--points-rays 2048] [--json]

Weights are random, which costs the same. Both sides run in this process, rounds interleaved, best round of each, in CPU
seconds divided by the threads.
`views`: a run of the branch over a run of the frozen foundation, as many text-guided steps (bar: at most 1.6).
`field_share`: lattice, rendering and attention mass over a step, without E (bar: at most 25 %).
`evaluator`: every ray's samples through the networks (64 + 64, the paper's way) over the lattice; the first is timed on
`--points-rays` rays and scaled (bar: at least 15).
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anyform.nn.unet2d import UNet2D
from anyform.priors.embedded import PriorConfig, schedule
from anyform.systems.tunemv3d.config import BranchConfig
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundation import Caption, Foundation, FoundationSpec, PixelCodec
from anyform.systems.tunemv3d.foundation_unet import UNetBackbone
from anyform.systems.tunemv3d.latent_neus import Rig
from anyform.systems.tunemv3d.references import preset
from anyform.systems.tunemv3d.sampling import SamplingPlan, sample_views


def best(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU seconds, divided by the threads, of each side's best round; the sides take turns."""
    seconds = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            side()
            seconds[name] = min(seconds[name], (time.process_time() - start) / torch.get_num_threads())
    return seconds


def foundation_of_size() -> Foundation:
    """The embedded foundation's structure with random weights."""
    config = PriorConfig()
    tokens = torch.randn(1, 16, config.token_width)
    labels = torch.zeros(1, 2 * config.joint)

    def captions(texts: Sequence[str]) -> Caption:
        count = len(texts)
        return Caption(tokens.expand(count, -1, -1), {"labels": labels.expand(count, -1)})

    spec = FoundationSpec(
        id="anyform/foundation", revision="random", kind="pixel", channels=3, size=config.image_size,
        picture_size=config.image_size, packing=config.fold, reading="v", token_width=config.token_width,
        background=(1.0, 1.0, 1.0), guidance_scale=4.0, thresholding=0.995, licence="none",
    )  # fmt: skip
    backbone = UNetBackbone(UNet2D(config.unet()))
    return Foundation(spec=spec, backbone=backbone, schedule=schedule(), codec=PixelCodec(), captions=captions)


def measure(steps: int, rounds: int, points_rays: int) -> dict[str, object]:
    """All three figures."""
    torch.manual_seed(0)
    foundation = foundation_of_size()
    branch = ControlBranch(foundation, BranchConfig()).eval().requires_grad_(False)
    rig = Rig.of(preset(8, 64), 64)
    plan = SamplingPlan(steps=steps, guidance_scale=4.0, consistency_fraction=0.0)
    caption, x, t = foundation.captions(["a"]).repeated(8), torch.randn(8, 3, 64, 64), torch.full((8,), 500)
    scene = branch.latent_neus.scene(x, t, t[:1], caption, rig)
    field, config = branch.latent_neus.field, branch.config
    origins, directions = rig.rays()
    white = torch.ones(3)
    some = torch.arange(0, len(origins), max(1, len(origins) // points_rays))[:points_rays]

    def lattice() -> Tensor:
        volume = field.lattice(scene, config.lattice)
        return field.render_lattice(volume, origins, directions, white, sections=config.sections, jitter=False).value

    def points() -> Tensor:
        rays = origins[some], directions[some]
        return field.render_points(scene, *rays, white, sections=64, importance=64).value

    def sampled(side: ControlBranch | None) -> object:
        return sample_views(side, foundation, foundation.captions(["a"]), rig, plan, seed=0)

    seconds = best(
        {
            "views": lambda: sampled(branch),
            "independent": lambda: sampled(None),
            "field": lattice,
            "mass": lambda: branch.mass(branch.latent_neus(scene, rig), rig),
            "points": points,
        },
        rounds,
    )
    step = seconds["views"] / (steps + 0.5)  # the last reading of the field is about half a step
    every_ray = seconds["points"] * len(origins) / len(some)
    return {
        "parameters": {"branch": count(branch), "foundation": count(foundation.backbone.network)},  # type: ignore[attr-defined]
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "views": round(seconds["views"] / seconds["independent"], 3),
        "field_share": round(seconds["mass"] / step, 3),
        "evaluator": round(every_ray / seconds["field"], 1),
    }


def count(module: torch.nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--points-rays", type=int, default=2048)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        found = measure(options.steps, options.rounds, options.points_rays)
    record: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {options.threads} thread(s)",
        "torch": torch.__version__,
        **found,
    }
    if options.json:
        print(json.dumps(record))
        return
    for name, value in record.items():
        print(f"{name}: {json.dumps(value)}")


if __name__ == "__main__":
    main()
