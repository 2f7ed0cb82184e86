"""Streaming: what is in memory while a large file is read, and writing one tensor at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import anyform
from anyform import weights
from anyform.errors import WeightsError
from anyform.weights.filling import fill
from anyform.weights.stream import code_of

SOURCE = Path(anyform.__file__).resolve().parents[1]
MEASURE = """
    import json, sys, torch
    from anyform.weights import open_tensors

    def peak():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    torch.zeros(1).to(torch.bfloat16), torch.aminmax(torch.ones(3))
    file = open_tensors(sys.argv[1])
    before = peak()
    kept = [file.read(name, getattr(torch, sys.argv[2])) for name in file]
    size = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    print(json.dumps([(peak() - before) / size, size]))
"""


def sparse(path: Path, count: int, numbers: int) -> Path:
    """A safetensors file of zeros that takes no room on disk: `count` float32 tensors of `numbers` each."""
    header = {
        f"layer.{n}.weight": {
            "dtype": "F32",
            "shape": [numbers],
            "data_offsets": [4 * numbers * n, 4 * numbers * (n + 1)],
        }
        for n in range(count)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 4 * numbers * count)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_large_file_needs_its_own_size_in_memory_and_little_more(tmp_path: Path, dtype: str) -> None:
    path = sparse(tmp_path / "large.safetensors", 16, 2**23)  # 512 MB
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), str(path), dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ratio, size = json.loads(done.stdout)
    assert size == 2**29 // (1 if dtype == "float32" else 2)
    assert ratio < 1.15


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.arange(7, dtype=torch.int16),
        "none": torch.zeros(0, 2),
        "flag": torch.ones(2) > 0,
    }
    table = {name: (code_of(value.dtype), tuple(value.shape)) for name, value in tensors.items()}
    weights.write_safetensors(tmp_path / "a.safetensors", table, tensors.__getitem__, {"licence": "CC0 ü"})
    public, metadata = weights.read_safetensors(tmp_path / "a.safetensors")
    ours = weights.open_tensors(tmp_path / "a.safetensors")
    assert metadata == ours.metadata == {"licence": "CC0 ü"} and list(ours) == list(tensors) and len(ours) == 4
    for name, value in tensors.items():
        assert torch.equal(public[name], value) and torch.equal(ours.read(name), value)


def test_a_file_that_shrinks_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = sparse(tmp_path / "a.safetensors", 2, 1000)
    file = weights.open_tensors(path)
    with path.open("r+b") as opened:
        opened.truncate(path.stat().st_size - 100)
    assert file.read("layer.0.weight").shape == (1000,)
    with pytest.raises(WeightsError, match=r"ends inside the tensor 'layer\.1\.weight'"):
        file.read("layer.1.weight")
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        file.read("layer.0.weight")


def test_a_pinned_hash_is_compared_before_anything_is_read(tmp_path: Path) -> None:
    path = sparse(tmp_path / "a.safetensors", 1, 10)
    assert len(weights.open_tensors(path, sha256=weights.sha256(path))) == 1
    with pytest.raises(WeightsError, match="differs"):
        weights.open_tensors(path, sha256="0" * 64)


def test_filling_keeps_formats_and_takes_convolutions_for_matrices() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(3, 2).to(torch.bfloat16)
    state = {"w": torch.randn(2, 3, 1, 1), "b": torch.randn(2)}
    fill(module, weights.InMemory(state), {"weight": "w", "bias": "b"}, what="a test")
    assert module.weight.dtype == torch.bfloat16 and torch.equal(module.weight, state["w"][:, :, 0, 0].bfloat16())
    for wrong in (torch.randn(2, 3, 3, 3), torch.randn(3, 2), torch.randn(2, 3, 1)):
        with pytest.raises(WeightsError, match="not the weights of a test: 1 tensors have another shape"):
            fill(module, weights.InMemory(state | {"w": wrong}), {"weight": "w", "bias": "b"}, what="a test")
