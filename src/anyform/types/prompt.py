"""What a user gives: text, an image, sound, a sketch, points, voxels, or views with their cameras. numpy only.

Every type checks its own data, so that whatever reaches a system is finite, shaped as said and worth the work; `.open`
reads one file or folder through the bounded reader of its format family (`types/readers/`). Errors are BadInput;
conversions that a user should know about are UserWarnings.
Axes: +y up, front +z, right-handed, as in `types/camera.py`. Colours are sRGB.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anyform.errors import BadInput
from anyform.types.camera import Cameras

MAX_TEXT = 2_000  # characters
MIN_POINTS, MAX_POINTS = 64, 10_000_000
MAX_RESOLUTION = 256  # voxels an edge
MAX_VIEWS = 64
MAX_SECONDS = 600
SAMPLE_RATES = (1_000, 384_000)  # Hz


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence of at most `MAX_TEXT` characters in any script; blanks around it are dropped."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise BadInput(f"a text prompt is a str, not {type(self.text).__name__}")
        text = self.text.strip()
        if not text:
            raise BadInput("the text is empty: say what to make, for example 'a wooden chair'")
        if len(text) > MAX_TEXT:
            raise BadInput(f"the text has {len(text)} characters, at most {MAX_TEXT} are read: shorten it")
        if "\0" in text:
            raise BadInput(f"the text has a NUL character at position {text.index(chr(0))}: remove it")
        surrogate = next((i for i, letter in enumerate(text) if 0xD800 <= ord(letter) <= 0xDFFF), None)
        if surrogate is not None:
            raise BadInput(f"the text has half a surrogate pair at position {surrogate}: give valid Unicode")
        object.__setattr__(self, "text", text)


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """rgba (H, W, 4) uint8 sRGB with straight alpha; alpha 255 everywhere means that no mask is known."""

    rgba: NDArray[np.uint8]

    def __post_init__(self) -> None:
        rgba = self.rgba
        if not isinstance(rgba, np.ndarray) or rgba.dtype != np.uint8 or rgba.ndim != 3 or rgba.shape[2] != 4:
            raise BadInput(f"an image is a uint8 array (H, W, 4), not {_what(rgba)}: Image.from_rgba converts others")
        height, width = rgba.shape[:2]
        if min(height, width) < 8:
            raise BadInput(f"the image is {width} x {height} pixels: at least 8 x 8 are needed to show a thing")
        alpha = rgba[..., 3]
        if alpha.max() < 8:
            raise BadInput("the image is fully transparent: there is nothing to see in it")
        if alpha.min() == alpha.max() and (rgba == rgba[0, 0]).all():
            red, green, blue, _ = rgba[0, 0]
            raise BadInput(f"the image has a single colour ({red}, {green}, {blue}): there is nothing to see in it")

    @classmethod
    def open(cls, path: str | Path, mask: str | Path | None = None) -> Image:
        """Read a PNG, JPEG or WebP file; `mask` is a second picture of the same size, white where the object is."""
        from anyform.types.readers.image import read_image

        return cls(read_image(path, mask))

    @classmethod
    def from_rgba(cls, pixels: NDArray[Any]) -> Image:
        """From (H, W, 3 or 4), uint8 or floats in [0, 1], straight alpha."""
        pixels = np.asarray(pixels)
        if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise BadInput(f"pixels are (H, W, 3) or (H, W, 4), not {_what(pixels)}")
        if np.issubdtype(pixels.dtype, np.floating):
            if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
                raise BadInput("pixels given as floats have to lie in [0, 1]: divide 0..255 values by 255")
            pixels = np.rint(pixels * 255).astype(np.uint8)
        if pixels.shape[2] == 3:
            pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1)
        return cls(np.ascontiguousarray(pixels))

    @property
    def has_mask(self) -> bool:
        """True where the alpha channel says something."""
        return bool(self.rgba[..., 3].min() < 255)


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """samples (N,) float32 mono in [-1, 1]; sample_rate in Hz. left (N,): the first channel of a file with several."""

    samples: NDArray[np.float32]
    sample_rate: int
    left: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        samples = _floats(self.samples, "samples")
        if samples.ndim != 1:
            raise BadInput(f"samples are one mono channel (N,), not {_what(samples)}: average the channels")
        low, high = SAMPLE_RATES
        if isinstance(self.sample_rate, bool) or int(self.sample_rate) != self.sample_rate:
            raise BadInput(f"the sample rate is a whole number of Hz, not {self.sample_rate!r}")
        if not low <= self.sample_rate <= high:
            raise BadInput(f"the sample rate is {self.sample_rate} Hz: it has to lie between {low} and {high}")
        seconds = len(samples) / self.sample_rate
        if not 0.1 <= seconds <= MAX_SECONDS:
            raise BadInput(f"the sound lasts {seconds:.2f} s: between 0.1 s and {MAX_SECONDS} s are read")
        left = None if self.left is None else _floats(self.left, "left channel")
        if left is not None and left.shape != samples.shape:
            raise BadInput(f"the left channel is as long as the samples, {samples.shape}, not {_what(left)}")
        peak = float(np.abs(samples).max())
        if peak < 1e-4:
            raise BadInput("the sound is silent: record it again or choose another file")
        if peak > 1:
            warnings.warn(f"the sound peaks at {peak:.2f}, above 1: scaled down", UserWarning, stacklevel=2)
            samples = samples / np.float32(peak)
            left = None if left is None else left / np.float32(peak)
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "left", left)
        object.__setattr__(self, "sample_rate", int(self.sample_rate))

    @classmethod
    def open(cls, path: str | Path) -> Audio:
        """Read WAV, FLAC, OGG or MP3, any rate and up to 32 channels. Needs the extra `audio`.

        `samples` is the mean of the channels that are not silent.
        """
        from anyform.types.readers.audio import read_audio

        return cls(*read_audio(path))


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """ink (H, W) float32 in [0, 1]: 1 on a stroke, 0 on the paper, whatever the drawing's own polarity was."""

    ink: NDArray[np.float32]

    def __post_init__(self) -> None:
        ink = _floats(self.ink, "ink")
        if ink.ndim != 2 or min(ink.shape) < 8:
            raise BadInput(f"ink is an array (H, W) of at least 8 x 8, not {_what(ink)}")
        if ink.min() < 0 or ink.max() > 1:
            raise BadInput(f"ink lies in [0, 1], not [{ink.min():g}, {ink.max():g}]")
        if int((ink > 0.5).sum()) < 16:
            raise BadInput("the sketch has no stroke: draw dark lines on light paper, or light lines on dark")
        object.__setattr__(self, "ink", ink)

    @classmethod
    def open(cls, path: str | Path) -> Sketch:
        """Read a drawing (PNG, JPEG, WebP) of dark lines on light, light on dark, or lines on transparency."""
        from anyform.types.readers.sketch import read_sketch

        return cls(read_sketch(path))


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """points (N, 3) float32, +y up, any unit; colors (N, 3) uint8 sRGB or None. 64 points up; above 10^7 thinned."""

    points: NDArray[np.float32]
    colors: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        points, colors = _floats(self.points, "points"), self.colors
        if points.ndim != 2 or points.shape[1] != 3:
            raise BadInput(f"points are an array (N, 3), not {_what(points)}")
        if colors is not None and (colors.dtype != np.uint8 or colors.shape != points.shape):
            raise BadInput(f"colours are a uint8 array {points.shape} like the points, not {_what(colors)}")
        if len(points) < MIN_POINTS:
            raise BadInput(f"there are {len(points)} points: at least {MIN_POINTS} are needed to show a shape")
        if len(points) > MAX_POINTS:
            keep = np.linspace(0, len(points) - 1, MAX_POINTS).astype(np.int64)
            warnings.warn(f"{len(points)} points thinned to {MAX_POINTS}", UserWarning, stacklevel=2)
            points, colors = points[keep], None if colors is None else colors[keep]
        _check_spread(points)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "colors", colors)

    @classmethod
    def open(cls, path: str | Path) -> Points:
        """Read PLY, NPY, NPZ, XYZ, TXT, CSV, H5DF; of OBJ, STL, GLB and PLY meshes the surface is sampled."""
        from anyform.types.readers.points import read_points

        return cls(*read_points(path))


@dataclass(frozen=True, slots=True, eq=False)
class Voxels:
    """occupancy (R, R, R) bool indexed [x, y, z] with y up; colors (R, R, R, 3) uint8 sRGB or None."""

    occupancy: NDArray[np.bool_]
    colors: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        grid = self.occupancy
        if not isinstance(grid, np.ndarray) or grid.dtype != np.bool_ or grid.ndim != 3 or len(set(grid.shape)) != 1:
            raise BadInput(f"occupancy is a bool array (R, R, R), not {_what(grid)}: compare it with a threshold first")
        if not 2 <= len(grid) <= MAX_RESOLUTION:
            raise BadInput(f"the voxel grid is {len(grid)}³: between 2³ and {MAX_RESOLUTION}³ are read")
        if not grid.any():
            raise BadInput(f"none of the {len(grid)}³ voxels is occupied: there is no shape")
        if self.colors is not None and (self.colors.dtype != np.uint8 or self.colors.shape != (*grid.shape, 3)):
            raise BadInput(f"colours are a uint8 array {(*grid.shape, 3)}, not {_what(self.colors)}")

    @classmethod
    def open(cls, path: str | Path) -> Voxels:
        """Read JSON (`resolution`, `occupancy`, `color`), NPY, NPZ, binvox or MagicaVoxel files."""
        from anyform.types.readers.voxels import read_voxels

        return cls(*read_voxels(path))

    def to_resolution(self, resolution: int) -> Voxels:
        """Max-pooled to resolution³, colours averaged over the occupied voxels of a block.

        Raises BadInput where this grid is not a whole multiple of it (specs/data.md §6).
        """
        size = len(self.occupancy)
        if size == resolution:
            return self
        if size % resolution:
            raise BadInput(
                f"a {size}³ grid cannot be pooled to {resolution}³ exactly: voxelise the shape again at a multiple of"
                f" {resolution}, such as {max(1, round(size / resolution)) * resolution}³"
            )
        block = size // resolution
        blocks = self.occupancy.reshape(resolution, block, resolution, block, resolution, block)
        count = blocks.sum((1, 3, 5))
        if self.colors is None:
            return Voxels(count > 0)
        total = np.where(self.occupancy[..., None], self.colors, 0).astype(np.float32)
        total = total.reshape(resolution, block, resolution, block, resolution, block, 3).sum((1, 3, 5))
        return Voxels(count > 0, np.rint(total / np.maximum(count, 1)[..., None]).astype(np.uint8))


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Pictures of one object from known cameras.

    pixels: kind "rgb" (V, H, W, 4) float32 straight rgba in [0, 1]; kind "depth" (V, H, W, 1) float32, distance along
    the camera axis in world units with inf as background. view_ids: WaLa's fixed ids of the views where they have one.
    """

    kind: Literal["rgb", "depth"]
    pixels: NDArray[np.float32]
    cameras: Cameras
    view_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("rgb", "depth"):
            raise BadInput(f"the kind of views is 'rgb' or 'depth', not {self.kind!r}")
        channels, cameras = {"rgb": 4, "depth": 1}[self.kind], self.cameras
        if not isinstance(self.pixels, np.ndarray):
            raise BadInput(f"pixels are an array (V, H, W, {channels}), not {_what(self.pixels)}")
        pixels = np.ascontiguousarray(self.pixels, np.float32)
        expected = (len(cameras), cameras.height, cameras.width, channels)
        if pixels.shape != expected:
            raise BadInput(f"{self.kind} views of these cameras are an array {expected}, not {_what(pixels)}")
        if not 1 <= len(pixels) <= MAX_VIEWS:
            raise BadInput(f"there are {len(pixels)} views: between 1 and {MAX_VIEWS} are read")
        if self.view_ids is not None and len(self.view_ids) != len(pixels):
            raise BadInput(f"there are {len(self.view_ids)} view ids for {len(pixels)} views")
        check_cameras(cameras)
        (_check_depth if self.kind == "depth" else _check_rgb)(pixels)
        object.__setattr__(self, "pixels", pixels)

    @classmethod
    def open(cls, folder: str | Path, kind: Literal["rgb", "depth"] = "rgb") -> Views:
        """Read a folder or a zip of pictures with a JSON of cameras, or with WaLa's view ids in the file names."""
        from anyform.types.readers.views import read_views

        return cls(kind, *read_views(folder, kind))


Prompt = Text | Image | Audio | Sketch | Points | Voxels | Views


def describe(prompt: Prompt) -> dict[str, Any]:
    """JSON for the provenance: {"kind": "text", "text": …}, or the kind and the SHA-256 of the decoded data."""
    if isinstance(prompt, Text):
        return {"kind": "text", "text": prompt.text}
    if isinstance(prompt, Image):
        return {"kind": "image", "sha256": _digest(prompt.rgba)}
    if isinstance(prompt, Audio):
        return {"kind": "audio", "sha256": _digest(prompt.samples, np.array(prompt.sample_rate))}
    if isinstance(prompt, Sketch):
        return {"kind": "sketch", "sha256": _digest(prompt.ink)}
    if isinstance(prompt, Points):
        return {"kind": "points", "sha256": _digest(prompt.points, prompt.colors)}
    if isinstance(prompt, Voxels):
        return {"kind": "voxels", "sha256": _digest(prompt.occupancy, prompt.colors)}
    cameras = prompt.cameras
    return {
        "kind": {"rgb": "views", "depth": "depths"}[prompt.kind],
        "sha256": _digest(prompt.pixels, cameras.camera_to_world, cameras.fov_y),
    }


def check_cameras(cameras: Cameras) -> None:
    """Poses must be rigid and finite, fields of view usable, and no two cameras the same. Raises BadInput."""
    pose, fov = np.asarray(cameras.camera_to_world, np.float64), np.asarray(cameras.fov_y, np.float64)
    if pose.shape != (len(pose), 4, 4) or fov.shape != (len(pose),):
        raise BadInput(f"V cameras have poses (V, 4, 4) and fields of view (V,), not {pose.shape} and {fov.shape}")
    if not np.isfinite(pose).all() or not ((fov > 0.01) & (fov < 3.1)).all():
        raise BadInput("a camera has a non-finite pose, or a field of view outside 0.01..3.1 radians")
    rotation = pose[:, :3, :3]
    drift = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max((1, 2))
    handed = np.linalg.det(rotation)
    for i in range(len(pose)):
        if drift[i] > 1e-3 or handed[i] < 0 or np.abs(pose[i, 3] - [0, 0, 0, 1]).max() > 1e-6:
            raise BadInput(
                f"camera {i} is not a rigid motion (RᵀR differs from 1 by {drift[i]:.2g}, determinant {handed[i]:.3g}):"
                " give a camera-to-world matrix with the last row 0 0 0 1"
            )
    rows = np.concatenate([pose[:, :3].reshape(len(pose), 12), fov[:, None]], 1).round(6) + 0.0
    if len(np.unique(rows, axis=0)) < len(rows):
        raise BadInput(f"two of the {len(rows)} cameras are the same: give each view once")


def _check_rgb(pixels: NDArray[np.float32]) -> None:
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise BadInput("the pixels of rgb views have to lie in [0, 1]")
    empty = np.flatnonzero(pixels[..., 3].max((1, 2)) < 0.03)
    if len(empty):
        raise BadInput(f"view {empty[0]} is fully transparent: there is nothing to see in it")


def _check_depth(pixels: NDArray[np.float32]) -> None:
    if np.isnan(pixels).any() or pixels.min() <= 0:
        raise BadInput("depths are positive, with inf for the background: a map holds zero, negative or NaN values")
    empty = np.flatnonzero(~np.isfinite(pixels).any((1, 2, 3)))
    if len(empty):
        raise BadInput(f"depth map {empty[0]} is background everywhere: there is no surface in it")


def _check_spread(points: NDArray[np.float32]) -> None:
    """Points must span a surface at least: the second axis of their scatter is over 1e-4 of the first."""
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    size = np.sqrt(np.linalg.eigvalsh(centred.T @ centred / len(points)).clip(0))
    if size[2] <= 1e-6 * max(1e-30, float(np.abs(points).max())):
        raise BadInput(f"all {len(points)} points are equal: there is no shape")
    if size[1] < 1e-4 * size[2]:
        raise BadInput(f"all {len(points)} points lie on one line: there is no surface to follow")


def _floats(values: ArrayLike, name: str) -> NDArray[np.float32]:
    """A contiguous, finite, non-empty float32 array, or BadInput."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.size == 0:
        raise BadInput(f"{name} are a non-empty array of numbers, not {_what(array)}")
    with np.errstate(over="ignore"):  # what overflows float32 is reported as not finite below
        array = np.ascontiguousarray(array, np.float32)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise BadInput(f"{bad} of the {array.size} values of the {name} are NaN or infinite: remove them")
    return array


def _what(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__


def _digest(*arrays: NDArray[np.generic] | None) -> str:
    """SHA-256 over type, shape and little-endian bytes of each array; None counts as absent."""
    total = hashlib.sha256()
    for array in arrays:
        if array is None:
            total.update(b"none;")
            continue
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        total.update(f"{plain.dtype.str}{plain.shape};".encode())
        total.update(plain.data)
    return total.hexdigest()
