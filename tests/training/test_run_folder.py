"""A run is continued only as itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from anyform.errors import BadInput
from anyform.training.run_folder import FREE, begin, write_json


@dataclass(frozen=True)
class Inner:
    steps: int = 5
    rate: float = 0.1


@dataclass(frozen=True)
class Plan:
    width: int = 8
    inner: Inner = field(default_factory=Inner)


def test_a_run_is_written_once_and_checked_after(tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, "small", Plan(), resume=False)
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["plan"]["inner"]["rate"] == 0.1
    with pytest.raises(BadInput, match="add --resume"):
        begin(run, "small", Plan(), resume=False)
    begin(run, "small", Plan(), resume=True)
    begin(run, "small", Plan(inner=Inner(steps=50)), resume=True)  # more steps are the same run
    assert "steps" in FREE and "workers" not in FREE  # each worker adds a batch to every step
    with pytest.raises(BadInput, match=r"begun with inner\.rate=0\.1, not 0\.2"):
        begin(run, "small", Plan(inner=Inner(rate=0.2)), resume=True)
    with pytest.raises(BadInput, match="preset small, not large"):
        begin(run, "large", Plan(), resume=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(BadInput, match="not empty"):
        begin(tmp_path, "small", Plan(), resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.txt"]


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ä": [1]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
