"""Train WaLa from a folder of meshes, the corpus, or prepared shards to a model that `anyform.load` reads.

The steps, each skipped when its result is whole and continued when it was interrupted: shards, arrays, stage 1 in two
phases, latents with their neighbours, stage 2, and the model's folder.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from anyform import device as devices
from anyform.data.corpus import open_collection
from anyform.data.prepare import prepare
from anyform.errors import BadInput, Interrupted
from anyform.systems.wala import latents, trained
from anyform.systems.wala.codec import ShapeCodec
from anyform.systems.wala.gather import gather, read_manifest
from anyform.systems.wala.stages import denoiser_stage, fill, first_phase, new_codec, second_phase
from anyform.systems.wala.training_denoiser import Denoiser
from anyform.systems.wala.training_plan import PHASES, PLANS, TrainingPlan, changed
from anyform.training.loop import load_state
from anyform.training.run_folder import begin
from anyform.types.progress import Report

STAGES = ("codec", "latents", "denoiser", "pack")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `anyform train wala`."""
    parser.add_argument("data", type=Path, help="meshes, the corpus, or what `anyform data prepare` made of them")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of everything the run makes")
    parser.add_argument("--preset", choices=tuple(PLANS), default="embedded", help="what to train (default embedded)")
    parser.add_argument("--stage", choices=("all", *STAGES), default="all", help="only this part (default all)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="any setting, as steps=9 or first.clip=0.5"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; more than 1 is not repeatable")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default cpu)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def run(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Train; the record names the model, the logs and the last scores. Raises Interrupted where the user stops it."""
    try:
        return _run(arguments, report)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command with --resume goes on with {arguments.out.name}") from None


def _run(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    if arguments.workers < 1:
        raise BadInput(f"--workers is {arguments.workers}; it must be at least 1")
    chosen = devices.choose(arguments.device)
    if chosen.name != "cpu" and arguments.workers > 1:
        raise BadInput("several workers share weights in the CPU's memory: use --workers 1 on a GPU")
    plan = changed(PLANS[arguments.preset](), arguments.set)
    for phase in PHASES:
        config = getattr(plan, phase)
        config = replace(config, workers=arguments.workers, bf16=config.bf16 and chosen.autocast is not None)
        plan = replace(plan, **{phase: config})
    folder = arguments.out
    _check_data(arguments.data, plan)
    begin(folder, arguments.preset, plan, resume=arguments.resume)
    shards = _shards(arguments.data, folder, plan, arguments.workers, report)
    arrays = folder / "arrays"
    rows = gather(shards, arrays, report, conditions=plan.loss == "surface")
    wanted = STAGES if arguments.stage == "all" else (arguments.stage,)
    if plan.loss == "coefficients" and arguments.stage == "all":
        wanted = ("codec",)
    elif plan.loss == "coefficients" and arguments.stage != "codec":
        raise BadInput(f"preset {arguments.preset} trains stage 1 only so far: use --stage codec")
    _stages(plan, folder, wanted, chosen.torch_device(), report)
    return _record(folder, len(rows))


def _stages(plan: TrainingPlan, folder: Path, wanted: tuple[str, ...], device: torch.device, report: Report) -> None:
    arrays = folder / "arrays"
    if "codec" in wanted:
        codec = first_phase(plan, arrays, folder / "first", device, report)
        second_phase(plan, codec, arrays, folder / "second", device, report)
    if "latents" in wanted:
        codec = new_codec(plan.codec)
        fill(codec, folder / "second" / "checkpoint.pt")
        latents.build(arrays, codec.to(device).eval(), report, bf16=plan.second.bf16)
    if "denoiser" in wanted:
        denoiser_stage(plan, _scaled_codec(plan, arrays), arrays, folder / "denoiser", device, report)
    if "pack" in wanted:
        denoiser = Denoiser(plan.uvit, plan.prompts)
        fill(denoiser, folder / "denoiser" / "checkpoint.pt")
        metadata = {
            "licence": "unknown: of a local run",
            "commercial_use": "unknown",
            "recipe": f"anyform train wala, seed {plan.denoiser.seed}",
            "samples": f"{load_state(folder / 'denoiser' / 'checkpoint.pt').step} denoiser steps",
        }
        index = arrays / "retrieval.safetensors"
        trained.write(folder / "model", _scaled_codec(plan, arrays), denoiser, index, metadata)


def _scaled_codec(plan: TrainingPlan, arrays: Path) -> ShapeCodec:
    """The codec with its latents' scale, as `latents.build` left it."""
    path = arrays / "codec.safetensors"
    if not path.is_file():
        raise BadInput("the latents are missing: run the stages before first (--stage latents)")
    codec = new_codec(plan.codec)
    codec.load_state_dict(load_file(path))
    return codec.eval()


def _check_data(data: Path, plan: TrainingPlan) -> None:
    """Raises BadInput for what cannot be trained on, before the run's folder is made."""
    if not is_prepared(data):
        open_collection(data)
        return
    size = read_manifest(data)[0]["size"]
    if size != plan.codec.size:
        raise BadInput(
            f"the shards have grids of {size}³ and the preset needs {plan.codec.size}³:"
            f" prepare them with --size {plan.codec.size}"
        )


def is_prepared(data: Path) -> bool:
    """Whether `data` is what `anyform data prepare` writes, finished or not."""
    return any((data / name).is_file() for name in ("manifest.json", "plan.json"))


def _shards(data: Path, folder: Path, plan: TrainingPlan, workers: int, report: Report) -> Path:
    """The prepared folder that `data` is, or the one that is made of it inside the run."""
    if is_prepared(data):
        return data
    prepare(data, folder / "shards", size=plan.codec.size, workers=0 if workers == 1 else workers, report=report)
    return folder / "shards"


def _record(folder: Path, objects: int) -> dict[str, Any]:
    """What there is now."""
    record: dict[str, Any] = {"objects": objects}
    for phase in PHASES:
        result = folder / phase / "result.json"
        if result.is_file():
            record[phase] = json.loads(result.read_text(encoding="utf-8"))
    logs = [str(path) for path in (folder / phase / "log.jsonl" for phase in PHASES) if path.is_file()]
    model = folder / "model"
    return {**record, "logs": logs, "model": str(model) if trained.is_trained(model) else None}
