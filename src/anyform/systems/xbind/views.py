"""From where a phase looks at the object: the published view sampling, and the camera that a 3D-aware prior is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anyform.priors.relative_camera import relative_camera
from anyform.systems.xbind.config import ViewSettings
from anyform.types.camera import Cameras

REFERENCE_DISTANCE, REFERENCE_FOV = 2.5, math.radians(40.0)  # elevation and azimuth of the reference view are 0


@dataclass(frozen=True, slots=True, eq=False)
class Viewpoints:
    """V cameras with what they were made from: angles in radians, distance in world units, each (V,)."""

    cameras: Cameras
    azimuth: NDArray[np.float64]
    elevation: NDArray[np.float64]
    distance: NDArray[np.float64]
    fov_y: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.azimuth)

    @classmethod
    def at(
        cls,
        azimuth: NDArray[np.float64],
        elevation: NDArray[np.float64],
        distance: NDArray[np.float64],
        fov_y: NDArray[np.float64],
        size: int,
    ) -> Viewpoints:
        """Viewpoints around the origin; all arrays (V,), size in pixels."""
        return cls(Cameras.orbit(azimuth, elevation, distance, fov_y, size), azimuth, elevation, distance, fov_y)

    def joined(self, other: Viewpoints) -> Viewpoints:
        """These viewpoints, then the others, which have pictures of the same size."""
        mine, theirs = self.cameras, other.cameras
        cameras = Cameras(
            np.concatenate([mine.camera_to_world, theirs.camera_to_world]),
            np.concatenate([mine.fov_y, theirs.fov_y]),
            mine.height,
            mine.width,
        )
        names = ("azimuth", "elevation", "distance", "fov_y")
        return Viewpoints(cameras, *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in names))

    def told(self, view: int) -> Tensor:
        """(4,): where a view lies as seen from the reference view, as 3D-aware priors are told it."""
        angles = (self.elevation, self.azimuth, self.distance, self.fov_y)
        elevation, azimuth, distance, fov_y = (float(part[view]) for part in angles)
        return relative_camera(elevation, azimuth, distance, fov_y, (0.0, 0.0, REFERENCE_DISTANCE, REFERENCE_FOV))[0]


def reference_view(size: int) -> Viewpoints:
    """The one camera that the reference picture belongs to."""
    zero = np.zeros(1)
    return Viewpoints.at(zero, zero, np.full(1, REFERENCE_DISTANCE), np.full(1, REFERENCE_FOV), size)


def turntable(num_views: int, size: int, elevation: float = 0.0) -> Viewpoints:
    """Views evenly around the object at the reference's distance; the endpoint, which is the start, is left out."""
    azimuth = np.arange(num_views, dtype=np.float64) * (2 * math.pi / num_views)
    same = np.ones(num_views)
    return Viewpoints.at(azimuth, elevation * same, REFERENCE_DISTANCE * same, REFERENCE_FOV * same, size)


def sample(
    settings: ViewSettings, num_views: int, size: int, part: float, rng: np.random.Generator, scale: float = 1.0
) -> Viewpoints:
    """Random views of one step.

    Elevations are uniform in angle or, for a share `on_sphere` of the views, on the sphere. Azimuths are stratified:
    view i of V lies in its own part of the range, of `sectors` parts where that is given. part: done of the phase, by
    which the azimuths have widened; scale: factor on all distances.
    """
    low, high = np.radians(settings.elevation_deg)
    uniform = rng.uniform(low, high, num_views)
    spherical = np.arcsin(rng.uniform(math.sin(low), math.sin(high), num_views))
    elevation = np.where(rng.random(num_views) < settings.on_sphere, spherical, uniform)
    sectors = settings.sectors or num_views
    share = (rng.random(num_views) + np.arange(num_views) % sectors) / sectors
    first, last = np.radians(settings.azimuth_deg)
    azimuth = first + share * (last - first)
    if part < settings.widened_at:
        narrow = math.radians(settings.narrow_deg)
        grown = narrow + (math.pi - narrow) * part / settings.widened_at
        azimuth = (azimuth + math.pi) % (2 * math.pi) - math.pi
        azimuth = azimuth * grown / math.pi
    distance = scale * rng.uniform(*settings.distance, num_views)
    fov_y = np.radians(rng.uniform(*settings.fov_y_deg, num_views))
    return Viewpoints.at(azimuth, elevation, distance, fov_y, size)


def framing_scale(settings: ViewSettings, radius: float) -> float:
    """The factor on distances with which about half of the views hold a whole sphere of `radius`; never below 1.

    Close-ups of an object that was made at the reference distance would else cut it (specs/xbind.md §5.7).
    """
    rng = np.random.default_rng(0)
    distance = rng.uniform(*settings.distance, 1000)
    fov_y = np.radians(rng.uniform(*settings.fov_y_deg, 1000))
    return max(1.0, float(np.median(radius / (0.9 * distance * np.sin(fov_y / 2)))))
