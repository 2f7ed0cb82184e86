"""Reading, pinning, resolving and converting weights that are as they should be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anyform import weights
from anyform.errors import BadInput, LicenceNotAccepted, WeightsError
from anyform.weights import digest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANYFORM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_round_trip_of_every_stored_type(tmp_path: Path) -> None:
    kinds = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    tensors = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds} | {"empty": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"licence": "CC0"})
    loaded, metadata = weights.read_safetensors(tmp_path / "w.safetensors")
    assert metadata == {"licence": "CC0"} and loaded.keys() == tensors.keys()
    assert all(
        torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in tensors.items()
    )


def test_every_embedded_file_has_its_pinned_hash_and_a_licence() -> None:
    index = weights.embedded_index()
    assert set(index) <= set(weights.EMBEDDED) and "text" in index
    for name, entry in index.items():
        path = weights.embedded_file(name)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"], "run runs/index_weights.py"
        assert path.stat().st_size == entry["bytes"] and entry["licence"] and entry["commercial_use"] == "yes"


def test_embedded_text_weights_load() -> None:
    tensors, metadata = weights.read_safetensors(weights.embedded_file("text"))
    assert sum(value.numel() for value in tensors.values()) == weights.embedded_index()["text"]["parameters"]
    assert metadata["licence"] == "Apache-2.0"


def test_hash_is_remembered_until_the_file_changes(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_REMEMBER_BYTES", 10)
    monkeypatch.setattr(digest, "_known", {})
    path = tmp_path / "w.bin"
    path.write_bytes(b"a" * 100)
    assert weights.sha256(path) == hashlib.sha256(b"a" * 100).hexdigest()
    stored = json.loads((home / "verified.json").read_text(encoding="utf-8"))
    assert list(stored.values()) == [weights.sha256(path)]
    monkeypatch.setattr(digest, "_known", dict.fromkeys(stored, "from the cache"))
    assert weights.sha256(path) == "from the cache"
    path.write_bytes(b"b" * 101)
    assert weights.sha256(path) == hashlib.sha256(b"b" * 101).hexdigest()


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_damaged_hash_cache_is_only_a_cache(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(digest, "_REMEMBER_BYTES", 1)
    monkeypatch.setattr(digest, "_known", {})
    home.mkdir()
    (home / "verified.json").write_text(content, encoding="utf-8")
    (tmp_path / "w.bin").write_bytes(b"abc")
    assert weights.sha256(tmp_path / "w.bin") == hashlib.sha256(b"abc").hexdigest()


def test_resolve_finds_files_folders_and_embedded_names(tmp_path: Path) -> None:
    assert weights.resolve(tmp_path) == tmp_path
    (tmp_path / "w.safetensors").write_bytes(b"")
    assert weights.resolve(str(tmp_path / "w.safetensors")) == tmp_path / "w.safetensors"
    assert weights.resolve("text").name == "text.safetensors"


@pytest.mark.parametrize("name", ["absent", "absent/model", "a/b/c", "", "x" * 5000, "a\0b", "ADSKAILab/WaLa-SV-2B"])
def test_resolve_refuses_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    if name:
        with pytest.raises(WeightsError):
            weights.resolve(name)


def test_released_weights_ask_for_their_licence_once(home: Path) -> None:
    with pytest.raises(LicenceNotAccepted, match="--accept-licence ADSKAILab/WaLa-SV-1B") as caught:
        weights.resolve("ADSKAILab/WaLa-SV-1B")
    assert caught.value.exit_code == 3 and "Non-Commercial" in str(caught.value)
    weights.accept_licence("ADSKAILab/WaLa-SV-1B")
    weights.accept_licence("ADSKAILab/WaLa-PC-1B")
    assert set(weights.accepted_licences()) == {"ADSKAILab/WaLa-SV-1B", "ADSKAILab/WaLa-PC-1B"}
    with pytest.raises(WeightsError, match="the network is off"):
        weights.resolve("ADSKAILab/WaLa-SV-1B")
    with pytest.raises(WeightsError, match="no released checkpoint"):
        weights.accept_licence("someone/else")


def test_conversion_keeps_every_tensor(tmp_path: Path) -> None:
    shared = torch.randn(4, 3)
    state = {"net.weight": shared, "net.view": shared[1:], "steps": torch.tensor(7), "half": shared.to(torch.bfloat16)}
    torch.save({"state_dict": state, "epoch": 3, "parts": [torch.ones(2), {"x": torch.zeros(1)}]}, tmp_path / "a.ckpt")
    out = weights.convert_pickle(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    tensors, metadata = weights.read_safetensors(out)
    expected = {f"state_dict.{name}": value for name, value in state.items()}
    expected |= {"parts.0": torch.ones(2), "parts.1.x": torch.zeros(1)}
    assert tensors.keys() == expected.keys() and metadata == {"epoch": "3"}
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())
    with pytest.raises(BadInput, match="--force"):
        weights.convert_pickle(tmp_path / "a.ckpt", out)
    weights.convert_pickle(tmp_path / "a.ckpt", out, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "a.safetensors"]
