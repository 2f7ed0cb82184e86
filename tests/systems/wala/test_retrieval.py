"""The index of training shapes: keys that mean what they say, and neighbours in the right turn."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from anyform.systems.wala.lifting import turn
from anyform.systems.wala.retrieval import Credit, Index, shape_key


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    """(32, 32, 32) field, -1 inside the box of cells and 1 outside."""
    field = np.ones((32, 32, 32), np.float32)
    field[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = -1
    return field


FIELDS = [box((2, 2, 2), (30, 10, 30)), box((12, 2, 12), (20, 30, 20)), box((4, 4, 20), (10, 28, 30))]


@pytest.fixture
def index() -> Index:
    raw = b"".join(shape_key(field).tobytes() for field in FIELDS)
    arrays = {"shapes": np.frombuffer(zlib.compress(raw), np.uint8)}
    return Index(arrays, [Credit(str(i), "", "", "", "CC0-1.0") for i in range(len(FIELDS))])


def test_a_key_is_the_share_of_each_block_that_is_inside() -> None:
    key = shape_key(box((0, 0, 0), (3, 32, 32)))
    assert key.shape == (16, 16, 16)
    assert set(key[0].ravel()) == {15} and set(key[2:].ravel()) == {0}
    assert set(key[1].ravel()) == {7, 8} - ({7} if key[1, 0, 0] == 8 else {8})  # half of it


@pytest.mark.parametrize("quarter", range(4))
def test_a_turned_shape_is_found_in_its_turn(index: Index, quarter: int) -> None:
    key = shape_key(np.ascontiguousarray(turn(FIELDS[2], quarter)))
    first, *_ = found = index.near_shape(key, (0, 1, 2, 3), 3)
    assert (first.row, first.turn) == (2, quarter)
    assert first.similarity > 0.95 and [n.similarity for n in found] == sorted(n.similarity for n in found)[::-1]


def test_only_the_asked_turns_count(index: Index) -> None:
    key = shape_key(np.ascontiguousarray(turn(FIELDS[2], 1)))
    found = index.near_shape(key, (0,), 3)
    assert all(n.turn == 0 for n in found)
    assert next(n for n in found if n.row == 2).similarity < 0.5
