"""Pictures of a mesh for training: colour, alpha, depth, normals and face ids from one set of Embree ray hits.

Light model: albedo · (ambient + diffuse · max(0, n·l) + headlight · max(0, n·v)), normals turned to the camera (the
corpus has inverted faces), evaluated in sRGB values. Simple on purpose: its pictures should vary, not convince.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadSetting, MissingDependency
from anyform.types.camera import Cameras

if TYPE_CHECKING:
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    from anyform.data.corpus import Shape

DISTANCE = 4.4  # the whole cube [-1, 1]³ stays in view at this distance and angle
FOV_Y = float(np.radians(40))


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """One directional light (unit vector towards it), ambient light and a weak light at the camera."""

    direction: tuple[float, float, float] = (0.39, 0.78, 0.49)
    ambient: float = 0.45
    diffuse: float = 0.45
    headlight: float = 0.15

    @classmethod
    def random(cls, rng: np.random.Generator) -> Light:
        """A light from above in a random direction, ambient in [0.35, 0.6], diffuse in [0.3, 0.55]."""
        towards = rng.normal(size=3)
        towards[1] = abs(towards[1]) + 0.5
        x, y, z = (towards / np.linalg.norm(towards)).tolist()
        return cls(direction=(x, y, z), ambient=rng.uniform(0.35, 0.6), diffuse=rng.uniform(0.3, 0.55))


FLAT = Light(ambient=1.0, diffuse=0.0, headlight=0.0)  # the albedo itself


@dataclass(frozen=True, slots=True)
class ViewImages:
    """What V cameras see. rgba (V, H, W, 4) float32 in [0, 1], sRGB with straight alpha.

    depth (V, H, W) float32 along the camera axis, world units, inf where no surface; normal (V, H, W, 3) float32 in
    world space towards the camera, 0 where no surface; face (V, H, W) int32, -1 where no surface. With supersampling
    the three describe the nearest of a pixel's samples, colour and alpha are their mean.
    """

    rgba: NDArray[np.float32]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    face: NDArray[np.int32]


def ring_cameras(rng: np.random.Generator, count: int, size: int) -> Cameras:
    """`count` cameras around the object: even azimuths jittered by 40 % of their gap, elevations in [-5°, 40°]."""
    gap = 2 * np.pi / count
    azimuth = (np.arange(count) + rng.uniform(-0.4, 0.4, count)) * gap
    return Cameras.orbit(azimuth, np.radians(rng.uniform(-5, 40, count)), DISTANCE, FOV_Y, size)


def render_views(shape: Shape, cameras: Cameras, *, light: Light = FLAT, supersampling: int = 2) -> ViewImages:
    """Cast `supersampling`² rays a pixel at the shape. One view at a time, so memory does not grow with their number.

    Raises MissingDependency without embreex.
    """
    if not 1 <= supersampling <= 8:
        raise BadSetting(f"supersampling is {supersampling}; it must be between 1 and 8")
    caster, normals = _caster(shape), face_normals(shape.vertices, shape.faces)
    views = [_one_view(shape, caster, normals, _only(cameras, v, supersampling), light) for v in range(len(cameras))]
    down = [_downsample(view, supersampling) for view in views]
    return ViewImages(*(np.stack(parts) for parts in zip(*down, strict=True)))


def face_normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unit normals (F, 3) by winding; 0 for faces without area."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return normal / np.where(length > 0, length, 1)


def surface_points(shape: Shape, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """`count` points uniform on the surface by area, and the colours of their faces: (N, 3) float32, (N, 3) uint8."""
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    total = area.sum()
    chosen = rng.choice(len(area), count, p=area / total if total > 0 else None)
    u, v = rng.random((2, count, 1))
    folded = u + v > 1
    u, v = np.where(folded, 1 - u, u), np.where(folded, 1 - v, v)
    points = a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]
    return points.astype(np.float32), shape.face_rgb[chosen]


def _caster(shape: Shape) -> RayMeshIntersector:
    if find_spec("embreex") is None:
        raise MissingDependency("embreex", extra="data")
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    return RayMeshIntersector(trimesh.Trimesh(shape.vertices, shape.faces, process=False))


def _only(cameras: Cameras, view: int, supersampling: int) -> Cameras:
    """One camera of the set with `supersampling` times the pixels a side."""
    one = slice(view, view + 1)
    height, width = cameras.height * supersampling, cameras.width * supersampling
    return Cameras(cameras.camera_to_world[one], cameras.fov_y[one], height, width)


def _one_view(
    shape: Shape, caster: RayMeshIntersector, normals: NDArray[np.float64], camera: Cameras, light: Light
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Premultiplied rgba (n, m, 4), depth, normal and face of every sample of one camera."""
    origins, directions = camera.rays()
    origin, ray = camera.camera_to_world[0, :3, 3], directions.reshape(-1, 3)
    face = np.asarray(caster.intersects_first(origins.reshape(-1, 3), ray), np.int64)
    hit = np.flatnonzero(face >= 0)
    seen, ray = face[hit], ray[hit]
    normal = normals[seen]
    facing = (normal * ray).sum(1)
    normal = np.where(facing[:, None] > 0, -normal, normal)
    facing = np.abs(facing)
    corners = shape.vertices[shape.faces[seen]] - origin
    # Embree finds which triangle; where on it is computed here in float64, on the triangle's plane.
    reach = np.abs((corners[:, 0] * normal).sum(1)) / np.maximum(facing, 1e-9)
    forward = -camera.camera_to_world[0, :3, 2]
    # A grazing ray meets the plane far away from the triangle it touched; the triangle's own depths bound the truth.
    bounds = corners @ forward
    towards = np.asarray(light.direction) / np.linalg.norm(light.direction)
    shade = light.ambient + light.diffuse * np.clip(normal @ towards, 0, 1) + light.headlight * facing
    depth, normals_seen, rgba = np.full(len(face), np.inf), np.zeros((len(face), 3)), np.zeros((len(face), 4))
    depth[hit] = np.clip(reach * (ray @ forward), bounds.min(1), bounds.max(1))
    normals_seen[hit] = normal
    rgba[hit, :3] = np.clip(shape.face_rgb[seen] / 255 * shade[:, None], 0, 1)
    rgba[hit, 3] = 1
    size = camera.height, camera.width
    return rgba.reshape(*size, 4), depth.reshape(size), normals_seen.reshape(*size, 3), face.reshape(size)


def _downsample(
    samples: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Mean colour and alpha, and the nearest sample's depth, normal and face, of factor × factor samples a pixel."""
    rgba, depth, normal, face = (_blocks(channel, factor) for channel in samples)
    mean = rgba.mean(2)
    straight = mean[..., :3] / np.where(mean[..., 3:] > 0, mean[..., 3:], 1)
    nearest = depth.argmin(2)[..., None]
    picked_normal = np.take_along_axis(normal, nearest[..., None], 2)[:, :, 0]
    picked_depth, picked_face = (np.take_along_axis(channel, nearest, 2)[..., 0] for channel in (depth, face))
    return (
        np.concatenate([straight, mean[..., 3:]], -1).astype(np.float32),
        picked_depth.astype(np.float32),
        picked_normal.astype(np.float32),
        picked_face.astype(np.int32),
    )


def _blocks(channel: NDArray, factor: int) -> NDArray:
    """(H·f, W·f, …) -> (H, W, f², …)."""
    height, width, *rest = channel.shape
    split = channel.reshape(height // factor, factor, width // factor, factor, *rest)
    return split.swapaxes(1, 2).reshape(height // factor, width // factor, factor * factor, *rest)
