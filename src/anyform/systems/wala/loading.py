"""Weights -> a `Wala`: the embedded files of the package, the folder of a run, or a released checkpoint."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anyform import device as devices
from anyform.diffusion.schedule import cosine
from anyform.errors import WeightsError
from anyform.geometry.asset import WeightsRecord
from anyform.systems.wala import checkpoint, trained
from anyform.systems.wala.codec import CodecConfig, ShapeCodec
from anyform.systems.wala.conditioning import EmbeddedConditions
from anyform.systems.wala.conditions_released import ReleasedConditionConfig
from anyform.systems.wala.config import WalaSettings
from anyform.systems.wala.denoiser import UVitDenoiser
from anyform.systems.wala.lifting import turn
from anyform.systems.wala.retrieval import Index
from anyform.systems.wala.system import EmbeddedWala, Wala
from anyform.systems.wala.training_denoiser import Denoiser
from anyform.types.prompt import Image, Points, Prompt, Sketch, Views, Voxels
from anyform.weights import RELEASED, embedded_file, embedded_index, published_as, resolve, sha256


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
    return Wala(codec, denoiser, parts.conditions, settings, (record,), _accepted(parts.conditions.config))


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
