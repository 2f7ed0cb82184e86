"""Pictures of meshes for people: soft two-light shading, contact sheets, turntables. numpy, scipy and Pillow.

Light model, in linear light: albedo · (ambient + key + fill), the two lights fixed to the camera so that every view of
a turntable reads alike, the ambient part a little brighter from above wherever the object stands; creases and contacts
are darkened by the difference between the depth map and its blurred self (Luft et al. 2006, "Image enhancement by
unsharp masking the depth buffer"). Normals are smoothed between faces that meet at less than 35° and turned to the
camera, so inverted meshes look right. Not a material preview: metal, roughness and normal maps are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput, BadSetting
from anyform.geometry.color import linear_to_srgb, sample_texture, srgb_to_linear
from anyform.geometry.mesh import Mesh
from anyform.geometry.topology import face_cross, weld
from anyform.render.raster import Fragments, at_seen, rasterise
from anyform.types.camera import Cameras

if TYPE_CHECKING:
    from PIL import Image, ImageFont

CLAY = (0.80, 0.78, 0.75)  # sRGB of a mesh without colours
SUPERSAMPLING = 2
_SMOOTH = np.cos(np.radians(35))
_KEY, _FILL = np.array([-0.45, 0.75, 0.65]), np.array([0.85, 0.15, 0.45])  # towards the lights, camera axes
_KEY_STRENGTH, _FILL_STRENGTH, _AMBIENT, _SKY = 0.72, 0.22, 0.28, 0.09
_WRAP = 0.25  # how far light reaches around the terminator
_CREASE_STRENGTH, _CREASE_RADIUS = 1.2, 0.02  # of the object's depth range, of the picture's height

Picture = NDArray[np.uint8]


def picture(mesh: Mesh, cameras: Cameras, background: str | tuple[int, int, int] = "white") -> Picture:
    """(V, H, W, 4) uint8 sRGB pictures at the cameras' size, 2 × 2 samples a pixel.

    background: "white", an sRGB triple 0..255 (alpha 255 everywhere), or "transparent" (straight alpha). Colours are
    the texture, the vertex colours and the base colour of the mesh (multiplied where there are several), else clay.
    Raises BadInput for an empty or non-finite mesh and for one that is wholly behind a camera.
    """
    if background not in ("white", "transparent") and not isinstance(background, tuple):
        raise BadSetting(f"the background is 'white', 'transparent' or an sRGB triple, not {background!r}")
    if not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
        raise BadInput(f"a mesh with {len(mesh.faces)} faces and only finite vertices is needed for a picture")
    corner_normals = crease_normals(mesh)
    views = [_one_view(mesh, corner_normals, cameras, view) for view in range(len(cameras))]
    premultiplied = np.stack([_shrink(view, SUPERSAMPLING) for view in views])
    alpha = premultiplied[..., 3:]
    if background == "transparent":
        colour = premultiplied[..., :3] / np.where(alpha > 0, alpha, 1)
    else:
        behind = np.array((255, 255, 255) if background == "white" else background) / 255
        colour, alpha = premultiplied[..., :3] + behind * (1 - alpha), np.ones_like(alpha)
    return np.rint(np.concatenate([colour, alpha], -1) * 255).astype(np.uint8)


def framed(
    mesh: Mesh, azimuth: Sequence[float] | NDArray[np.floating], elevation: float = 0.35, size: int = 512
) -> Cameras:
    """Cameras around the middle of a mesh of any size and place, so far that it fits; angles in radians, fov 30°."""
    low, high = mesh.bounds.astype(np.float64)
    fov = float(np.radians(30))
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-9)
    distance = radius * 1.04 / np.sin(fov / 2)
    cameras = Cameras.orbit(np.asarray(azimuth, np.float64), np.array(elevation), distance, fov, size)
    cameras.camera_to_world[:, :3, 3] += (low + high) / 2
    return cameras


def clip_positions(vertices: NDArray[np.floating], cameras: Cameras, view: int) -> NDArray[np.float64]:
    """World points (V, 3) -> clip positions (V, 4) of one camera for `raster.rasterise`, W = depth along its axis.

    Near and far planes enclose the points in front of the camera; y grows upwards, row 0 of the raster is the bottom.
    """
    pose = cameras.camera_to_world[view]
    local = (np.asarray(vertices, np.float64) - pose[:3, 3]) @ pose[:3, :3]
    depth = -local[:, 2]
    ahead = depth[depth > 0]
    low, high = (float(ahead.min()), float(ahead.max())) if len(ahead) else (1.0, 1.0)
    near, far = max(low * 0.99, high * 1e-5), high * 1.01
    focal = 1 / np.tan(cameras.fov_y[view] / 2)
    x, y = local[:, 0] * focal * cameras.height / cameras.width, local[:, 1] * focal
    z = ((far + near) * depth - 2 * far * near) / (far - near)
    return np.stack([x, y, z, depth], 1)


def crease_normals(mesh: Mesh) -> NDArray[np.float64]:
    """Unit normals (F, 3, 3) of the faces' corners: the vertex' mean if within 35° of the face, else the face's own."""
    cross = face_cross(mesh.vertices, mesh.faces)
    normal = _unit(cross)
    corner = weld(mesh.vertices)[mesh.faces]
    mean = np.zeros((len(mesh.vertices), 3))
    for axis in range(3):
        mean[:, axis] = np.bincount(corner.ravel(), np.repeat(cross[:, axis], 3), len(mean))
    shared = _unit(mean)[corner]
    smooth = (shared * normal[:, None]).sum(-1) > _SMOOTH
    return np.where(smooth[..., None], shared, normal[:, None])


def _one_view(mesh: Mesh, corner_normals: NDArray[np.float64], cameras: Cameras, view: int) -> NDArray[np.float64]:
    """Premultiplied rgba (s·H, s·W, 4) in [0, 1], row 0 at the top."""
    height, width = cameras.height * SUPERSAMPLING, cameras.width * SUPERSAMPLING
    position = clip_positions(mesh.vertices, cameras, view)
    fragments = rasterise(position, mesh.faces, height, width)
    seen = fragments.face >= 0
    rgba = np.zeros((height, width, 4))
    if seen.any():
        pose = cameras.camera_to_world[view]
        where = at_seen(mesh.vertices[mesh.faces], fragments, seen)
        normal = _unit(at_seen(corner_normals, fragments, seen))
        away = ((where - pose[:3, 3]) * normal).sum(-1) > 0
        normal[away] *= -1
        light = _light(normal, pose[:3, :3]) * _contact(fragments, position[:, 3], mesh.faces)[seen]
        rgba[seen, :3] = linear_to_srgb(_albedo(mesh, fragments, seen) * light[:, None])
        rgba[seen, 3] = 1
    return rgba[::-1]


def _light(normal: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear light (P,) on unit normals (P, 3) for a camera whose right, up and backward are the columns of axes."""
    light = _AMBIENT + _SKY * normal[:, 1]
    for towards, strength in ((_KEY, _KEY_STRENGTH), (_FILL, _FILL_STRENGTH)):
        cosine = normal @ (axes @ (towards / np.linalg.norm(towards)))
        light = light + strength * np.clip((cosine + _WRAP) / (1 + _WRAP), 0, None) ** 1.2
    return light


def _contact(fragments: Fragments, depth: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """Factor (H, W) in [0.45, 1]: darker where the surroundings are nearer to the camera than the pixel."""
    from scipy.ndimage import gaussian_filter

    seen = fragments.face >= 0
    here = np.zeros(seen.shape)
    here[seen] = at_seen(depth[faces][..., None], fragments, seen)[:, 0]
    sigma = _CREASE_RADIUS * len(seen)
    share = gaussian_filter(seen.astype(np.float64), sigma, truncate=2)
    around = gaussian_filter(here, sigma, truncate=2) / np.maximum(share, 1e-6)
    extent = max(float(np.ptp(here[seen])), 1e-12)
    behind = np.clip((here - around) / extent, 0, 0.5)
    return np.clip(1 - _CREASE_STRENGTH * behind, 0.45, 1)


def _albedo(mesh: Mesh, fragments: Fragments, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Linear base colour (P, 3) of the seen pixels."""
    material, linear = mesh.material, None
    if mesh.vertex_color is not None:
        linear = srgb_to_linear(at_seen(mesh.vertex_color[mesh.faces], fragments, seen))
    if material is not None and material.base_color is not None and mesh.uv is not None:
        texel = srgb_to_linear(sample_texture(material.base_color, at_seen(mesh.uv[mesh.faces], fragments, seen)))
        linear = texel if linear is None else linear * texel
    if material is not None and (linear is not None or material.base_color_factor[:3] != (1.0, 1.0, 1.0)):
        factor = np.asarray(material.base_color_factor[:3])
        linear = np.broadcast_to(factor, (int(seen.sum()), 3)) if linear is None else linear * factor
    return srgb_to_linear(np.broadcast_to(CLAY, (int(seen.sum()), 3))) if linear is None else linear


def _shrink(image: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Mean of factor × factor blocks."""
    height, width, channels = image.shape
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (..., 3) at length 1; zero stays zero."""
    length = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    return vectors / np.where(length > 0, length, 1)


def turntable(mesh: Mesh, path: str | Path, frames: int = 36, size: int = 384, seconds: float = 4.0) -> Path:
    """One turn around a mesh as an endless animated WebP."""
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() != ".webp":
        raise BadInput(f"a turntable is an animated WebP: end {path.name[:80]!r} with .webp")
    views = picture(mesh, framed(mesh, np.arange(frames) * 2 * np.pi / frames, size=size))
    first, *rest = (Image.fromarray(view[..., :3]) for view in views)
    pause = round(1000 * seconds / frames)
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=pause, loop=0, quality=82)
    return path


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[Picture | None]]],
    titles: Sequence[str],
    path: str | Path | None = None,
    cell: int = 96,
) -> Image.Image:
    """Labelled rows of pictures under column titles, on white; written to `path` where one is given.

    rows: (label, pictures (h, w, 3 or 4) uint8 or None for an empty cell). Every picture is fitted into cell × cell
    pixels. Long labels wrap. Needs no font of the system.
    """
    from PIL import Image, ImageDraw

    bad = [label for label, pictures in rows if len(pictures) != len(titles)]
    if bad:
        raise BadInput(f"row {bad[0]!r} has not as many pictures as there are titles ({len(titles)})")
    gap, font = 4, _font(max(11, cell // 8))
    margin = max(cell, 110)
    top = gap + max((len(_wrapped(title, font, cell)) for title in titles), default=0) * _line(font)
    sheet = Image.new("RGB", (margin + len(titles) * (cell + gap) + gap, top + len(rows) * (cell + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        left = margin + column * (cell + gap)
        for line, text in enumerate(_wrapped(title, font, cell)):
            draw.text((left + cell / 2, gap / 2 + line * _line(font)), text, "black", font, anchor="ma")
    for row, (label, pictures) in enumerate(rows):
        upper = top + row * (cell + gap)
        lines = _wrapped(label, font, margin - 3 * gap)[: max(1, cell // _line(font))]
        for line, text in enumerate(lines):
            start = upper + (cell - len(lines) * _line(font)) / 2
            draw.text((gap, start + line * _line(font)), text, "black", font)
        for column, pixels in enumerate(pictures):
            if pixels is not None:
                _paste(sheet, pixels, (margin + column * (cell + gap), upper), cell)
    if path is not None:
        sheet.save(path)
    return sheet


def _paste(sheet: Image.Image, pixels: Picture, corner: tuple[int, int], cell: int) -> None:
    from PIL import Image

    tile = Image.fromarray(pixels)
    tile.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    if max(tile.size) < cell:
        scale = cell / max(tile.size)
        size = max(1, round(tile.width * scale)), max(1, round(tile.height * scale))
        tile = tile.resize(size, Image.Resampling.BICUBIC)
    place = (corner[0] + (cell - tile.width) // 2, corner[1] + (cell - tile.height) // 2)
    sheet.paste(tile, place, tile if tile.mode == "RGBA" else None)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _line(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """Height of a line of text in pixels."""
    return round((font.getbbox("Ág")[3]) * 1.1) + 1


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines no wider than `width` pixels; a word that is too long is cut."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        while font.getlength(word) > width and len(word) > 1:
            word = word[:-1]
        lines = [*lines, word] if lines[-1] else [word]
    return lines
