"""Prepared shards -> the folder of arrays that training reads: `training_denoiser.Arrays`, and what comes before them.

| file | content, O objects in the order of the shards |
|---|---|
| `field.npy` | (O, N, N, N) int8: 127 × distance / `data.shards.TRUNCATION` |
| `points_field.npy` … `text.npy` | see `training_denoiser.Arrays` |
| `key.npy` | (O, 12, 320) uint8: `retrieval.picture_key` of the ring's views |
| `color.npy` | (O, 16, 16, 16, 3) uint8: `paint.splat` of the coloured surface points |
| `catalog.json` | rows: id, caption, split, group, license, author, name, source, mean_rgb …; written last |

Every value hangs on its object alone, so a run that was killed goes on after its last whole shard and ends with the
same bytes. One object is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anyform.data.shards import TRUNCATION, Sample, read_shard
from anyform.errors import BadInput
from anyform.systems.wala import lifting
from anyform.systems.wala.paint import splat
from anyform.systems.wala.retrieval import picture_key
from anyform.training.run_folder import write_json
from anyform.types.camera import Cameras
from anyform.types.framing import frame
from anyform.types.progress import Progress, Report

RING = 12  # views around the object, one every 30°; the fixed ones follow
DEPTH_SETS = (1, 4, 6)  # fixed views in a depth prompt
POINT_SETS = (2500, 800)  # points in a point prompt, with `POINT_NOISE` (world units)
POINT_NOISE = 0.006
PICTURE = 64  # pixels of a framed picture
CAPTIONS = (0, 1, 2, -1)  # which of an object's captions are encoded: plain, with article, with colour, "a 3d model of"
INK = 40  # level above which a pixel belongs to a stroke, as in `conditioning`
_VERSION = 1
_LIFT = (lifting.SIZE,) * 3
_CONDITIONS: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
    "points_field": ((len(POINT_SETS), *_LIFT), np.int8),
    "depth_field": ((len(DEPTH_SETS), *_LIFT), np.int8),
    "hull_field": (_LIFT, np.int8),
    "framed": ((RING, PICTURE, PICTURE, 4), np.uint8),
    "sketch": ((RING, PICTURE, PICTURE), np.uint8),
    "outline": ((RING, PICTURE, PICTURE), np.uint8),
    "key": ((RING, 320), np.uint8),
    "text": ((len(CAPTIONS), 384), np.float16),
    "color": ((16, 16, 16, 3), np.uint8),
}


def gather(shards: Path, out: Path, report: Report, *, conditions: bool = True) -> list[dict[str, Any]]:
    """Write the arrays of all samples in `shards` to `out`, or go on with it, and return the catalogue's rows.

    conditions: False writes the distance fields alone, all that stage 1 needs. Raises BadInput where the shards lack
    what is needed, or where `out` holds arrays of other shards.
    """
    manifest, digest = read_manifest(shards)
    state = {"version": _VERSION, "manifest": digest, "conditions": conditions}
    progress, catalog = out / "gathered.json", out / "catalog.json"
    before = json.loads(progress.read_text(encoding="utf-8")) if progress.is_file() else {**state, "rows": []}
    if {key: before.get(key) for key in state} != state:
        raise BadInput(f"{out.parent.name} holds arrays of other shards: choose another --out")
    if catalog.is_file():
        return json.loads(catalog.read_text(encoding="utf-8"))
    _check_plan(manifest, conditions)
    out.mkdir(parents=True, exist_ok=True)
    rows, total = before["rows"], manifest["samples"]
    shapes = {"field": ((manifest["size"],) * 3, np.int8), **(_CONDITIONS if conditions else {})}
    arrays = {name: _array(out / f"{name}.npy", (total, *shape), kind) for name, (shape, kind) in shapes.items()}
    read = ConditionReader() if conditions else None
    first = 0
    for shard in manifest["shards"]:
        first += shard["samples"]
        if first <= len(rows):
            continue
        for sample in read_shard(shards / Path(shard["file"]).name):
            arrays["field"][len(rows)] = np.rint(sample.sdf / TRUNCATION * 127)
            for name, value in read.arrays(sample) if read is not None else ():
                arrays[name][len(rows)] = value
            rows.append(catalogue_row(sample))
            report(Progress("gather", len(rows), total, sample.row["id"]))
        for array in arrays.values():
            array.flush()
        write_json(progress, {**state, "rows": rows})
    write_json(catalog, rows)
    write_json(progress, state)
    return rows


def read_manifest(shards: Path) -> tuple[dict[str, Any], str]:
    """The manifest of a prepared folder and its SHA-256. Raises BadInput where it is missing, damaged or empty."""
    try:
        content = (shards / "manifest.json").read_bytes()
        manifest = json.loads(content)
        samples = manifest["samples"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{shards.name} has no readable manifest.json: run `anyform data prepare` to its end") from error
    if not samples:
        raise BadInput(f"{shards.name} holds no object: all {manifest['rejected']} were rejected, see rejected.jsonl")
    return manifest, hashlib.sha256(content).hexdigest()


def catalogue_row(sample: Sample) -> dict[str, Any]:
    """What later steps ask about an object; without near-duplicate groups each object is its own."""
    row = sample.row
    kept = {key: row[key] for key in ("id", "caption", "name", "author", "source", "category", "split")}
    mean = [round(float(value)) for value in sample.rgb.mean(0)]
    return {**kept, "group": row.get("group") or row["id"], "license": row["licence"], "mean_rgb": mean}


class ConditionReader:
    """Everything the denoiser is told about an object, from its sample; holds what all objects share."""

    def __init__(self) -> None:
        from anyform.encoders import embedded

        self._text = embedded.load()
        self._projections: tuple[lifting.Projection, ...] = ()

    def arrays(self, sample: Sample) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """(name, value) of every array of `_CONDITIONS`."""
        row = sample.row
        digest = hashlib.sha256(f"gather {row['id']}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        yield "points_field", np.stack([levels(lifting.from_points(p)) for p in noisy_points(sample.points, rng)])
        depth, fixed = sample.depth[RING:], self._fixed_views(sample)
        views = zip(DEPTH_SETS, fixed, strict=True)
        yield "depth_field", np.stack([levels(lifting.from_depths(depth[:count], seen)) for count, seen in views])
        masks = sample.rgba[RING : RING + 4, ..., 3] > 0.5
        yield "hull_field", levels(lifting.from_masks(masks, fixed[DEPTH_SETS.index(4)]))
        pictures = np.rint(sample.rgba[:RING] * 255).astype(np.uint8)
        framed = np.stack([frame(picture, PICTURE) for picture in pictures])
        yield "framed", framed
        yield "key", np.stack([picture_key(picture) for picture in framed])
        inks = np.rint(sample.sketch[:RING] * 255).astype(np.uint8)
        drawn = np.stack([framed_sketch(ink, picture[..., 3]) for ink, picture in zip(inks, pictures, strict=True)])
        yield "sketch", drawn[..., 0]
        yield "outline", drawn[..., 1]
        said = row["captions"] or [row["caption"]]
        yield "text", self._text.text([said[at % len(said)] for at in CAPTIONS])[0].numpy()
        yield "color", splat(sample.points, sample.rgb / 255)

    def _fixed_views(self, sample: Sample) -> tuple[lifting.Projection, ...]:
        """Where the grid falls in the first 1, 4 and 6 fixed views, which are the same for all objects."""
        if not self._projections:
            poses = np.array(sample.row["camera_to_world"])[RING:]
            poses = np.concatenate([poses, np.tile([[[0.0, 0.0, 0.0, 1.0]]], (len(poses), 1, 1))], 1)
            height, width = sample.depth.shape[1:]
            angle = np.full(len(poses), sample.row["fov_y"])
            self._projections = tuple(
                lifting.Projection(Cameras(poses[:count], angle[:count], height, width)) for count in DEPTH_SETS
            )
        return self._projections


def levels(field: NDArray[np.floating]) -> NDArray[np.int8]:
    """A unit-scale field as int8 steps of 1/127."""
    return np.rint(field * 127).astype(np.int8)


def noisy_points(points: NDArray[np.float32], rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Random subsets of surface points (P, 3), one a size in `POINT_SETS`, with the noise of a scanner."""
    for count in POINT_SETS:
        chosen = points[rng.permutation(len(points))[:count]]
        yield (chosen + POINT_NOISE * rng.standard_normal(chosen.shape)).astype(np.float32)


def framed_sketch(ink: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ink and alpha (H, W) of a view -> (64, 64, 2): framed ink, and the filled outline around it."""
    body = ndimage.binary_fill_holes((ink > INK) | (alpha > 127))
    assert body is not None
    framed = frame(np.dstack([ink, ink, ink, body.astype(np.uint8) * 255]), PICTURE)
    outline = framed[..., 3]
    return np.dstack([np.where(outline > 0, framed[..., 0], 0), outline]).astype(np.uint8)


def _array(path: Path, shape: tuple[int, ...], kind: type[np.generic]) -> np.memmap[Any, Any]:
    """A new array on disk, or the one that an interrupted run left there."""
    if path.is_file():
        array = np.load(path, mmap_mode="r+")
        if array.shape != shape or array.dtype != kind:
            raise BadInput(f"{path.name} is of shape {array.shape}, not {shape}: choose another --out")
        return array
    # the header may be on disk and the rest not when a kill comes now, so the name appears only when it is whole
    partial = path.with_name(f"{path.name}.partial")
    np.lib.format.open_memmap(partial, "w+", kind, shape).flush()
    partial.replace(path)
    return np.load(path, mmap_mode="r+")


def _check_plan(manifest: dict[str, Any], conditions: bool) -> None:
    views = manifest["views"]
    if conditions and (views["ring"] != RING or len(views["wala_ids"]) < max(DEPTH_SETS)):
        raise BadInput(
            f"the shards have {views['ring']} ring views and {len(views['wala_ids'])} fixed ones; training needs {RING}"
            f" and {max(DEPTH_SETS)}: prepare the data with the standard views"
        )
