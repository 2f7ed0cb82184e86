"""Shared by the tests of TuneMV3D: tiny foundations (tiny_foundation.py) and cameras."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny_foundation() -> ModuleType:
    """The module `tiny_foundation.py` beside this file; test folders are no packages."""
    path = Path(__file__).with_name("tiny_foundation.py")
    spec = importlib.util.spec_from_file_location("tiny_foundation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
