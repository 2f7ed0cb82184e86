"""What is free, as Linux says it, and the refusal in numbers before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyform.errors import OutOfMemory
from anyform.weights import RELEASED, memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    8388608 kB\n", encoding="utf-8")
    (tmp_path / "group").mkdir()
    return tmp_path


def left(machine: Path) -> int:
    return memory.available("cpu", machine / "meminfo", machine / "group")


def test_the_smaller_of_machine_and_control_group(machine: Path) -> None:
    assert left(machine) == 8 * GIB
    (machine / "group" / "memory.max").write_text("max\n", encoding="utf-8")
    (machine / "group" / "memory.current").write_text(f"{GIB}\n", encoding="utf-8")
    assert left(machine) == 8 * GIB
    (machine / "group" / "memory.max").write_text(f"{3 * GIB}\n", encoding="utf-8")
    assert left(machine) == 2 * GIB
    (machine / "group" / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n", encoding="utf-8")
    assert left(machine) == 2.5 * GIB
    (machine / "group" / "memory.current").write_text(f"{9 * GIB}\n", encoding="utf-8")
    assert left(machine) == 0


def test_unknown_is_no_refusal(machine: Path) -> None:
    assert memory.available("cpu", machine / "absent", machine / "group") == -1
    assert memory.available("mps") == -1
    memory.require(10**18, "mps", "this")


def test_a_refusal_has_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2_500_000_000)
    memory.require(2_500_000_000, "cpu", "this")
    with pytest.raises(OutOfMemory, match=r"this WaLa model needs 3\.6 GB on cpu, 2\.5 GB are free") as caught:
        memory.require(3_600_000_000, "cpu", "this WaLa model")
    assert caught.value.exit_code == 4


def test_a_model_that_does_not_fit_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from anyform.priors import mvdream

    monkeypatch.setattr(memory, "available", lambda device: 10**9)
    monkeypatch.setattr(mvdream, "infer", lambda tensors: mvdream.MVDreamConfig())
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "a.ckpt")
    with pytest.raises(OutOfMemory, match=r"MVDream needs 8\.2 GB on cpu, 1\.0 GB are free"):
        mvdream.load(tmp_path / "a.ckpt")


def test_peaks_of_the_table() -> None:
    for row in RELEASED.values():
        plain, fast = row.peak_bytes("float32"), row.peak_bytes("bfloat16")
        assert (plain > fast > 2 * row.parameters) if row.parameters else plain == fast == 0
        assert set(row.measured_peak) <= {"float32", "bfloat16"} and set(row.needs) <= set(RELEASED)
