"""Pictures on meshes: seen points take the picture's colour, hidden ones do not, and a lost camera is found again."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from anyform.geometry.mesh import Mesh
from anyform.render.backprojection import project
from anyform.systems.wala.image_colours import DISTANCE, FOV_Y, blend_image, fit_view, paint_from_images
from anyform.systems.wala.paint import ColorGrid
from anyform.types.camera import Cameras

GREY = ColorGrid(np.full((32, 32, 32, 3), 0.5, np.float32))


def spheres(*parts: tuple[tuple[float, float, float], float]) -> Mesh:
    made = []
    for centre, radius in parts:
        ball = trimesh.creation.icosphere(4, radius)
        made.append(ball.apply_translation(centre))
    mesh = trimesh.util.concatenate(made)
    return Mesh(np.array(mesh.vertices, np.float32), np.array(mesh.faces, np.int32))


def picture(
    cameras: Cameras, centre: tuple[float, float, float], radius: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A sphere whose colour is its position, ray traced exactly; and the distance along the camera axis."""
    origins, directions = cameras.rays()
    offset = origins - np.array(centre)
    b = (offset * directions).sum(-1)
    root = b**2 - (offset**2).sum(-1) + radius**2
    hit = root > 0
    reach = -b - np.sqrt(np.maximum(root, 0))
    position = origins + reach[..., None] * directions
    rgba = np.concatenate([(position + 1) / 2, hit[..., None]], -1)
    depth = reach * -(directions * cameras.camera_to_world[:, None, None, :3, 2]).sum(-1)
    return np.rint(np.where(hit[..., None], rgba, 0).clip(0, 1) * 255).astype(np.uint8), np.where(hit, depth, np.inf)


def test_depth_and_facing_of_a_sphere() -> None:
    cameras = Cameras.orbit(np.array([0.7]), 0.4, DISTANCE, FOV_Y, 96)
    rgba, depth = picture(cameras, (0, 0, 0), 0.8)
    projection = project(rgba, cameras, spheres(((0, 0, 0), 0.8)))
    inner = projection.rgba[..., 3] > 0.5  # eroded: no pixel of the rim
    np.testing.assert_allclose(projection.depth[inner], depth[inner], atol=0.01)
    assert np.isinf(projection.depth[0, 0, 0]) and projection.facing[0, 0, 0] == 0
    assert projection.facing[0, 48, 48] > 0.99 and projection.facing[inner].min() > 0


def test_the_seen_side_is_the_picture_and_the_far_side_the_grid() -> None:
    cameras = Cameras.orbit(np.array([0.5]), 0.3, DISTANCE, FOV_Y, 128)
    mesh = spheres(((0, 0, 0), 0.8))
    colours = blend_image(GREY, picture(cameras, (0, 0, 0), 0.8)[0][0], cameras, mesh).color_at(mesh.vertices)
    towards = cameras.camera_to_world[0, :3, 3] / DISTANCE
    cosine = mesh.vertices @ towards / 0.8
    np.testing.assert_allclose(colours[cosine > 0.8], (mesh.vertices[cosine > 0.8] + 1) / 2, atol=0.02)
    np.testing.assert_allclose(colours[cosine < -0.1], 0.5, atol=1e-5)


def test_a_hidden_sphere_keeps_the_grid() -> None:
    cameras = Cameras.orbit(np.array([0.0]), 0.0, DISTANCE, FOV_Y, 128)
    mesh = spheres(((0, 0, 0.5), 0.4), ((0, 0, -0.5), 0.2))
    rgba = picture(cameras, (0, 0, 0.5), 0.4)[0]
    colours = blend_image(GREY, rgba, cameras, mesh).color_at(mesh.vertices)
    behind = mesh.vertices[:, 2] < -0.25
    np.testing.assert_allclose(colours[behind], 0.5, atol=1e-5)
    assert np.abs(colours[~behind] - 0.5).max() > 0.2


def test_two_views_cover_both_sides() -> None:
    cameras = Cameras.orbit(np.array([0.0, np.pi]), 0.0, DISTANCE, FOV_Y, 128)
    mesh = spheres(((0, 0, 0), 0.8))
    colours = blend_image(GREY, picture(cameras, (0, 0, 0), 0.8)[0], cameras, mesh).color_at(mesh.vertices)
    sure = np.abs(mesh.vertices[:, 2]) > 0.6
    np.testing.assert_allclose(colours[sure], (mesh.vertices[sure] + 1) / 2, atol=0.02)


@pytest.mark.parametrize("azimuth_deg", [40, 330])
def test_the_camera_is_found_by_the_outline(azimuth_deg: int) -> None:
    seat = trimesh.creation.box((0.9, 0.1, 1.2))
    back = trimesh.creation.box((0.9, 1.2, 0.1)).apply_translation((0, 0.6, -0.55))
    arm = trimesh.creation.box((0.1, 0.5, 0.9)).apply_translation((0.4, 0.25, 0))
    solid = trimesh.util.concatenate([seat, back, arm]).subdivide_to_size(0.05)
    mesh = Mesh(np.array(solid.vertices - solid.bounds.mean(0), np.float32), np.array(solid.faces, np.int32))
    azimuth = np.radians([azimuth_deg])
    taken = Cameras.orbit(azimuth, np.radians(15), DISTANCE, FOV_Y, 160)
    seen = project(np.full((1, 160, 160, 4), 255, np.uint8), taken, mesh).facing[0] != 0
    photo = np.zeros((300, 400, 4), np.uint8)
    photo[60:220, 130:290] = np.where(seen[..., None], (200, 30, 30, 255), 0)
    placed, camera, overlap = fit_view(photo, mesh)
    expected = Cameras.orbit(azimuth, np.radians(15), DISTANCE, FOV_Y, 256)
    np.testing.assert_allclose(camera.camera_to_world, expected.camera_to_world, atol=1e-9)
    assert overlap > 0.9
    ours = project(placed, camera, mesh).facing[0] != 0
    shown = placed[..., 3] > 127
    assert (ours & shown).sum() / (ours | shown).sum() > 0.93


def test_the_far_side_continues_the_picture() -> None:
    cameras = Cameras.orbit(np.array([0.3]), 0.2, DISTANCE, FOV_Y, 96)
    mesh = spheres(((0, 0, 0), 0.8))
    rgba = picture(cameras, (0, 0, 0), 0.8)[0]
    rgba[..., :3] = (190, 30, 25)
    axis = (np.arange(64) + 0.5) / 32 - 1
    sdf = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis, indexing="ij")), axis=0) - 0.8
    colours = paint_from_images(sdf, rgba, cameras, mesh).color_at(mesh.vertices)
    red = (colours[:, 0] > 0.45) & (colours[:, 1] < 0.45) & (colours[:, 2] < 0.45)
    assert red.mean() > 0.9


def test_draped_colours_lie_where_the_picture_has_them():
    """Left half red, right half blue, on a box: seen from the front, x grows to the right."""
    import trimesh

    from anyform.geometry.mesh import Mesh
    from anyform.systems.wala.image_colours import draped

    box = trimesh.creation.box((1.0, 1.6, 1.0)).subdivide().subdivide().subdivide()
    picture = np.zeros((40, 60, 4), np.uint8)
    picture[5:35, 10:30] = (255, 0, 0, 255)
    picture[5:35, 30:50] = (0, 0, 255, 255)
    grid = draped(picture, Mesh(box.vertices, box.faces))
    filled = grid.any(-1)
    left, right = grid[:7][filled[:7]], grid[9:][filled[9:]]
    assert (left[:, 0] > 200).all()
    assert (right[:, 2] > 200).all()
