"""Background removal: what each of its three ways leaves, and that the network is the published one."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import torch

from anyform.encoders import cutout
from anyform.encoders.cutout import cut_out, flood, salient
from anyform.encoders.u2net import U2Net, UBlock
from anyform.errors import BadSetting
from anyform.types.prompt import Image

# (row, column) -> saliency
ONNXRUNTIME = {
    (79, 153): 0.12319,
    (82, 137): 0.16209,
    (88, 196): 0.22778,
    (98, 109): 0.84456,
    (109, 221): 0.87763,
    (124, 231): 0.47560,
    (141, 82): 0.77095,
    (157, 79): 0.34249,
    (174, 80): 0.11422,
    (190, 233): 0.87265,
    (206, 225): 0.39932,
    (220, 108): 0.76350,
    (231, 125): 0.68275,
    (237, 179): 0.54254,
}
ROW, COLUMN = np.mgrid[:200, :240]
DISC = (ROW - 100) ** 2 + (COLUMN - 120) ** 2 < 60**2
HOLE = (ROW - 100) ** 2 + (COLUMN - 120) ** 2 < 25**2


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def scene(ground: tuple[int, int, int], noise: float = 0.0) -> np.ndarray:
    rgb = np.where(DISC[..., None], (190, 40, 30), ground).astype(np.float64)
    rgb += np.random.default_rng(0).normal(0, noise, rgb.shape)
    return rgb.clip(0, 255).astype(np.uint8)


@cache
def busy() -> np.ndarray:
    """A red disc before a ground of smooth waves and grain: no plain border."""
    waves = np.stack([100 + 60 * np.sin(COLUMN / 15), 120 + 50 * np.cos(ROW / 20), 90 + 0 * ROW], -1)
    waves += np.random.default_rng(0).normal(0, 15, waves.shape)
    return np.where(DISC[..., None], scene((0, 0, 0), 4), waves.clip(0, 255)).astype(np.uint8)


@pytest.mark.parametrize("ground", [(255, 255, 255), (0, 0, 0), (30, 160, 90)])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_a_plain_background_goes(ground: tuple[int, int, int], noise: float) -> None:
    rgb = scene(ground, noise)
    image = cut_out(Image.from_rgba(rgb))
    assert iou(image.rgba[..., 3] > 127, DISC) > 0.985
    assert np.array_equal(image.rgba[..., :3], rgb)


def test_the_flood_stops_at_what_encloses_it() -> None:
    rgb = scene((255, 255, 255))
    rgb[HOLE] = 255  # a white label, or a hole: the border does not reach it
    alpha = flood(rgb)
    assert alpha is not None and (alpha[HOLE] == 255).all()


def test_large_pictures_flood_at_a_bounded_size() -> None:
    rgb = scene((255, 255, 255)).repeat(8, 0).repeat(8, 1)
    alpha = flood(rgb)
    assert alpha is not None and alpha.shape == rgb.shape[:2]
    assert iou(alpha > 127, DISC.repeat(8, 0).repeat(8, 1)) > 0.99


def test_no_flood_without_a_plain_border_or_with_nothing_left() -> None:
    assert flood(busy()) is None
    assert flood(np.full((200, 240, 3), 200, np.uint8)) is None


def test_an_existing_mask_and_keep_leave_the_image_alone() -> None:
    masked = Image.from_rgba(np.dstack([scene((255, 255, 255)), np.where(HOLE, 255, 0).astype(np.uint8)]))
    assert cut_out(masked) is masked
    plain = Image.from_rgba(scene((255, 255, 255)))
    assert cut_out(plain, mode="keep") is plain
    with pytest.raises(BadSetting, match="'off'"):
        cut_out(plain, mode="off")  # pyright: ignore[reportArgumentType]


def test_the_network_finds_the_object_in_a_busy_picture() -> None:
    assert iou(cut_out(Image.from_rgba(busy())).rgba[..., 3] > 127, DISC) > 0.97


def test_where_nothing_stands_out_the_picture_is_kept_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout, "salient", lambda rgb: np.zeros(rgb.shape[:2], np.uint8))
    image = Image.from_rgba(busy())
    with pytest.warns(UserWarning, match="no object stands out"):
        assert cut_out(image) is image


def test_an_unsure_map_is_not_stretched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout, "_network", lambda: lambda x: x[:, :1] * 0 + 0.2)
    assert (salient(busy()) == 51).all()


def test_a_black_picture_makes_no_nan() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert salient(np.zeros((32, 32, 3), np.uint8)).shape == (32, 32)


def test_the_network_gives_what_onnxruntime_gave() -> None:
    """At the pixels where the published u2netp.onnx was least sure in onnxruntime 1.31.1, for the input below."""
    ramp = np.linspace(-2, 2, 320, dtype=np.float32)
    disc = (ramp[:, None] ** 2 + ramp**2 < 1).astype(np.float32) * 3 - 1.5
    picture = np.stack([disc, disc * ramp, ramp[:, None] - disc])[None].astype(np.float32)
    with torch.inference_mode():
        saliency = cutout._network()(torch.from_numpy(picture))[0, 0].numpy()
    places, expected = zip(*ONNXRUNTIME.items(), strict=True)
    assert np.abs(saliency[tuple(np.transpose(places))] - expected).max() < 1e-3


def test_the_structure_is_the_published_one() -> None:
    model = U2Net()
    assert sum(p.numel() for p in model.parameters()) == 1_125_485
    with torch.inference_mode():
        for height, width in ((64, 64), (50, 37)):
            out = model(torch.zeros(2, 3, height, width))
            assert out.shape == (2, 1, height, width) and bool(((out >= 0) & (out <= 1)).all())
        assert UBlock(3, 4, flat=True)(torch.zeros(1, 3, 9, 7)).shape == (1, 64, 9, 7)
