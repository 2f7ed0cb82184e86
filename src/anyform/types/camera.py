"""Pinhole cameras: the one home of anyform's camera conventions.

World: right-handed, +y up, object in [-1, 1]³ with its front towards +z. Camera: +x right, +y up, looks along −z
(OpenGL/glTF). Angles in radians; azimuth 0 is on +z and grows towards +x; elevation grows upwards.
Pixel (row i, column j) has its centre at (j + 0.5, i + 0.5) with row 0 at the top of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Cameras:
    """V pinhole cameras.

    camera_to_world: (V, 4, 4) float64, columns = camera right, up, backward, position.
    fov_y: (V,) vertical field of view in radians. height, width: image size in pixels, the same for all views.
    """

    camera_to_world: NDArray[np.float64]
    fov_y: NDArray[np.float64]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.camera_to_world)

    @classmethod
    def orbit(
        cls,
        azimuth: NDArray[np.float64],
        elevation: NDArray[np.float64],
        distance: float | NDArray[np.float64],
        fov_y: float | NDArray[np.float64],
        size: int,
    ) -> Cameras:
        """Cameras on spheres around the origin, looking at it, with +y up.

        azimuth, elevation, distance, fov_y: scalars or (V,), radians and world units; size: square edge in pixels.
        At |elevation| = 90° the up vector is taken from the azimuth, so the view stays defined.
        """
        azimuth, elevation, distance, fov_y = np.broadcast_arrays(
            np.atleast_1d(np.asarray(azimuth, np.float64)), elevation, distance, fov_y
        )
        sin_a, cos_a, sin_e, cos_e = np.sin(azimuth), np.cos(azimuth), np.sin(elevation), np.cos(elevation)
        backward = np.stack([cos_e * sin_a, sin_e, cos_e * cos_a], -1)
        right = np.stack([cos_a, np.zeros_like(cos_a), -sin_a], -1)
        up = np.cross(backward, right)
        pose = np.tile(np.eye(4), (len(azimuth), 1, 1))
        pose[:, :3, 0], pose[:, :3, 1], pose[:, :3, 2] = right, up, backward
        pose[:, :3, 3] = backward * distance[:, None]
        return cls(pose, np.array(fov_y, np.float64), size, size)

    def rays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Origins and unit directions, each (V, H, W, 3), of the rays through the pixel centres, in world space."""
        focal = self.height / 2 / np.tan(self.fov_y / 2)
        column, row = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        x = (column - self.width / 2)[None] / focal[:, None, None]
        y = (self.height / 2 - row)[None] / focal[:, None, None]
        local = np.stack([x, y, -np.ones_like(x)], -1)
        local /= np.linalg.norm(local, axis=-1, keepdims=True)
        directions = np.einsum("vij,vhwj->vhwi", self.camera_to_world[:, :3, :3], local)
        origins = np.broadcast_to(self.camera_to_world[:, None, None, :3, 3], directions.shape)
        return origins, directions

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """World points (N, 3) -> (V, N, 3): column and row in pixels, and depth along the camera axis (world units)."""
        local = np.einsum(
            "vji,vnj->vni", self.camera_to_world[:, :3, :3], points[None] - self.camera_to_world[:, None, :3, 3]
        )
        depth = -local[..., 2]
        focal = (self.height / 2 / np.tan(self.fov_y / 2))[:, None]
        column = local[..., 0] / depth * focal + self.width / 2
        row = self.height / 2 - local[..., 1] / depth * focal
        return np.stack([column, row, depth], -1)

    def unproject(self, depth: NDArray[np.floating]) -> list[NDArray[np.float64]]:
        """Depth maps (V, H, W), along the camera axis with inf as background, -> (N_v, 3) world points a view."""
        origins, directions = self.rays()
        forward = -self.camera_to_world[:, :3, 2]
        along = np.einsum("vhwi,vi->vhw", directions, forward)
        points = []
        for v in range(len(self)):
            hit = np.isfinite(depth[v])
            reach = depth[v][hit] / along[v][hit]
            points.append(origins[v][hit] + directions[v][hit] * reach[:, None])
        return points


# WaLa's fixed views, id -> (azimuth, elevation) in degrees; of its 55 rows those with public numbers (specs/wala.md
# §8): five of the irregular ring 0–39, the upper ring 40–49 and the lower ring 50–54, both of which repeat their start.
WALA_VIEWS: dict[int, tuple[float, float]] = {
    0: (57.37415476, 13.47771793),
    3: (57.26659092, 25.34236163),
    6: (140.94213862, 12.91862734),
    10: (230.76201332, 13.27249801),
    26: (319.80819418, 16.43987141),
    **{40 + i: (40.0 * i, 60.0) for i in range(10)},
    **{50 + i: (90.0 * i, -60.0) for i in range(5)},
}


def wala_cameras(ids: Sequence[int], size: int, distance: float = 4.4, fov_y: float = np.deg2rad(40.0)) -> Cameras:
    """Cameras of WaLa's views `ids` with square images of `size` pixels; raises KeyError for an id without numbers.

    Distance (world units) and fov_y (radians) of WaLa's own renders are not published: these show the sphere of radius
    1.5 around the origin whole.
    """
    angles = np.deg2rad([WALA_VIEWS[i] for i in ids]).reshape(-1, 2)
    return Cameras.orbit(angles[:, 0], angles[:, 1], distance, fov_y, size)


def alternating_orbit(count: int, offset: float = 0.0) -> NDArray[np.float64]:
    """(V, 2) azimuth and elevation in radians: even azimuths from `offset` on, elevations +20° and −5° by turns.

    TuneMV3D's preset views (count 8, distance 3, fov_y 40°: the unit ball fits); two rings tell depth better than one.
    """
    number = np.arange(count)
    return np.stack([offset + number * 2 * np.pi / count, np.radians(np.where(number % 2, -5.0, 20.0))], -1)
