"""Reading views: a folder or a zip of pictures of one object, with their cameras.

Cameras come from a JSON (`transforms.json`, `cameras.json`, or the only one):
    frames[].file_path         the picture, relative to the JSON; `.png` may be left out
    frames[].transform_matrix  4 x 4 camera-to-world, OpenGL axes, world +y up ("up": "z" at the top for a world z up)
    camera_angle_x, fov_y, or fl_y (pixels)   one of them, in radians where it is an angle; a frame may have its own
or, where there are no frames, from WaLa's fixed view ids: the last number in each file name (`view_03.png`).
Depth is NPY (H, W) (distance along the camera axis; 0, inf = background), 16-bit PNG (counts x `depth_scale`, 0 =
background) or 8-bit PNG (near = bright, black = background: `far` - v/255 (`far` - `near`)). The JSON carries
`depth_scale`, `near` and `far`. WaLa's own range is not published; for its view ids the default is 2.8..6.0, camera
distance 4.4 ± 1.6.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.camera import WALA_VIEWS, Cameras, wala_cameras
from anyform.types.prompt import MAX_VIEWS
from anyform.types.readers.archive import Member, open_members, read_npy
from anyform.types.readers.limits import MEBI, parse_json, shown
from anyform.types.readers.picture import MAX_PICTURE_BYTES, decode, read_header, to_grey, to_rgba

MAX_TOTAL_PIXELS = 20_000_000  # of all views together: 320 MB once they are floats
MAX_SIDE = 8192  # pixels of a depth map
MAX_JSON_BYTES = 4 * MEBI
DEPTH_SCALE = 1 / 1000  # world units a count
WALA_NEAR, WALA_FAR = 2.8, 6.0
ADVICE = "give a folder of views with a transforms.json, or files named by WaLa's view ids"
# from a z-up world with azimuth 0 on +x to ours: (x, y, z) -> (y, z, x)
_FROM_Z_UP = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)

Loaded = tuple[NDArray[np.float32], Cameras, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class View:
    """One picture of the folder: where it is, and its pose and field of view, or its WaLa id."""

    file: str
    pose: NDArray[np.float64] | None = None
    optics: Mapping[str, Any] | None = None
    view_id: int | None = None


def read_views(folder: str | Path, kind: Literal["rgb", "depth"]) -> Loaded:
    """(pixels as in `Views`, cameras, WaLa ids or None), in the order of the JSON's frames or of rising ids.

    Raises BadInput for missing files, cameras that cannot be used, mixed sizes and repeated pictures; conversions
    (millimetres, default scales) are warned of.
    """
    name = shown(folder)
    files = open_members(Path(folder), MAX_PICTURE_BYTES)
    table, base = _camera_table(files, name)
    views = _framed(table, base, files, name) if "frames" in table else _numbered(files, kind, name)
    if not 1 <= len(views) <= MAX_VIEWS:
        raise BadInput(f"{name} has {len(views)} views, between 1 and {MAX_VIEWS} are read: {ADVICE}")
    data = [files[view.file]() for view in views]
    height, width = _common_size(data, views, name)
    pixels = np.empty((len(views), height, width, 4 if kind == "rgb" else 1), np.float32)
    for i, (picture, view) in enumerate(zip(data, views, strict=True)):
        pixels[i] = _rgb(picture, view) if kind == "rgb" else _depth(picture, view, table)
    if kind == "rgb":
        _refuse_repeats(pixels, views, name)
    elif "depth_scale" not in table and any(map(_is_sixteen_bit, data)):
        warnings.warn(
            f"{name}: 16-bit depth without a depth_scale was read as {DEPTH_SCALE} world units a count", stacklevel=2
        )
    ids = tuple(view.view_id for view in views if view.view_id is not None)
    if ids:
        if height != width:
            raise BadInput(f"{name}: views at WaLa's view ids are square, not {width} x {height}")
        cameras = wala_cameras(ids, width)
    else:
        cameras = _cameras(views, table, height, width, name)
    if kind == "depth":
        pixels = _in_world_units(pixels, cameras, name)
    return pixels, cameras, ids or None


def _camera_table(files: Mapping[str, Member], name: str) -> tuple[dict[str, Any], PurePosixPath]:
    """The JSON beside the pictures and the folder it lies in; an empty table where there is none."""
    found = {PurePosixPath(file): read for file, read in files.items() if file.lower().endswith(".json")}
    for wanted in ("transforms.json", "cameras.json"):
        chosen = [file for file in found if file.name == wanted]
        if len(chosen) == 1:
            break
    else:
        chosen = list(found)
    if not chosen:
        return {}, PurePosixPath()
    if len(chosen) > 1:
        raise BadInput(f"{name} has {len(chosen)} JSON files: call the one with the cameras transforms.json")
    data = found[chosen[0]]()
    if len(data) > MAX_JSON_BYTES:
        raise BadInput(f"{shown(chosen[0])} has {len(data)} bytes, at most {MAX_JSON_BYTES} are read")
    table = parse_json(data, shown(chosen[0]))
    if not isinstance(table, dict):
        raise BadInput(f"{shown(chosen[0])} has to be an object with 'frames'")
    return table, chosen[0].parent


def _framed(table: dict[str, Any], base: PurePosixPath, files: Mapping[str, Member], name: str) -> list[View]:
    """The views that the JSON's frames list."""
    frames = table["frames"]
    if not isinstance(frames, list) or len(frames) > MAX_VIEWS:
        raise BadInput(f"{name}: frames has to be a list of at most {MAX_VIEWS} views")
    up = table.get("up", "y")
    if up not in ("y", "z"):
        raise BadInput(f"{name}: up is 'y' or 'z', not {str(up)[:20]!r}")
    views = []
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise BadInput(f"{name}: frames[{i}] needs a file_path")
        pose = _matrix(frame.get("transform_matrix"), f"{name}: frames[{i}].transform_matrix")
        path = PurePosixPath(frame["file_path"])
        if path.is_absolute() or ".." in path.parts or "\\" in frame["file_path"]:
            raise BadInput(f"{name}: frames[{i}].file_path leads outside the folder: use a path relative to the JSON")
        inside = str(base / path)
        file = next((f for f in (inside, f"{inside}.png") if f in files), None)
        if file is None:
            raise BadInput(f"{name}: frames[{i}] names {shown(path)}, which is not there")
        views.append(View(file, pose if up == "y" else _FROM_Z_UP @ pose, frame))
    if len({view.file for view in views}) < len(views):
        raise BadInput(f"{name}: two frames name the same picture: give each view its own")
    return views


def _matrix(value: object, where: str) -> NDArray[np.float64]:
    rows = value if isinstance(value, list) and len(value) == 4 else []
    flat = [item for row in rows if isinstance(row, list) and len(row) == 4 for item in row]
    if len(flat) != 16 or not all(type(item) in (int, float) and abs(item) < 1e6 for item in flat):
        raise BadInput(f"{where} has to be 4 x 4 numbers, camera to world")
    return np.array(flat, np.float64).reshape(4, 4)


def _numbered(files: Mapping[str, Member], kind: str, name: str) -> list[View]:
    """The views whose file names end in one of WaLa's ids, by rising id."""
    suffixes = (".png", ".npy") if kind == "depth" else (".png", ".jpg", ".jpeg", ".webp")
    views: dict[int, View] = {}
    for file in files:
        path = PurePosixPath(file)
        if path.suffix.lower() not in suffixes:
            continue
        digits = re.findall(r"\d+", path.stem)
        number = int(digits[-1][:9]) if digits else -1
        if number not in WALA_VIEWS:
            known = ", ".join(map(str, WALA_VIEWS))
            raise BadInput(f"{name}: {shown(file)} does not end in a view id with a known camera ({known}): {ADVICE}")
        if number in views:
            raise BadInput(f"{name} has two pictures of view {number}: keep one")
        views[number] = View(file, view_id=number)
    return [views[number] for number in sorted(views)]


def _common_size(data: list[bytes], views: list[View], name: str) -> tuple[int, int]:
    """(height, width) that all pictures declare, before any is decoded."""
    sizes = []
    for picture, view in zip(data, views, strict=True):
        if view.file.lower().endswith(".npy"):
            sizes.append(_read_map(picture, shown(view.file)).shape)
        else:
            header = read_header(picture, shown(view.file))
            sizes.append((header.height, header.width))
    if len(set(sizes)) > 1:
        listed = ", ".join(f"{shown(view.file)} {size}" for view, size in list(zip(views, sizes, strict=True))[:4])
        raise BadInput(f"{name} mixes pictures of different sizes ({listed}): bring them to one size")
    if min(sizes[0]) < 8:
        raise BadInput(f"{name}: views are pictures of at least 8 x 8 pixels, not {sizes[0]}")
    if math.prod(sizes[0]) * len(sizes) > MAX_TOTAL_PIXELS:
        raise BadInput(
            f"{name} has {len(sizes)} views of {sizes[0][1]} x {sizes[0][0]} pixels: at most"
            f" {MAX_TOTAL_PIXELS // 10**6} million in all are read, so scale them down"
        )
    return sizes[0][0], sizes[0][1]


def _rgb(data: bytes, view: View) -> NDArray[np.float32]:
    name = shown(view.file)
    return (to_rgba(decode(data, name), name) / np.float32(255)).astype(np.float32)


def _depth(data: bytes, view: View, table: Mapping[str, Any]) -> NDArray[np.float32]:
    """(H, W, 1) distance along the camera axis, inf where there is background."""
    name = shown(view.file)
    if view.file.lower().endswith(".npy"):
        depth = _read_map(data, name).astype(np.float32)
        if np.isnan(depth).any() or depth.min() < 0:
            raise BadInput(f"{name} holds negative or NaN depths: give distances along the camera axis, inf outside")
        depth = np.where(depth == 0, np.inf, depth)[..., None]
    else:
        grey, white, alpha = to_grey(decode(data, name), name)
        if white == 65535:
            depth = grey * np.float32(_number(table, "depth_scale", DEPTH_SCALE))
        else:
            if view.view_id is None and not {"near", "far"} <= set(table):
                raise BadInput(f"{name} is an 8-bit depth map: give its range as near and far in the JSON")
            near, far = _number(table, "near", WALA_NEAR), _number(table, "far", WALA_FAR)
            if near >= far:
                raise BadInput(f"near ({near}) has to be smaller than far ({far}) in the JSON of the depth maps")
            depth = far - grey / np.float32(255) * (far - near)
        outside = grey == 0 if alpha is None else (grey == 0) | (alpha < 128)
        depth = np.where(outside, np.inf, depth)[..., None]
    if not np.isfinite(depth).any():
        raise BadInput(f"{name} is background everywhere: there is no surface in it")
    return depth.astype(np.float32)


def _read_map(data: bytes, name: str) -> NDArray[np.generic]:
    return read_npy(io.BytesIO(data), len(data), name, (MAX_SIDE, MAX_SIDE))


def _is_sixteen_bit(data: bytes) -> bool:
    """Whether a PNG has 16 bits a channel (IHDR); False for other files."""
    return data.startswith(b"\x89PNG") and data[24] == 16


def _number(table: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    value = table.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise BadInput(f"{key} in the JSON of the views has to be a positive number, not {str(value)[:40]}")
    return float(value)


def _cameras(views: list[View], table: dict[str, Any], height: int, width: int, name: str) -> Cameras:
    fov = [_fov_y({**table, **(view.optics or {})}, height, width, name) for view in views]
    poses = [view.pose for view in views if view.pose is not None]
    return Cameras(np.stack(poses), np.array(fov), height, width)


def _fov_y(optics: Mapping[str, Any], height: int, width: int, name: str) -> float:
    """The vertical field of view in radians from whichever of the three keys is there."""
    if "fov_y" in optics:
        angle = _number(optics, "fov_y")
    elif "camera_angle_x" in optics:
        across = _number(optics, "camera_angle_x")
        angle = 2 * math.atan(math.tan(across / 2) * height / width) if across < math.pi else across
    elif "fl_y" in optics:
        angle = 2 * math.atan(height / 2 / _number(optics, "fl_y"))
    else:
        raise BadInput(f"{name}: the JSON gives no field of view: add camera_angle_x or fov_y in radians")
    if angle >= math.pi:
        raise BadInput(f"{name}: a field of view of {angle:g} looks like degrees: give radians, under 3.14")
    return angle


def _refuse_repeats(pixels: NDArray[np.float32], views: list[View], name: str) -> None:
    seen: dict[bytes, str] = {}
    for picture, view in zip(pixels, views, strict=True):
        key = picture.tobytes()
        if key in seen:
            raise BadInput(
                f"{name}: {seen[key]} and {shown(view.file)} are the same picture: give each view once, or an image"
                " prompt for a single view"
            )
        seen[key] = shown(view.file)


def _in_world_units(pixels: NDArray[np.float32], cameras: Cameras, name: str) -> NDArray[np.float32]:
    """Depths of the size of the cameras' distance from the origin; thousandfold ones are millimetres to metres."""
    distance = float(np.median(np.linalg.norm(cameras.camera_to_world[:, :3, 3], axis=1)))
    typical = float(np.median(pixels[np.isfinite(pixels)]))
    ratio = typical / max(distance, 1e-9)
    if 200 < ratio < 5000:
        warnings.warn(
            f"{name}: depths around {typical:g} for cameras {distance:.3g} from the origin were taken for thousandths"
            " (millimetres) and divided by 1000",
            UserWarning,
            stacklevel=2,
        )
        return pixels / np.float32(1000)
    if not 0.05 < ratio < 20:
        raise BadInput(
            f"{name}: depths around {typical:g} do not fit cameras {distance:.3g} from the origin: give both in the"
            " same unit, or depth_scale in the JSON"
        )
    return pixels
