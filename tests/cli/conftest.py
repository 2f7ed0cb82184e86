"""The command in this process, with the sphere as its only system."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyform import cli


@pytest.fixture
def anyform(sphere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, in this process, in an empty folder, with a home of its own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("ANYFORM_HOME", str(tmp_path / "home"))
    return lambda *arguments: cli.main([str(argument) for argument in arguments])


@pytest.fixture
def record(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, Any]]:
    """The JSON record that the last command printed on stdout."""
    return lambda: json.loads(capsys.readouterr().out.splitlines()[-1])
