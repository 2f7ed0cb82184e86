from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """toys.py beside this file."""
    spec = importlib.util.spec_from_file_location("xbind_toys", Path(__file__).with_name("toys.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules["xbind_toys"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def guides(toys: ModuleType) -> Any:
    """Everything frozen, from toys: both priors know red pictures, the reference view is a red disc."""
    return toys.guides()
