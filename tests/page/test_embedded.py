"""The artist's journey with the shipped weights: a chair from words, kept through reload and restart, and checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anyform.geometry.formats import read_mesh
from anyform.geometry.gate import gate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[Any]:
    """The page over the embedded systems."""
    yield from serve("embedded", tmp_path_factory.mktemp("embedded"))


def test_a_chair_that_survives_a_reload_and_a_restart(visit: Any, served: Any, tmp_path: Path) -> None:
    visitor = visit()
    visitor.page.set_default_timeout(900_000)
    page = visitor.open()
    visitor.order("a wooden chair")
    page.locator("#stage .standing").wait_for()
    page.reload()
    said = visitor.viewer().get_attribute("aria-label")
    assert re.search(r"a wooden chair\. .* watertight", said) and "not watertight" not in said
    served.stop()
    served.start()
    later = visit().open()
    later.locator(".history li", has_text="a wooden chair").get_by_role("button").click()
    later.get_by_text("Commercial use: yes").wait_for()
    with later.expect_download() as waiting:
        later.get_by_role("link", name=re.compile("Download GLB")).click()
    file = tmp_path / "chair.glb"
    waiting.value.save_as(file)
    verdict = gate(read_mesh(file), allow_parts=True)
    assert verdict.ok, verdict.failures
    assert max(verdict.extents) == pytest.approx(1.0, rel=1e-3)
    visitor.was_good("ERR_", "Failed to load resource")
