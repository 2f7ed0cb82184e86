"""Training samples in tar shards (the WebDataset convention: members of one sample share the name before the dot).

| member | content |
|---|---|
| `<id>.json` | catalogue row, captions, colour word, cameras, truncation and scales |
| `<id>.sdf.npz` | `sdf` int8 (N, N, N): distance in units of `truncation` / 127, clipped |
| `<id>.views.webp` | the V views below one another, RGBA with straight alpha |
| `<id>.geometry.npz` | `depth` uint16 (V, H, W) in units of `depth_scale`, 0 = background; `sketch` uint8, 255 = ink |
| `<id>.points.npz` | `points` float16 (P, 3), `rgb` uint8 (P, 3) |

The same samples give the same bytes: no times, owners or compression that depends on the machine.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput

TRUNCATION = 0.125  # world units: 4 cells at 64³; distances beyond carry nothing the decoder needs
DEPTH_SCALE = 1e-4  # world units a level: 16 bits reach 6.55
MAX_MEMBER_BYTES = 256 * 2**20
_WEBP_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Sample:
    """One object, ready for training; shapes as in the module's table.

    rgba (V, H, W, 4) float32 straight; depth (V, H, W) float32 world units, inf = background; sketch (V, H, W) float32
    ink; sdf (N, N, N) float32 world units, as stored: clipped to ±TRUNCATION. `row` is plain JSON and holds "id".
    """

    row: dict[str, Any]
    sdf: NDArray[np.float32]
    rgba: NDArray[np.float32]
    depth: NDArray[np.float32]
    sketch: NDArray[np.float32]
    points: NDArray[np.float32]
    rgb: NDArray[np.uint8]


def write_shard(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples one after the other and return their number; the file appears only when it is whole."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    count = 0
    with partial.open("wb") as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for sample in samples:
                for name, content in _members(sample):
                    entry = tarfile.TarInfo(f"{sample.row['id']}.{name}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
                count += 1
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    return count


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of one shard in their order. Raises BadInput if it is damaged."""
    try:
        with tarfile.open(path, "r:") as archive:
            members: dict[str, bytes] = {}
            current = ""
            for entry in archive:
                key, _, name = entry.name.partition(".")
                if key != current and members:
                    yield _sample(members)
                    members = {}
                if entry.size > MAX_MEMBER_BYTES:
                    raise BadInput(f"{entry.name} in {path.name} claims {entry.size:,} bytes; the shard is damaged")
                content = archive.extractfile(entry)
                if content is not None:
                    current, members[name] = key, content.read()
            if members:
                yield _sample(members)
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise BadInput(f"{path.name} is not a whole shard: {error}; prepare the data again") from error


def read_shards(folder: str | Path, split: str | None = None) -> Iterator[Sample]:
    """All samples of a prepared folder in the order of its manifest, of one split if named."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        names = [shard["file"] for shard in manifest["shards"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder.name} has no readable manifest.json; its preparation did not finish") from error
    for name in names:
        for sample in read_shard(folder / Path(name).name):
            if split is None or sample.row["split"] == split:
                yield sample


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    level = np.clip(np.round(sample.sdf / TRUNCATION * 127), -127, 127).astype(np.int8)
    hit = np.isfinite(sample.depth)
    depth = np.where(hit, np.clip(np.round(np.where(hit, sample.depth, 0) / DEPTH_SCALE), 1, 65535), 0)
    row = {**sample.row, "truncation": TRUNCATION, "depth_scale": DEPTH_SCALE}
    yield "json", json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")
    yield "sdf.npz", _npz(sdf=level)
    yield "views.webp", _webp(sample.rgba)
    yield "geometry.npz", _npz(depth=depth.astype(np.uint16), sketch=_levels(sample.sketch))
    yield "points.npz", _npz(points=sample.points.astype(np.float16), rgb=sample.rgb)


def _sample(members: dict[str, bytes]) -> Sample:
    row = json.loads(members["json"])
    sdf = _arrays(members["sdf.npz"])["sdf"].astype(np.float32) * np.float32(row["truncation"] / 127)
    geometry, points = _arrays(members["geometry.npz"]), _arrays(members["points.npz"])
    depth = geometry["depth"].astype(np.float32) * np.float32(row["depth_scale"])
    return Sample(
        row=row,
        sdf=sdf,
        rgba=_pictures(members["views.webp"], depth.shape),
        depth=np.where(geometry["depth"] > 0, depth, np.float32(np.inf)),
        sketch=geometry["sketch"].astype(np.float32) / np.float32(255),
        points=points["points"].astype(np.float32),
        rgb=points["rgb"],
    )


def _levels(picture: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def _arrays(content: bytes) -> dict[str, NDArray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays.items())


def _webp(rgba: NDArray[np.float32]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    views, height, width, _ = rgba.shape
    Image.fromarray(_levels(rgba).reshape(views * height, width, 4)).save(out, "WEBP", quality=_WEBP_QUALITY, method=4)
    return out.getvalue()


def _pictures(content: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("WEBP",)) as picture:
        return np.asarray(picture.convert("RGBA"), np.float32).reshape(*shape, 4) / np.float32(255)
