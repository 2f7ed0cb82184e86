"""The folder of a model trained here: `wala.safetensors`, `retrieval.safetensors` and `config.json`.

Weights are float16 but for what is small and decides which code a latent snaps to. Reading is strict both ways.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from anyform.configuration import apply
from anyform.errors import BadSetting, WeightsError
from anyform.systems.wala.codec import CodecConfig, ShapeCodec
from anyform.systems.wala.conditions import PromptEncoderConfig
from anyform.systems.wala.training_denoiser import Denoiser
from anyform.systems.wala.uvit import UVitConfig
from anyform.training.run_folder import write_json
from anyform.weights import read_safetensors

WEIGHTS, INDEX, CONFIG = "wala.safetensors", "retrieval.safetensors", "config.json"
_FORMAT = "anyform trained wala 1"
_PRECISE = ("codec.mean", "codec.spread", "codec.latent_", "codec.vqvae.codebook")


def packed(codec: Mapping[str, Tensor], denoiser: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both networks' states under one set of names, in the precision they are stored in."""
    tensors = {f"codec.{key}": value for key, value in codec.items()}
    tensors |= {f"denoiser.{key}": value for key, value in denoiser.items()}
    return {
        key: (value if key.startswith(_PRECISE) else value.to(torch.float16)).contiguous()
        for key, value in tensors.items()
    }


def write(folder: Path, codec: ShapeCodec, denoiser: Denoiser, index: Path, metadata: Mapping[str, str]) -> None:
    """Write the folder, each file whole; `config.json` comes last and makes it loadable."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    partial = folder / f"{WEIGHTS}.partial"
    save_file(packed(codec.cpu().state_dict(), denoiser.cpu().state_dict()), partial, dict(metadata))
    partial.replace(folder / WEIGHTS)
    copy = folder / f"{INDEX}.partial"
    shutil.copyfile(index, copy)
    copy.replace(folder / INDEX)
    parts = configuration_of(codec.config, denoiser.prompts.config, denoiser.uvit.config)
    write_json(folder / CONFIG, {"format": _FORMAT, **parts})


def is_trained(path: Path) -> bool:
    """Whether `path` is a folder that `write` made."""
    try:
        return all((path / name).is_file() for name in (WEIGHTS, INDEX, CONFIG))
    except OSError:  # a name that no file can have; `weights.resolve` says so in a sentence
        return False


def read(folder: Path) -> tuple[ShapeCodec, Denoiser]:
    """The networks of a folder. Raises WeightsError where they do not fit its config.json."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config["format"] != _FORMAT:
            raise WeightsError(f"config.json is not of the format {_FORMAT!r}: train or pack the model again")
        networks = _networks(config)
    except (BadSetting, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"config.json in {folder.name} describes no trained WaLa: {error}") from error
    return fill(folder / WEIGHTS, *networks)


def configuration_of(codec: CodecConfig, prompts: PromptEncoderConfig, uvit: UVitConfig) -> dict[str, Any]:
    """What `_networks` builds from, as JSON can hold it."""
    return {"codec": asdict(codec), "prompts": asdict(prompts), "uvit": asdict(uvit)}


def _networks(config: Mapping[str, Any]) -> tuple[ShapeCodec, Denoiser]:
    """Untrained networks of a stored configuration."""
    prompts, uvit = apply(PromptEncoderConfig(), config["prompts"]), apply(UVitConfig(), config["uvit"])
    return ShapeCodec(apply(CodecConfig(), config["codec"])), Denoiser(uvit, prompts)


def read_embedded(path: Path) -> tuple[ShapeCodec, Denoiser]:
    """The networks that come with the package."""
    _, metadata = read_safetensors(path)
    return fill(path, *_networks(json.loads(metadata["config"])))


def fill(path: Path, codec: ShapeCodec, denoiser: Denoiser) -> tuple[ShapeCodec, Denoiser]:
    """Weights of a file into both networks, ready to use. Raises WeightsError where one is missing or left over."""
    tensors, _ = read_safetensors(path)
    for name, module in (("codec", codec), ("denoiser", denoiser)):
        part = {key.removeprefix(f"{name}."): value.float() for key, value in tensors.items() if key.startswith(name)}
        try:
            module.load_state_dict(part)
        except RuntimeError as error:
            raise WeightsError(
                f"{path.parent.name}/{path.name} does not fit this version or its config.json: install or pack it again"
            ) from error
        module.eval().requires_grad_(False)
    return codec, denoiser


def describe(config: Any) -> dict[str, Any]:
    """A configuration as it reads back from JSON."""
    return json.loads(json.dumps(asdict(config)))
