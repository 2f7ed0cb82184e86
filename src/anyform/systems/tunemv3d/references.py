"""Pictures a user gives -> clean views in slots, with cameras in the branch's world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyform.errors import BadInput
from anyform.types.camera import Cameras, alternating_orbit
from anyform.types.framing import frame
from anyform.types.prompt import Image, Views

DISTANCE, FOV_Y = 3.0, float(np.radians(40.0))  # of the preset views
VISIBLE = DISTANCE * np.sin(FOV_Y / 2)  # radius of the ball that a preset view shows whole
FILL = 0.75  # of the frame that a lone picture's object takes


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """Cameras of all slots (square, at the pictures' size), and pictures (3, S, S) in [0, 1] on white of some.

    scale: what the user's world was multiplied by to become ours.
    """

    cameras: Cameras
    pictures: Mapping[int, Tensor]
    scale: float = 1.0


def preset(count: int, size: int) -> Cameras:
    """The preset views at `size` pixels."""
    angles = alternating_orbit(count)
    return Cameras.orbit(angles[:, 0], angles[:, 1], DISTANCE, FOV_Y, size)


def of_image(image: Image, elevation: float, count: int, size: int) -> Arrangement:
    """One picture, cut out and framed, in slot 0 seen from the front at `elevation` (radians); the rest is preset."""
    from anyform.encoders.cutout import cut_out

    cut = image if image.has_mask else cut_out(image, "auto")
    framed = frame(cut.rgba, size, FILL).astype(np.float32) / 255
    angles = alternating_orbit(count)
    angles[0, 1] = elevation
    cameras = Cameras.orbit(angles[:, 0], angles[:, 1], DISTANCE, FOV_Y, size)
    return Arrangement(cameras, {0: on_white(framed)})


def of_views(views: Views, count: int, size: int) -> Arrangement:
    """Colour views with their own cameras; each takes the slot whose azimuth is nearest.

    The world is scaled so that the tightest of them sees our ball as a preset view does. Pictures that are not square
    are filled up with white. Raises BadInput for depth views and where no slot is left to sample.
    """
    if views.kind != "rgb":
        raise BadInput("TuneMV3D reads colour views, not depth maps: use --system wala for these")
    if len(views.pixels) >= count:
        raise BadInput(f"{len(views.pixels)} views leave nothing to draw: give 1 to {count - 1}")
    given = _square(views)
    position = given.cameras.camera_to_world[:, :3, 3]
    distance = np.linalg.norm(position, axis=1)
    if distance.min() < 1e-6:
        raise BadInput("a camera stands in the middle of the object: give views from outside")
    scale = float(VISIBLE / (distance * np.sin(given.cameras.fov_y / 2)).min())
    cameras = preset(count, size)
    pose, fov = cameras.camera_to_world.copy(), cameras.fov_y.copy()
    pictures: dict[int, Tensor] = {}
    azimuth, slots = np.arctan2(position[:, 0], position[:, 2]), alternating_orbit(count)[:, 0]
    for number, angle in enumerate(azimuth):
        gap = np.abs(np.angle(np.exp(1j * (slots - angle))))
        gap[list(pictures)] = np.inf
        slot = int(gap.argmin())
        pose[slot], fov[slot] = given.cameras.camera_to_world[number], given.cameras.fov_y[number]
        pose[slot, :3, 3] *= scale
        pictures[slot] = on_white(_resized(given.pixels[number], size))
    return Arrangement(Cameras(pose, fov, size, size), pictures, scale)


def on_white(rgba: NDArray[np.floating]) -> Tensor:
    """(S, S, 4) straight in [0, 1] -> (3, S, S) float32 over white."""
    pixels = torch.from_numpy(np.ascontiguousarray(rgba, np.float32)).permute(2, 0, 1)
    return pixels[:3] * pixels[3:] + 1 - pixels[3:]


def _square(views: Views) -> Views:
    """The views with transparent bars, so that they are square; the field of view grows with the height."""
    height, width = views.pixels.shape[1:3]
    edge = max(height, width)
    top, left = (edge - height) // 2, (edge - width) // 2
    bars = (0, 0), (top, edge - height - top), (left, edge - width - left), (0, 0)
    fov = 2 * np.arctan(np.tan(views.cameras.fov_y / 2) * edge / height)
    return Views("rgb", np.pad(views.pixels, bars), Cameras(views.cameras.camera_to_world, fov, edge, edge))


def _resized(rgba: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(H, H, 4) -> (size, size, 4) by averaging areas, colours weighed by their alpha."""
    weighed = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1)
    planes = torch.from_numpy(weighed).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(planes, (size, size), mode="area")[0].permute(1, 2, 0).numpy()
    return np.concatenate([small[..., :3] / np.maximum(small[..., 3:], 1e-6), small[..., 3:]], -1).clip(0, 1)
