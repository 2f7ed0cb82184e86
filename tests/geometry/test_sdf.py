from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from trimesh.creation import box, icosphere

from anyform.errors import BadInput, MissingDependency
from anyform.geometry import sdf

BAND_CELLS = 3.0


def grid(size: int) -> np.ndarray:
    axis = -1 + (2 * np.arange(size) + 1) / size
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)


def ball(radius: float = 0.7, subdivisions: int = 3) -> tuple[np.ndarray, np.ndarray]:
    mesh = icosphere(subdivisions, radius)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def soup(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Random triangles of all sizes: some slivers, one segment, one point."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-0.6, 0.6, (count, 1, 3))
    corners = centre + rng.normal(size=(count, 3, 3)) * rng.uniform(0.001, 0.12, (count, 1, 1))
    corners[0, 2] = corners[0, 1] + 1e-9
    corners[1] = corners[1, 0]
    corners[2, 2] = (corners[2, 0] + corners[2, 1]) / 2
    return np.clip(corners, -1, 1).reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_band_equals_the_twin_and_far_field_is_never_too_small(seed: int) -> None:
    vertices, faces = soup(seed)
    exact = sdf.unsigned_distance_reference(vertices, faces, 20) * 10
    fast = sdf.unsigned_distance(vertices, faces, 20).astype(np.float64) * 10
    near = exact < BAND_CELLS
    assert near.sum() > 500
    assert np.abs(fast - exact)[near].max() < 1e-4
    assert (fast - exact).min() > -1e-4  # it is the distance to *some* triangle
    assert (fast - exact).max() < 1.0


def test_band_equals_libigl_at_64() -> None:
    igl = pytest.importorskip("igl")
    vertices, faces = soup(3, 200)
    fast = sdf.unsigned_distance(vertices, faces, 64).reshape(-1) * 32
    chosen = np.flatnonzero(fast < BAND_CELLS)[::7]
    points = np.ascontiguousarray(grid(64).reshape(-1, 3)[chosen])
    exact = np.sqrt(igl.point_mesh_squared_distance(points, vertices, faces.astype(np.int64))[0]) * 32
    assert np.abs(fast[chosen] - exact).max() < 1e-4


def test_sphere_is_the_closed_form() -> None:
    signed = sdf.mesh_to_sdf(*ball(), 32)
    exact = np.linalg.norm(grid(32), axis=-1) - 0.7
    assert signed.dtype == np.float32 and signed.shape == (32, 32, 32)
    assert np.abs(signed - exact).max() < 0.02  # the polyhedron's own error is 0.004, the far field's the rest
    assert np.abs(signed - exact)[np.abs(exact) < BAND_CELLS / 16].max() < 0.005
    sure = np.abs(exact) > 0.005
    assert ((signed < 0) == (exact < 0))[sure].all()


def test_inside_out_source_gives_the_same_grid() -> None:
    vertices, faces = ball()
    assert np.array_equal(sdf.mesh_to_sdf(vertices, faces[:, ::-1], 32), sdf.mesh_to_sdf(vertices, faces, 32))


def test_axes_are_x_y_z() -> None:
    mesh = box((0.2, 0.6, 1.2))
    inside = sdf.mesh_to_sdf(np.add(mesh.vertices, [0.3, 0.0, -0.1]), np.asarray(mesh.faces), 40) < 0
    points = grid(40)[inside]
    assert np.allclose(points.mean(0), [0.3, 0.0, -0.1], atol=0.03)
    assert np.allclose(np.ptp(points, axis=0) + 0.05, [0.2, 0.6, 1.2], atol=0.06)


def test_shift_by_whole_cells_shifts_the_grid() -> None:
    vertices, faces = ball(0.5)
    first = sdf.mesh_to_sdf(vertices, faces, 32)
    moved = sdf.mesh_to_sdf(np.add(vertices, [2 / 16, 0, -3 / 16]), faces, 32)
    near = np.abs(first[4:28, 4:28, 4:28]) < 0.15
    assert np.allclose(moved[6:30, 4:28, 1:25][near], first[4:28, 4:28, 4:28][near], atol=1e-5)


def test_a_hole_smaller_than_a_cell_keeps_the_inside() -> None:
    vertices, faces = ball()
    top = vertices[faces].mean(1)[:, 1].argmax()
    holed = sdf.mesh_to_sdf(vertices, np.delete(faces, top, 0), 24)
    whole = sdf.mesh_to_sdf(vertices, faces, 24)
    assert holed[12, 12, 12] < -0.5
    assert ((holed < 0) == (whole < 0)).mean() > 0.999


def test_a_bowl_is_open_but_keeps_its_wall() -> None:
    vertices, faces = ball()
    bowl = sdf.mesh_to_sdf(vertices, faces[vertices[faces].mean(1)[:, 1] < 0.1], 32)
    assert bowl[16, 16, 16] > 0.4
    below = bowl[16, :16, 16]
    assert below.min() < 0 and below[0] > 0 and below[-1] > 0


def test_open_sheet_gets_a_thickness() -> None:
    size = 32
    corners = np.array([[-0.8, 0.03, -0.8], [0.8, 0.03, -0.8], [0.8, 0.03, 0.8], [-0.8, 0.03, 0.8]])
    inside = sdf.mesh_to_sdf(corners, np.array([[0, 1, 2], [0, 2, 3]]), size) < 0
    columns = inside[4:28, :, 4:28].sum(1)
    assert columns.min() >= 1 and columns.max() <= 2
    assert not inside[:, :14].any() and not inside[:, 19:].any()


def test_thin_board_survives_whole() -> None:
    mesh = box((1.6, 0.004, 1.2))
    inside = sdf.mesh_to_sdf(np.add(mesh.vertices, [0, 0.031, 0]), np.asarray(mesh.faces), 32) < 0
    assert inside[5:27, :, 8:24].any(1).all()


def test_sealed_cavity_is_filled() -> None:
    outer, inner = ball(0.7), ball(0.4)
    vertices = np.concatenate([outer[0], inner[0]])
    faces = np.concatenate([outer[1], inner[1][:, ::-1] + len(outer[0])])
    assert sdf.mesh_to_sdf(vertices, faces, 32)[16, 16, 16] < 0


def test_any_number_of_threads_gives_the_same_bits() -> None:
    vertices, faces = soup(5)
    before = numba.get_num_threads()
    try:
        results = []
        for threads in (1, numba.config.NUMBA_NUM_THREADS):  # type: ignore[attr-defined]
            numba.set_num_threads(threads)
            results.append(sdf.unsigned_distance(vertices, faces, 24))
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(results[0], results[1])


def test_two_python_threads_at_once() -> None:
    vertices, faces = ball()
    alone = sdf.mesh_to_sdf(vertices, faces, 24)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: sdf.mesh_to_sdf(vertices, faces, 24), range(8)))
    assert all(np.array_equal(alone, other) for other in together)


def test_normalise_fills_the_box_and_can_be_undone() -> None:
    rng = np.random.default_rng(0)
    vertices = np.concatenate([rng.uniform(-1, 1, (30, 3)) * [5, 20, 1] + [100, 0, -7], [[1e6, 0, 0]]])
    faces = np.arange(30).reshape(-1, 3)
    moved, centre, scale = sdf.normalise(vertices, faces)
    low, high = moved[:30].min(0), moved[:30].max(0)
    assert np.isclose((high - low).max(), 1.8) and np.allclose(low, -high)
    assert np.allclose(moved / scale + centre, vertices)
    assert (moved.dtype, centre.shape) == (np.float64, (3,))


TRIANGLE = np.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]])
FACE = np.array([[0, 1, 2]])


@pytest.mark.parametrize(
    ("vertices", "faces", "size", "words"),
    [
        (TRIANGLE, np.array([[0, 1, 3]]), 16, "names vertex 3"),
        (TRIANGLE, np.array([[0, 1, -1]]), 16, "names vertex -1"),
        (TRIANGLE, np.array([[0, 1, 2**40]]), 16, "names vertex"),
        (TRIANGLE * [np.nan, 1, 1], FACE, 16, "3 of 3 vertices are not finite"),
        (np.where(TRIANGLE > 0, np.inf, TRIANGLE), FACE, 16, "not finite"),
        (TRIANGLE, np.zeros((0, 3), int), 16, "no triangles"),
        (np.zeros((0, 3)), FACE, 16, "no triangles"),
        (TRIANGLE, FACE.astype(float), 16, "integers"),
        (TRIANGLE[:, :2], FACE, 16, "(V, 3)"),
        (TRIANGLE, np.array([[0, 1, 2, 0]]), 16, "(F, 3)"),
        (TRIANGLE * 3, FACE, 16, "reaches 1.5"),
        (TRIANGLE, FACE, 1, "1 samples"),
        (TRIANGLE, FACE, 5000, "5000 samples"),
    ],
)
def test_bad_input_never_reaches_the_kernel(
    vertices: np.ndarray, faces: np.ndarray, size: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyform.geometry import sdf_numba

    monkeypatch.setattr(sdf_numba, "nearest_triangles", lambda *_: pytest.fail("the kernel was called"))
    with pytest.raises(BadInput) as caught:
        sdf.mesh_to_sdf(vertices, faces, size)
    assert words in str(caught.value)


def test_too_many_faces_are_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdf, "MAX_FACES", 10)
    with pytest.raises(BadInput, match=r"1,280 triangles.*simplify"):
        sdf.normalise(*ball())


def test_no_extent_is_refused() -> None:
    with pytest.raises(BadInput, match="same point"):
        sdf.normalise(np.ones((3, 3)), FACE)


def test_missing_winding_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "point_cloud_utils", None)
    with pytest.raises(MissingDependency, match=r"anyform\[data\]"):
        sdf.mesh_to_sdf(TRIANGLE, FACE, 16)
