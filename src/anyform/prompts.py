"""What a user may pass for a prompt: text, a path, an array, a picture or one of the prompt types."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

from anyform.errors import BadInput
from anyform.geometry.asset import Asset, Start
from anyform.types.prompt import Audio, Image, Points, Prompt, Sketch, Text, Views, Voxels


def as_prompt(value: object) -> Prompt | Asset | Start | list[tuple[Prompt, float]]:
    """What a user may pass for a prompt -> a prompt.

    A str is text. A Path is read by its suffix. A PIL picture or a uint8 (H, W, 3|4) array is an image, a float (N, 3)
    array points, a bool (R, R, R) array voxels. A list of (prompt, weight) with positive weights is a mix. Anything
    ambiguous (a folder: colour or depth views?) raises BadInput.
    """
    if isinstance(value, Text | Image | Audio | Sketch | Points | Voxels | Views | Asset | Start):
        return value
    if isinstance(value, str):
        return Text(value)
    if isinstance(value, Path):
        return _read_path(value)
    if isinstance(value, np.ndarray):
        return _from_array(value)
    if isinstance(value, list) and value:
        return _mix(value)
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(value, pillow.Image):
        return _from_array(np.asarray(cast(Any, value).convert("RGBA")))
    kind = type(value).__name__
    raise BadInput(f"a {kind} is no prompt: give text, a Path, an array, a picture or one of anyform's types")


def _mix(values: list[Any]) -> list[tuple[Prompt, float]]:
    mix = []
    for item in values:
        if not isinstance(item, tuple) or len(item) != 2 or isinstance(item[1], bool | str):
            raise BadInput("a mix of prompts is a list of (prompt, weight) pairs")
        prompt, weight = as_prompt(item[0]), float(item[1])
        if isinstance(prompt, list | Asset | Start) or not (np.isfinite(weight) and weight > 0):
            raise BadInput(f"each part of a mix is one prompt with a weight above 0, got weight {weight}")
        mix.append((prompt, weight))
    return mix


def _read_path(path: Path) -> Prompt:
    if path.is_dir():
        raise BadInput("a folder may hold colour or depth views: use Views.open(folder, kind='rgb') or kind='depth'")
    suffix = path.suffix.lower()
    if suffix in {".png", ".jpg", ".jpeg", ".webp"}:
        return Image.open(path)
    if suffix in {".wav", ".flac", ".ogg", ".mp3"}:
        return Audio.open(path)
    if suffix in {".ply", ".xyz", ".obj", ".stl", ".glb"}:
        return Points.open(path)
    if suffix in {".json", ".binvox", ".vox"}:
        return Voxels.open(path)
    name = path.name[:80]
    raise BadInput(f"what {name!r} holds does not follow from its name: open it with Points, Voxels, Image, …")


def _from_array(array: np.ndarray) -> Prompt:
    if array.dtype == bool and array.ndim == 3:
        return Voxels(array)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (3, 4):
        return Image.from_rgba(array)
    if np.issubdtype(array.dtype, np.floating) and array.ndim == 2 and array.shape[1] == 3:
        return Points(array.astype(np.float32))
    raise BadInput(
        f"an array of shape {array.shape} and type {array.dtype} is ambiguous: bool (R,R,R) is voxels, "
        "uint8 (H,W,3|4) an image, float (N,3) points"
    )
