"""`make demo`: one asset from every kind of prompt, exactly as a user would make it, and a contact sheet of them all.

    python runs/demo.py out

Every line of PROMPTS is a command; it is printed, run, and its mesh drawn from three sides. A prompt that fails is
named with its reason, the others still run, and the exit code is that of the first failure.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anyform.geometry.formats import read_mesh
from anyform.render.shading import Picture, contact_sheet, framed, picture
from anyform.types.camera import Cameras
from anyform.types.prompt import Points, Voxels

FIXTURES = Path("fixtures")
# label, what the user types, file
PROMPTS = (
    ("a wooden chair", ('"a wooden chair"',), "chair.glb"),
    ("a red mug", ('"a red mug"',), "mug.glb"),
    ("image", ("--image", "fixtures/image.png"), "image.glb"),
    ("image, plain background", ("--image", "fixtures/image_plain.png"), "image_plain.glb"),
    ("sketch", ("--sketch", "fixtures/sketch.png"), "sketch.glb"),
    ("points", ("--points", "fixtures/points.ply"), "points.glb"),
    ("voxels", ("--voxels", "fixtures/voxels.json"), "voxels.glb"),
    ("views", ("--views", "fixtures/views"), "views.glb"),
    ("depths", ("--depths", "fixtures/depths"), "depths.glb"),
)
SIZE = 224
AZIMUTHS = np.radians([0.0, 35.0, 145.0])
TITLES = ("prompt", "front", "from the right", "from behind")


@dataclass(frozen=True, kw_only=True)
class Made:
    """One prompt's outcome. record: what `--json` printed."""

    label: str
    file: Path
    exit_code: int
    record: dict[str, Any]

    def row(self) -> str:
        """One line of the table."""
        if self.exit_code:
            return f"{self.label:<26}failed with exit code {self.exit_code}"
        record = self.record
        return f"{self.label:<26}{record['seconds']:>7.1f} s{record['faces']:>9} faces   {self.file}"


def make(label: str, arguments: tuple[str, ...], file: Path) -> Made:
    """Run one command line in a process of its own, as a user would; progress and errors go to the terminal."""
    typed = f"generate {' '.join(arguments)} -o {shlex.quote(str(file))} --seed 0 --force"
    print(f"\n$ anyform {typed}", flush=True)
    command = [sys.executable, "-m", "anyform", *shlex.split(typed), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    record = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    return Made(label=label, file=file, exit_code=done.returncode, record=record)


def prompt_picture(arguments: tuple[str, ...]) -> Picture | None:
    """What the prompt looks like: the picture itself, the first of several, dots for points and voxels."""
    if len(arguments) == 1:
        return None
    path = Path(arguments[1])
    if arguments[0] == "--points":
        points = Points.open(path)
        return dots(points.points, points.colors, 1)
    if arguments[0] == "--voxels":
        voxels = Voxels.open(path)
        full = np.argwhere(voxels.occupancy)
        return dots(full.astype(np.float32), None if voxels.colors is None else voxels.colors[tuple(full.T)], 5)
    file = min(path.glob("*.png")) if path.is_dir() else path
    with Image.open(file) as image:
        if image.mode.startswith("I"):  # 16-bit depth: near is dark, the background white
            depth = np.asarray(image, np.float64)
            seen = depth > 0
            grey = (depth - depth[seen].min()) / (np.ptp(depth[seen]) or 1) * 200
            return np.repeat(np.where(seen, grey, 255)[..., None], 3, -1).astype(np.uint8)
        return np.asarray(image.convert("RGBA"))


def dots(points: NDArray[np.float32], colors: NDArray[np.uint8] | None, size: int) -> Picture:
    """Points (N, 3) of any unit, seen from the front right and above; the nearest is drawn last."""
    centred = points - (points.max(0) + points.min(0)) / 2
    centred /= np.abs(centred).max() or 1
    cameras = Cameras.orbit(np.radians([35.0]), np.radians([20.0]), 5.2, np.radians(30.0), SIZE)
    seen = cameras.project(centred)[0]
    order = np.argsort(-seen[:, 2])
    canvas = np.full((SIZE, SIZE, 3), 255, np.uint8)
    ink = np.full((len(points), 3), 90, np.uint8) if colors is None else colors
    shade = np.interp(seen[:, 2], [seen[:, 2].min(), seen[:, 2].max()], [1.0, 0.55])
    for index in order:
        column, row = seen[index, :2].astype(int)
        rows, columns = slice(max(row - size, 0), row + size + 1), slice(max(column - size, 0), column + size + 1)
        canvas[rows, columns] = ink[index] * shade[index]
    return canvas


def main(out: Path) -> int:
    """Everything into `out`; returns the exit code of the first prompt that failed, or 0."""
    out.mkdir(parents=True, exist_ok=True)
    made = [make(label, arguments, out / name) for label, arguments, name in PROMPTS]
    rows = []
    for (label, arguments, _), one in zip(PROMPTS, made, strict=True):
        views: list[Picture | None] = [None] * len(AZIMUTHS)
        if not one.exit_code:
            mesh = read_mesh(one.file)
            views = list(picture(mesh, framed(mesh, AZIMUTHS, size=SIZE)))
        rows.append((label, [prompt_picture(arguments), *views]))
    sheet = out / "demo.png"
    contact_sheet(rows, TITLES, sheet, cell=SIZE)
    print("\n" + "\n".join(one.row() for one in made))
    print(f"\ncontact sheet: {sheet}\neverything:    {out.resolve()}")
    return next((one.exit_code for one in made if one.exit_code), 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "out")))
