"""Weights -> a `Wala`: the embedded files of the package, the folder of a run, or a released checkpoint."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyform import device as devices
from anyform.diffusion.schedule import cosine
from anyform.errors import WeightsError
from anyform.geometry.asset import WeightsRecord
from anyform.systems.wala import checkpoint, trained
from anyform.systems.wala.codec import CodecConfig, ShapeCodec
from anyform.systems.wala.conditioning import EmbeddedConditions
from anyform.systems.wala.conditions_released import ReleasedConditionConfig, ReleasedConditions
from anyform.systems.wala.config import WalaSettings
from anyform.systems.wala.denoiser import UVitDenoiser
from anyform.systems.wala.lifting import turn
from anyform.systems.wala.released_shapes import ReleasedConfig
from anyform.systems.wala.retrieval import Index
from anyform.systems.wala.system import EmbeddedWala, Recommended, Wala
from anyform.systems.wala.training_denoiser import Denoiser
from anyform.types.progress import Progress, Report
from anyform.types.prompt import Image, Points, Prompt, Sketch, Text, Views, Voxels
from anyform.weights import RELEASED, embedded_file, embedded_index, published_as, resolve, sha256

FRONT_END = "mvdream"  # the folder inside a multi-view checkpoint's that holds what makes it read text


@lru_cache(maxsize=1)
def _embedded_parts() -> tuple[ShapeCodec, Denoiser, Index]:
    """The shipped networks, read once a process."""
    return *trained.read_embedded(embedded_file("wala")), Index.load()


def embedded(settings: WalaSettings) -> EmbeddedWala:
    """The model that comes with the package, on the CPU."""
    records = tuple(_record(name) for name in ("wala", "retrieval", "text", "paint"))
    return _assemble(*_embedded_parts(), settings, records)


def of_run(folder: Path, settings: WalaSettings) -> EmbeddedWala:
    """A model trained here (`trained.write`), on the CPU; text and colours are read by what the package ships."""
    record = WeightsRecord(
        id=f"{folder.name}/{trained.WEIGHTS}",
        sha256=sha256(folder / trained.WEIGHTS),
        licence="unknown: a local run",
        commercial_use="unknown",
    )
    records = (record, *(_record(name) for name in ("text", "paint")))
    return _assemble(*trained.read(folder), Index.load(folder / trained.INDEX), settings, records)


def _assemble(
    codec: ShapeCodec, denoiser: Denoiser, index: Index, settings: WalaSettings, records: tuple[WeightsRecord, ...]
) -> EmbeddedWala:
    """The networks, with retrieval and reading of prompts around them."""

    def latent_of(codes: Tensor, quarters: int) -> Tensor:
        latent = codec.vqvae.codebook.lookup(codes, codec.config.vqvae.latent_size)
        if quarters:  # the encoder does not commute with turning, so the shape itself is turned
            sdf = turn(codec.decode(latent).numpy(), quarters)
            latent = codec.encode(torch.from_numpy(np.ascontiguousarray(sdf)))
        return codec.standardise(latent)

    conditions = EmbeddedConditions(denoiser.prompts, index, latent_of, codec.encode_standardised)
    return EmbeddedWala(
        codec, UVitDenoiser(denoiser.uvit, cosine(1000)), conditions, settings, records, EmbeddedConditions.accepts
    )


def _record(name: str) -> WeightsRecord:
    entry = embedded_index()[name]
    return WeightsRecord(f"anyform/{name}", entry["sha256"], entry["licence"], entry["commercial_use"])


def released(weights: str | Path, device: str, settings: WalaSettings) -> Wala:
    """A checkpoint in the published or the converted layout, on `device`; colours stay off unless asked for.

    Raises OutOfMemory before reading it where it would not fit.
    """
    path, chosen = resolve(weights), devices.choose(device)
    wanted = settings.precision
    is_fast = wanted == "bfloat16" or (wanted == "auto" and chosen.autocast == "bfloat16")
    parts = checkpoint.load(path, plan=checkpoint.Plan(chosen.name, is_fast))
    if parts.conditions is None:
        raise WeightsError("this checkpoint is unconditional: it reads no prompt, so there is nothing to generate from")
    config = parts.config
    codec = ShapeCodec(CodecConfig(size=config.sdf_size, padding=config.padding, vqvae=config.vqvae))
    codec.vqvae = parts.vqvae
    codec.to(chosen.torch_device())
    denoiser = UVitDenoiser(parts.network, cosine(config.num_timesteps))
    record = released_record(weights, path)
    wala = Wala(codec, denoiser, parts.conditions, settings, (record,), _accepted(parts.conditions.config))
    wala.recommended = recommended(config)
    front_end = path / FRONT_END if path.is_dir() else path
    return _with_text(wala, front_end, FRONT_END, chosen, is_fast) if front_end.is_dir() else wala


def released_text(name: str, device: str, settings: WalaSettings) -> Wala:
    """A released text front end by its id, before the 3D model that it needs."""
    (needed,) = RELEASED[name].needs
    chosen, path = devices.choose(device), resolve(name)
    is_fast = settings.precision != "float32" and chosen.autocast == "bfloat16"
    return _with_text(released(needed, device, settings), path, name, chosen, is_fast)


def _with_text(wala: Wala, path: Path, name: str, chosen: devices.Device, is_fast: bool) -> Wala:
    """The multi-view model behind the MVDream in the folder `path`; that network is in memory only while it draws."""
    from anyform.priors import mvdream
    from anyform.systems.wala.multiview_text import TextWala

    is_depth = isinstance(wala.conditions, ReleasedConditions) and wala.conditions.config.is_depth
    cameras = mvdream.camera_vectors(mvdream.DEPTH_VIEWS if is_depth else mvdream.COLOUR_VIEWS)
    dtype = torch.bfloat16 if is_fast and chosen.name != "cpu" else torch.float32  # its convolutions gain nothing there
    steps = wala.settings.front_end_steps

    def draw(prompt: Text, seed: int, report: Report) -> NDArray[np.uint8]:
        report(Progress("draw views", message="loading MVDream"))
        model = mvdream.load(path, device=chosen.name, dtype=dtype)
        return model.draw(prompt.text, cameras, seed=seed, num_inference_steps=steps, report=report)

    return TextWala.behind(wala, draw, released_record(name, path))


def recommended(config: ReleasedConfig) -> Recommended:
    """Guidance and steps as published for each model; the variance is the checkpoint's own (specs/wala.md §6.2)."""
    condition = config.condition
    guidance, steps = 1.8, 5  # one picture, one depth map
    if condition is not None and condition.kind == "points":
        guidance, steps = 1.3, 8
    elif condition is not None and condition.kind == "voxels":
        guidance, steps = 1.5, 5
    elif condition is not None and condition.num_views > 1:
        guidance, steps = (1.5, 10) if condition.num_views == 6 else (1.3, 5)
    return Recommended(guidance_scale=guidance, num_inference_steps=steps, variance=config.variance)


def released_record(weights: str | Path, path: Path) -> WeightsRecord:
    """What the asset says about a checkpoint: its id, hash and licence. path: its folder or file."""
    row = RELEASED.get(str(weights)) or published_as(path)
    file = path / checkpoint.CHECKPOINT if path.is_dir() else path
    if not file.is_file():
        file = path / "net.safetensors"
    return WeightsRecord(
        id=row.id if row else Path(weights).name,
        sha256=sha256(file),
        licence=row.licence if row else "unknown: a local checkpoint",
        commercial_use=row.commercial_use if row else "unknown",
    )


def _accepted(config: ReleasedConditionConfig) -> tuple[type[Prompt], ...]:
    """The prompt types that a released model's encoder reads."""
    if config.kind == "points":
        return (Points,)
    if config.kind == "voxels":
        return (Voxels,)
    if config.num_views > 1 or config.is_depth:
        return (Views,)
    return (Image, Sketch)
