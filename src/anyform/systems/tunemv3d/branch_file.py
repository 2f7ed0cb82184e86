"""A branch on disk: one safetensors file with what was trained, its sizes, and the foundation it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from anyform.configuration import apply
from anyform.errors import BadSetting, WeightsError
from anyform.nn.int8 import dequantise, quantise
from anyform.systems.tunemv3d.config import BranchConfig
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundation import Foundation, require_same
from anyform.weights import read_header, read_safetensors

FORMAT = "anyform tunemv3d branch 1"
_PRECISE = ("latent_neus.field.sharpness",)  # in the exponent of an exponent


def write_branch(
    path: Path, branch: ControlBranch, foundation: Foundation, metadata: Mapping[str, str], *, small: bool = False
) -> None:
    """Write the file whole; weights as float16, or large matrices as int8 where it has to be `small`.

    metadata: licence, commercial_use, recipe, measured figures.
    """
    state = {name: value.cpu().contiguous() for name, value in branch.state_dict().items()}
    precise = {name: state.pop(name) for name in _PRECISE}
    state = quantise(state) if small else {name: value.to(torch.float16) for name, value in state.items()}
    state |= precise
    described = {
        "format": FORMAT,
        "config": json.dumps(asdict(branch.config), sort_keys=True),
        "foundation": json.dumps(foundation.fingerprint(), sort_keys=True),
        **metadata,
    }
    partial = path.with_name(f"{path.name}.partial")
    save_file(state, partial, described)
    partial.replace(path)


def describe_branch(path: Path) -> tuple[BranchConfig, dict[str, str]]:
    """Sizes of a branch and the fingerprint of its foundation, without its weights. Raises WeightsError."""
    _, metadata = read_header(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path.name!r} is no branch of TuneMV3D (format {metadata.get('format')!r})")
    try:
        config = apply(BranchConfig(), json.loads(metadata["config"]))
        recorded = json.loads(metadata["foundation"])
    except (KeyError, ValueError, BadSetting) as error:
        raise WeightsError(f"{path.name!r} does not say what it is: {error}") from error
    if not isinstance(recorded, dict):
        raise WeightsError(f"{path.name!r} does not say which foundation it was trained for")
    return config, {str(key): str(value) for key, value in recorded.items()}


def read_branch(path: Path, foundation: Foundation) -> ControlBranch:
    """The branch, ready to sample. Raises WeightsError for a damaged file or another foundation than its own."""
    config, recorded = describe_branch(path)
    require_same(recorded, foundation)
    tensors, _ = read_safetensors(path)
    branch = ControlBranch(foundation, config)
    try:
        branch.load_state_dict(dequantise(tensors))
    except RuntimeError as error:
        raise WeightsError(f"{path.name!r} does not hold the weights that its own sizes ask for: damaged") from error
    return branch.eval().requires_grad_(False)
