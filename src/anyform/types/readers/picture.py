"""Pictures on disk: PNG, JPEG and WebP only, their size read from the header before any decoder runs.

PNG: https://www.w3.org/TR/png-3/ · JPEG: ITU-T T.81 · WebP: https://developers.google.com/speed/webp/docs/riff_container
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.readers.limits import MEBI

if TYPE_CHECKING:
    import PIL.Image

MAX_PICTURE_BYTES = 128 * MEBI
MAX_PIXELS = 64_000_000
ADVICE = "give a PNG, JPEG or WebP picture"
_OTHERS = {  # how files begin that people try, so that the message can name them
    b"GIF8": "a GIF", b"%PDF": "a PDF", b"%!PS": "an EPS drawing", b"8BPS": "a PSD file", b"SIMPLE": "a FITS file",
    b"<svg": "an SVG drawing", b"<?xml": "an SVG or XML file", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"BM": "a BMP",
    b"\0\0\1\0": "an icon", b"PK": "a zip archive", b"\x1f\x8b": "a gzip file", b"v/1\1": "an OpenEXR picture",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture declares about itself: format as Pillow calls it, size in pixels, more than one frame."""

    format: str
    width: int
    height: int
    animated: bool


def read_header(data: bytes, name: str) -> Header:
    """The header of a still picture within the pixel limit; raises BadInput for anything else, decoding nothing."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        header = _png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        header = _jpeg(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        header = _webp(data)
    else:
        raise BadInput(f"{name} is {_kind(data)}: {ADVICE}")
    if header is None:
        raise BadInput(f"{name} is cut off or damaged before its size is known: {ADVICE}")
    if header.animated:
        raise BadInput(f"{name} is an animation: save one of its frames as a PNG")
    if header.width < 1 or header.height < 1 or header.width * header.height > MAX_PIXELS:
        raise BadInput(
            f"{name} declares {header.width} x {header.height} pixels: between 1 and {MAX_PIXELS // 10**6} million are"
            " read, so scale it down first"
        )
    return header


def decode(data: bytes, name: str) -> PIL.Image.Image:
    """A loaded Pillow picture, turned upright by its EXIF orientation, in whatever mode the file has."""
    import PIL.Image
    import PIL.ImageOps

    header = read_header(data, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's remarks about odd metadata help no user
            picture = PIL.Image.open(io.BytesIO(data), formats=(header.format,))
            if picture.size != (header.width, header.height):
                raise BadInput(f"{name} contradicts itself about its size: {ADVICE}")
            picture.load()
            return PIL.ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error) as error:
        raise BadInput(f"{name} is cut off or damaged and cannot be decoded: {ADVICE}") from error


def to_rgba(picture: PIL.Image.Image, name: str) -> NDArray[np.uint8]:
    """(H, W, 4) uint8 sRGB with straight alpha, from any mode; an embedded colour profile is applied."""
    if picture.mode.startswith("I"):  # 16-bit grey
        grey = np.rint(to_grey(picture, name)[0] / 257.0).astype(np.uint8)
        return np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    alpha = None
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        alpha = picture.convert("RGBA").getchannel("A")
    rgb = _to_srgb(picture, name)
    rgba = np.empty((rgb.height, rgb.width, 4), np.uint8)
    rgba[..., :3] = np.asarray(rgb)
    rgba[..., 3] = 255 if alpha is None else np.asarray(alpha)
    return rgba


def to_grey(picture: PIL.Image.Image, name: str) -> tuple[NDArray[np.uint16], int, NDArray[np.uint8] | None]:
    """Grey values (H, W), their white (255 or 65535) and the alpha (H, W) if there is one.

    Raises BadInput for a picture in colours.
    """
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadInput(f"{name} holds grey values outside 0..65535: save it as a 16-bit PNG")
        return values.astype(np.uint16), 65535, None
    rgba = np.asarray(picture.convert("RGBA"))
    if int(np.ptp(rgba[..., :3][rgba[..., 3] > 0].astype(np.int16), axis=-1).max(initial=0)) > 8:
        raise BadInput(f"{name} is a picture in colours, where a grey map is needed")
    alpha = rgba[..., 3]
    return rgba[..., 1].astype(np.uint16), 255, alpha if alpha.min() < 255 else None


def _to_srgb(picture: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """RGB in sRGB; the ICC profile of the file is used where it fits, and left out with a warning where it does not."""
    import PIL.ImageCms

    profile = picture.info.get("icc_profile")
    if picture.mode not in ("L", "CMYK", "RGB"):
        picture = picture.convert("RGBA")  # palettes with alpha have no direct way to RGB
    direct = picture.convert("RGB") if picture.mode == "RGBA" else picture
    if profile:
        try:
            source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in PIL.ImageCms.getProfileDescription(source).lower():
                srgb = PIL.ImageCms.createProfile("sRGB")
                converted = PIL.ImageCms.profileToProfile(direct, source, srgb, outputMode="RGB")
                if converted is not None:
                    return converted
        except (PIL.ImageCms.PyCMSError, OSError, ValueError):
            warnings.warn(f"{name}: its colour profile cannot be used; read as sRGB", UserWarning, stacklevel=2)
    return direct.convert("RGB")


def _png(data: bytes) -> Header | None:
    """IHDR, and the chunks before the first IDAT: an acTL chunk among them makes it an animation."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    at, animated = 8, False
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        animated = animated or data[at + 4 : at + 8] == b"acTL"
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return Header("PNG", width, height, animated)


def _jpeg(data: bytes) -> Header | None:
    """The first start-of-frame segment (T.81 B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Header("JPEG", width, height, False)
        # fill bytes and markers without a length have no segment to skip
        at += 1 if marker == 0xFF else 2 if 0xD0 <= marker <= 0xD8 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp(data: bytes) -> Header | None:
    """The canvas of an extended file, or the frame header of a simple lossy or lossless one."""
    if len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (24, 27))
        return Header("WEBP", width, height, bool(data[20] & 2))
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF, False)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, False)
    return None


def _kind(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), "no picture that can be read")
