"""Training pictures of the image priors: every object from random sides, in several colours, flat and lit.

An object gets `groups` variants of `views_per_group` views. A variant has one set of colours and one light: the first
keeps the object's own colours, the others give its dominant colour another colour word, which its captions follow. So
two views of a group differ by their camera alone, as a view-conditioned prior needs it.

| file of a folder | content |
|---|---|
| `rgba.npy` | (N, V, size, size, 4) uint8 sRGB, straight alpha; view v belongs to group v // views_per_group |
| `camera.npy` | (N, V, 3) float32: azimuth, elevation (radians), distance (world units) |
| `words-*.jsonl` | one row an object as it is finished: `index`, `id`, `split`, `colours` and `captions` a group |
| `plan.json` | the plan and the ids, so that two runs are never mixed |
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.data.captions import COLOURS, captions, colour_word, recolour
from anyform.data.corpus import Collection, Item, Shape
from anyform.data.views import FLAT, FOV_Y, Light, render_views
from anyform.errors import BadInput, BadSetting
from anyform.geometry.sdf import normalise
from anyform.types.camera import Cameras
from anyform.types.progress import Progress, Report, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturePlan:
    """How many pictures of which kind (specs/embedded.md §4)."""

    groups: int = 4
    views_per_group: int = 4
    size: int = 64
    elevation_deg: tuple[float, float] = (-20.0, 45.0)
    fill: float = 0.92  # of the frame, at the smallest distance, in the view that needs most room
    farther: float = 1.25  # the largest distance over the smallest
    flat: float = 0.4  # share of groups without shading
    seed: int = 0  # another one gives other views, colours and lights, for a judge that must not know these

    def __post_init__(self) -> None:
        if self.groups < 1 or self.views_per_group < 1 or self.size < 8 or not 0 < self.fill <= 1 <= self.farther:
            raise BadSetting(
                f"a picture plan needs groups and views of 1 or more, 8 pixels or more and 0 < fill <= 1 <= farther, "
                f"not {self}"
            )

    @property
    def num_views(self) -> int:
        """Views an object, of all groups together."""
        return self.groups * self.views_per_group


@dataclass(frozen=True, slots=True)
class Pictures:
    """One object's pictures: rgba (V, size, size, 4) uint8, camera (V, 3) float32, and words a group."""

    rgba: NDArray[np.uint8]
    camera: NDArray[np.float32]
    colours: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]


def make_pictures(item: Item, shape: Shape, plan: PicturePlan) -> Pictures:
    """The pictures of one object; every random choice hangs on its id alone. Raises BadInput where it is of no use."""
    vertices, _, _ = normalise(shape.vertices, shape.faces)
    name = f"pictures {item.id}" + (f" {plan.seed}" if plan.seed else "")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    a, b, c = np.moveaxis(vertices[shape.faces], 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    used = vertices[np.unique(shape.faces)]
    camera = _random_cameras(used, plan, rng)
    own = colour_word(shape.face_rgb, areas)
    views, colours, texts = [], [], []
    for group in range(plan.groups):
        word = own if group == 0 else str(rng.choice([name for name in COLOURS if name != own]))
        rgb = shape.face_rgb if group == 0 else recolour(shape.face_rgb, areas, word, rng)
        some = camera[group * plan.views_per_group : (group + 1) * plan.views_per_group]
        light = FLAT if rng.random() < plan.flat else Light.random(rng)
        cameras = Cameras.orbit(some[:, 0], some[:, 1], some[:, 2], FOV_Y, plan.size)
        pictures = render_views(Shape(vertices, shape.faces, rgb), cameras, light=light)
        views.append(np.round(pictures.rgba * 255).astype(np.uint8))
        colours.append(word)
        named = item if group == 0 else replace(item, caption=_without_colour(item.caption))
        texts.append(captions(named, word, np.ptp(used, axis=0)))
    return Pictures(np.concatenate(views), camera.astype(np.float32), tuple(colours), tuple(texts))


def fitted_distance(points: NDArray[np.float64], azimuth: float, elevation: float, fill: float) -> float:
    """Smallest distance from the origin at which all points (N, 3) lie within `fill` of a `FOV_Y` frame.

    A point at (x, y) beside the axis and b towards the camera is inside where |x|, |y| <= (d − b) · tan(fov/2) · fill.
    """
    pose = Cameras.orbit(np.array([azimuth]), np.array([elevation]), 1.0, FOV_Y, 8).camera_to_world[0, :3, :3]
    local = points @ pose
    return float((local[:, 2] + np.abs(local[:, :2]).max(1) / (np.tan(FOV_Y / 2) * fill)).max())


def write_pictures(
    collection: Collection, out: Path, plan: PicturePlan, *, part: int = 0, parts: int = 1, report: Report = silent
) -> int:
    """Pictures of the objects `part`, `part + parts`, … into `out`; returns how many rows `out` now has of this part.

    Call it again to go on; several parts may run at once. Objects that cannot be used are in `words-*.jsonl` with a
    `reason` and no pictures. Raises BadInput where `out` holds pictures of another plan or other objects.
    """
    out.mkdir(parents=True, exist_ok=True)
    items = collection.items
    _agree(out / "plan.json", {"plan": asdict(plan), "ids": [item.id for item in items]})
    rgba = _opened(out / "rgba.npy", (len(items), plan.num_views, plan.size, plan.size, 4), np.uint8)
    camera = _opened(out / "camera.npy", (len(items), plan.num_views, 3), np.float32)
    words = out / f"words-{part:02d}-of-{parts:02d}.jsonl"
    done = {row["index"] for row in read_words(out)}
    mine = [index for index in range(part, len(items), parts) if index not in done]
    with words.open("a", encoding="utf-8") as file:
        for count, index in enumerate(mine):
            item = items[index]
            row: dict[str, Any] = {"index": index, "id": item.id, "split": item.split}
            try:
                made = make_pictures(item, collection.read(item), plan)
            except (BadInput, ArithmeticError, LookupError, ValueError) as error:
                row["reason"] = " ".join(str(error).split())
            else:
                rgba[index], camera[index] = made.rgba, made.camera
                row |= {"colours": made.colours, "captions": made.captions}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            report(Progress("pictures", count + 1, len(mine), item.id))
    rgba.flush()
    camera.flush()
    return len(range(part, len(items), parts))


def read_words(folder: Path) -> list[dict[str, Any]]:
    """The rows of all `words-*.jsonl` of a folder, by index; a half-written last line of a killed run is skipped."""
    rows: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("words-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):
                row = json.loads(line)
                rows[row["index"]] = row
    return [rows[index] for index in sorted(rows)]


def _without_colour(caption: str) -> str:
    """ "flag blue" -> "flag": a name must not contradict the colours that its object was given."""
    words = "|".join(sorted(COLOURS, key=len, reverse=True))
    return " ".join(re.sub(rf"\b(?:{words}|gray|gold)\b", " ", caption).split()) or caption


def _random_cameras(points: NDArray[np.float64], plan: PicturePlan, rng: np.random.Generator) -> NDArray[np.float64]:
    """(V, 3) azimuth, elevation, distance; one base distance an object, so that distances of its views compare."""
    count = plan.num_views
    low, high = np.radians(plan.elevation_deg)
    azimuth, elevation = rng.uniform(0, 2 * np.pi, count), rng.uniform(low, high, count)
    fitted = max(fitted_distance(points, *angles, plan.fill) for angles in zip(azimuth, elevation, strict=True))
    return np.stack([azimuth, elevation, fitted * rng.uniform(1, plan.farther, count)], -1)


def _agree(path: Path, wanted: dict[str, Any]) -> None:
    text = json.dumps(wanted, sort_keys=True)
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise BadInput(f"{path.parent.name} holds pictures of another plan or other objects: choose another folder")
    path.write_text(text, encoding="utf-8")


def _opened(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """The array on disk, made on first use."""
    if path.exists():
        array = np.lib.format.open_memmap(path, mode="r+")
        if array.shape != shape:
            raise BadInput(f"{path.name} is {array.shape}, not {shape}: it is of another run")
        return array
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
