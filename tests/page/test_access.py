"""Can everyone use it? axe-core on the page's states, both themes, 320 pixels wide; and its first paint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def axe(root: Path) -> str:
    path = root / "web" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip("axe-core is not installed: run `npm ci` in web/")
    return path.read_text(encoding="utf-8")


def serious(page: Any, axe: str) -> list[str]:
    """Findings of axe that are serious or critical, with the elements they are about."""
    page.evaluate(axe)
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {json.dumps([node['html'][:120] for node in one['nodes']][:3])}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Callable[..., Any], axe: str, theme: str) -> None:
    visitor = visit(color_scheme=theme)
    page = visitor.open()
    for tab in ("Text", "Picture", "Sketch", "Voice", "Points", "Voxels", "Views"):
        page.get_by_role("tab", name=tab).click()
    page.get_by_text("More settings").click()
    assert serious(page, axe) == []
    visitor.order(f"accessible {theme}")
    visitor.viewer()
    assert serious(page, axe) == []
    visitor.order("fail to be seen")
    page.locator("#stage").get_by_text("it is not watertight").wait_for()
    assert serious(page, axe) == []


def test_320_pixels_wide_without_scrolling_sideways(visit: Callable[..., Any], axe: str) -> None:
    visitor = visit(viewport={"width": 320, "height": 640}, has_touch=True)
    page = visitor.open()
    sideways = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    for tab in ("Text", "Picture", "Sketch", "Voice", "Points", "Voxels", "Views"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate(sideways) <= 0, tab
    visitor.order("small")
    visitor.viewer()
    assert page.evaluate(sideways) <= 0
    assert serious(page, axe) == []
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, a[href], select, summary, input:not([type=file])')]
            .filter((one) => one.checkVisibility() && !one.closest('.visually-hidden'))
            .map((one) => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
            .filter(([, box]) => box.top >= 0 && (box.width < 24 || box.height < 24) && box.width > 1)
            .map(([html]) => html)"""
    )
    assert [html for html in small if 'type="checkbox"' not in html and 'type="radio"' not in html] == []


def test_first_paint_asks_nobody_else_and_little_of_us(visit: Callable[..., Any]) -> None:
    """The 3D code is not fetched before there is a model; everything comes from the page's own address."""
    visitor = visit()
    visitor.open()
    names = {url.removeprefix(visitor.url).partition("?")[0] for url in visitor.asked}
    assert "viewer.js" not in names and {"app.js", "app.css"} <= names
    visitor.was_good()


def test_reduced_motion_and_the_slow_turn(visit: Callable[..., Any]) -> None:
    visitor = visit(reduced_motion="no-preference")
    page = visitor.open()
    visitor.order("turning")
    visitor.viewer()
    turn = page.get_by_role("button", name="Turn around")
    assert turn.get_attribute("aria-pressed") == "true"
    page.locator("#stage .viewer-frame").click()
    assert turn.get_attribute("aria-pressed") == "false"
    calm = visit()
    calm.open()
    calm.order("calm")
    calm.viewer()
    assert calm.page.get_by_role("button", name="Turn around").get_attribute("aria-pressed") == "false"
