from __future__ import annotations

import itertools

import numpy as np
import pytest
from trimesh.creation import box, icosphere

from anyform.data.corpus import Shape
from anyform.data.sketches import (
    SketchAugmentation,
    augment,
    cage_corners,
    cage_warp,
    canny_strokes,
    chain,
    draw,
    line_art,
)
from anyform.data.views import DISTANCE, FOV_Y, render_views
from anyform.types.camera import Cameras

SIZE = 96
CAMERA = Cameras.orbit(np.radians([17.0]), np.radians(35.0), DISTANCE, FOV_Y, SIZE)


def drawn(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    shape = Shape(vertices, faces.astype(np.int64), np.zeros((len(faces), 3), np.uint8))
    depth = render_views(shape, CAMERA, supersampling=1).depth
    return line_art(vertices, shape.faces, CAMERA, depth)[0]


def cube_edges() -> tuple[np.ndarray, np.ndarray]:
    """Screen end points (12, 2, 2) of a cube's edges, and whether CAMERA sees each."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    pairs = [(i, j) for i in range(8) for j in range(i) if np.abs(corners[i] - corners[j]).sum() == 1]
    screen = CAMERA.project(corners)[0]
    farthest = screen[:, 2].argmax()
    return np.array([[screen[i, :2], screen[j, :2]] for i, j in pairs]), np.array([farthest not in p for p in pairs])


def test_cube_shows_its_nine_visible_edges() -> None:
    mesh = box((1, 1, 1))
    ink = draw(drawn(np.asarray(mesh.vertices), np.asarray(mesh.faces)), SIZE, SIZE, 1.5)
    edges, visible = cube_edges()
    assert visible.sum() == 9
    column, row = edges.mean(1).astype(int).T
    assert (ink[row, column] > 0.3).tolist() == visible.tolist()
    length = np.linalg.norm(edges[visible, 0] - edges[visible, 1], axis=1).sum()
    assert np.isclose(ink.sum(), length * 1.5, rtol=0.12)


def test_flipped_and_doubled_faces_draw_the_same() -> None:
    mesh = box((1, 1, 1)).subdivide()
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    messy = faces.copy()
    messy[::3] = messy[::3, ::-1]
    messy = np.concatenate([messy, messy[5:9]])
    first, second = (draw(drawn(vertices, f), SIZE, SIZE) for f in (faces, messy))
    assert np.abs(first - second).max() < 0.01


def test_separate_corners_are_merged() -> None:
    mesh = box((1, 1, 1))
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.faces)].reshape(-1, 3)
    first = draw(drawn(np.asarray(mesh.vertices), np.asarray(mesh.faces)), SIZE, SIZE)
    second = draw(drawn(corners, np.arange(len(corners)).reshape(-1, 3)), SIZE, SIZE)
    assert np.array_equal(first, second)


def test_smooth_ball_has_only_its_outline() -> None:
    mesh = icosphere(4, 0.8)
    points = np.concatenate(drawn(np.asarray(mesh.vertices), np.asarray(mesh.faces)))
    radius = np.linalg.norm(points - SIZE / 2, axis=1)
    expected = np.tan(np.arcsin(0.8 / DISTANCE)) / np.tan(FOV_Y / 2) * SIZE / 2
    assert len(points) > 20
    assert np.abs(radius - expected).max() < 1.5


def test_border_of_an_open_sheet_without_its_inner_lines() -> None:
    line = np.linspace(-0.6, 0.6, 5)
    x, y = np.meshgrid(line, line, indexing="ij")
    vertices = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    first = (np.arange(4)[:, None] * 5 + np.arange(4)).reshape(-1)
    faces = np.concatenate([np.stack([first, first + 5, first + 6], 1), np.stack([first, first + 6, first + 1], 1)])
    (outline,) = drawn(vertices, faces)
    assert len(outline) == 17
    assert np.array_equal(outline[0], outline[-1])


@pytest.mark.parametrize("seed", range(5))
def test_chain_uses_every_link_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    links = np.unique(np.sort(rng.integers(0, 12, (20, 2)), 1), axis=0)
    links = links[links[:, 0] != links[:, 1]]
    walked = sorted(tuple(sorted(pair)) for path in chain(links) for pair in itertools.pairwise(path.tolist()))
    assert walked == sorted(map(tuple, links.tolist()))


def test_chain_joins_paths_loops_and_stops_at_junctions() -> None:
    assert [p.tolist() for p in chain(np.array([[3, 2], [0, 1], [1, 2]]))] == [[0, 1, 2, 3]]
    (loop,) = chain(np.array([[0, 1], [1, 2], [2, 0]]))
    assert loop[0] == loop[-1] and len(loop) == 4
    assert len(chain(np.array([[0, 1], [0, 2], [0, 3]]))) == 3
    assert chain(np.zeros((0, 2), int)) == []


def test_canny_finds_the_outline_of_a_disc() -> None:
    row, column = np.mgrid[:SIZE, :SIZE]
    inside = np.hypot(row - 47.5, column - 47.5) < 30
    strokes = canny_strokes(np.where(inside, 4, np.inf).astype(np.float32))
    radius = np.linalg.norm(np.concatenate(strokes) - SIZE / 2, axis=1)
    assert np.abs(radius - 30).max() < 2.5
    assert canny_strokes(np.full((32, 32), np.inf, np.float32)) == []


def test_drawn_line_has_its_length_and_thickness() -> None:
    ink = draw([np.array([[10.0, 20.0], [50.0, 20.0]])], 40, 64, 2.0)
    assert ink.shape == (40, 64) and ink.dtype == np.float32
    assert np.isclose(ink.sum(), 80, rtol=0.06)
    assert ink[20, 30] == 1 and ink[25, 30] == 0


def test_unmoved_cage_changes_nothing_and_nodes_go_to_nodes() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.1, 1.1, (200, 2))
    assert np.allclose(cage_warp(points, cage_corners(rng, 0.0)), points)
    nodes = cage_corners(rng, 0.08)
    line = np.linspace(0, 1, 4)
    corners = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    assert np.allclose(cage_warp(corners, nodes), nodes.reshape(-1, 2))
    assert (np.abs(nodes.reshape(-1, 2) - corners).sum(1) > 0).sum() == 4


def test_cage_warp_is_continuous_across_cells() -> None:
    nodes = cage_corners(np.random.default_rng(1), 0.08)
    line = np.stack([np.full(50, 1 / 3), np.linspace(0, 1, 50)], 1)
    step = np.array([1e-9, 0])
    gap = cage_warp(line - step, nodes) - cage_warp(line + step, nodes)
    assert np.abs(gap).max() < 1e-7


def test_augmentation_is_seeded_bounded_and_can_be_nothing() -> None:
    mesh = box((1, 1, 1))
    strokes = drawn(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    first, second = (augment(strokes, SIZE, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    moved = max(np.abs(a - b).max() for a, b in zip(first, strokes, strict=True))
    assert 1 < moved < 0.3 * SIZE
    nothing = SketchAugmentation(translate=0, rotate=0, scale=(1, 1), jitter=0, cage=0)
    same = augment(strokes, SIZE, np.random.default_rng(3), nothing)
    assert all(np.allclose(a, b) for a, b in zip(same, strokes, strict=True))
