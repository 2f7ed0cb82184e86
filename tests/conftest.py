"""What every test gets: shapes and types checked at run time, a home of its own, no network, slow tests last."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from hypothesis import configuration
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]

# Inside pytest only, every annotated call in the tensor code is checked: types by beartype, axis letters by jaxtyping.
install_import_hook(["anyform.nn", "anyform.diffusion", "anyform.systems"], "beartype.beartype")

configuration.set_hypothesis_home_dir(ROOT / ".cache" / "hypothesis")
hypothesis.settings.register_profile("anyform", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("anyform")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests first; tests that need a network or a GPU only where `-m` asks for them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    for marker in ("network", "gpu"):
        if marker not in config.option.markexpr:
            left_out = [item for item in items if item.get_closest_marker(marker)]
            items[:] = [item for item in items if not item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures(root: Path) -> Path:
    """The bundled CC0 prompts, one of every modality (fixtures/README.md)."""
    return root / "fixtures"


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Licence answers, hashes and logs go to a folder of this run; a hub is never asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYFORM_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("ANYFORM_FAULT", raising=False)
        yield


@pytest.fixture(scope="session")
def sphere_system(root: Path) -> ModuleType:
    """tests/sphere_system.py: a small real system for whole runs."""
    spec = importlib.util.spec_from_file_location("sphere_system", root / "tests" / "sphere_system.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["sphere_system"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, headless, by playwright; skips with the reason where either is missing.

    WebGL is rendered in software, so that every machine shows the same; the microphone beeps. A browser lives as long
    as a module: playwright holds an event loop that other tests must not find running.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra dev)")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(names)} is on PATH")
    webgl = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox", *webgl, *microphone])
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture
def sphere(sphere_system: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """`anyform.api.SYSTEMS` holds the sphere alone."""
    monkeypatch.setattr("anyform.api.SYSTEMS", {"sphere": sphere_system.entry()})
