"""An asset in a notebook: a model to orbit, offline, with a still picture for those who show no script.

The cell holds everything: the viewer that the page uses (`server/static/viewer.js`, built from `web/`), the GLB and the
still, inside a frame without network and without access to the notebook (`sandbox="allow-scripts"`, its own policy).
"""

from __future__ import annotations

import base64
import dataclasses
import html
import importlib.resources
import io
from typing import Any

import numpy as np

from anyform.errors import BadInput
from anyform.geometry.asset import Asset
from anyform.geometry.mesh import Material, Mesh

MAX_GLB_BYTES = 5_000_000  # larger models are shown with fewer faces or smaller textures
FRAME_HEIGHT = 480  # CSS pixels
STILL_SIZE = 384  # pixels
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def mimebundle(asset: Asset) -> dict[str, Any]:
    """{"text/plain", "text/html", "image/webp" (base64)}: what IPython asks `Asset._repr_mimebundle_` for."""
    shown, note = lightened(asset)
    picture = base64.b64encode(still(asset.mesh)).decode("ascii")
    text = summary(asset)
    frame = document(glb_bytes(shown), picture, text, note) if shown is not None else still_page(picture, text, note)
    title = html.escape(f"3D model: {text}", quote=True)
    cell = (
        f'<iframe sandbox="allow-scripts" title="{title}" style="width:100%;height:{FRAME_HEIGHT}px;border:0" '
        f'srcdoc="{html.escape(frame, quote=True)}"></iframe>'
    )
    return {"text/plain": f"Asset({text})", "text/html": cell, "image/webp": picture}


def summary(asset: Asset) -> str:
    """One line: what was asked for, how fine and how large it is, and its seed."""
    made, mesh = asset.provenance, asset.mesh
    what = str(made.prompt.get("text") or made.prompt.get("kind") or made.system)
    size = np.ptp(mesh.bounds, axis=0)
    millimetres = " × ".join(f"{side:.0f}" for side in size / max(float(size.max()), 1e-12) * asset.metres * 1000)
    return f"{what}, {millimetres} mm, {len(mesh.faces)} faces, {made.system}, seed {made.seed}"


def lightened(asset: Asset) -> tuple[Asset | None, str]:
    """The asset as it is shown, at most MAX_GLB_BYTES as GLB, and a sentence where that is not the asset itself.

    Without texture coordinates it gets fewer faces, with them smaller textures; None where neither is enough.
    """
    size = len(glb_bytes(asset))
    if size <= MAX_GLB_BYTES:
        return asset, ""
    mesh = asset.mesh
    if mesh.uv is None:
        from anyform.geometry.simplify import simplify

        faces = int(len(mesh.faces) * MAX_GLB_BYTES / size * 0.9)
        try:
            fewer = simplify(mesh, faces)
        except BadInput as error:
            return None, f"{size / 1e6:.0f} MB is too large for a cell, and {error}: save it to look at it."
        shown = dataclasses.replace(asset, mesh=fewer)
        return shown, f"Shown with {len(fewer.faces)} of its {len(mesh.faces)} faces."
    material = mesh.material or Material()
    while _longest(material) > 128:
        material = _halved(material)
        shown = dataclasses.replace(asset, mesh=dataclasses.replace(mesh, material=material))
        if len(glb_bytes(shown)) <= MAX_GLB_BYTES:
            return shown, f"Shown with textures of {_longest(material)} pixels."
    return None, f"{size / 1e6:.0f} MB is too large for a cell: save it to look at it."


def still(mesh: Mesh) -> bytes:
    """A WebP of the mesh from the front right and above, on a transparent ground."""
    from PIL import Image

    from anyform.render.shading import framed, picture

    pixels = picture(mesh, framed(mesh, [np.radians(30.0)], size=STILL_SIZE), "transparent")[0]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=85)
    return out.getvalue()


def glb_bytes(asset: Asset) -> bytes:
    """The asset as a GLB."""
    from anyform.geometry.formats.glb import write_glb

    return write_glb(asset, "asset.glb")["asset.glb"]


def document(glb: bytes, picture: str, text: str, note: str) -> str:
    """The frame's page: the still first, which the viewer replaces as soon as it runs."""
    data = base64.b64encode(glb).decode("ascii")
    label = html.escape(text, quote=True)
    body = (
        f'<div id="anyform-viewer">{_still_tag(picture, label)}</div>{_note(note)}'
        f'<script type="application/octet-stream" id="anyform-model" data-label="{label}">{data}</script>'
        f'<script type="module">{_static("viewer.js")}</script>'
    )
    return _page(body)


def still_page(picture: str, text: str, note: str) -> str:
    """The frame's page where the model is too large to travel in a cell."""
    return _page(_still_tag(picture, html.escape(text, quote=True)) + _note(note))


def _page(body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{_static('viewer.css')}</style></head><body>{body}</body></html>"
    )


def _still_tag(picture: str, label: str) -> str:
    return f'<img alt="{label}" style="max-width:100%" src="data:image/webp;base64,{picture}">'


def _note(note: str) -> str:
    return f'<p style="margin:6px 0 0">{html.escape(note)}</p>' if note else ""


def _static(name: str) -> str:
    """A built file of the page, safe inside its element: no `</script` or `</style` can end it early."""
    text = (importlib.resources.files("anyform") / "server" / "static" / name).read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script").replace("</style", "<\\/style")


def _longest(material: Material) -> int:
    maps = (material.base_color, material.metallic_roughness, material.normal)
    return max((max(pixels.shape[:2]) for pixels in maps if pixels is not None), default=0)


def _halved(material: Material) -> Material:
    """Every texture at half its width and height, by means of 2 × 2 texels."""

    def half(pixels: np.ndarray | None) -> np.ndarray | None:
        if pixels is None or min(pixels.shape[:2]) < 2:
            return pixels
        height, width = (side // 2 * 2 for side in pixels.shape[:2])
        blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
        return np.rint(blocks.mean((1, 3))).astype(np.uint8)

    return dataclasses.replace(
        material,
        base_color=half(material.base_color),
        metallic_roughness=half(material.metallic_roughness),
        normal=half(material.normal),
    )
