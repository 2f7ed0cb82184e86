"""The page as people use it, in the system's Chromium, over a real server whose system makes rounded boxes.

The journeys of the artist and of the engineer: ask in every way, watch, cancel, reload, restart, compare, refine, take.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

pytestmark = pytest.mark.slow


def pixels(element: Any) -> np.ndarray:
    with Image.open(io.BytesIO(element.screenshot())) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def kept(served: Any, page: Any, kind: str) -> dict[str, np.ndarray]:
    """What the server read and keeps of the prompt of the job that the page shows."""
    job = page.url.rpartition("=")[2]
    with np.load(served.home / "server" / "jobs" / job / f"{kind}.npz") as arrays:
        return dict(arrays)


def test_from_words_to_a_file_with_the_keyboard_alone(visit: Callable[..., Any]) -> None:
    visitor = visit()
    page = visitor.open()
    page.get_by_label("What should it be?").focus()
    page.keyboard.type("a round box")
    page.keyboard.press("Control+Enter")
    frame = visitor.viewer()
    said = frame.get_attribute("aria-label")
    assert re.search(r"3D model: a round box\. \d+ × \d+ × \d+ mm, [\d,]+ faces, watertight, mainly \w+", said)
    frame.focus()
    before = pixels(frame)
    assert before.reshape(-1, 3).std(0).max() > 5
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    page.get_by_text("Seen from the").wait_for(state="attached")
    assert np.abs(pixels(frame) - before).mean() > 0.2
    assert (
        page.get_by_text("Commercial use: yes").is_visible() and page.get_by_text("Watertight", exact=True).is_visible()
    )
    page.get_by_role("link", name=re.compile("Download GLB")).focus()
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    mesh = trimesh.load(waiting.value.path(), file_type="glb", force="mesh")
    assert mesh.is_watertight and f"{len(mesh.faces):,} faces" in said
    assert page.get_by_role("link", name=re.compile("^(OBJ|STL|3MF|PLY)")).count() >= 4
    visitor.was_good()


def test_each_shading_draws_something_else(visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.open()
    page = visitor.order("shaded")
    frame = visitor.viewer()
    seen = {"Lit": pixels(frame)}
    for mode in ("Unlit", "Normals", "Wireframe"):
        page.get_by_role("radio", name=mode, exact=True).check()
        seen[mode] = pixels(visitor.viewer())
        others = [np.abs(seen[mode] - picture).mean() for name, picture in seen.items() if name != mode]
        assert min(others) > 0.5, mode
    assert page.get_by_role("radio", name="UV").is_disabled()  # these boxes have none


def test_two_seeds_turn_together(visit: Callable[..., Any]) -> None:
    visitor = visit()
    page = visitor.open()
    page.get_by_role("radio", name="2", exact=True).check()
    visitor.order("a pair")
    first, second = visitor.viewer(0), visitor.viewer(1)
    assert "#compare=" in page.url
    before = pixels(second)
    first.focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
    )
    assert np.abs(pixels(second) - before).mean() > 0.2
    page.get_by_role("button", name="Open").first.click()
    page.get_by_text("Width × height × depth").wait_for()
    assert "#job=" in page.url
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('#stage .viewer-frame').length === 2")
    visitor.was_good()


def test_a_picture_with_a_mended_mask(visit: Callable[..., Any], served: Any, fixtures: Any) -> None:
    visitor = visit()
    page = visitor.open()
    page.get_by_role("tab", name="Picture").click()
    page.set_input_files("#file-image", str(fixtures / "image_plain.png"))
    page.get_by_text("The object was found").wait_for()
    canvas = page.locator(".editor canvas")
    page.get_by_role("radio", name="Remove").check()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Generate").click()
    visitor.viewer()
    rgba = kept(served, page, "image")["rgba"]
    with Image.open(fixtures / "image_plain.png") as picture:
        assert np.array_equal(rgba[..., :3], np.asarray(picture.convert("RGB")))
    height, width = rgba.shape[:2]
    assert rgba[height // 2, int(0.3 * width) : int(0.7 * width), 3].max() == 0  # what the stroke took away
    assert 0.03 < (rgba[..., 3] > 127).mean() < 0.5
    visitor.was_good()


def test_a_sketch_drawn_by_keys_and_a_voice(visit: Callable[..., Any], served: Any) -> None:
    visitor = visit()
    page = visitor.open()
    page.get_by_role("tab", name="Sketch").click()
    pad = page.locator("#panel-sketch canvas")
    pad.focus()
    for key in (" ", *["ArrowRight"] * 12, *["ArrowDown"] * 12, " "):
        page.keyboard.press(key)
    page.get_by_role("button", name="Generate").click()
    visitor.viewer()
    ink = kept(served, page, "sketch")["ink"]
    assert ink.shape == (512, 512) and 200 < (ink > 0.75).sum() < 5000
    page.get_by_role("tab", name="Voice").click()
    page.get_by_role("button", name="Record").click()
    page.get_by_text(re.compile("Recording, [1-9]")).wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Listen to it").wait_for()
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("heading", name="Sound").wait_for()
    voice = kept(served, page, "audio")
    assert voice["sample_rate"] == 16_000 and len(voice["samples"]) > 12_000
    visitor.was_good()


def test_cancel_reload_and_a_server_that_dies(visit: Callable[..., Any], served: Any) -> None:
    visitor = visit()
    page = visitor.open()
    visitor.order("slow one")
    page.get_by_text(re.compile(r"Denoise, step \d+ of 2000")).wait_for()
    page.locator("#stage img.preview:not([hidden])").wait_for()
    page.reload()
    page.get_by_text(re.compile(r"Denoise, step \d+ of 2000")).wait_for()
    served.kill()
    page.get_by_text("The line to the server is broken").wait_for()
    served.start()
    page.get_by_text(re.compile(r"Denoise, step \d+ of 2000")).wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.locator("#stage [data-state=cancelled]").wait_for()
    assert page.get_by_text("Nothing was kept of it.").is_visible()
    second = visit()
    elsewhere = second.open()
    card = elsewhere.locator(".history li", has_text="slow one").first
    card.get_by_text("Cancelled").wait_for()
    card.get_by_role("button").click()
    elsewhere.get_by_role("button", name="Delete").click()
    elsewhere.get_by_role("button", name="Really delete?").click()
    elsewhere.get_by_text("Your model appears here").wait_for()
    assert elsewhere.locator(".history li", has_text="slow one").count() == 0
    visitor.was_good("ERR_", "Failed to load resource")


def test_a_failure_says_why_and_offers_again(visit: Callable[..., Any]) -> None:
    visitor = visit()
    page = visitor.open()
    visitor.order("fail please")
    page.locator("#stage").get_by_text("it is not watertight").wait_for()
    first = page.url
    page.get_by_role("button", name="Try again").click()
    page.wait_for_function("(old) => location.href !== old", arg=first)
    page.locator("#stage").get_by_text("it is not watertight").wait_for()
    page.get_by_role("button", name="Use this prompt").click()
    assert page.get_by_label("What should it be?").input_value() == "fail please"
    page.get_by_label("What should it be?").fill("x" * 2001)
    assert page.get_by_text("The text has 2001 characters").is_visible()
    assert page.get_by_role("button", name="Generate").get_attribute("aria-disabled") == "true"
    visitor.was_good()


def test_refine_and_another_seed(visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.open()
    page = visitor.order("to refine")
    visitor.viewer()
    first = page.url
    page.get_by_role("button", name="Refine with shapes").click()
    page.wait_for_function("(old) => location.href !== old", arg=first)
    visitor.viewer()
    assert b'"job":"' + first.rpartition("=")[2].encode() in visitor.sent[-1][1]
    visitor.was_good()


def test_nothing_typed_becomes_markup(visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.open()
    page = visitor.order('<img src=x onerror="alert(1)"><script>alert(2)</script>')
    visitor.viewer()
    assert page.get_by_role("heading", name="<img src=x onerror").is_visible()
    page.get_by_text("Notes and credits").click()
    assert page.get_by_text("a note with <b>no markup</b>").is_visible()
    assert page.locator("#stage script, #stage b, .history script").count() == 0
    visitor.was_good()


def test_without_webgl_it_is_drawn_by_arithmetic(visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.open("?viewer=still")
    page = visitor.order("plain")
    frame = visitor.viewer()
    before = pixels(frame)
    assert before.reshape(-1, 3).std(0).max() > 5
    frame.focus()
    page.keyboard.press("ArrowRight")
    assert np.abs(pixels(visitor.viewer()) - before).mean() > 0.2
    assert page.get_by_role("radio", name="Wireframe").is_disabled()
    visitor.was_good()


def test_a_model_that_cannot_be_read_leaves_its_picture_and_its_files(visit: Callable[..., Any]) -> None:
    visitor = visit()
    page = visitor.open()
    page.route("**/asset.glb", lambda route: route.fulfill(body=b"not a model at all, by no means one"))
    visitor.order("broken")
    page.locator("#stage").get_by_text("this is no GLB file").wait_for()
    assert page.locator("#stage img.still").evaluate("(image) => image.decode().then(() => image.naturalWidth > 0)")
    assert page.get_by_role("link", name=re.compile("Download GLB")).is_visible()
