"""Shared by the tests of WaLa: miniature released checkpoints (released_miniature.py)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def miniature() -> ModuleType:
    """The module `released_miniature.py` beside this file; test folders are no packages."""
    path = Path(__file__).with_name("released_miniature.py")
    spec = importlib.util.spec_from_file_location("released_miniature", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
