"""The nearest training shape, against trying them all."""

from __future__ import annotations

import numpy as np
import pytest

from anyform.errors import BadInput
from anyform.evaluation.metrics import volume_iou
from anyform.evaluation.reference import Reference


def blobs(count: int, seed: int, size: int = 16) -> list[np.ndarray]:
    """Asymmetric boxes."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        shape = np.zeros((size,) * 3, bool)
        low, high = rng.integers(0, 7, 3), rng.integers(9, 16, 3)
        shape[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
        shapes.append(shape)
    return shapes


def test_packing_keeps_every_shape() -> None:
    shapes = blobs(5, 0)
    reference = Reference.of(list("abcde"), list("abcde"), shapes)
    for row, shape in enumerate(shapes):
        np.testing.assert_array_equal(reference.inside(row), shape)


def test_nearest_is_what_trying_all_finds() -> None:
    shapes, queries = blobs(40, 1), blobs(6, 2)
    names = [str(i) for i in range(40)]
    rows, ious = Reference.of(names, names, shapes).nearest(queries, mirrored=False)
    for query, row, iou in zip(queries, rows, ious, strict=True):
        every = [volume_iou(shape, query) for shape in shapes]
        assert iou == pytest.approx(volume_iou(shapes[row], query))
        assert iou >= sorted(every)[-3]


def test_a_mirror_image_is_found_where_asked_for() -> None:
    shapes = blobs(10, 3)
    reference = Reference.of(list("abcdefghij"), list("abcdefghij"), shapes)
    rows, ious = reference.nearest([shape[::-1] for shape in shapes])
    np.testing.assert_array_equal(ious, 1)
    np.testing.assert_array_equal(rows, np.arange(10))
    assert reference.nearest([shapes[0][::-1]], mirrored=False)[1][0] < 1


def test_an_empty_shape_has_no_neighbour_but_an_answer() -> None:
    rows, ious = Reference.of(["a"], ["a"], blobs(1, 0)).nearest([np.zeros((16,) * 3, bool)])
    assert (rows.tolist(), ious.tolist()) == ([0], [0.0])


def test_shapes_and_names_must_fit() -> None:
    with pytest.raises(BadInput, match="2 reference shapes"):
        Reference(["a", "b"], ["a", "b"], np.zeros((1, 512), np.uint8), 16)
