"""Prompts that were read, as plain numbers on disk: one NPZ each.

Files from strangers are parsed by `reading_child` alone; a worker loads what that left and parses nothing foreign.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anyform.errors import BadInput
from anyform.types.camera import Cameras
from anyform.types.prompt import Audio, Image, Points, Prompt, Sketch, Views, Voxels


def write_prompt(prompt: Prompt, path: Path) -> None:
    """Store the arrays of a prompt that was read (not Text) as an NPZ of plain numbers."""
    if isinstance(prompt, Image):
        arrays: dict[str, Any] = {"rgba": prompt.rgba}
    elif isinstance(prompt, Sketch):
        arrays = {"ink": prompt.ink}
    elif isinstance(prompt, Audio):
        arrays = {"samples": prompt.samples, "sample_rate": np.array(prompt.sample_rate)}
    elif isinstance(prompt, Points):
        arrays = {"points": prompt.points, "colors": prompt.colors}
    elif isinstance(prompt, Voxels):
        arrays = {"occupancy": prompt.occupancy, "colors": prompt.colors}
    elif isinstance(prompt, Views):
        arrays = {
            "pixels": prompt.pixels,
            "camera_to_world": prompt.cameras.camera_to_world,
            "fov_y": prompt.cameras.fov_y,
            "view_ids": None if prompt.view_ids is None else np.array(prompt.view_ids),
        }
    else:
        raise BadInput(f"a prompt of type {type(prompt).__name__} has no arrays to store")
    with path.open("wb") as file:
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})


def read_prompt(path: Path, kind: str) -> Prompt:
    """The prompt that `write_prompt` stored; kind: a key of KINDS but text."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    if kind == "image":
        return Image(arrays["rgba"])
    if kind == "sketch":
        return Sketch(arrays["ink"])
    if kind == "audio":
        return Audio(arrays["samples"], int(arrays["sample_rate"]))
    if kind == "points":
        return Points(arrays["points"], arrays.get("colors"))
    if kind == "voxels":
        return Voxels(arrays["occupancy"], arrays.get("colors"))
    height, width = arrays["pixels"].shape[1:3]
    cameras = Cameras(arrays["camera_to_world"], arrays["fov_y"], height, width)
    ids = tuple(int(one) for one in arrays["view_ids"]) if "view_ids" in arrays else None
    return Views("rgb" if kind == "views" else "depth", arrays["pixels"], cameras, ids)
