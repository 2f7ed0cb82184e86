"""Pickled checkpoints are read without running them: every layout torch writes, old Lightning files, and attacks."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import subprocess
import sys
import textwrap
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyform import weights
from anyform.errors import WeightsError
from anyform.weights import pickle_child, pickles

BASE = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
STATE: dict[str, torch.Tensor] = {
    "whole": BASE,
    "view": BASE[1:, :, 2],
    "transposed": BASE.permute(2, 0, 1),
    "expanded": torch.tensor([7.0]).expand(4),
    "scalar": torch.tensor(3.5),
    "empty": torch.zeros(0, 4),
    "half": BASE.half(),
    "bfloat": BASE.bfloat16(),
    "double": BASE.double(),
    "long": torch.arange(4),
    "byte": torch.arange(4, dtype=torch.uint8),
    "flag": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.ones(2, 2)),
}


def saved(path: Path, value: Any, legacy: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_every_kind_of_tensor_is_where_the_child_says(tmp_path: Path, legacy: bool) -> None:
    file = weights.open_tensors(saved(tmp_path / "a.ckpt", {"state_dict": STATE, "epoch": 3}, legacy))
    assert set(file) == {f"state_dict.{name}" for name in STATE} and file.metadata == {"epoch": "3"}
    for name, value in STATE.items():
        found = file.read(f"state_dict.{name}")
        assert found.dtype == value.dtype and found.shape == value.shape and torch.equal(found, value.detach()), name
        assert file.shape(f"state_dict.{name}") == tuple(value.shape)


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    cut=st.integers(0, 2),
    order=st.randoms(use_true_random=False),
    kind=st.sampled_from([torch.float32, torch.float16, torch.int32, torch.bool]),
)
def test_any_view_of_any_tensor(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], cut: int, order: Any, kind: torch.dtype
) -> None:
    axes = list(range(len(shape)))
    order.shuffle(axes)
    whole = torch.randn(shape).mul(9).to(kind)
    value = whole.permute(axes)[min(cut, shape[axes[0]] - 1) :: 2]
    path = saved(tmp_path_factory.mktemp("v") / "a.pt", {"x": value})
    record = pickle_child.read(str(path))
    code, size, stride, offset = record["tensors"]["x"]
    stored = pickles.Stored(code, tuple(size), offset, tuple(stride))
    assert torch.equal(weights.TensorFile(path, {"x": stored}, {}).read("x"), value)


def test_reading_converts_while_it_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyform.weights.stream._CHUNK", 7)
    file = weights.open_tensors(saved(tmp_path / "a.pt", STATE))
    assert torch.equal(file.read("whole", torch.bfloat16), BASE.bfloat16())
    assert torch.equal(file.read("bfloat", torch.float32), BASE.bfloat16().float())
    assert torch.equal(file.read("transposed", torch.float16), BASE.permute(2, 0, 1).half())
    assert file.read("long", torch.float16).dtype == torch.int64
    assert weights.InMemory(STATE).read("view", torch.float16).dtype == torch.float16


def lightning_file(path: Path) -> Path:
    """As Lightning 1.x wrote them: callback classes as keys, options as a Namespace, numpy scalars, EMA beside."""
    import numpy as np

    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    saver = type("ModelCheckpoint", (), {"__module__": module.__name__, "__qualname__": "ModelCheckpoint"})
    module.ModelCheckpoint = saver  # type: ignore[attr-defined]
    parents = {name: types.ModuleType(name) for name in ("pytorch_lightning", "pytorch_lightning.callbacks")}
    sys.modules.update(parents | {module.__name__: module})
    kept = saver()
    kept.best = torch.ones(3)
    content = {
        "epoch": 7,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": collections.OrderedDict(a=torch.ones(2), b=torch.zeros(1)),
        "callbacks": {saver: {"best_model_score": torch.tensor(0.5), "saver": kept}},
        "hyper_parameters": argparse.Namespace(lr=1e-4, name="zero", sizes=[1, 2]),
        "lr": np.float64(0.25),
        "seen": {1, 2},
        "counts": collections.defaultdict(list, {"x": [3]}),
        "device": torch.device("cpu"),
    }
    saved(path, content)
    for name in (*parents, module.__name__):
        del sys.modules[name]
    return path


def test_old_lightning_files_are_read_without_lightning(tmp_path: Path) -> None:
    path = lightning_file(tmp_path / "old.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    file = weights.open_tensors(path)
    assert set(file) == {"state_dict.a", "state_dict.b", "callbacks.ModelCheckpoint.best_model_score"}
    assert file.metadata["hyper_parameters.name"] == "zero" and file.metadata["hyper_parameters.lr"] == "0.0001"
    assert file.metadata["hyper_parameters.sizes.1"] == "2" and file.metadata["counts.x.0"] == "3"
    assert "pytorch_lightning" not in sys.modules


class Attack:
    """Unpickling this calls a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


ATTACKS = {
    "os.system": lambda marker: Attack(os.system, f"touch {marker}"),
    "subprocess": lambda marker: Attack(subprocess.check_call, ["touch", str(marker)]),
    "open": lambda marker: Attack(open, str(marker), "w"),
    "exec": lambda marker: Attack(exec, f"open({str(marker)!r}, 'w')"),
    "getattr": lambda marker: Attack(getattr, "x", "upper"),
    "torch.load": lambda marker: Attack(torch.load, str(marker)),
    "torch.utils": lambda marker: Attack(torch.hub.load, str(marker), "x"),
    "pathlib": lambda marker: Attack(Path.touch, marker),
    "breakpoint": lambda marker: Attack(breakpoint),
    "import": lambda marker: Attack(__import__, "antigravity"),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("legacy", [False, True])
def test_attacks_leave_no_trace(tmp_path: Path, name: str, legacy: bool) -> None:
    marker = tmp_path / "pwned"
    path = saved(tmp_path / "evil.ckpt", {"a": torch.ones(1), "b": ATTACKS[name](marker)}, legacy)
    with pytest.raises(WeightsError, match=r"could run code|no intact") as caught:
        weights.convert_pickle(path, tmp_path / "out.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["evil.ckpt"]
    assert caught.value.exit_code == 3 and len(str(caught.value)) < 250


def test_a_table_that_explodes_is_refused() -> None:
    lots: Any = [torch.ones(1)]
    for _ in range(60):
        lots = [lots, lots]
    round_and_round: list[Any] = []
    round_and_round.append(round_and_round)
    for value in (lots, round_and_round):
        with pytest.raises(pickle_child.Refused, match="deep"):
            list(pickle_child.leaves(value))
    wide = [0] * 1001
    with pytest.raises(pickle_child.Refused, match="more than"):
        pickle_child.layout([wide] * 1000, {}, 0)


def zipped(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_archives_that_torch_never_writes(tmp_path: Path) -> None:
    parts = parts_of(saved(tmp_path / "good.ckpt", {"a": torch.ones(4)}))
    root = next(name for name in parts if name.endswith("/data.pkl")).removesuffix("data.pkl")
    bad = {
        "compressed": (zipped(tmp_path / "1.ckpt", parts, zipfile.ZIP_DEFLATED), "compressed"),
        "big-endian": (zipped(tmp_path / "2.ckpt", parts | {f"{root}byteorder": b"big"}), "big-endian"),
        "TorchScript": (zipped(tmp_path / "3.ckpt", parts | {f"{root}code/a.py": b""}), "TorchScript"),
        "two pickles": (zipped(tmp_path / "4.ckpt", parts | {"b/data.pkl": b""}), "no torch checkpoint"),
        "short": (zipped(tmp_path / "5.ckpt", parts | {f"{root}data/0": b"\0" * 8}), "not all there"),
        "lost": (zipped(tmp_path / "6.ckpt", {k: v for k, v in parts.items() if "data/0" not in k}), "not all there"),
    }
    for path, words in bad.values():
        with pytest.raises(WeightsError, match=words):
            weights.open_tensors(path)
    assert torch.equal(weights.open_tensors(zipped(tmp_path / "7.ckpt", parts)).read("a"), torch.ones(4))


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_anywhere(tmp_path: Path, legacy: bool) -> None:
    whole = saved(tmp_path / "a.ckpt", STATE, legacy).read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        (tmp_path / "b.ckpt").write_bytes(whole[: int(share * len(whole))])
        answer = pickle_child.read(str(tmp_path / "b.ckpt"))
        assert answer.keys() == {"error"}, share


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_never_does_more_than_fail(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "a.ckpt"
    content = bytearray(saved(path, {"a": torch.ones(3), "n": 1}).read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    assert pickle_child.read(str(path)).keys() in ({"error"}, {"tensors", "metadata"})


def test_nan_is_noticed_when_the_tensor_is_read(tmp_path: Path) -> None:
    bad = {"good": torch.ones(2), "bad": torch.tensor([1.0, float("nan")]), "strided": torch.full((2, 2), torch.inf).T}
    file = weights.open_tensors(saved(tmp_path / "a.ckpt", bad))
    assert torch.equal(file.read("good"), torch.ones(2))
    for name in ("bad", "strided"):
        with pytest.raises(WeightsError, match=f"'{name}' holds NaN"):
            file.read(name)


def test_the_child_has_neither_network_nor_files_nor_programs(tmp_path: Path) -> None:
    """What a hole in the pickle machine could still try, after the lock-down of a real child."""
    source = saved(tmp_path / "a.ckpt", {"a": torch.ones(1)})
    code = f"""
        import importlib.util, os, sys, socket, subprocess, ctypes
        spec = importlib.util.spec_from_file_location("child", {pickle_child.__file__!r})
        child = importlib.util.module_from_spec(spec)
        sys.modules["child"] = child
        spec.loader.exec_module(child)
        child.lock_down({str(source)!r})
        attempts = [
            lambda: socket.socket(), lambda: os.system("true"), lambda: subprocess.run(["true"]),
            lambda: open({str(tmp_path / "new")!r}, "w"), lambda: open("/etc/hosts"), lambda: os.listdir("."),
            lambda: open({str(source)!r}, "r+b"), lambda: ctypes.CDLL(None), lambda: os.fork(),
            lambda: os.remove({str(source)!r}), lambda: __import__("antigravity"), lambda: exec("1"),
        ]
        for number, attempt in enumerate(attempts):
            try:
                attempt()
            except PermissionError:
                continue
            print("open door", number)
        print(sorted(child.read({str(source)!r})["tensors"]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['a']", done.stdout + done.stderr
    assert source.exists() and not (tmp_path / "new").exists()


def test_the_child_needs_the_standard_library_alone() -> None:
    """It is run with -I -S, so torch and numpy are not even to be found; the product never unpickles anywhere else."""
    assert Path(pickle_child.__file__) == pickles._CHILD
    code = f"import runpy, sys; runpy.run_path({pickle_child.__file__!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_converted_files_open_with_the_public_reader(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    saved(tmp_path / "a.ckpt", {"state_dict": STATE})
    out = weights.convert_pickle(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    found = load_file(out)
    assert found.keys() == {f"state_dict.{name}" for name in STATE}
    for name, value in STATE.items():
        assert torch.equal(found[f"state_dict.{name}"], value.detach()), name


def test_state_dicts_of_modules_carry_attributes(tmp_path: Path) -> None:
    """`state_dict()` hangs `_metadata` on its OrderedDict, which the pickle sets as an attribute."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    file = weights.open_tensors(saved(tmp_path / "a.pt", module.state_dict()))
    assert set(file) == set(module.state_dict()) and file.read("1.num_batches_tracked").shape == ()
