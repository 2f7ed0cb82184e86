"""The stages of training WaLa as functions of a folder of arrays: stage 1 in two phases, stage 2, and their scores.

Every phase has a folder: `checkpoint.pt` and `log.jsonl` of `training.loop.fit`, and `result.json` with the last scores
once it is whole. A whole phase is not run again; an interrupted one goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anyform.diffusion.guidance import classifier_free
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.samplers import ancestral, spaced_timesteps
from anyform.diffusion.schedule import cosine
from anyform.errors import BadInput
from anyform.systems.wala.codec import CodecConfig, ShapeCodec
from anyform.systems.wala.conditions import Features, empty_features, with_encoded
from anyform.systems.wala.training_codec import SdfArray, SurfaceLoss, fit_codebook, strict_iou
from anyform.systems.wala.training_coefficients import (
    CoefficientLoss,
    balanced_groups,
    network_fields,
    reconstruction_scores,
)
from anyform.systems.wala.training_denoiser import Arrays, Denoiser, DenoiserLoss, DenoiserRecipe, FeatureMaker
from anyform.systems.wala.training_plan import TrainingPlan
from anyform.training.loop import Loss, TrainConfig, fit, load_state
from anyform.training.run_folder import write_json
from anyform.types.progress import Progress, Report

SAMPLING_STEPS, SAMPLING_GUIDANCE = 8, 2.0  # of the scores in training
CODEBOOK_VECTORS, CODEBOOK_ROUNDS = 400_000, 25
Network = TypeVar("Network", bound=nn.Module)
Score = Callable[[nn.Module], Mapping[str, float]]


def first_phase(plan: TrainingPlan, arrays: Path, folder: Path, device: torch.device, report: Report) -> ShapeCodec:
    """Stage 1 from the beginning: continuous latents (surface), or all data alike (coefficients)."""
    rows, config = _train_rows(arrays), plan.first
    torch.manual_seed(config.seed)
    codec = new_codec(plan.codec).to(device)
    data = SdfArray(arrays / "field.npy", rows)
    some = np.asarray(data.open()[rows[:: max(1, len(rows) // 128)]])
    codec.measure_spread(network_fields(codec, some))
    return _phase(codec, _codec_loss(plan, data, False), config, folder, report, _codec_score(plan, arrays, False))


def second_phase(
    plan: TrainingPlan, codec: ShapeCodec, arrays: Path, folder: Path, device: torch.device, report: Report
) -> ShapeCodec:
    """Stage 1's end: codes fitted to the latents and the decoder finished on them, or balanced fine-tuning."""
    if plan.loss == "coefficients" and not plan.coefficients.balanced_per_dataset:
        return codec
    codec, config = codec.to(device).requires_grad_(True), plan.second
    data = SdfArray(arrays / "field.npy", _train_rows(arrays))
    if plan.loss == "surface" and not (folder / "checkpoint.pt").exists():
        torch.manual_seed(config.seed)
        error = prepare_codes(codec, data.open()[data.rows[::4]], bf16=config.bf16)
        report(Progress("codebook", message=f"error over variance {error:.4f}"))
    return _phase(codec, _codec_loss(plan, data, True), config, folder, report, _codec_score(plan, arrays, True))


def denoiser_stage(
    plan: TrainingPlan, codec: ShapeCodec, arrays: Path, folder: Path, device: torch.device, report: Report
) -> Denoiser:
    """Stage 2 on the latents of `latents.build`."""
    torch.manual_seed(plan.denoiser.seed)
    model = Denoiser(plan.uvit, plan.prompts).to(device)
    objects = validation_rows(arrays, plan.validation)
    codec, bf16 = codec.to(device).eval(), plan.denoiser.bf16
    score = partial(score_denoiser, codec=codec, arrays=arrays, recipe=plan.batch, objects=objects, bf16=bf16)
    make_loss = partial(DenoiserLoss, arrays, _train_rows(arrays), plan.prompts, plan.batch, plan.codec)
    return _phase(model, make_loss, plan.denoiser, folder, report, score)


def _phase(
    model: Network, make_loss: Callable[[], Loss], config: TrainConfig, folder: Path, report: Report, score: Score
) -> Network:
    """Train, or read what was trained before: the moving average either way, scored in `result.json`."""
    result, checkpoint = folder / "result.json", folder / "checkpoint.pt"
    if result.is_file() and json.loads(result.read_text(encoding="utf-8"))["step"] >= config.steps:
        fill(model, checkpoint)
        report(Progress(folder.name, config.steps, config.steps, "whole already"))
        return model.eval()
    average = fit(model, make_loss, config, folder, report, score).eval()
    write_json(result, {"step": config.steps, **score(average)})
    assert isinstance(average, type(model))
    return average


def fill(model: nn.Module, checkpoint: Path) -> None:
    """The moving average of a checkpoint into a network. Raises BadInput where it is missing or of another network."""
    if not checkpoint.is_file():
        raise BadInput(f"{checkpoint.parent.name} has no checkpoint.pt: train the stage before first (--stage all)")
    try:
        model.load_state_dict(load_state(checkpoint).average)
    except RuntimeError as error:
        name = checkpoint.parent.name
        raise BadInput(f"checkpoint.pt in {name} is of another network: choose another --out") from error


def new_codec(config: CodecConfig) -> ShapeCodec:
    """An untrained codec in the memory format that its convolutions are fastest in."""
    # torch documents this call of `to` but its overloads leave it out
    return ShapeCodec(config).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def catalogue(arrays: Path) -> list[dict[str, Any]]:
    """The rows of a folder of arrays."""
    return json.loads((arrays / "catalog.json").read_text(encoding="utf-8"))


def validation_rows(arrays: Path, limit: int) -> NDArray[np.int64]:
    """Held-out objects for scores, spread over the val split; training objects where there are none."""
    split = np.array([row["split"] for row in catalogue(arrays)])
    rows = np.flatnonzero(split == "val")
    rows = rows if len(rows) else np.flatnonzero(split == "train")
    return rows[:: max(1, -(-len(rows) // limit))]


def _train_rows(arrays: Path) -> NDArray[np.int64]:
    rows = np.flatnonzero([row["split"] == "train" for row in catalogue(arrays)])
    if len(rows) == 0:
        raise BadInput("no object is in the train split: add meshes (of a folder, 90 % go there by their names' hash)")
    return rows


def _codec_loss(plan: TrainingPlan, data: SdfArray, second: bool) -> Callable[[], Loss]:
    if plan.loss == "surface":
        return partial(SurfaceLoss, data, replace(plan.surface, quantised=second))
    groups = (data.rows,)
    if second:
        sources = [row["source"] for row in catalogue(data.path.parent)]
        groups = balanced_groups(sources, data.rows, plan.coefficients.balanced_per_dataset, plan.second.seed)
    return partial(CoefficientLoss, data.path, groups, plan.coefficients)


def _codec_score(plan: TrainingPlan, arrays: Path, second: bool) -> Score:
    rows = validation_rows(arrays, plan.validation)
    fields = np.load(arrays / "field.npy", mmap_mode="r")[rows]
    if plan.loss == "surface":
        return partial(score_codec, fields=fields, quantised=second, bf16=plan.second.bf16)
    named = catalogue(arrays)
    return partial(_coefficient_score, fields=fields, sources=[named[row]["source"] for row in rows])


def _coefficient_score(model: nn.Module, fields: NDArray[np.int8], sources: Sequence[str]) -> dict[str, float]:
    assert isinstance(model, ShapeCodec)
    return {key: round(value, 6) for key, value in reconstruction_scores(model, fields, sources).items()}


@torch.no_grad()
def score_codec(model: nn.Module, fields: NDArray[np.int8], quantised: bool, bf16: bool) -> dict[str, float]:
    """Mean and median IoU of strict insides of reconstructions."""
    assert isinstance(model, ShapeCodec)
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=bf16):
        iou = strict_iou(model, fields, quantised)
    return {"iou_mean": round(float(iou.mean()), 4), "iou_median": round(float(iou.median()), 4)}


@torch.no_grad()
def prepare_codes(codec: ShapeCodec, fields: NDArray[np.int8], *, bf16: bool) -> float:
    """Fit the codebook to the latents of `fields`; returns its squared error relative to the latents' variance."""
    rows, device = [], next(codec.parameters()).device
    for start in range(0, len(fields), 8):
        target = torch.from_numpy(np.asarray(fields[start : start + 8])).to(device).float() / 127
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            latent = codec.vqvae.encode(codec.pack(target)).float()
        rows.append(codec.vqvae.codebook.vectors(latent).cpu())
    vectors = torch.cat(rows)
    chosen = vectors[torch.randperm(len(vectors))[:CODEBOOK_VECTORS]]
    return fit_codebook(codec, chosen, rounds=CODEBOOK_ROUNDS, seed=0)


@torch.inference_mode()
def sample(model: Denoiser, features: Features, scale: float, seed: int, *, bf16: bool) -> Tensor:
    """Standardised latents of a batch by few guided steps from pure noise."""
    schedule, config, device = cosine(1000), model.uvit.config, next(model.parameters()).device
    null = Features(**empty_features(model.prompts.config, len(features.kind)))
    conditions = [model.prompts(part.to(device)) for part in (features, null)]
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(len(features.kind), config.latent_channels, *(config.grid,) * 3, generator=generator)

    def denoise(x_t: Tensor, t: int) -> Prediction:
        when = torch.full((len(x_t),), float(t), device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            read = [model.uvit(x_t.to(device), when, condition).float().cpu() for condition in conditions]
        return Prediction.from_v(classifier_free(read[0], read[1], scale), x_t, *schedule.alpha_sigma(t))

    return ancestral(denoise, start, schedule, spaced_timesteps(SAMPLING_STEPS), generator=generator).to(device)


@torch.inference_mode()
def score_denoiser(
    model: nn.Module, codec: ShapeCodec, arrays: Path, recipe: DenoiserRecipe, objects: NDArray[np.int64], bf16: bool
) -> dict[str, float]:
    """IoU of strict insides by kind of prompt, each object in its own front.

    arrays: a folder, not arrays, because a worker process would be sent copies of all of them.
    """
    assert isinstance(model, Denoiser)
    maker = FeatureMaker(Arrays.open(arrays), model.prompts.config, recipe)
    row, turns, device = {}, np.zeros(len(objects), np.int64), next(codec.parameters()).device
    truth = torch.from_numpy(np.asarray(maker.arrays.field[objects]) < 0)
    for kind in maker.recipe.shares:
        features = maker.rows(kind, objects, turns, None)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            features = with_encoded(features.to(device), codec.encode_standardised)
        latent = sample(model, features, SAMPLING_GUIDANCE, 0, bf16=bf16)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            inside = (codec.decode(codec.destandardise(latent)) < 0).cpu()
        both = (inside & truth).flatten(1).sum(1).float()
        row[f"iou_{kind}"] = round(float((both / (inside | truth).flatten(1).sum(1).clamp(min=1)).mean()), 4)
    return row
