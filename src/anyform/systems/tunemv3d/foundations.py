"""Where foundations come from: the embedded prior, a weights file of its recipe, or a diffusers folder (§7).

A folder is read by the class that its `model_index.json` names. Nothing is downloaded here that the user did not name;
what a licence demands is shown by `weights.resolve` before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyform.diffusion.prior import Prior
from anyform.diffusion.schedule import NoiseSchedule, cosine, scaled_linear
from anyform.encoders import embedded as encoders
from anyform.errors import MissingDependency, WeightsError
from anyform.geometry.asset import WeightsRecord
from anyform.priors import embedded
from anyform.priors.denoiser import UNetDenoiser
from anyform.systems.tunemv3d.foundation import Caption, Foundation, FoundationSpec, PixelCodec
from anyform.systems.tunemv3d.foundation_unet import UNetBackbone
from anyform.weights import embedded_index, resolve, sha256

EMBEDDED_GUIDANCE = 4.0  # §6.1: 4 to 5 for small foundations


RANDOM = "random"  # a tiny network nobody trained, to try the whole chain without weights; its pictures are noise


def load_foundation(place: str | Path | None, device: str = "cpu") -> Foundation:
    """The foundation at `place`: None = embedded, a weights file of `runs/embedded_foundation.py`, a diffusers folder,
    a released id, or "random". Raises WeightsError where there is none, MissingDependency for diffusers."""
    if str(place) == RANDOM:
        return random_foundation(device)
    if place is None or str(place) == "embedded":
        return embedded_foundation(None, str(embedded_index().get("foundation", {}).get("sha256", "")), device)
    path = resolve(place)
    if path.is_file():
        return embedded_foundation(path, sha256(path), device)
    return diffusers_foundation(path, str(place), device)


def embedded_foundation(weights: Path | None, digest: str, device: str = "cpu") -> Foundation:
    """The embedded 2D prior as a foundation: pictures 64² that its network sees folded by 2. digest: of the weights."""
    prior = embedded.foundation(weights, device=device)
    config = embedded.load_network("foundation", weights).config
    sale = "yes" if weights is None else "unknown"
    record = WeightsRecord("anyform/foundation" if weights is None else weights.name, digest, prior.licence, sale)
    return _of_prior(prior, config, "anyform/foundation", record)


def random_foundation(device: str = "cpu") -> Foundation:
    """16² pictures by an untrained network, the same numbers every time."""
    config = embedded.PriorConfig(
        image_size=16, widths=(16, 16), attends=(False, True), heads=(2, 2), groups=8, token_width=16, joint=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = embedded.PriorNetwork(config).eval().requires_grad_(False).to(device)

    def read_text(text: str) -> Tensor:
        return encoders.load().text([text])[1][0]

    record = WeightsRecord("none: a random foundation", "", "CC0-1.0", "yes")
    return _of_prior(embedded.foundation_of(network, read_text), config, RANDOM, record)


def _of_prior(prior: Prior, config: embedded.PriorConfig, name: str, record: WeightsRecord) -> Foundation:
    """A prior of `priors.embedded` seen as whole pictures, which the backbone folds."""
    denoiser = prior.denoiser
    if not isinstance(denoiser, UNetDenoiser):
        raise WeightsError(f"{name} is no U-Net: a branch cannot be tuned on it")

    @torch.no_grad()
    def captions(texts: Sequence[str]) -> Caption:
        found = [prior.condition(text=text) for text in texts]
        tokens, labels = [one.tokens for one in found], [one.labels for one in found]
        return Caption(
            torch.cat([one for one in tokens if one is not None]),
            {"labels": torch.cat([one for one in labels if one is not None])},
        )

    return Foundation(
        spec=FoundationSpec(
            id=name,
            revision=record.sha256[:16],
            kind="pixel",
            channels=3,
            size=config.image_size,
            picture_size=config.image_size,
            packing=config.fold,
            reading="v",
            token_width=config.token_width,
            background=(1.0, 1.0, 1.0),
            guidance_scale=EMBEDDED_GUIDANCE,
            thresholding=0.995,
            licence=prior.licence,
            commercial_use=record.commercial_use,
        ),
        backbone=UNetBackbone(denoiser.unet),
        schedule=prior.schedule,
        codec=PixelCodec(),
        captions=captions,
        records=(record,),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is known of a kind of diffusers folder. licence and commercial_use: of the outputs."""

    kind: str
    guidance_scale: float
    thresholding: float | None
    licence: str
    commercial_use: str


# Literal table (specs/tunemv3d.md §7): pipeline class of model_index.json -> family.
FAMILIES: dict[str, Family] = {
    "IFPipeline": Family(
        kind="pixel", guidance_scale=7.0, thresholding=0.95,
        licence="DeepFloyd IF License (non-commercial research; covers what it makes)", commercial_use="no",
    ),
    "StableDiffusionPipeline": Family(
        kind="latent", guidance_scale=7.5, thresholding=None,
        licence="CreativeML OpenRAIL-M", commercial_use="yes",
    ),
}  # fmt: skip


def diffusers_foundation(folder: Path, name: str, device: str = "cpu") -> Foundation:
    """A folder as diffusers saves pipelines, of one of FAMILIES. Raises WeightsError for another.

    The networks are those of the folder, frozen and unchanged; schedules are taken from its scheduler's betas, of which
    the variance type is ignored: a learned variance is cut off (§6.1).
    """
    from anyform.systems.tunemv3d.foundation_diffusers import DiffusersBackbone, latent_codec, load_unet
    from anyform.systems.tunemv3d.foundation_text import text_reader

    index = _json(folder / "model_index.json")
    family = FAMILIES.get(str(index.get("_class_name")))
    if family is None:
        raise WeightsError(
            f"{folder.name} holds a {str(index.get('_class_name'))[:40]}, which is no foundation that is known:"
            f" there are {', '.join(FAMILIES)}"
        )
    if find_spec("diffusers") is None:
        raise MissingDependency("diffusers", extra="foundations")
    network = load_unet(folder / "unet").to(device)
    config = network.config
    tokens, captions = text_reader(folder, str(index["_class_name"]), device)
    codec, background, scale = (
        (PixelCodec(), (1.0,) * config.in_channels, 1) if family.kind == "pixel" else latent_codec(folder, device)
    )
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    return Foundation(
        spec=FoundationSpec(
            id=name,
            revision=_digest(folder / "unet")[:16],
            kind="pixel" if family.kind == "pixel" else "latent",
            channels=config.in_channels,
            size=config.sample_size,
            picture_size=config.sample_size * scale,
            reading=READINGS[str(scheduler.get("prediction_type", "epsilon"))],
            token_width=tokens,
            background=background,
            guidance_scale=family.guidance_scale,
            thresholding=family.thresholding,
            licence=family.licence,
            commercial_use=family.commercial_use,
        ),
        backbone=DiffusersBackbone(network),
        schedule=schedule_of(scheduler),
        codec=codec,
        captions=captions,
        records=(WeightsRecord(name, _digest(folder / "unet"), family.licence, family.commercial_use),),
    )


READINGS: dict[str, Any] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


def schedule_of(table: dict[str, Any]) -> NoiseSchedule:
    """The betas of a diffusers scheduler_config.json. Raises WeightsError for a schedule that is not known."""
    kind, steps = table.get("beta_schedule", "linear"), int(table.get("num_train_timesteps", 1000))
    start, end = float(table.get("beta_start", 1e-4)), float(table.get("beta_end", 0.02))
    if kind == "squaredcos_cap_v2":
        return cosine(steps)
    if kind == "scaled_linear":
        return scaled_linear(start, end, steps)
    if kind == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float64)
        return NoiseSchedule(betas, torch.cumprod(1 - betas, 0))
    raise WeightsError(
        f"the schedule {str(kind)[:40]!r} is not known: there are linear, scaled_linear, squaredcos_cap_v2"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path.parent.name} has no readable {path.name}: it is no diffusers folder") from error
    if not isinstance(table, dict):
        raise WeightsError(f"{path.name} in {path.parent.name} is no table: it is no diffusers folder")
    return table


def _digest(folder: Path) -> str:
    """SHA-256 of a network's safetensors, of the first shard where there are several."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder.name} holds no safetensors: convert its weights first")
    return sha256(files[0])
