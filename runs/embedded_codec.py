"""Train the embedded WaLa codec (stage 1): `python runs/embedded_codec.py DATA OUT [--steps N] [--quantised]`.

DATA holds sdf64.npy (int8 distance fields in catalogue order) and catalog.json, as `anyform data gather` writes them.
First run: continuous latent. Then `--quantised` fits the codebook to the trained latents and finishes the decoder on
them. Both continue from OUT/checkpoint.pt when killed.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch

from anyform.systems.wala.codec import ShapeCodec, embedded
from anyform.systems.wala.training_codec import SdfArray, SurfaceLoss, SurfaceRecipe, fit_codebook, strict_iou
from anyform.training.loop import TrainConfig, fit, load_state
from anyform.types.progress import Progress


def show(progress: Progress) -> None:
    print(f"{progress.stage} {progress.step}/{progress.total} {progress.message}", flush=True)


def score(model: torch.nn.Module, fields: np.ndarray, quantised: bool) -> dict[str, float]:
    assert isinstance(model, ShapeCodec)
    with torch.autocast("cpu", torch.bfloat16):
        iou = strict_iou(model, fields, quantised)
    row = {"iou_mean": round(float(iou.mean()), 4), "iou_median": round(float(iou.median()), 4)}
    print(row, flush=True)
    return row


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
    rows = json.loads((args.data / "catalog.json").read_text(encoding="utf-8"))
    split = np.array([row["split"] for row in rows])
    data = SdfArray(args.data / "sdf64.npy", np.flatnonzero(split == "train"))
    fields = data.open()
    codec = ShapeCodec(embedded()).to(memory_format=torch.channels_last_3d)
    print("parameters", sum(p.numel() for p in codec.parameters()), flush=True)
    if args.start:
        codec.load_state_dict(load_state(args.start).average)
    else:
        codec.measure_spread(torch.from_numpy(fields[data.rows[::20]]).float() / 127)
    if args.quantised:
        prepare_codes(codec, fields[data.rows[::4]])
    recipe = SurfaceRecipe(quantised=args.quantised, whole_share=args.whole_share)
    config = TrainConfig(
        steps=args.steps, learning_rate=args.rate, betas=(0.9, 0.99), weight_decay=1e-4, clip=0.5, ema_decay=0.998,
        workers=args.workers, bf16=True, decay_part=args.decay_part, checkpoint_every=250,
        evaluate_every=args.evaluate_every,
    )  # fmt: skip
    validation = np.asarray(fields[split == "val"])
    evaluate = partial(score, fields=validation, quantised=args.quantised)
    average = fit(codec, partial(SurfaceLoss, data, recipe), config, args.out, show, evaluate)
    print("final", score(average, validation, args.quantised))


@torch.no_grad()
def prepare_codes(codec: ShapeCodec, fields: np.ndarray) -> None:
    """Fit the codebook to the latents of `fields` and freeze what produces them."""
    rows = []
    for start in range(0, len(fields), 8):
        target = torch.from_numpy(np.asarray(fields[start : start + 8])).float() / 127
        with torch.autocast("cpu", torch.bfloat16):
            latent = codec.vqvae.encode(codec.pack(target)).float()
        rows.append(codec.vqvae.codebook.vectors(latent))
    vectors = torch.cat(rows)
    chosen = vectors[torch.randperm(len(vectors))[:400_000]]
    print("codebook error / variance", fit_codebook(codec, chosen, rounds=25, seed=0), flush=True)


if __name__ == "__main__":
    main()
