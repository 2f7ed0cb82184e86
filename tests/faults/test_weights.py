"""Damaged and malicious weights (expectations.md §4.3: 39-41): WeightsError, nothing loaded or run."""

from __future__ import annotations

import json
import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from anyform import weights
from anyform.errors import WeightsError

INTACT = save({"a": torch.ones(4), "b": torch.zeros(2, 2)}, metadata={"licence": "CC0"})


def crafted(header: Any, data: bytes = b"\0" * 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape: list[Any], start: Any, stop: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


DAMAGED = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header of 10^18 bytes": (10**18).to_bytes(8, "little") + b"{}",
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "no JSON": crafted(b"not json"),
    "deep JSON": crafted(b"[" * 100_000),
    "a list": crafted([]),
    "unknown format": crafted({"a": tensor([4], 0, 16, "F31")}),
    "overlap": crafted({"a": tensor([3], 0, 12), "b": tensor([2], 8, 16)}),
    "gap": crafted({"a": tensor([1], 0, 4), "b": tensor([2], 8, 16)}),
    "beyond the end": crafted({"a": tensor([8], 0, 32)}),
    "unused tail": crafted({"a": tensor([1], 0, 4)}),
    "shape against bytes": crafted({"a": tensor([5], 0, 16)}),
    "huge shape": crafted({"a": tensor([2**62, 2**62], 0, 16)}),
    "negative offset": crafted({"a": tensor([4], -16, 0)}),
    "negative shape": crafted({"a": tensor([-4], 0, 16)}),
    "float offset": crafted({"a": tensor([4], 0.0, 16)}),
    "true as shape": crafted({"a": tensor([True], 0, 4), "b": tensor([3], 4, 16)}),
    "no table": crafted({"a": 3}),
    "metadata of numbers": crafted({"__metadata__": {"a": 1}, "a": tensor([4], 0, 16)}),
    "truncated": INTACT[:-5],
    "a web page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "NaN": save({"good": torch.ones(2), "bad.weight": torch.tensor([1.0, float("nan")])}),
    "infinity": save({"half": torch.tensor([float("inf")], dtype=torch.float16)}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        weights.read_safetensors(path)
    assert (
        "w.safetensors" in str(caught.value) and len(str(caught.value)) < 300 and str(tmp_path) not in str(caught.value)
    )
    assert path.read_bytes() == content


def test_nan_names_the_tensor(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(DAMAGED["NaN"])
    with pytest.raises(WeightsError, match=r"bad\.weight"):
        weights.read_safetensors(tmp_path / "w.safetensors")


@given(position=st.integers(0, len(INTACT) - 1), value=st.integers(0, 255))
def test_any_changed_byte_is_noticed_by_a_pinned_hash(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    changed = bytearray(INTACT)
    changed[position] = value
    path.write_bytes(changed)
    if bytes(changed) == INTACT:
        weights.read_safetensors(path, sha256=sha256(INTACT).hexdigest())
        return
    with pytest.raises(WeightsError):
        weights.read_safetensors(path, sha256=sha256(INTACT).hexdigest())
    assert path.exists()


def test_embedded_folder_refuses_changed_and_unlisted_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anyform.weights import embedded

    index = {"text": {"file": "text.safetensors", "sha256": "0" * 64}}
    monkeypatch.setattr(embedded, "_FOLDER", tmp_path.resolve())
    monkeypatch.setattr(embedded, "embedded_index", lambda: index)
    for name, words in (("text", "hash of 'text.safetensors' differs"), ("other", "not listed")):
        save_file({"a": torch.ones(1)}, tmp_path / f"{name}.safetensors")
        with pytest.raises(WeightsError, match=words):
            weights.read_safetensors(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("path", ["absent.safetensors", "."])
def test_unreadable_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.read_safetensors(path)


class Malicious:
    """Unpickling this touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    marker = tmp_path / "pwned"
    state = {"a": torch.ones(1), "b": Malicious(marker)}
    torch.save(state, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="could run code"):
        weights.convert_pickle(tmp_path / "evil.ckpt", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert marker.exists(), "the file was malicious indeed"


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"PK\x03\x04broken", pickle.dumps({"a": [1, 2]}), pickle.dumps(3), pickle.dumps({"a": 1})[:-4]],
    ids=str,
)
def test_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.bin"):
        weights.convert_pickle(tmp_path / "a.bin", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
