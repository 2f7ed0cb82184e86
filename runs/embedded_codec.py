"""Train the embedded WaLa codec (stage 1): `python runs/embedded_codec.py DATA OUT [--steps N] [--quantised]`.

DATA holds field.npy (or sdf64.npy; int8 distance fields in catalogue order) and catalog.json, as `wala.gather` writes
them. First run: continuous latent. Then `--quantised` fits the codebook to the trained latents and finishes the decoder
on them. Both continue from OUT/checkpoint.pt when killed. `anyform train wala --stage codec` does one after the other.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from anyform.systems.wala.stages import catalogue, new_codec, prepare_codes, score_codec
from anyform.systems.wala.training_codec import SdfArray, SurfaceLoss
from anyform.systems.wala.training_plan import embedded_plan
from anyform.training.loop import fit, load_state
from anyform.types.progress import Progress


def show(progress: Progress) -> None:
    print(f"{progress.stage} {progress.step}/{progress.total} {progress.message}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--decay-part", type=float, default=0.5)
    parser.add_argument("--whole-share", type=float, default=0.15)
    parser.add_argument("--evaluate-every", type=int, default=500)
    parser.add_argument("--start", type=Path, help="checkpoint to start from (its average)")
    parser.add_argument("--quantised", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    plan = embedded_plan()
    split = np.array([row["split"] for row in catalogue(args.data)])
    file = next(path for path in (args.data / "field.npy", args.data / "sdf64.npy") if path.exists())
    data = SdfArray(file, np.flatnonzero(split == "train"))
    fields = data.open()
    codec = new_codec(plan.codec)
    print("parameters", sum(p.numel() for p in codec.parameters()), flush=True)
    if args.start:
        codec.load_state_dict(load_state(args.start).average)
    else:
        codec.measure_spread(torch.from_numpy(fields[data.rows[::20]]).float() / 127)
    if args.quantised:
        print("codebook error / variance", prepare_codes(codec, fields[data.rows[::4]], bf16=True), flush=True)
    recipe = replace(plan.surface, quantised=args.quantised, whole_share=args.whole_share)
    config = replace(
        plan.first, steps=args.steps, learning_rate=args.rate, workers=args.workers, decay_part=args.decay_part,
        evaluate_every=args.evaluate_every,
    )  # fmt: skip
    validation = np.asarray(fields[split == "val"])
    evaluate = partial(score_codec, fields=validation, quantised=args.quantised, bf16=True)
    average = fit(codec, partial(SurfaceLoss, data, recipe), config, args.out, show, evaluate)
    print("final", evaluate(average))


if __name__ == "__main__":
    main()
