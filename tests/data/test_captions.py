from __future__ import annotations

import numpy as np
import pytest

from anyform.data.captions import COLOURS, captions, colour_word, proportion_word, recolour
from anyform.data.corpus import Item
from anyform.errors import BadInput


@pytest.mark.parametrize(("name", "rgb"), [(name, rgb) for name, shades in COLOURS.items() for rgb in shades])
def test_every_anchor_has_its_own_name(name: str, rgb: tuple[int, int, int]) -> None:
    assert colour_word(np.uint8([rgb]), np.ones(1)) == name


def test_area_decides_not_the_number_of_faces() -> None:
    rgb = np.uint8([[200, 30, 30]] * 50 + [[40, 80, 190]])
    assert colour_word(rgb, np.r_[np.full(50, 0.01), 1.0]) == "blue"
    assert colour_word(rgb, np.zeros(51)) == "red"  # nothing has an area: every face counts alike


@pytest.mark.parametrize(
    ("extents", "word"),
    [
        ((1, 1, 1), ""),
        ((0.2, 1, 0.2), "tall"),
        ((1, 0.1, 0.9), "flat"),
        ((1, 0.2, 0.3), "long"),
        ((1, 0.5, 0.3), "long"),
    ],
)
def test_proportions(extents: tuple[float, ...], word: str) -> None:
    assert proportion_word(np.array(extents)) == word


def test_templates_are_filled_without_gaps_or_doubles() -> None:
    item = Item(id="1", caption="office desk", split="train", tags=("Wood", "Work"))
    texts = captions(item, "orange", np.array([1, 0.1, 0.9]))
    assert texts[0] == "office desk"
    assert {"an office desk", "an orange office desk", "a flat office desk", "office desk, wood"} <= set(texts)
    assert len(set(texts)) == len(texts)
    assert not any("{" in text or "  " in text or ", ," in text for text in texts)
    plain = captions(Item(id="2", caption="mug", split="train"), "red", np.ones(3))
    assert plain == ("mug", "a mug", "a red mug", "a low-poly mug", "a 3d model of mug")


@pytest.mark.parametrize("word", COLOURS)
def test_recolouring_reaches_the_word_and_keeps_the_rest(word: str) -> None:
    rng = np.random.default_rng(0)
    body = np.clip(np.array([40, 80, 190]) + rng.integers(-6, 7, (40, 3)), 0, 255)
    rgb = np.uint8(np.concatenate([body, np.tile([[12, 12, 12]], (10, 1))]))
    areas = np.ones(50)
    changed = recolour(rgb, areas, word, rng)
    assert colour_word(changed[:40], areas[:40]) == word
    assert np.array_equal(changed[40:], rgb[40:])
    assert changed.dtype == np.uint8


def test_unknown_word_names_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"'mauve'.*turquoise"):
        recolour(np.uint8([[1, 2, 3]]), np.ones(1), "mauve", np.random.default_rng(0))
