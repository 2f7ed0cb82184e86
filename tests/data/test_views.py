from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from trimesh.creation import box, icosphere

from anyform.data import views
from anyform.data.corpus import Shape
from anyform.data.views import DISTANCE, FLAT, FOV_Y, Light, render_views, ring_cameras, surface_points
from anyform.errors import BadSetting, MissingDependency
from anyform.types.camera import Cameras

RED, GREEN, BLUE = (250, 20, 10), (10, 240, 30), (20, 30, 230)


def sphere(radius: float = 0.8) -> Shape:
    mesh = icosphere(4, radius)
    faces = np.asarray(mesh.faces, np.int64)
    return Shape(np.asarray(mesh.vertices, np.float64), faces, np.tile(np.uint8(RED), (len(faces), 1)))


def coloured_cube() -> Shape:
    """+x red, +y green, +z blue, the others black."""
    mesh = box((1, 1, 1))
    rgb = np.zeros((len(mesh.faces), 3), np.uint8)
    for axis, colour in enumerate((RED, GREEN, BLUE)):
        rgb[mesh.face_normals[:, axis] > 0.9] = colour
    return Shape(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64), rgb)


def orbit(azimuth: float, elevation: float, size: int = 32) -> Cameras:
    return Cameras.orbit(np.radians([azimuth]), np.radians(elevation), DISTANCE, FOV_Y, size)


def test_sphere_depth_alpha_normal() -> None:
    seen = render_views(sphere(), orbit(30, 10, 64), supersampling=2)
    assert np.isclose(seen.depth[0, 31:33, 31:33], DISTANCE - 0.8, atol=0.003).all()
    half = np.arcsin(0.8 / DISTANCE)
    disc = np.pi * (np.tan(half) / np.tan(FOV_Y / 2) * 32) ** 2
    assert np.isclose(seen.rgba[0, ..., 3].sum(), disc, rtol=0.01)
    hit = seen.face[0] >= 0
    assert np.array_equal(hit, np.isfinite(seen.depth[0]))
    assert np.allclose(np.linalg.norm(seen.normal[0][hit], axis=-1), 1, atol=1e-5)
    assert (seen.normal[0][~hit] == 0).all()


def test_depths_lie_on_the_surface() -> None:
    cameras = Cameras.orbit(np.radians([0, 120, 250]), np.radians([0, 40, -30]), DISTANCE, FOV_Y, 32)
    seen = render_views(sphere(), cameras, supersampling=1)
    for points in cameras.unproject(seen.depth):
        assert len(points) > 50
        assert np.allclose(np.linalg.norm(points, axis=1), 0.8, atol=0.004)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "colour"), [(0, 0, BLUE), (90, 0, RED), (0, 90, GREEN), (180, 0, (0, 0, 0))]
)
def test_cameras_see_the_side_they_should(azimuth: float, elevation: float, colour: tuple[int, ...]) -> None:
    seen = render_views(coloured_cube(), orbit(azimuth, elevation), light=FLAT)
    assert np.allclose(seen.rgba[0, 15:17, 15:17, :3] * 255, colour, atol=0.01)


def test_image_is_upright() -> None:
    shape = coloured_cube()
    seen = render_views(shape, orbit(0, 40), light=FLAT).rgba[0]
    rows = np.flatnonzero(seen[:, 16, 3] > 0.5)
    assert seen[rows[1], 16, 1] > 0.8 and seen[rows[-2], 16, 2] > 0.8  # green top above the blue front


def test_light_formula_on_a_facing_wall() -> None:
    light = Light(direction=(0, 0, 2), ambient=0.3, diffuse=0.4, headlight=0.1)
    seen = render_views(coloured_cube(), orbit(0, 0), light=light)
    assert np.allclose(seen.rgba[0, 15:17, 15:17, 2], 230 / 255 * 0.8, atol=0.003)


def test_inside_out_faces_look_the_same() -> None:
    shape = coloured_cube()
    flipped = Shape(shape.vertices, shape.faces[:, ::-1], shape.face_rgb)
    light = Light.random(np.random.default_rng(0))
    first, second = (render_views(s, orbit(35, 25), light=light) for s in (shape, flipped))
    assert np.array_equal(first.rgba, second.rgba) and np.array_equal(first.normal, second.normal)


def test_supersampled_edges_keep_straight_colour() -> None:
    rgba = render_views(sphere(), orbit(0, 0), light=FLAT, supersampling=4).rgba[0]
    edge = (rgba[..., 3] > 0) & (rgba[..., 3] < 1)
    assert edge.sum() > 10
    assert np.allclose(rgba[edge][:, :3] * 255, RED, atol=0.01)
    assert np.allclose(rgba[..., 3] * 16 % 1, 0)


def test_many_views_equal_single_ones() -> None:
    rng = np.random.default_rng(4)
    cameras = ring_cameras(rng, 3, 24)
    together = render_views(coloured_cube(), cameras)
    for view in range(3):
        one = Cameras(cameras.camera_to_world[view : view + 1], cameras.fov_y[view : view + 1], 24, 24)
        assert np.array_equal(render_views(coloured_cube(), one).rgba[0], together.rgba[view])


def test_ring_goes_round_at_one_distance() -> None:
    cameras = ring_cameras(np.random.default_rng(0), 12, 16)
    position = cameras.camera_to_world[:, :3, 3]
    azimuth = np.unwrap(np.arctan2(position[:, 0], position[:, 2]))
    assert np.allclose(np.linalg.norm(position, axis=1), DISTANCE)
    assert (np.diff(azimuth) > 0).all() and azimuth[-1] - azimuth[0] < 2 * np.pi


def test_surface_points_follow_area_and_colour() -> None:
    small, large = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 0, 1], [3, 0, 1], [0, 1, 1]])
    shape = Shape(np.concatenate([small, large]).astype(float), np.arange(6).reshape(2, 3), np.uint8([RED, BLUE]))
    points, rgb = surface_points(shape, 8000, np.random.default_rng(0))
    on_large = points[:, 2] > 0.5
    assert 0.72 < on_large.mean() < 0.78
    assert (rgb[on_large] == BLUE).all() and (rgb[~on_large] == RED).all()
    assert np.allclose(points[~on_large].mean(0), [1 / 3, 1 / 3, 0], atol=0.02)


def test_mesh_without_area_still_gives_points() -> None:
    shape = Shape(np.zeros((3, 3)), np.array([[0, 1, 2]]), np.uint8([RED]))
    assert surface_points(shape, 10, np.random.default_rng(0))[0].shape == (10, 3)


def test_settings_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSetting, match="supersampling is 0"):
        render_views(coloured_cube(), orbit(0, 0), supersampling=0)
    found = importlib.util.find_spec

    def without_embree(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "embreex" else found(name, package)

    monkeypatch.setattr(views, "find_spec", without_embree)
    with pytest.raises(MissingDependency, match="embreex"):
        render_views(coloured_cube(), orbit(0, 0))
