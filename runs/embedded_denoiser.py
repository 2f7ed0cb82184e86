"""Train the embedded WaLa denoiser (stage 2): `python runs/embedded_denoiser.py TRAIN OUT [--steps N]`.

TRAIN is the folder of arrays (`training_denoiser.Arrays`) with catalog.json beside its codec.safetensors. A run that
was killed continues from OUT/checkpoint.pt. Every evaluation prints IoU on a third of the validation objects for each
kind of prompt. `anyform train wala --stage denoiser` does the same inside a run's folder.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from anyform.systems.wala.stages import catalogue, new_codec, score_denoiser
from anyform.systems.wala.training_denoiser import Denoiser, DenoiserLoss
from anyform.systems.wala.training_plan import embedded_plan
from anyform.training.loop import fit, load_state
from anyform.types.progress import Progress


def show(progress: Progress) -> None:
    print(f"{progress.stage} {progress.step}/{progress.total} {progress.message}", flush=True)


def score(model: torch.nn.Module, **settings: object) -> dict[str, float]:
    row = score_denoiser(model, **settings, bf16=True)  # type: ignore[arg-type]
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--decay-part", type=float, default=0.4)
    parser.add_argument("--evaluate-every", type=int, default=400)
    parser.add_argument("--start", type=Path, help="checkpoint to start from (its average)")
    args = parser.parse_args()
    torch.manual_seed(0)
    plan = embedded_plan()
    split = np.array([row["split"] for row in catalogue(args.train)])
    codec = new_codec(plan.codec).eval()
    codec.load_state_dict(load_file(args.train / "codec.safetensors"))
    model = Denoiser(plan.uvit, plan.prompts)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    if args.start:
        model.load_state_dict(load_state(args.start).average)
    config = replace(
        plan.denoiser, steps=args.steps, learning_rate=args.rate, workers=args.workers, decay_part=args.decay_part,
        evaluate_every=args.evaluate_every,
    )  # fmt: skip
    validation = np.flatnonzero(split == "val")
    evaluate = partial(score, codec=codec, arrays=args.train, recipe=plan.batch, objects=validation[::3])
    rows = np.flatnonzero(split == "train")
    make_loss = partial(DenoiserLoss, args.train, rows, plan.prompts, plan.batch, plan.codec)
    average = fit(model, make_loss, config, args.out, show, evaluate)
    print("final", evaluate(average, objects=validation))


if __name__ == "__main__":
    main()
