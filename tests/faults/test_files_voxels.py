"""Bad voxel files (expectations.md §4.3 rows 12, 14, 15): sizes are checked before a grid is made."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyform.errors import BadInput
from anyform.types.prompt import Voxels


def table(**changes: Any) -> bytes:
    return json.dumps({"resolution": 16, "occupancy": [[0, 1, 2], [3, 4, 5]], **changes}).encode()


def binvox(dim: str = "2 2 2", body: bytes = bytes([1, 8]), head: str = "#binvox 1") -> bytes:
    return f"{head}\ndim {dim}\ntranslate 0 0 0\nscale 1\ndata\n".encode() + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<II", len(body), 0) + body


def vox(
    size: tuple[int, ...] = (2, 2, 2), voxels: list | None = None, claimed: int | None = None, models: int = 1
) -> bytes:
    voxels = [(0, 0, 0, 1), (1, 1, 1, 2)] if voxels is None else voxels
    content = struct.pack("<I", len(voxels) if claimed is None else claimed) + bytes(v for row in voxels for v in row)
    inner = (chunk(b"SIZE", struct.pack("<III", *size)) + chunk(b"XYZI", content)) * models
    return b"VOX " + struct.pack("<I", 150) + b"MAIN" + struct.pack("<II", 0, len(inner)) + inner


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(BadInput) as caught:
        Voxels.open(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 and str(path.parent) not in message
    return message


@pytest.mark.parametrize(
    ("suffix", "data", "says"),
    [
        (".json", b"", "empty"),
        (".json", b"{", "not valid JSON"),
        (".json", b"\xff\xfe{}", "not valid JSON"),
        (".json", b"[]", "has to be an object"),
        (".json", b'{"resolution": 16}', "has to be an object"),
        (".json", b"[" * 10**5, "nested too deeply"),
        (".json", b'{"a":' * 10**5, "nested too deeply"),
        (".json", b'{"resolution": 16, "resolution": 8, "occupancy": [[0, 0, 0]]}', "same key twice"),
        (".json", table(resolution=10**6), "2..256"),
        (".json", table(resolution=True), "2..256"),
        (".json", table(resolution=16.0), "2..256"),
        (".json", table(resolution="16"), "2..256"),
        (".json", table(occupancy=[]), "at least one"),
        (".json", table(occupancy={"0": [0, 0, 0]}), "list of triples"),
        (".json", table(occupancy=[[0, 0, 0], [-1, 0, 0]]), "occupancy[1] = [-1, 0, 0] lies outside 0..15"),
        (".json", table(occupancy=[[0, 16, 0]]), "occupancy[0] = [0, 16, 0]"),
        (".json", table(occupancy=[[0, 0, 0], [0, 0]]), "occupancy[1] is not a triple"),
        (".json", table(occupancy=[[0, 0, 0], 5]), "occupancy[1] is not a triple"),
        (".json", table(occupancy=[[0, 0, "1"]]), "occupancy[0] is not a triple"),
        (".json", table(occupancy=[[0, True, 1]]), "occupancy[0] is not a triple"),
        (".json", table(occupancy=[[0.5, 0, 1]]), "whole voxel indices"),
        (".json", table(occupancy=[[10**30, 0, 1]]), "too large|whole voxel"),
        (".json", table(occupancy=[["N", 0, 1]]).replace(b'"N"', b"NaN"), "holds NaN"),
        (".json", table(occupancy=[["N", 0, 1]]).replace(b'"N"', b"1e400"), "1e400"),
        (".json", table(occupancy=[["N", 0, 1]]).replace(b'"N"', b"9" * 5000), "not valid JSON"),
        (".json", table(color=[[1, 2, 3]]), "1 colours for 2 voxels"),
        (".json", table(color=[[1, 2, 3], [1, 2, 300]]), "0..255"),
        (".binvox", b"not one", "no binvox header"),
        (".binvox", binvox(head="#other"), "no binvox header"),
        (".binvox", binvox("65535 65535 65535", b""), "65535 x 65535 x 65535"),
        (".binvox", binvox("0 2 2"), "0 x 2 x 2"),
        (".binvox", binvox("2 2"), "2 x 2"),
        (".binvox", binvox("-2 2 2"), "-2 x 2 x 2"),
        (".binvox", binvox("256 256 256", bytes([1, 255]) * 9), "holds 2295"),
        (".binvox", binvox(body=bytes([7, 8])), "damaged"),
        (".binvox", binvox(body=bytes([0, 8])), "none of the 2³ voxels"),
        (".vox", b"VOX ", "no MagicaVoxel"),
        (".vox", vox((65535, 65535, 65535)), "65535"),
        (".vox", vox(claimed=2**31), "declares 2147483648 voxels"),
        (".vox", vox(voxels=[(5, 0, 0, 1)]), "outside its grid"),
        (".vox", vox(voxels=[]), "no voxels"),
        (".vox", vox(models=2), "2 models"),
        (".vox", vox()[:-4], "beyond its end"),
        (".vox", vox().replace(b"SIZE", b"sIZE"), "export one model"),
        (".obj", b"v 0 0 0", "suffix"),
    ],
)
def test_refused(suffix: str, data: bytes, says: str, tmp_path: Path) -> None:
    message = refused(tmp_path / f"grid{suffix}", data)
    assert any(part in message for part in says.split("|")), message


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4, 4), bool), "none of the 4³"),
        (np.ones((4, 4), bool), "(4, 4)"),
        (np.ones((300, 2, 2), bool), "at most 256"),
        (np.full((4, 4, 4), np.nan), "NaN"),
        (np.full((4, 4, 4), -1), "outside 0..1"),
        (np.full((4, 4, 4), 3, np.uint8), "outside 0..1"),
        (np.full((4, 4, 4), None), "pickled"),
    ],
)
def test_arrays_that_are_no_occupancy(array: np.ndarray, says: str, tmp_path: Path) -> None:
    np.save(tmp_path / "grid.npy", array, allow_pickle=True)
    assert says in refused(tmp_path / "grid.npy", (tmp_path / "grid.npy").read_bytes())


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.ones((4, 4, 4), np.uint8), "threshold"),
        (np.ones((4, 4, 5), bool), "bool array"),
        (np.ones((1, 1, 1), bool), "1³"),
        (np.ones((257, 257, 257), bool), "257³"),
        ([[[True]]], "list"),
    ],
)
def test_the_constructor_checks_too(array: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Voxels(array)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_TRIPLES = st.lists(st.lists(st.integers(-1, 9) | st.floats() | st.booleans(), min_size=2, max_size=4), max_size=5)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(resolution=_JSON | st.integers(1, 9), occupancy=_JSON | _TRIPLES, color=_JSON | _TRIPLES)
def test_any_json_is_taken_or_refused_on_purpose(resolution: Any, occupancy: Any, color: Any, tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    path.write_text(json.dumps({"resolution": resolution, "occupancy": occupancy, "color": color}), encoding="utf-8")
    try:
        voxels = Voxels.open(path)
    except BadInput as error:
        assert "grid.json" in str(error)
    else:
        expected = {tuple(index) for index in occupancy}
        assert set(map(tuple, np.argwhere(voxels.occupancy).tolist())) == expected
        assert len(voxels.occupancy) == resolution


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".binvox", ".vox", ".json"]),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=5),
    keep=st.integers(1, 300),
)
def test_damaged_bytes_never_raise_anything_else(
    suffix: str, changes: list[tuple[int, int]], keep: int, tmp_path: Path
) -> None:
    data = bytearray({".binvox": binvox(), ".vox": vox(), ".json": table()}[suffix][:keep])
    for place, value in changes:
        data[place % len(data)] = value
    (tmp_path / f"grid{suffix}").write_bytes(data)
    try:
        assert Voxels.open(tmp_path / f"grid{suffix}").occupancy.any()
    except BadInput as error:
        assert "grid" in str(error) or "voxels" in str(error)
