"""Framing: the object sits in the middle and fills the ratio, whatever surrounds it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyform.types.framing import frame


def block(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    rgba = np.full((height, width, 4), (0, 255, 0, 0), np.uint8)  # green under the transparency must not show
    rgba[rows, columns] = (200, 100, 50, 255)
    return rgba


@given(st.integers(0, 60), st.integers(0, 40), st.integers(5, 40), st.integers(5, 40))
def test_the_object_fills_the_ratio_in_the_middle(top: int, left: int, high: int, wide: int) -> None:
    framed = frame(block(100, 80, slice(top, top + high), slice(left, left + wide)), 200, 0.8)
    assert framed.shape == (200, 200, 4) and framed.dtype == np.uint8
    rows, columns = np.nonzero(framed[..., 3] > 127)
    longest = max(high, wide)
    assert abs(np.ptp(rows) + 1 - 160 * high / longest) <= 3 and abs(np.ptp(columns) + 1 - 160 * wide / longest) <= 3
    assert abs(rows.mean() - 99.5) <= 1.5 and abs(columns.mean() - 99.5) <= 1.5
    assert np.abs(framed[framed[..., 3] > 100][:, :3].astype(int) - (200, 100, 50)).max() <= 2


def test_where_it_lies_in_the_picture_changes_nothing() -> None:
    first = frame(block(64, 64, slice(0, 20), slice(0, 30)), 48)
    second = frame(block(99, 77, slice(50, 70), slice(40, 70)), 48)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_picture_without_a_mask_is_framed_whole(alpha: int) -> None:
    rgba = block(40, 40, slice(0, 40), slice(0, 40))
    rgba[..., 3] = alpha
    framed = frame(rgba, 100, 0.9)
    assert (framed[50, 50, 3] > 127) == (alpha > 0)
    if alpha:
        assert abs(int((framed[50, :, 3] > 127).sum()) - 90) <= 2


def test_a_large_photograph_takes_no_more_than_its_window() -> None:
    rgba = block(2000, 2000, slice(900, 1000), slice(900, 1000))
    tracemalloc.start()
    frame(rgba, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * rgba.nbytes
