"""Bad pictures and texts (expectations.md §4.3 rows 1-6, 9): refused with one sentence, most before decoding."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyform.errors import BadInput
from anyform.types.prompt import Image, Sketch, Text
from anyform.types.readers.picture import decode, to_rgba


def scene(height: int = 24, width: int = 32) -> np.ndarray:
    """(H, W, 3) uint8: a dark block on light ground with a ramp, so that no pixel row is like another."""
    rgb = np.full((height, width, 3), 240, np.uint8)
    rgb[6:18, 8:24] = (160, 60, 30)
    rgb[..., 2] -= np.arange(height, dtype=np.uint8)[:, None]
    return rgb


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, rows: bytes, extra: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def animation() -> bytes:
    file = io.BytesIO()
    first, second = PIL.Image.fromarray(scene()), PIL.Image.fromarray(255 - scene())
    first.save(file, "PNG", save_all=True, append_images=[second])
    return file.getvalue()


def webp_animation() -> bytes:
    file = io.BytesIO()
    first, second = PIL.Image.fromarray(scene()), PIL.Image.fromarray(255 - scene())
    first.save(file, "WEBP", save_all=True, append_images=[second])
    return file.getvalue()


def refused(path: Path, data: bytes, opener: type[Image] | type[Sketch] = Image) -> str:
    path.write_bytes(data)
    with pytest.raises(BadInput) as caught:
        opener.open(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 and str(path.parent) not in message
    return message


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "empty"), (" \n\t ", "empty"), ("a" * 2001, "2001"), ("x" * 10**6, "1000000"), ("a\0b", "NUL")],
)
def test_texts_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Text(text)


def test_a_lone_surrogate_is_refused_with_its_place() -> None:
    with pytest.raises(BadInput, match="position 2"):
        Text("a \ud83d chair")


@pytest.mark.parametrize("text", ["  a chair\n", "كرسي خشبي", "🪑 red", "a" * 2000, "e\u0301", "\u202eriahc"])
def test_texts_that_work_keep_their_letters(text: str) -> None:
    assert Text(text).text == text.strip()


@given(st.text(max_size=50))
def test_any_text_is_taken_or_refused_on_purpose(text: str) -> None:
    try:
        assert Text(text).text == text.strip() != ""
    except BadInput:
        bad = "\0" in text or not text.strip() or any(0xD800 <= ord(letter) < 0xE000 for letter in text)
        assert bad


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (encoded(scene())[:60], "cut off"),
        (encoded(scene())[:20], "cut off"),
        (encoded(scene(), "JPEG")[:300], "cut off"),
        (encoded(scene(), "WEBP")[:40], "cut off"),
        (b"this is text", "no picture"),
        (b"GIF89a" + bytes(99), "GIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\n<?xml version='1.0'?><svg/>", "SVG"),
        (b"8BPS" + bytes(99), "PSD"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
        (encoded(scene(), "TIFF"), "TIFF"),
        (encoded(scene(), "BMP"), "BMP"),
        (png(50_000, 50_000, b""), "50000 x 50000"),
        (png(0, 10, b""), "0 x 10"),
        (animation(), "animation"),
        (webp_animation(), "animation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_refused_before_a_decoder_runs(
    data: bytes, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if says != "cut off":  # a file cut behind its header is for the decoder to find out

        def decoder(*arguments: object, **options: object) -> None:
            raise AssertionError("the decoder was invoked")

        monkeypatch.setattr(PIL.Image, "open", decoder)
    assert says in refused(tmp_path / "picture.png", data)


@pytest.mark.parametrize(
    ("rgba", "says"),
    [
        (np.dstack([scene(), np.zeros((24, 32), np.uint8)]), "fully transparent"),
        (np.full((24, 32, 3), 200, np.uint8), "single colour"),
        (np.full((1, 1, 3), 9, np.uint8), "1 x 1"),
        (scene()[:1], "32 x 1"),
    ],
)
def test_pictures_that_show_nothing(rgba: np.ndarray, says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path / "nothing.png", encoded(rgba))


def test_a_folder_and_a_missing_file_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a regular file"):
        Image.open(tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        Image.open(tmp_path / "\x1b]0;title\x07none.png")
    with pytest.raises(BadInput) as caught:
        Image.open("nul\0.png")
    assert "\0" not in str(caught.value)


def test_a_name_with_escapes_is_shown_without_them(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        Image.open(tmp_path / "\x1b]0;title\x07\nnone.png")
    assert str(caught.value).isprintable()


@settings(max_examples=150)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP"]), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6)
)
def test_damaged_bytes_never_raise_anything_else(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(scene(), kind))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        rgba = to_rgba(decode(bytes(data), "it"), "it")
    except BadInput as error:
        assert "it" in str(error)
    else:
        assert rgba.dtype == np.uint8 and rgba.shape[2] == 4


def drawing(paper: int, ink: int) -> np.ndarray:
    grey = np.full((64, 64), paper, np.uint8)
    grey[20:44, 20:22] = grey[20:44, 42:44] = grey[20:22, 20:44] = ink
    return grey


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255), (230, 90), (40, 200)])
def test_sketches_of_either_polarity_give_the_same_ink(paper: int, ink: int, tmp_path: Path) -> None:
    (tmp_path / "s.png").write_bytes(encoded(drawing(paper, ink)))
    expected = drawing(0, 1).astype(np.float32)
    assert np.array_equal(Sketch.open(tmp_path / "s.png").ink, expected)


@pytest.mark.parametrize("level", [0, 255])
def test_sketches_on_transparency(level: int, tmp_path: Path) -> None:
    rgba = np.full((64, 64, 4), level, np.uint8)
    rgba[..., 3] = drawing(0, 255)
    (tmp_path / "s.png").write_bytes(encoded(rgba))
    assert np.array_equal(Sketch.open(tmp_path / "s.png").ink, drawing(0, 1).astype(np.float32))


@pytest.mark.parametrize("pixels", [drawing(255, 255), drawing(0, 0), drawing(250, 235)])
def test_sketches_without_a_stroke(pixels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"single colour|no stroke"):
        (tmp_path / "s.png").write_bytes(encoded(pixels))
        Sketch.open(tmp_path / "s.png")


def test_a_filled_picture_is_taken_as_a_sketch_with_a_warning(tmp_path: Path) -> None:
    filled = np.full((64, 64), 255, np.uint8)
    filled[4:60, 4:60] = 20
    (tmp_path / "s.png").write_bytes(encoded(filled))
    with pytest.warns(UserWarning, match="mostly filled"):
        Sketch.open(tmp_path / "s.png")
