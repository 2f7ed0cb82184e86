"""Voxel grids: every format lands on the same axes, and pooling keeps every occupied cell."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from anyform.errors import BadInput
from anyform.types.prompt import Voxels, describe

GRID = np.random.default_rng(0).random((5, 5, 5)) > 0.6
PAINT = np.random.default_rng(1).integers(0, 256, (5, 5, 5, 3)).astype(np.uint8) * GRID[..., None]


def json_file(colours: np.ndarray | None = None) -> bytes:
    table = {"resolution": 5, "occupancy": np.argwhere(GRID).tolist()}
    if colours is not None:
        table["color"] = colours[GRID].tolist()
    return json.dumps(table).encode()


def binvox_file(grid: np.ndarray) -> bytes:
    head = f"#binvox 1\ndim {grid.shape[0]} {grid.shape[2]} {grid.shape[1]}\ntranslate 0 0 0\nscale 1\ndata\n"
    return head.encode() + b"".join(bytes([int(value), 1]) for value in grid.transpose(0, 2, 1).ravel())


def vox_file(grid: np.ndarray, colours: np.ndarray | None) -> bytes:
    """Our [x, y, z] back to MagicaVoxel's axes: x, depth (away from the viewer), height."""
    places = np.argwhere(grid)
    palette = bytes(1024)
    index = np.ones(len(places), int)
    if colours is not None:
        index = np.arange(1, len(places) + 1)
        painted = colours[grid]
        palette = b"".join(bytes([*painted[i], 255]) if i < len(painted) else bytes(4) for i in range(256))
    rows = b"".join(bytes([x, grid.shape[2] - 1 - z, y, i]) for (x, y, z), i in zip(places, index, strict=True))
    chunks = [(b"SIZE", struct.pack("<III", grid.shape[0], grid.shape[2], grid.shape[1]))]
    chunks.append((b"XYZI", struct.pack("<I", len(places)) + rows))
    if colours is not None:
        chunks.append((b"RGBA", palette))
    inner = b"".join(kind + struct.pack("<II", len(body), 0) + body for kind, body in chunks)
    return b"VOX " + struct.pack("<I", 150) + b"MAIN" + struct.pack("<II", 0, len(inner)) + inner


@pytest.mark.parametrize(
    ("name", "data", "coloured"),
    [
        ("a.json", json_file(), False),
        ("a.json", json_file(PAINT), True),
        ("a.binvox", binvox_file(GRID), False),
        ("a.vox", vox_file(GRID, None), False),
        ("a.vox", vox_file(GRID, PAINT), True),
    ],
)
def test_every_format_gives_the_same_grid(name: str, data: bytes, coloured: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    voxels = Voxels.open(tmp_path / name)
    assert voxels.occupancy.dtype == np.bool_ and np.array_equal(voxels.occupancy, GRID)
    assert (voxels.colors is not None) == coloured
    if voxels.colors is not None:
        assert np.array_equal(voxels.colors, PAINT)


def test_fractions_are_colours_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json_file(PAINT / 255))
    colours = Voxels.open(tmp_path / "a.json").colors
    assert colours is not None and np.array_equal(colours, PAINT)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_arrays(dtype: type, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GRID.astype(dtype))
    np.savez_compressed(tmp_path / "a.npz", other=np.zeros(3), occupancy=np.asfortranarray(GRID.astype(dtype)))
    assert np.array_equal(Voxels.open(tmp_path / "a.npy").occupancy, GRID)
    assert np.array_equal(Voxels.open(tmp_path / "a.npz").occupancy, GRID)


def test_fractions_of_occupancy_are_cut_with_a_message(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.where(GRID, 0.7, 0.3))
    with pytest.warns(UserWarning, match=r"cut at 0\.5"):
        assert np.array_equal(Voxels.open(tmp_path / "a.npy").occupancy, GRID)


def test_a_box_stands_in_the_middle_of_a_cube(tmp_path: Path) -> None:
    box = np.ones((2, 3, 6), bool)
    (tmp_path / "a.binvox").write_bytes(binvox_file(box))
    with pytest.warns(UserWarning, match="6³"):
        occupancy = Voxels.open(tmp_path / "a.binvox").occupancy
    expected = np.zeros((6, 6, 6), bool)
    expected[2:4, :3] = True
    assert np.array_equal(occupancy, expected)


@given(arrays.arrays(bool, (8, 8, 8)))
def test_pooling_keeps_exactly_the_blocks_with_something_in_them(grid: np.ndarray) -> None:
    grid[7, 0, 3] = True
    pooled = Voxels(grid).to_resolution(4).occupancy
    assert {tuple(i // 2) for i in np.argwhere(grid)} == set(map(tuple, np.argwhere(pooled)))


@given(st.integers(2, 40), st.integers(2, 20))
def test_pooling_is_exact_or_refused(size: int, resolution: int) -> None:
    voxels = Voxels(np.ones((size, size, size), bool))
    if size % resolution:
        with pytest.raises(BadInput, match=f"{size}³ grid cannot be pooled to {resolution}³"):
            voxels.to_resolution(resolution)
    else:
        assert voxels.to_resolution(resolution).occupancy.shape == (resolution,) * 3


def test_pooled_colours_are_means_over_occupied_voxels() -> None:
    occupancy, colours = np.zeros((4, 4, 4), bool), np.full((4, 4, 4, 3), 99, np.uint8)
    occupancy[0, 0, 0] = occupancy[1, 1, 1] = occupancy[2, 2, 3] = True
    colours[0, 0, 0], colours[1, 1, 1], colours[2, 2, 3] = (10, 20, 30), (20, 40, 90), (1, 2, 3)
    pooled = Voxels(occupancy, colours).to_resolution(2)
    assert pooled.colors is not None
    assert pooled.colors[0, 0, 0].tolist() == [15, 30, 60] and pooled.colors[1, 1, 1].tolist() == [1, 2, 3]
    assert pooled.colors.any(-1).sum() == 2


def test_the_same_resolution_is_the_same_object() -> None:
    voxels = Voxels(GRID)
    assert voxels.to_resolution(5) is voxels
    assert describe(voxels) == describe(Voxels(GRID.copy())) != describe(Voxels(~GRID))
