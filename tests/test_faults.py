"""The test hook does what it says, and nothing when it is not set."""

from __future__ import annotations

import pytest

from anyform.errors import BadSetting
from anyform.faults import fault_point


@pytest.mark.parametrize(
    "value, spoiled",
    [("", []), ("nan:step=1", [("denoise", 1), ("decode", 1)]), ("nan:stage=decode", [("decode", 0), ("decode", 1)])],
)
def test_nan(monkeypatch: pytest.MonkeyPatch, value: str, spoiled: list[tuple[str, int]]) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", value)
    places = [(stage, step) for stage in ("denoise", "decode") for step in (0, 1)]
    assert [place for place in places if fault_point(*place)] == spoiled


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", "nan:step=9,oom:stage=decode")
    assert fault_point("denoise") is False
    with pytest.raises(MemoryError, match="ANYFORM_FAULT in decode"):
        fault_point("decode")
    monkeypatch.setenv("ANYFORM_FAULT", "oom")
    with pytest.raises(MemoryError):
        fault_point("anything")


@pytest.mark.parametrize("value", ["fire", "nan:place=3", ":"])
def test_what_is_no_fault_is_said(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", value)
    with pytest.raises(BadSetting, match="is no fault"):
        fault_point("decode")
