"""The picture of normals that priors are shown, and what a render refuses."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from anyform.types.render import Render, Samples, normal_picture


def render(**parts: np.ndarray) -> Render[np.ndarray]:
    """One pixel that is half covered."""
    return Render(rgb=np.ones((1, 1, 1, 3)), alpha=np.full((1, 1, 1, 1), 0.5), **parts)


def test_normals_are_shown_over_black_by_their_coverage() -> None:
    unit = np.array([0.6, 0.0, -0.8])
    shown = normal_picture(render(normal=0.5 * unit[None, None, None]))
    np.testing.assert_allclose(shown[0, 0, 0], 0.5 * (unit + 1) / 2)
    assert normal_picture(render(normal=np.zeros((1, 1, 1, 3)))).max() <= 0.5


def test_a_render_without_normals_says_how_to_get_them() -> None:
    with pytest.raises(ValueError, match="normal=True"):
        normal_picture(render())


def test_renders_are_values() -> None:
    with pytest.raises(FrozenInstanceError):
        render().rgb = np.zeros(3)  # type: ignore[misc]
    samples = Samples(start=np.array([0, 2]), t=np.array([1.0, 2]), ray_weights=np.array([0.5, 0.25]))
    with pytest.raises(FrozenInstanceError):
        samples.t = np.zeros(2)  # type: ignore[misc]
