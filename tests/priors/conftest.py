"""The miniature checkpoints as a fixture: tests are no package, so their modules cannot import each other."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def miniatures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("miniatures", Path(__file__).with_name("miniatures.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
