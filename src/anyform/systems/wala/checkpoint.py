"""Released WaLa on disk: `checkpoint.ckpt` + `args.json` as published, or the folder that `convert` makes of them.

A converted folder holds `vq.safetensors`, `net.safetensors`, `cond.safetensors` with the names of our modules, and
`config.json`. Reading is strict both ways: nothing may be missing, nothing left over, every shape as configured.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from anyform.encoders.dinov2 import Dinov2, Dinov2Config
from anyform.encoders.pointnet import PointNetConfig
from anyform.encoders.voxels import VoxelEncoderConfig
from anyform.errors import BadInput, WeightsError
from anyform.systems.wala.conditions_released import ReleasedConditionConfig, ReleasedConditions
from anyform.systems.wala.released_keys import (
    CONDITION_KEYS,
    IGNORED,
    UVIT_KEYS,
    VQVAE_KEYS,
    WHAT,
    released_names,
)
from anyform.systems.wala.released_shapes import ReleasedConfig, infer, read_args
from anyform.systems.wala.uvit import UVit, UVitConfig
from anyform.systems.wala.vqvae import VQVAE, VQVAEConfig
from anyform.weights import Tensors, memory, open_tensors, write_safetensors
from anyform.weights.filling import check_complete, fill
from anyform.weights.released import WALA_WORKING_BYTES
from anyform.weights.stream import code_of

CHECKPOINT, ARGS, CONFIG = "checkpoint.ckpt", "args.json", "config.json"
_FORMAT = "anyform released wala 1"
_ENCODERS = (Dinov2Config, PointNetConfig, VoxelEncoderConfig)

WhichWeights = Literal["state_dict", "ema"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the weights go, and in which formats. fast: large matrices in bfloat16, the rest float32."""

    device: str = "cpu"
    fast: bool = False


PLAIN = Plan()


@dataclass(frozen=True, slots=True, eq=False)
class ReleasedWala:
    """The networks of one checkpoint, in evaluation mode; an unconditional one has no `conditions`."""

    config: ReleasedConfig
    vqvae: VQVAE
    network: UVit
    conditions: ReleasedConditions | None

    def parts(self) -> dict[str, nn.Module]:
        """File stem in a converted folder -> module."""
        networks = {"vq": self.vqvae, "net": self.network}
        return networks if self.conditions is None else {**networks, "cond": self.conditions}


def is_released(path: Path) -> bool:
    """True for a folder in the published or the converted layout, or a `.ckpt` file."""
    if path.is_dir():
        return (path / CHECKPOINT).is_file() or _is_converted(path)
    return path.suffix == ".ckpt"


def load(path: Path, weights: WhichWeights = "state_dict", *, plan: Plan = PLAIN) -> ReleasedWala:
    """A published folder, its `.ckpt` file, or a converted folder; tensors stream straight to where `plan` wants them.

    weights: "ema" takes the averaged weights that some checkpoints also hold; the published loader does not use them. A
    converted folder holds the one that was chosen then. Raises WeightsError, and loads nothing, for any disagreement.
    """
    if _is_converted(path):
        return _load_converted(path, plan)
    checkpoint = path / CHECKPOINT if path.is_dir() else path
    args = read_args(checkpoint.with_name(ARGS))
    file = open_tensors(checkpoint)
    tensors = file.renamed(select(file, weights))
    return assemble(tensors, infer(tensors, args), plan)


def select(names: Iterable[str], weights: WhichWeights) -> dict[str, str]:
    """Released name -> name in the checkpoint, of the state that was asked for, without its wrappers' prefixes.

    names: joined by dots, as `open_tensors` gives them, or those of a bare state dict.
    """
    prefix = {"state_dict": "state_dict.", "ema": "state_dict_ema.module."}[weights]
    present = list(names)
    chosen = {name[len(prefix) :]: name for name in present if name.startswith(prefix)}
    if not chosen and weights == "state_dict":
        chosen = {name: name for name in present}
    if not chosen:
        raise WeightsError("this checkpoint holds no EMA weights (state_dict_ema): load it with weights 'state_dict'")
    return {name.replace("_orig_mod.", ""): old for name, old in chosen.items()}


def assemble(tensors: Tensors, config: ReleasedConfig, plan: Plan = PLAIN) -> ReleasedWala:
    """Build the networks and fill them from tensors under their released names; strict."""
    model = _empty(config, plan)
    tables = {"vq": (VQVAE_KEYS, "autoencoder."), "net": (UVIT_KEYS, "network.")}
    if config.condition is not None:
        tables["cond"] = (CONDITION_KEYS[config.condition.kind], "")
    names = {part: released_names(module, *tables[part]) for part, module in model.parts().items()}
    wanted = (name for part in names.values() for name in part.values())
    check_complete(wanted, tensors, ignored=IGNORED, what=WHAT)
    for part, module in model.parts().items():
        fill(module, tensors, names[part], plan.device, what=WHAT)
        module.eval().requires_grad_(False)
    return model


def convert(path: Path, out: Path, *, weights: WhichWeights = "state_dict", dtype: torch.dtype = torch.float32) -> Path:
    """Write a published checkpoint as a converted folder `out`, which must not exist yet; all of it or nothing."""
    if out.exists():
        raise BadInput(f"{out.name!r} exists: choose another folder")
    model = load(path, weights)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{out.name}.", suffix=".partial", dir=out.parent) as folder:
            for part, module in model.parts().items():
                state = module.state_dict()
                table = {name: (code_of(dtype), tuple(value.shape)) for name, value in state.items()}
                write_safetensors(Path(folder) / f"{part}.safetensors", table, lambda name, s=state: s[name].to(dtype))
            text = json.dumps({"format": _FORMAT, **dataclasses.asdict(model.config)}, indent=1)
            (Path(folder) / CONFIG).write_text(text, encoding="utf-8")
            Path(folder).chmod(0o755)
            return Path(folder).rename(out)
    except OSError as error:
        raise BadInput(f"{out.name!r} cannot be written: {error.strerror}") from error


def _is_converted(path: Path) -> bool:
    return path.is_dir() and all((path / name).is_file() for name in (CONFIG, "vq.safetensors", "net.safetensors"))


def _load_converted(folder: Path, plan: Plan) -> ReleasedWala:
    config = _read_config(read_args(folder / CONFIG))
    model = _empty(config, plan)
    for part, module in model.parts().items():
        tensors = open_tensors(folder / f"{part}.safetensors")
        own = {name: name for name in module.state_dict()}
        check_complete(own, tensors, ignored=IGNORED, what=WHAT)
        fill(module, tensors, own, plan.device, what=WHAT)
        module.eval().requires_grad_(False)
    return model


def _empty(config: ReleasedConfig, plan: Plan) -> ReleasedWala:
    """The networks without memory for their weights, in the number formats of the plan.

    Raises OutOfMemory where they could not be filled and run on the plan's device.
    """
    with torch.device("meta"):
        conditions = None if config.condition is None else ReleasedConditions(config.condition)
        model = ReleasedWala(config, VQVAE(config.vqvae), UVit(config.uvit), conditions)
    if plan.fast:
        model.network.narrow()
        encoder = None if conditions is None else conditions.encoder
        for module in encoder.blocks.modules() if isinstance(encoder, Dinov2) else ():
            if isinstance(module, nn.Linear):  # points and voxels are read by small networks, which stay float32
                module.to(torch.bfloat16)
    memory.require(needed_bytes(model), plan.device, "this WaLa model")
    return model


def needed_bytes(model: ReleasedWala) -> int:
    """Peak memory of loading and running it: its weights, and what sampling and decoding were measured to add."""
    stored = (value for module in model.parts().values() for value in module.state_dict().values())
    cells = (model.config.sdf_size / 256) ** 3
    return sum(value.numel() * value.element_size() for value in stored) + round(WALA_WORKING_BYTES * cells)


def _read_config(fields: dict[str, Any]) -> ReleasedConfig:
    """The inverse of `dataclasses.asdict` on `ReleasedConfig`."""
    if fields.pop("format", None) != _FORMAT:
        raise WeightsError(f"config.json is not of the format {_FORMAT!r}: convert the checkpoint again")
    try:
        condition = fields.pop("condition")
        return ReleasedConfig(
            vqvae=VQVAEConfig(**_tuples(fields.pop("vqvae"))),
            uvit=UVitConfig(**fields.pop("uvit")),
            condition=None if condition is None else _read_condition(condition),
            **fields,
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"config.json does not describe a WaLa model ({error}): convert the checkpoint again"
        ) from error


def _read_condition(fields: dict[str, Any]) -> ReleasedConditionConfig:
    encoder = _tuples(fields.pop("encoder"))
    for config in _ENCODERS:
        if set(encoder) == {field.name for field in dataclasses.fields(config)}:
            return ReleasedConditionConfig(encoder=config(**encoder), **_tuples(fields))
    raise WeightsError("config.json names no known encoder: convert the checkpoint again")


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON lists back as the tuples they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
