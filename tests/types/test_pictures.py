"""Golden pixels: every way a picture can be stored gives the colours it means."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from anyform.errors import BadInput
from anyform.types.prompt import Image, describe

COLOURS = np.array([[200, 30, 40], [20, 180, 60], [10, 40, 220], [250, 240, 20]], np.uint8)


def blocks() -> np.ndarray:
    """(16, 24, 3): four blocks of colour, two a row, 8 x 12 each."""
    return COLOURS.reshape(2, 2, 3).repeat(8, 0).repeat(12, 1)


def opened(path: Path, picture: PIL.Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    file = path / "picture"
    picture.save(file, kind, **options)
    return Image.open(file).rgba


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_are_exact(kind: str, options: dict[str, bool], tmp_path: Path) -> None:
    rgba = opened(tmp_path, PIL.Image.fromarray(blocks()), kind, **options)
    assert np.array_equal(rgba[..., :3], blocks()) and (rgba[..., 3] == 255).all()


def test_jpeg_is_near(tmp_path: Path) -> None:
    rgba = opened(tmp_path, PIL.Image.fromarray(blocks()), "JPEG", quality=95, subsampling=0)
    assert np.abs(rgba[..., :3].astype(int) - blocks()).max() <= 12


def test_cmyk_is_turned_into_rgb(tmp_path: Path) -> None:
    rgba = opened(tmp_path, PIL.Image.fromarray(blocks()).convert("CMYK"), "JPEG", quality=98)
    assert np.abs(rgba[..., :3].astype(int) - blocks()).mean() < 8


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    values = (np.arange(256, dtype=np.uint16).reshape(16, 16) * 257).astype(np.uint16)
    rgba = opened(tmp_path, PIL.Image.fromarray(values))
    assert np.array_equal(rgba[..., 0], np.arange(256).reshape(16, 16)) and (rgba[..., 3] == 255).all()


def test_palette_with_alpha(tmp_path: Path) -> None:
    indices = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(8, 0).repeat(12, 1)
    picture = PIL.Image.fromarray(indices).convert("L")
    picture.putpalette(COLOURS.ravel().tolist())
    rgba = opened(tmp_path, picture, transparency=bytes([0, 255, 128, 255]))
    assert np.array_equal(rgba[..., :3][indices > 0], blocks()[indices > 0])
    assert np.array_equal(rgba[..., 3], np.array([0, 255, 128, 255], np.uint8)[indices])


def test_grey_with_alpha_and_one_bit(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgba = opened(tmp_path, PIL.Image.merge("LA", [PIL.Image.fromarray(grey), PIL.Image.fromarray(255 - grey)]))
    assert np.array_equal(rgba[..., 1], grey) and np.array_equal(rgba[..., 3], 255 - grey)
    rgba = opened(tmp_path, PIL.Image.fromarray(grey > 99))
    assert np.array_equal(rgba[..., 0], np.where(grey > 99, 255, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int, tmp_path: Path) -> None:
    upright = blocks()
    # how a camera stores an upright scene for each value of the tag (EXIF 2.3, tag 274)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = PIL.Image.Exif()
    exif[274] = orientation
    rgba = opened(tmp_path, PIL.Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes())
    assert np.array_equal(rgba[..., :3], upright)


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    lab = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("XYZ")).tobytes()
    with pytest.warns(UserWarning, match="colour profile"):
        rgba = opened(tmp_path, PIL.Image.fromarray(blocks()[..., 0]), icc_profile=lab)
    assert np.array_equal(rgba[..., 0], blocks()[..., 0])
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    rgba = opened(tmp_path, PIL.Image.fromarray(blocks()), icc_profile=srgb)
    assert np.array_equal(rgba[..., :3], blocks())


def test_a_profile_of_swapped_primaries_swaps_the_colours(tmp_path: Path) -> None:
    profile = bytearray(PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes())
    tags = {
        bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)
    }
    for at in (tags[b"rXYZ"], tags[b"bXYZ"]):  # the red entry now points at the blue primary, and the other way round
        profile[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}[bytes(profile[at : at + 4])]
    text = bytes(profile).replace("sRGB".encode("utf-16-be"), "oRGB".encode("utf-16-be"))
    rgba = opened(tmp_path, PIL.Image.fromarray(blocks()), icc_profile=text)
    assert np.abs(rgba[..., :3].astype(int) - blocks()[..., ::-1]).max() <= 2


def test_the_mask_file_wins(tmp_path: Path) -> None:
    rgba = np.dstack([blocks(), np.full((16, 24), 7, np.uint8)])
    rgba[0, 0, 3] = 255
    PIL.Image.fromarray(rgba).save(tmp_path / "image.png")
    mask = np.zeros((16, 24), np.uint8)
    mask[4:12, 6:18] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    image = Image.open(tmp_path / "image.png", mask=tmp_path / "mask.png")
    assert np.array_equal(image.rgba[..., 3], mask) and np.array_equal(image.rgba[..., :3], blocks())
    assert image.has_mask
    PIL.Image.fromarray(np.dstack([blocks(), mask])).save(tmp_path / "alpha.png")
    assert np.array_equal(Image.open(tmp_path / "image.png", mask=tmp_path / "alpha.png").rgba[..., 3], mask)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    PIL.Image.fromarray(blocks()).save(tmp_path / "image.png")
    PIL.Image.fromarray(blocks()[:8]).save(tmp_path / "small.png")
    PIL.Image.fromarray(np.zeros((16, 24), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(BadInput, match="24 x 8 pixels, the image 24 x 16"):
        Image.open(tmp_path / "image.png", mask=tmp_path / "small.png")
    with pytest.raises(BadInput, match="marks nothing"):
        Image.open(tmp_path / "image.png", mask=tmp_path / "black.png")


def test_large_pictures_are_scaled_down_with_a_message(tmp_path: Path) -> None:
    wide = np.zeros((16, 8192, 3), np.uint8)
    wide[:, 4096:] = 255
    with pytest.warns(UserWarning, match="8192 x 16 pixels scaled down to 4096 x 8"):
        rgba = opened(tmp_path, PIL.Image.fromarray(wide))
    assert rgba.shape == (8, 4096, 4) and rgba[0, 2000, 0] == 0 and rgba[0, 2100, 0] == 255


def test_from_rgba_takes_floats_and_refuses_wrong_ranges() -> None:
    floats = blocks() / 255
    assert np.array_equal(Image.from_rgba(floats).rgba[..., :3], blocks())
    assert not Image.from_rgba(blocks()).has_mask
    with pytest.raises(BadInput, match="255"):
        Image.from_rgba(floats * 255)
    with pytest.raises(BadInput, match="uint8 array"):
        Image(floats)
    with pytest.raises(BadInput, match="H, W"):
        Image.from_rgba(blocks()[0])


def test_the_description_follows_the_pixels_and_not_the_container(tmp_path: Path) -> None:
    seen = []
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        opened(tmp_path, PIL.Image.fromarray(blocks()), kind, **options)
        seen.append(describe(Image.open(tmp_path / "picture")))
    assert seen[0] == seen[1] and seen[0]["kind"] == "image" and len(seen[0]["sha256"]) == 64
    changed = blocks()
    changed[3, 3, 0] ^= 1
    assert describe(Image.from_rgba(changed)) != seen[0]


def test_bytes_on_disk_are_read_once_and_closed(tmp_path: Path) -> None:
    PIL.Image.fromarray(blocks()).save(tmp_path / "image.png")
    image = Image.open(str(tmp_path / "image.png"))
    (tmp_path / "image.png").unlink()
    assert io.BytesIO(image.rgba.tobytes()).read(3) == COLOURS[0].tobytes()
