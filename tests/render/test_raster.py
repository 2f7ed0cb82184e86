"""Visibility against its definition evaluated pixel by pixel, and against areas known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.render import raster
from anyform.render.raster import interpolate, rasterise

QUAD = np.array([[-0.5, -0.5, 0, 1], [0.5, -0.5, 0, 1], [0.5, 0.5, 0, 1], [-0.5, 0.5, 0, 1]], float)
TWO = np.array([[0, 1, 2], [0, 2, 3]])
DEEPER = np.array([0, 0, 1.0, 0])


def by_definition(position: NDArray, faces: NDArray, height: int, width: int) -> tuple[NDArray, NDArray, NDArray]:
    """face, z and uv of every pixel by testing it against every triangle, as the module's docstring defines."""
    best, depth, uv = np.full((height, width), -1), np.ones((height, width)), np.zeros((height, width, 2))
    y, x = np.meshgrid((2 * np.arange(height) + 1) / height - 1, (2 * np.arange(width) + 1) / width - 1, indexing="ij")
    for f, corners in enumerate(position[faces]):
        if (corners[:, 3] <= 1e-8).any():
            continue
        q = [(X - x * W, Y - y * W) for X, Y, _, W in corners]
        e = np.stack([q[k - 2][0] * q[k - 1][1] - q[k - 2][1] * q[k - 1][0] for k in range(3)], -1)
        total = e.sum(-1)
        with np.errstate(invalid="ignore"):
            z = (e @ corners[:, 2]) / (e @ corners[:, 3])
            wins = (total != 0) & (e * np.sign(total)[..., None] >= 0).all(-1) & (z >= -1) & (z < depth)
        best[wins], depth[wins], uv[wins] = f, z[wins], (e[..., :2] / total[..., None])[wins]
    return best, depth, uv


def random_scene(seed: int, count: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    position = np.concatenate([rng.uniform(-1.5, 1.5, (3 * count, 2)), rng.uniform(-1, 1, (3 * count, 1))], 1)
    w = rng.uniform(0.3, 2, (3 * count, 1))
    w[rng.random(3 * count) < 0.05] = -0.5
    return np.concatenate([position * np.abs(w), w], 1), np.arange(3 * count).reshape(-1, 3)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_agrees_with_the_definition_on_random_perspective_triangles(seed: int) -> None:
    position, faces = random_scene(seed, 6)
    if not (position[faces, 3] > 0).all(1).any():
        return
    fragments = rasterise(position, faces, 13, 17)
    face, z, uv = by_definition(position, faces, 13, 17)
    np.testing.assert_array_equal(fragments.face, face)
    np.testing.assert_allclose(fragments.z, z, atol=1e-12)
    np.testing.assert_allclose(fragments.uv, uv, atol=1e-9)


def test_does_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    position, faces = random_scene(3, 40)
    whole = rasterise(position, faces, 31, 29)
    monkeypatch.setattr(raster, "CHUNK", 7)
    chunked = rasterise(position, faces, 31, 29)
    for name in ("uv", "z", "face"):
        np.testing.assert_array_equal(getattr(chunked, name), getattr(whole, name))


def test_a_square_covers_exactly_its_pixels_whatever_its_winding() -> None:
    expected = np.zeros((64, 64), bool)
    expected[16:48, 16:48] = True
    for faces in (TWO, TWO[:, ::-1]):
        np.testing.assert_array_equal(rasterise(QUAD, faces, 64, 64).face >= 0, expected)


def test_a_disc_has_its_area() -> None:
    angle = np.linspace(0, 2 * np.pi, 721)[:-1]
    rim = np.stack([0.8 * np.cos(angle), 0.8 * np.sin(angle), 0 * angle, 1 + 0 * angle], 1)
    fan = np.stack([np.full(720, 720), np.arange(720), np.roll(np.arange(720), -1)], 1)
    fragments = rasterise(np.concatenate([rim, [[0, 0, 0, 1]]]), fan, 300, 200)
    assert (fragments.face >= 0).mean() * 4 == pytest.approx(np.pi * 0.64, rel=2e-3)


def test_a_triangulated_plane_has_no_crack() -> None:
    rng = np.random.default_rng(0)
    line = np.linspace(-1.2, 1.2, 12)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    grid[1:-1, 1:-1] += rng.uniform(-0.05, 0.05, (10, 10, 2))
    points = np.concatenate([grid.reshape(-1, 2), np.zeros((144, 1)), np.ones((144, 1))], 1)
    i, j = (part.ravel() for part in np.meshgrid(np.arange(11), np.arange(11), indexing="ij"))
    a, b, c, d = i * 12 + j, (i + 1) * 12 + j, (i + 1) * 12 + j + 1, i * 12 + j + 1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    assert (rasterise(points, faces, 97, 97).face >= 0).all()


def test_the_nearer_wins_and_among_equals_the_lower_face() -> None:
    behind = QUAD + DEEPER / 2
    both = np.concatenate([behind, QUAD, QUAD])
    faces = np.concatenate([TWO, TWO + 4, TWO + 8])
    seen = rasterise(both, faces, 16, 16).face
    assert set(np.unique(seen)) == {-1, 2, 3}


def test_beyond_the_near_and_far_planes_nothing_is_seen() -> None:
    for z in (-1.01, 1.0, 1.5):
        assert (rasterise(QUAD + z * DEEPER, TWO, 8, 8).face == -1).all()
    assert (rasterise(QUAD - DEEPER, TWO, 8, 8).face >= 0).any()


def test_interpolation_is_correct_in_perspective() -> None:
    # a floor seen at a slant: the interpolated world point projects onto its own pixel
    world = np.array([[-1, -1, 2.0], [1, -1, 2], [1, -0.6, 9], [-1, -0.6, 9]])
    position = np.concatenate([world[:, :2], (world[:, 2:] - 5) * 0.1 * world[:, 2:], world[:, 2:]], 1)
    fragments = rasterise(position, TWO, 40, 50)
    seen = fragments.face >= 0
    point = interpolate(world, TWO, fragments)
    row, column = np.nonzero(seen)
    np.testing.assert_allclose(point[seen][:, 0] / point[seen][:, 2], (2 * column + 1) / 50 - 1, atol=1e-12)
    np.testing.assert_allclose(point[seen][:, 1] / point[seen][:, 2], (2 * row + 1) / 40 - 1, atol=1e-12)
    assert (point[~seen] == 0).all()
    assert seen.sum() > 50


def test_corners_behind_the_camera_drop_their_triangles_and_all_of_them_is_an_error() -> None:
    position = QUAD.copy()
    position[1, 3] = -1.0
    assert set(np.unique(rasterise(position, TWO, 8, 8).face)) == {-1, 1}
    with pytest.raises(BadInput, match="all 2 triangles"):
        rasterise(QUAD * [1, 1, 1, -1], TWO, 8, 8)


def test_flat_triangles_and_no_triangles_show_nothing() -> None:
    assert (rasterise(QUAD, np.array([[0, 1, 1], [0, 0, 0]]), 8, 8).face == -1).all()
    assert (rasterise(QUAD, np.zeros((0, 3), int), 8, 8).face == -1).all()
