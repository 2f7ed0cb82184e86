"""Diffusers folders: a subfolder a component, each with its `config.json` and one weights file; and strict filling.

Networks are built on the meta device and filled tensor by tensor, so memory stays near the model's own size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anyform.encoders import clip_towers
from anyform.errors import WeightsError
from anyform.nn import autoencoder_kl, unet2d
from anyform.weights import Tensors, open_tensors

Rename = Callable[[str], str]
Pick = Callable[[Tensor, str], Tensor]  # a tensor as stored and our name -> what our parameter gets

_FILES = tuple(
    f"{stem}{variant}.{suffix}"
    for suffix in ("safetensors", "bin")
    for stem in ("diffusion_pytorch_model", "model", "pytorch_model")
    for variant in ("", ".fp16")
)
# the names of attention in autoencoders that older versions of diffusers wrote
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_json(path: Path) -> dict[str, Any]:
    """A table of a JSON file. Raises WeightsError."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path.parent.name}/{path.name} is missing or is no JSON: {type(error).__name__}"
        ) from error
    if not isinstance(table, dict):
        raise WeightsError(f"{path.parent.name}/{path.name} holds no table")
    return table


def component_file(folder: Path) -> Path:
    """The weights file of a component, safetensors before a pickle. Raises WeightsError."""
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder.parent.name}/{folder.name} has no weights file such as {_FILES[0]}")


def fill(module: nn.Module, tensors: Tensors, theirs: Mapping[str, str], device: str, pick: Pick | None = None) -> None:
    """Give every parameter and buffer of a module on the meta device its tensor, float32; all of them or WeightsError.

    theirs: our name -> the name in `tensors`. pick: what to take of a tensor whose layout differs.
    """
    present = set(tensors)
    state, missing = {}, [name for name in module.state_dict() if theirs[name] not in present]
    if missing:
        raise WeightsError(
            f"the weights lack {len(missing)} tensors, first {theirs[missing[0]]!r}: they are of another model"
        )
    for name, target in module.state_dict().items():
        value = tensors.read(theirs[name], torch.float32, device)
        value = pick(value, name) if pick is not None else value
        if value.shape != target.shape:
            raise WeightsError(f"{theirs[name]} is {tuple(value.shape)}, this model has {tuple(target.shape)}")
        state[name] = value.contiguous()
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)


def load_unet(folder: Path, device: str) -> unet2d.UNet2D:
    """The `unet` of a diffusers folder."""
    with torch.device("meta"):
        module = unet2d.UNet2D(unet2d.config_of_diffusers(read_json(folder / "unet" / "config.json")))
    fill_exactly(module, folder / "unet", device)
    return module


def load_autoencoder(folder: Path, device: str) -> autoencoder_kl.AutoencoderKL:
    """The `vae` of a diffusers folder, of old and new versions."""
    with torch.device("meta"):
        module = autoencoder_kl.AutoencoderKL(
            autoencoder_kl.config_of_diffusers(read_json(folder / "vae" / "config.json"))
        )

    def modern(name: str) -> str:
        return ".".join(_OLD_ATTENTION.get(part, part) for part in name.split("."))

    fill_exactly(module, folder / "vae", device, modern)
    return module


def load_tower(folder: Path, device: str, *, vision: bool) -> clip_towers.VisionTower | clip_towers.TextTower:
    """The `image_encoder` or `text_encoder` of a folder."""
    config = clip_towers.config_of_transformers(read_json(folder / "config.json"), vision=vision)
    with torch.device("meta"):
        module = clip_towers.VisionTower(config) if vision else clip_towers.TextTower(config, _projects(folder))
    prefix = "vision_model." if vision else "text_model."

    def prefixed(name: str) -> str:  # transformers 5 leaves the prefix of a text tower out
        return name if name.startswith((prefix, "visual_projection.", "text_projection.")) else f"{prefix}{name}"

    fill_exactly(module, folder, device, prefixed)
    return module


def _projects(folder: Path) -> bool:
    """Whether a text encoder's file holds the projection to sentence embeddings."""
    return "text_projection.weight" in set(open_tensors(component_file(folder)))


def fill_exactly(module: nn.Module, folder: Path, device: str, rename: Rename | None = None) -> None:
    """Fill from a component's file, nothing missing and nothing left over but saved position ids."""
    tensors = open_tensors(component_file(folder))
    ours = {rename(name) if rename else name: name for name in tensors}
    fill(module, tensors, {name: ours.get(name, name) for name in module.state_dict()}, device, _flat_projection)
    known = set(module.state_dict())
    extra = [name for name in ours if name not in known and not name.endswith("position_ids")]
    if extra:
        raise WeightsError(f"{folder.name} holds {len(extra)} tensors that its config has no place for: {extra[0]!r}")


def _flat_projection(value: Tensor, name: str) -> Tensor:
    """A 1×1 convolution stored for a Linear (attention of autoencoders)."""
    return value[:, :, 0, 0] if value.ndim == 4 and value.shape[2:] == (1, 1) and ".attentions.0.to_" in name else value
