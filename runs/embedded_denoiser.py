"""Train the embedded WaLa denoiser (stage 2): `python runs/embedded_denoiser.py TRAIN OUT [--steps N]`.

TRAIN is the folder of arrays (`training_denoiser.Arrays`) with catalog.json beside its codec.safetensors. A run that was
killed continues from OUT/checkpoint.pt. Every evaluation prints IoU on 48 validation objects for each kind of prompt.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from anyform.diffusion.guidance import classifier_free
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.samplers import ancestral, spaced_timesteps
from anyform.diffusion.schedule import cosine
from anyform.systems.wala.codec import ShapeCodec, embedded
from anyform.systems.wala.conditions import Features, PromptEncoderConfig, empty_features
from anyform.systems.wala.training_denoiser import Arrays, Denoiser, DenoiserLoss, FeatureMaker, default_recipe, embedded_uvit
from anyform.training.loop import TrainConfig, fit, load_state
from anyform.types.progress import Progress

STEPS = 8


def show(progress: Progress) -> None:
    print(f"{progress.stage} {progress.step}/{progress.total} {progress.message}", flush=True)


@torch.inference_mode()
def sample(model: Denoiser, features: Features, scale: float, seed: int) -> torch.Tensor:
    """Standardised latents of a batch, guided."""
    schedule, config = cosine(1000), model.uvit.config
    null = Features(**empty_features(model.prompts.config, len(features.kind)))
    conditions = [model.prompts(part) for part in (features, null)]
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(len(features.kind), config.latent_channels, *(config.grid,) * 3, generator=generator)

    def denoise(x_t: torch.Tensor, t: int) -> Prediction:
        when = torch.full((len(x_t),), float(t))
        with torch.autocast("cpu", torch.bfloat16):
            read = [model.uvit(x_t, when, condition).float() for condition in conditions]
        return Prediction.from_v(classifier_free(*read, scale), x_t, *schedule.alpha_sigma(t))

    return ancestral(denoise, start, schedule, spaced_timesteps(STEPS), generator=generator)


@torch.inference_mode()
def score(
    model: torch.nn.Module, codec: ShapeCodec, maker: FeatureMaker, objects: np.ndarray, scale: float = 2.0
) -> dict[str, float]:
    """IoU of strict insides by kind of prompt, the canonical turn."""
    assert isinstance(model, Denoiser)
    row = {}
    turns = np.zeros(len(objects), np.int64)
    truth = torch.from_numpy(np.asarray(maker.arrays.field[objects]) < 0)
    for kind in maker.recipe.shares:
        latent = sample(model, maker.rows(kind, objects, turns, None), scale, seed=0)
        with torch.autocast("cpu", torch.bfloat16):
            inside = codec.decode(codec.destandardise(latent)) < 0
        both = (inside & truth).flatten(1).sum(1).float()
        row[f"iou_{kind}"] = round(float((both / (inside | truth).flatten(1).sum(1).clamp(min=1)).mean()), 4)
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
    rows = json.loads((args.train / "catalog.json").read_text(encoding="utf-8"))
    split = np.array([row["split"] for row in rows])
    codec = ShapeCodec(embedded()).eval()
    codec.load_state_dict(load_file(args.train / "codec.safetensors"))
    prompts, recipe = PromptEncoderConfig(), default_recipe()
    model = Denoiser(embedded_uvit(prompts), prompts)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    if args.start:
        model.load_state_dict(load_state(args.start).average)
    maker = FeatureMaker(Arrays.open(args.train), prompts, recipe)
    objects = np.flatnonzero(split == "val")[::3]
    config = TrainConfig(
        steps=args.steps, learning_rate=args.rate, betas=(0.9, 0.98), weight_decay=0.01, warmup=60, clip=1.0,
        ema_decay=0.995, workers=args.workers, bf16=True, decay_part=args.decay_part, checkpoint_every=200,
        evaluate_every=args.evaluate_every,
    )  # fmt: skip
    evaluate = partial(score, codec=codec, maker=maker, objects=objects)
    make_loss = partial(DenoiserLoss, args.train, np.flatnonzero(split == "train"), prompts, recipe)
    average = fit(model, make_loss, config, args.out, show, evaluate)
    print("final", score(average, codec, maker, np.flatnonzero(split == "val")))


if __name__ == "__main__":
    main()
