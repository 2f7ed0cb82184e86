"""Pictures: silhouettes of known area, axes where the camera's conventions put them, colours, labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anyform.errors import BadInput, BadSetting
from anyform.geometry.color import srgb_to_linear
from anyform.geometry.mesh import Material, Mesh
from anyform.render.raster import rasterise
from anyform.render.shading import clip_positions, contact_sheet, crease_normals, framed, picture, turntable
from anyform.types.camera import Cameras

# one colour for each direction: +x red, -x cyan, +y green, -y magenta, +z blue, -z yellow
SIDES = {
    (0, 1): (1, 0, 0),
    (0, -1): (0, 1, 1),
    (1, 1): (0, 1, 0),
    (1, -1): (1, 0, 1),
    (2, 1): (0, 0, 1),
    (2, -1): (1, 1, 0),
}


def box(low: tuple[float, ...] = (-0.5,) * 3, high: tuple[float, ...] = (0.5,) * 3) -> Mesh:
    """A box whose six sides have their own corners and the colours of SIDES, wound outwards."""
    vertices, faces, colours = [], [], []
    for (axis, sign), colour in SIDES.items():
        u, v = (axis + 1) % 3, (axis + 2) % 3
        corners = np.zeros((4, 3))
        corners[:, axis] = (high if sign > 0 else low)[axis]
        corners[:, u] = np.array([low[u], high[u], high[u], low[u]])
        corners[:, v] = np.array([low[v], low[v], high[v], high[v]])
        start = 4 * len(vertices)
        turn = [[0, 1, 2], [0, 2, 3]] if sign > 0 else [[0, 2, 1], [0, 3, 2]]
        faces.append(np.array(turn) + start)
        vertices.append(corners)
        colours.append(np.tile(colour, (4, 1)))
    colour = np.concatenate(colours).astype(np.float32)
    return Mesh(np.concatenate(vertices), np.concatenate(faces), vertex_color=colour)


def letter() -> Mesh:
    """An L in the x-y plane as seen from +z: upright on the left (-x), foot to the right (+x), below."""
    upright, foot = box((-0.5, -0.5, -0.1), (-0.3, 0.5, 0.1)), box((-0.3, -0.5, -0.1), (0.3, -0.3, 0.1))
    assert upright.vertex_color is not None
    assert foot.vertex_color is not None
    return Mesh(
        np.concatenate([upright.vertices, foot.vertices]),
        np.concatenate([upright.faces, foot.faces + len(upright.vertices)]),
        vertex_color=np.concatenate([upright.vertex_color, foot.vertex_color]),
    )


def ball(count: int = 48) -> Mesh:
    around, down = np.linspace(0, 2 * np.pi, 2 * count + 1), np.linspace(0, np.pi, count + 1)
    a, d = np.meshgrid(around, down, indexing="ij")
    points = np.stack([np.sin(d) * np.sin(a), np.cos(d), np.sin(d) * np.cos(a)], -1).reshape(-1, 3)
    i, j = (part.ravel() for part in np.meshgrid(np.arange(2 * count), np.arange(count), indexing="ij"))
    p = i * (count + 1) + j
    q = p + count + 1
    return Mesh(points, np.concatenate([np.stack([p, p + 1, q], 1), np.stack([q, p + 1, q + 1], 1)]))


def straight(azimuth: float = 0.0, elevation: float = 0.0, size: int = 64, distance: float = 4.0) -> Cameras:
    return Cameras.orbit(np.array([azimuth]), np.array(elevation), distance, np.radians(40), size)


def dominant(pixels: NDArray[np.uint8]) -> tuple[int, ...]:
    """Which channels of the middle pixel are lit."""
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2, :3]
    return tuple(int(value > 60) for value in middle)


@pytest.mark.parametrize(("azimuth", "elevation", "side"), [
    (0, 0, (2, 1)), (90, 0, (0, 1)), (180, 0, (2, -1)), (270, 0, (0, -1)), (0, 90, (1, 1)), (0, -90, (1, -1)),
])  # fmt: skip
def test_each_camera_sees_the_side_it_is_on(azimuth: float, elevation: float, side: tuple[int, int]) -> None:
    seen = picture(box(), straight(np.radians(azimuth), np.radians(elevation)))
    assert dominant(seen[0]) == SIDES[side]


def test_from_the_front_x_is_right_and_y_is_up() -> None:
    alpha = picture(letter(), straight(size=80), "transparent")[0, ..., 3] > 128
    rows, columns = np.nonzero(alpha)
    upper = columns[rows < 35]
    lower = columns[rows > 46]
    assert upper.max() < 40 < lower.max()
    behind = picture(letter(), straight(np.pi, size=80), "transparent")[0, ..., 3] > 128
    np.testing.assert_array_equal(behind, alpha[:, ::-1])


def test_clip_positions_agree_with_the_cameras_projection() -> None:
    cameras = Cameras.orbit(np.array([0.4, 2.0]), np.array([0.3, -0.6]), 3.0, 0.6, 50)
    points = np.random.default_rng(1).uniform(-1, 1, (40, 3))
    for view, expected in enumerate(cameras.project(points)):
        clip = clip_positions(points, cameras, view)
        np.testing.assert_allclose((clip[:, 0] / clip[:, 3] + 1) * 25, expected[:, 0], atol=1e-9)
        np.testing.assert_allclose((1 - clip[:, 1] / clip[:, 3]) * 25, expected[:, 1], atol=1e-9)
        np.testing.assert_allclose(clip[:, 3], expected[:, 2], atol=1e-12)
        z = clip[:, 2] / clip[:, 3]
        assert (np.abs(z) < 1).all()
        assert (np.argsort(z) == np.argsort(clip[:, 3])).all()


def test_a_ball_has_the_silhouette_of_its_cone_of_view() -> None:
    # a ball of radius 1 at distance d subtends asin(1/d): on the image plane a disc of radius tan(asin(1/d)) · focal
    alpha = picture(ball(), straight(size=128), "transparent")[0, ..., 3] / 255
    radius = np.tan(np.arcsin(1 / 4)) * 64 / np.tan(np.radians(20))
    assert alpha.sum() == pytest.approx(np.pi * radius**2, rel=4e-3)


def test_a_cube_face_has_its_area_and_edges_are_antialiased() -> None:
    alpha = picture(box(), straight(size=100), "transparent")[0, ..., 3] / 255
    side = 50 / np.tan(np.radians(20)) / 3.5
    assert alpha.sum() == pytest.approx(side**2, rel=0.02)
    assert set(np.unique(np.rint(alpha * 4))) <= {0, 1, 2, 3, 4}


def test_the_texture_is_read_with_v_up_and_keeps_its_colours() -> None:
    texture = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8).repeat(8, 0).repeat(8, 1)
    quad = Mesh(
        np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
        uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
        material=Material(base_color=texture),
    )
    seen = picture(quad, straight(size=64), "transparent")[0]
    places = ((22, 22), (22, 42), (42, 22), (42, 42))
    lit = [tuple(int(v > 100) for v in seen[row, column, :3]) for row, column in places]
    assert lit == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]


def test_colours_multiply_and_the_base_colour_alone_counts() -> None:
    grey = Mesh(box().vertices, box().faces, material=Material(base_color_factor=(0.5, 0.25, 0.0, 1.0)))
    seen = srgb_to_linear(picture(grey, straight())[0, 32, 32, :3] / 255)
    assert seen[1] / seen[0] == pytest.approx(0.5, abs=0.03)
    assert seen[2] < 1e-3
    halved = Mesh(grey.vertices, grey.faces, vertex_color=np.full((24, 3), 1, np.float32), material=grey.material)
    np.testing.assert_array_equal(picture(halved, straight()), picture(grey, straight()))


def test_a_mesh_without_colours_is_clay_and_inside_out_looks_the_same() -> None:
    clay = Mesh(ball().vertices, ball().faces)
    seen = picture(clay, straight())
    assert np.ptp(seen[0, 32, 32, :3].astype(int)) < 25
    inverted = picture(Mesh(clay.vertices, clay.faces[:, ::-1]), straight())
    # not bit-equal: the middle of a face interpolates its corners in another order
    assert np.abs(seen.astype(int) - inverted).max() <= 1


def test_backgrounds() -> None:
    white, blue = picture(box(), straight()), picture(box(), straight(), (0, 0, 255))
    clear = picture(box(), straight(), "transparent")
    assert white[0, 0, 0].tolist() == [255, 255, 255, 255]
    assert blue[0, 0, 0].tolist() == [0, 0, 255, 255]
    assert clear[0, 0, 0, 3] == 0
    solid = clear[0, ..., 3] == 255
    np.testing.assert_array_equal(white[0][solid], clear[0][solid])
    with pytest.raises(BadSetting, match="background"):
        picture(box(), straight(), "chequered")


def test_normals_are_smooth_on_a_ball_and_sharp_on_a_cube() -> None:
    round_ = ball()
    corners = round_.vertices[round_.faces].astype(np.float64)
    off = 1 - (crease_normals(round_) * corners).sum(-1)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) > 1e-9
    assert off[area].max() < 1e-3
    cube = Mesh(*shared_cube())
    normals = crease_normals(cube)
    assert np.allclose(np.abs(normals).max(-1), 1)


def shared_cube() -> tuple[NDArray, NDArray]:
    """A cube whose sides share its eight corners."""
    sided = box()
    vertices, index = np.unique(sided.vertices, axis=0, return_inverse=True)
    return vertices, index.reshape(-1)[sided.faces]


def test_framed_cameras_see_the_whole_object_wherever_it_is() -> None:
    moved = box((4.0, 10.0, -3.0), (4.5, 12.0, -2.5))
    cameras = framed(moved, [0.0, 1.0, 4.0], elevation=0.5, size=64)
    for seen in picture(moved, cameras, "transparent")[..., 3]:
        rows, columns = np.nonzero(seen)
        assert 0 < rows.min() < rows.max() < 63
        assert 0 < columns.min() < columns.max() < 63
        assert max(np.ptp(rows), np.ptp(columns)) > 35
    fragments = rasterise(clip_positions(moved.vertices, cameras, 0), moved.faces, 64, 64)
    assert (fragments.face >= 0).any()


def test_an_empty_or_broken_mesh_is_refused() -> None:
    with pytest.raises(BadInput, match="0 faces"):
        picture(Mesh(np.zeros((3, 3)), np.zeros((0, 3))), straight())
    with pytest.raises(BadInput, match="finite"):
        picture(Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]])), straight())


def test_a_contact_sheet_places_every_picture(tmp_path: Path) -> None:
    red, wide = np.zeros((10, 10, 4), np.uint8), np.zeros((10, 20, 3), np.uint8)
    red[...] = (255, 0, 0, 255)
    wide[...] = (0, 0, 255)
    path = tmp_path / "sheet.png"
    rows = [("first", [red, None]), ("a second label that has to be wrapped", [wide, red])]
    contact_sheet(rows, ["one", "two"], path, 60)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    is_red = (sheet == (255, 0, 0)).all(-1)
    is_blue = (sheet == (0, 0, 255)).all(-1)
    assert is_red.sum() == 2 * 60 * 60
    assert is_blue.sum() == 60 * 30
    assert is_red[:, : sheet.shape[1] // 2 + 20].any()
    assert (sheet.sum(-1) < 200).any()
    with pytest.raises(BadInput, match="titles"):
        contact_sheet([("short", [red])], ["one", "two"])


def test_a_turntable_turns(tmp_path: Path) -> None:
    path = turntable(box(), tmp_path / "turn.webp", frames=4, size=32)
    with Image.open(path) as film:
        assert film.n_frames == 4  # type: ignore[attr-defined]
        colours = []
        for frame in range(4):
            film.seek(frame)
            colours.append(dominant(np.asarray(film.convert("RGB"))))
    assert len(set(colours)) == 4
    with pytest.raises(BadInput, match="webp"):
        turntable(box(), tmp_path / "turn.gif")
