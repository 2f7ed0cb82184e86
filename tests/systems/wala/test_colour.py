"""Lab against an independent implementation, and words against what anyone would say."""

from __future__ import annotations

import numpy as np
import pytest

from anyform.systems.wala.colour import TYPICAL, dominant, lab_to_srgb, srgb_to_lab, words


def test_lab_equals_the_reference_and_inverts() -> None:
    rgb = np.random.default_rng(0).random((500, 3))
    color = pytest.importorskip("skimage.color")
    np.testing.assert_allclose(srgb_to_lab(rgb), color.rgb2lab(rgb), atol=0.02)
    np.testing.assert_allclose(lab_to_srgb(srgb_to_lab(rgb)), rgb, atol=1e-9)


def test_lab_landmarks() -> None:
    np.testing.assert_allclose(srgb_to_lab([[0, 0, 0], [1, 1, 1]]), [[0, 0, 0], [100, 0, 0]], atol=1e-9)
    assert (lab_to_srgb([50, 200, -200]) <= 1).all() and (lab_to_srgb([50, 200, -200]) >= 0).all()


def test_typical_colours_have_their_own_names() -> None:
    assert words(list(TYPICAL.values())).tolist() == list(TYPICAL)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"), ((128, 0, 0), "red"), ((0, 255, 0), "green"), ((0, 0, 255), "blue"), ((0, 0, 90), "blue"),
        ((255, 255, 0), "yellow"), ((255, 165, 0), "orange"), ((0, 200, 210), "turquoise"), ((128, 0, 128), "purple"),
        ((255, 192, 203), "pink"), ((139, 69, 19), "brown"), ((245, 222, 179), "beige"), ((200, 200, 200), "grey"),
        ((30, 30, 34), "black"), ((250, 248, 245), "white"),
    ],
)  # fmt: skip
def test_everyday_names(rgb: tuple[int, int, int], name: str) -> None:
    assert words(np.array(rgb) / 255) == name


def test_every_colour_has_a_name_and_the_dominant_one_is_the_commonest() -> None:
    cube = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 3), -1)
    named = words(cube)
    assert named.shape == (9, 9, 9) and set(named.ravel()) == set(TYPICAL)
    assert dominant([TYPICAL["red"]] * 3 + [TYPICAL["blue"]] * 2) == "red"
