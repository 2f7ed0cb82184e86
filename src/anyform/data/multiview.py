"""Multi-view training pictures: a ring of preset views and as many free ones of every object (TuneMV3D 4.1).

| file of a folder | content |
|---|---|
| `rgba.npy` | (N, V, size, size, 4) uint8 sRGB, straight alpha; the ring first, then the free views |
| `camera.npy` | (N, V, 2) float32: azimuth, elevation (radians); distance and angle of view are the plan's |
| `rows.jsonl` | one row an object as it is finished: `index`, `id`, `split`, `caption`, `captions`, or a `reason` |
| `plan.json` | the plan and the ids, so that two runs are never mixed |

The object's ball has the radius `radius`, so that the unit ball around it stays in every view.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.data.captions import captions, colour_word
from anyform.data.corpus import Collection, Item, Shape
from anyform.data.views import Light, render_views
from anyform.errors import BadInput, BadSetting
from anyform.geometry.sdf import normalise
from anyform.types.camera import Cameras, alternating_orbit
from anyform.types.progress import Progress, Report, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiviewPlan:
    """Numbers of specs/tunemv3d.md §2.1; 8 + 8 views are the paper's."""

    num_ring: int = 8
    num_free: int = 8
    size: int = 64
    radius: float = 0.9  # of the object's bounding ball
    distance: float = 3.0
    fov_y_deg: float = 40.0
    jitter_deg: float = 10.0  # of the whole ring's azimuth, either way
    elevation_deg: tuple[float, float] = (-10.0, 60.0)  # of the free views
    supersampling: int = 2

    def __post_init__(self) -> None:
        if self.num_ring < 2 or self.num_free < 0 or self.size < 8 or not 0 < self.radius <= 1:
            raise BadSetting(f"views need a ring of 2, 8 pixels and a radius up to 1, not {self}")

    def cameras(self, angles: NDArray[np.floating]) -> Cameras:
        """Cameras (V,) of azimuths and elevations (V, 2)."""
        angles = np.asarray(angles, np.float64)
        return Cameras.orbit(angles[:, 0], angles[:, 1], self.distance, np.radians(self.fov_y_deg), self.size)


@dataclass(frozen=True, slots=True)
class ViewArrays:
    """A finished folder, memory-mapped. rows: those of `rows.jsonl` that have pictures, each with its `index`."""

    plan: MultiviewPlan
    rgba: NDArray[np.uint8]
    angles: NDArray[np.float32]
    rows: tuple[dict[str, Any], ...]

    @classmethod
    def open(cls, folder: Path) -> ViewArrays:
        """Raises BadInput for a folder that `anyform data views` did not write."""
        if not (folder / "plan.json").is_file() or not (folder / "rgba.npy").is_file():
            raise BadInput(f"{folder.name} holds no multi-view pictures: make them with `anyform data views`")
        table = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["plan"]
        plan = MultiviewPlan(**{**table, "elevation_deg": tuple(table["elevation_deg"])})
        rgba, angles = (np.load(folder / name, mmap_mode="r") for name in ("rgba.npy", "camera.npy"))
        rows = tuple(row for row in read_rows(folder) if "reason" not in row)
        if not rows:
            raise BadInput(f"{folder.name} holds no finished object: let `anyform data views` go on")
        return cls(plan, rgba, angles, rows)

    def pictures(self, index: int) -> NDArray[np.float32]:
        """(V, size, size, 4) in [0, 1] of one object."""
        return np.asarray(self.rgba[index], np.float32) / np.float32(255)

    def cameras(self, index: int) -> Cameras:
        """All V cameras of one object."""
        return self.plan.cameras(self.angles[index])


def make_views(item: Item, shape: Shape, plan: MultiviewPlan) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """rgba (V, size, size, 4) uint8 and angles (V, 2) of one object; every choice hangs on its id alone."""
    vertices, _, _ = normalise(shape.vertices, shape.faces)
    reach = np.linalg.norm(vertices[np.unique(shape.faces)], axis=1).max()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"views {item.id}".encode()).digest()[:8], "big"))
    offset = np.radians(rng.uniform(-plan.jitter_deg, plan.jitter_deg))
    ring = alternating_orbit(plan.num_ring, offset)
    low, high = np.radians(plan.elevation_deg)
    free = np.stack([rng.uniform(0, 2 * np.pi, plan.num_free), rng.uniform(low, high, plan.num_free)], -1)
    angles = np.concatenate([ring, free])
    inside = Shape(vertices * (plan.radius / reach), shape.faces, shape.face_rgb)
    made = render_views(inside, plan.cameras(angles), light=Light.random(rng), supersampling=plan.supersampling)
    return np.round(made.rgba * 255).astype(np.uint8), angles.astype(np.float32)


def write_views(collection: Collection, out: Path, plan: MultiviewPlan, report: Report = silent) -> dict[str, int]:
    """Pictures of every object into `out`; call it again to go on. Returns how many objects are there and were refused.

    Raises BadInput where `out` holds views of another plan or other objects.
    """
    out.mkdir(parents=True, exist_ok=True)
    items, views = collection.items, plan.num_ring + plan.num_free
    _agree(out / "plan.json", {"plan": asdict(plan), "ids": [item.id for item in items]})
    rgba = _opened(out / "rgba.npy", (len(items), views, plan.size, plan.size, 4), np.uint8)
    angles = _opened(out / "camera.npy", (len(items), views, 2), np.float32)
    before = read_rows(out)
    done = {row["index"] for row in before}
    waiting = [index for index in range(len(items)) if index not in done]
    whole = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in before)
    partial = out / "rows.partial"  # without the half line that a kill may have left
    partial.write_text(whole, encoding="utf-8")
    partial.replace(out / "rows.jsonl")
    with (out / "rows.jsonl").open("a", encoding="utf-8") as file:
        for count, index in enumerate(waiting):
            row = _one(collection, items[index], index, plan, (rgba, angles))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            report(Progress("views", count + 1, len(waiting), items[index].id))
    rgba.flush()
    angles.flush()
    rows = read_rows(out)
    refused = sum("reason" in row for row in rows)
    return {"objects": len(rows) - refused, "refused": refused, "views": views}


def _one(
    collection: Collection, item: Item, index: int, plan: MultiviewPlan, arrays: tuple[np.memmap, np.memmap]
) -> dict[str, Any]:
    """Render one object into its place; its row."""
    row: dict[str, Any] = {"index": index, "id": item.id, "split": item.split, "caption": item.caption}
    try:
        shape = collection.read(item)
        arrays[0][index], arrays[1][index] = make_views(item, shape, plan)
    except (BadInput, ArithmeticError, LookupError, ValueError) as error:
        return {**row, "reason": " ".join(str(error).split())}
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    extents = np.ptp(shape.vertices[np.unique(shape.faces)], axis=0)
    return {**row, "captions": list(captions(item, colour_word(shape.face_rgb, areas), extents))}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of `rows.jsonl` by index; a half-written last line of a killed run is made again."""
    path = folder / "rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = {row["index"]: row for row in (json.loads(line) for line in lines if line.endswith("}"))}
    return [rows[index] for index in sorted(rows)]


def _agree(path: Path, wanted: dict[str, Any]) -> None:
    text = json.dumps(wanted, sort_keys=True)
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise BadInput(f"{path.parent.name} holds views of another plan or other objects: choose another folder")


def _opened(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """The array on disk, made on first use."""
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
