"""Kuhn grids and the table of cases, against what is known of both."""

from __future__ import annotations

import numpy as np
import pytest

from anyform.errors import BadInput
from anyform.geometry.tets import EDGES, NUM_TRIANGLES, TRIANGLES, crossings, grid_tets, grid_vertices

# the table that published marching tetrahedra use (specs/xbind.md §5.3): edges of one or two triangles a case
PUBLISHED = {
    1: [1, 0, 2], 2: [4, 0, 3], 3: [1, 4, 2, 1, 3, 4], 4: [3, 1, 5], 5: [2, 3, 0, 2, 5, 3], 6: [1, 4, 0, 1, 5, 4],
    7: [4, 2, 5], 8: [4, 5, 2], 9: [4, 1, 0, 4, 5, 1], 10: [3, 2, 0, 3, 5, 2], 11: [1, 3, 5], 12: [4, 1, 2, 4, 3, 1],
    13: [3, 0, 4], 14: [2, 0, 1],
}  # fmt: skip


def boundary(triangles: list[list[int]]) -> set[tuple[int, int]]:
    """Directed edges of a polygon split into triangles: what is not walked both ways."""
    walked = {(t[k], t[(k + 1) % 3]) for t in triangles for k in range(3)}
    return {(a, b) for a, b in walked if (b, a) not in walked}


def test_the_cases_are_the_published_ones() -> None:
    assert NUM_TRIANGLES.tolist() == [0, 1, 1, 2, 1, 2, 2, 1, 1, 2, 2, 1, 2, 1, 1, 0]
    for case, edges in PUBLISHED.items():
        theirs = [edges[k : k + 3] for k in range(0, len(edges), 3)]
        ours = TRIANGLES[case, : len(edges)].reshape(-1, 3).tolist()
        # the same polygon with the same winding; a quadrilateral may be split along its other diagonal
        assert boundary(ours) == boundary(theirs)


def test_the_tets_fill_the_cube_with_positive_volume() -> None:
    vertices, tets = grid_vertices(3).astype(np.float64), grid_tets(3)
    a, b, c, d = np.moveaxis(vertices[tets], 1, 0)
    volume = np.einsum("ti,ti->t", np.cross(b - a, c - a), d - a) / 6
    np.testing.assert_allclose(volume, 1 / 27 / 6, rtol=1e-5)
    assert len(tets) == 6 * 27
    assert len(vertices) == 64
    faces = np.sort(tets[:, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]].reshape(-1, 3), 1)
    count = np.unique(faces, axis=0, return_counts=True)[1]
    assert set(count.tolist()) == {1, 2}
    assert (count == 1).sum() == 6 * 9 * 2


def test_crossing_edges_are_those_of_the_tets() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5):
        sdf = np.where(rng.random(5**3) < share, 1.0, -1.0)
        pairs, faces = crossings(sdf, 4)
        edges = np.unique(np.sort(grid_tets(4)[:, EDGES].reshape(-1, 2), 1), axis=0)
        expected = edges[(sdf[edges[:, 0]] > 0) != (sdf[edges[:, 1]] > 0)]
        assert sorted(map(tuple, pairs.tolist())) == sorted(map(tuple, expected.tolist()))
        assert (pairs[:, 0] < pairs[:, 1]).all()
        assert set(faces.ravel().tolist()) == set(range(len(pairs)))


def test_no_surface_no_faces_and_zero_is_inside() -> None:
    for value in (-1.0, 0.0, 1.0):
        pairs, faces = crossings(np.full(27, value), 2)
        assert len(pairs) == len(faces) == 0
    one = np.ones(27)
    one[13] = 0.0
    assert len(crossings(one, 2)[1]) > 0


def test_bad_input_is_refused_before_the_kernel() -> None:
    with pytest.raises(BadInput, match="has 27 samples"):
        crossings(np.zeros(26), 2)
    with pytest.raises(BadInput, match="1 of 27"):
        crossings(np.array([np.nan, *np.zeros(26)]), 2)
