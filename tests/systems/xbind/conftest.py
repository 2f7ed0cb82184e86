from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _module(name: str, file: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(file))
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """toys.py beside this file."""
    return _module("xbind_toys", "toys.py")


@pytest.fixture
def guides(toys: ModuleType) -> Any:
    """Everything frozen, from toys: both priors know red pictures, the reference view is a red disc."""
    return toys.guides()


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tiny.py beside this file."""
    return _module("xbind_tiny", "tiny.py")
