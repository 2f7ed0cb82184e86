"""The device is chosen once, with a reason; the environment is read when asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anyform import device
from anyform.errors import BadInput, DeviceUnavailable


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delenv("ANYFORM_DEVICE", raising=False)


def test_auto_without_a_gpu_is_the_cpu_in_float32() -> None:
    chosen = device.choose()
    assert (chosen.name, chosen.dtype) == ("cpu", "float32") and "no GPU" in chosen.reason
    assert chosen.torch_device() == torch.device("cpu")


@pytest.mark.parametrize("flags, autocast", [("fpu avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("avx2", None)])
def test_bfloat16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, autocast: str | None
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: X\nflags\t\t: {flags}\n\nflags\t\t: other\n", encoding="utf-8")
    found = device.cpu_features(tmp_path / "cpuinfo")
    assert found == frozenset(flags.split())
    monkeypatch.setattr(device, "cpu_features", lambda: found)
    chosen = device.choose("cpu")
    assert chosen.autocast == autocast and "was asked for" in chosen.reason and "bfloat16" in chosen.reason


def test_cpu_features_of_other_systems_are_unknown(tmp_path: Path) -> None:
    assert device.cpu_features(tmp_path / "absent") == frozenset()


def test_environment_answers_for_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYFORM_DEVICE", "cpu")
    assert "ANYFORM_DEVICE" in device.choose().reason
    monkeypatch.setenv("ANYFORM_DEVICE", "cuda")
    assert device.choose("cpu").name == "cpu"
    with pytest.raises(DeviceUnavailable, match="--device cpu"):
        device.choose()


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cpu;rm", "cuda:99999"])
def test_other_words_are_no_device(name: str) -> None:
    with pytest.raises(BadInput, match="no device"):
        device.choose(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:3", "mps"])
def test_named_devices_are_never_replaced(name: str) -> None:
    with pytest.raises(DeviceUnavailable) as caught:
        device.choose(name)
    assert caught.value.exit_code == 3


def test_a_gpu_without_code_is_refused_or_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "New GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (12, 9))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    chosen = device.choose()
    assert chosen.name == "cpu" and "New GPU" in chosen.reason and "newer" in chosen.reason
    with pytest.raises(DeviceUnavailable, match=r"12\.9"):
        device.choose("cuda")
    with pytest.raises(DeviceUnavailable, match="1 CUDA devices"):
        device.choose("cuda:1")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_120"])
    assert device.choose().name == "cuda:0" and device.choose("cuda").autocast == "bfloat16"


@pytest.mark.parametrize(
    "capability, compiled, expected",
    [
        ((9, 0), ["sm_90"], True),
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((7, 5), ["compute_80"], False),
        ((9, 0), ["sm_90a"], True),
        ((9, 0), ["gfx1100", ""], False),
        ((9, 0), [], False),
    ],
)
def test_arch_supported(capability: tuple[int, int], compiled: list[str], expected: bool) -> None:
    assert device.arch_supported(capability, compiled) is expected


def test_home_and_offline_are_read_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("ANYFORM_HOME", str(tmp_path))
    assert device.home() == tmp_path
    monkeypatch.setenv("ANYFORM_HOME", "")
    assert device.home() == Path.home() / ".anyform"
    for value, expected in (("", False), ("0", False), ("1", True), (" Yes ", True), ("off", False)):
        monkeypatch.setenv("ANYFORM_OFFLINE", value)
        assert device.is_offline() is expected


@pytest.mark.parametrize(
    "error, expected",
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("x"), False),
    ],
)
def test_is_out_of_memory(error: Exception, expected: bool) -> None:
    assert device.is_out_of_memory(error) is expected
