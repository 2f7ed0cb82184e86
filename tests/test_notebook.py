"""`Asset._repr_mimebundle_`: what a notebook shows, executed by nbclient and looked at in a browser without network."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anyform import notebook
from anyform.geometry.asset import Asset
from anyform.geometry.mesh import Material, Mesh
from anyform.types.progress import silent
from anyform.types.prompt import Text

CELL = """
import dataclasses, numpy, sys
sys.path.insert(0, {tests!r})
import sphere_system
from anyform import Text
from anyform.types.progress import silent
asset = sphere_system.Sphere(sphere_system.SphereSettings()).generate(Text("a <b>ball</b>"), seed=3, report=silent)
asset
"""


@pytest.fixture(scope="module")
def ball(sphere_system: ModuleType) -> Asset:
    made = sphere_system.Sphere(sphere_system.SphereSettings(resolution=24))
    return made.generate(Text("a <script>alert(1)</script> ball"), seed=3, report=silent)


def frame_of(cell: str) -> str:
    """The document inside the cell's frame."""
    found = re.search(r'srcdoc="([^"]*)"', cell)
    assert found is not None
    return html.unescape(found.group(1))


def model_of(frame: str) -> bytes:
    """The GLB that the frame carries."""
    found = re.search(r'id="anyform-model"[^>]*>([^<]*)<', frame)
    assert found is not None
    return base64.b64decode(found.group(1), validate=True)


def test_three_forms_of_one_asset(ball: Asset, tmp_path: Path) -> None:
    bundle = ball._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/webp"}
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/webp"]))) as still:
        assert (still.format, still.size) == ("WEBP", (384, 384))
        alpha = np.asarray(still.convert("RGBA"))[..., 3]
    assert alpha[192, 192] == 255 and alpha[0, 0] == 0
    assert "seed 3" in bundle["text/plain"] and f"{len(ball.mesh.faces)} faces" in bundle["text/plain"]
    ball.save(tmp_path / "ball.glb")
    assert model_of(frame_of(bundle["text/html"])) == (tmp_path / "ball.glb").read_bytes()


def test_nothing_leaves_the_frame(ball: Asset) -> None:
    """No address of another machine, no access to the notebook, and a prompt that cannot become markup."""
    cell = ball._repr_mimebundle_()["text/html"]
    assert 'sandbox="allow-scripts"' in cell and "allow-same-origin" not in cell
    frame = frame_of(cell)
    assert "default-src 'none'" in frame
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]*"', frame)
    assert "<script>alert" not in cell and "<script>alert" not in frame
    assert frame.count("</script>") == 2


def test_a_large_mesh_is_shown_with_fewer_faces(ball: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    full = len(notebook.glb_bytes(ball))
    monkeypatch.setattr(notebook, "MAX_GLB_BYTES", full // 2)
    shown, note = notebook.lightened(ball)
    assert shown is not None and len(notebook.glb_bytes(shown)) <= full // 2
    assert note == f"Shown with {len(shown.mesh.faces)} of its {len(ball.mesh.faces)} faces."
    frame = frame_of(ball._repr_mimebundle_()["text/html"])
    assert note in frame


def textured(ball: Asset, side: int) -> Asset:
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    mesh = replace(ball.mesh, uv=ball.mesh.vertices[:, :2] / 2 + 0.5, material=Material(base_color=noise))
    return replace(ball, mesh=mesh)


def test_a_large_texture_is_shown_smaller_and_its_mean_stays(ball: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = textured(ball, 512)
    plain = len(notebook.glb_bytes(textured(ball, 2)))
    monkeypatch.setattr(notebook, "MAX_GLB_BYTES", plain + 3 * 256 * 256 * 2)
    shown, note = notebook.lightened(asset)
    assert note == "Shown with textures of 256 pixels."
    assert shown is not None and shown.mesh.material is not None and asset.mesh.material is not None
    before, after = asset.mesh.material.base_color, shown.mesh.material.base_color
    assert before is not None and after is not None and after.shape == (256, 256, 3)
    assert abs(float(before.mean()) - float(after.mean())) < 0.2


def test_what_cannot_be_made_small_is_a_still_with_its_reason(ball: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "MAX_GLB_BYTES", 1000)
    bundle = textured(ball, 64)._repr_mimebundle_()
    frame = frame_of(bundle["text/html"])
    assert "too large for a cell: save it to look at it" in frame
    assert 'id="anyform-model"' not in frame and "data:image/webp;base64," in frame


def test_size_in_millimetres_follows_the_asset(ball: Asset) -> None:
    box = Mesh(ball.mesh.vertices * np.float32([1, 2, 0.5]), ball.mesh.faces)
    size = np.ptp(box.bounds, axis=0) / np.ptp(box.bounds[:, 1]) * 80
    assert " × ".join(f"{side:.0f}" for side in size) + " mm" in notebook.summary(replace(ball, mesh=box, metres=0.08))


@pytest.fixture(scope="module")
def exported(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A notebook run by nbclient and exported as one HTML file."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (the extra dev)")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (the extra dev)")
    nbconvert = pytest.importorskip("nbconvert", reason="nbconvert is not installed (the extra dev)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (the extra dev)")
    cell = nbformat.v4.new_code_cell(CELL.format(tests=str(root / "tests")))
    book = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    nbformat.validate(book)
    data: dict[str, Any] = book.cells[0].outputs[-1]["data"]
    assert {"text/html", "image/webp", "text/plain"} <= set(data)
    path = tmp_path_factory.mktemp("book") / "book.html"
    path.write_text(nbconvert.HTMLExporter(template_name="basic").from_notebook_node(book)[0], encoding="utf-8")
    yield path


@pytest.mark.slow
def test_an_exported_notebook_shows_the_model_offline(exported: Path, browser: Any) -> None:
    """Opened without network, the frame draws the model: its pixels vary, and change when it is turned by keys."""
    context = browser.new_context(offline=True, viewport={"width": 900, "height": 700}, reduced_motion="reduce")
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(exported.as_uri())
    frame = page.frame_locator("iframe")
    viewer = frame.locator(".viewer-frame")
    viewer.wait_for(timeout=120_000)
    assert "a <b>ball</b>" in (viewer.get_attribute("aria-label") or "")
    page.wait_for_timeout(500)
    before = pixels(viewer.screenshot())
    assert before.reshape(-1, 3).std(0).min() > 5
    viewer.press("ArrowRight")
    viewer.press("ArrowUp")
    page.wait_for_timeout(500)
    assert np.abs(pixels(viewer.screenshot()).astype(int) - before).mean() > 0.1
    assert not [url for url in asked if url.startswith("http")]
    context.close()


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
