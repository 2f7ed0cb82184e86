from __future__ import annotations

import numpy as np
import pytest

from anyform.errors import BadInput
from anyform.evaluation.turntable import azimuths, clip_r, interval, janus, mean_cosine, prompt_list, sanity
from anyform.geometry.marching_cubes import surface


def test_the_frozen_list_is_frozen() -> None:
    prompts = prompt_list()
    assert len(prompts) == len(set(prompts)) == 136
    assert list(prompts) == sorted(prompts) and all(p == p.strip().lower() and p for p in prompts)
    words = {word for prompt in prompts for word in prompt.split()}
    assert not words & {"on", "in", "and", "with", "at", "dslr", "aerial"}
    with pytest.raises(BadInput, match="df136-v1"):
        prompt_list("../metrics")


def test_the_endpoint_is_not_counted_twice() -> None:
    around = azimuths(120)
    assert len(around) == 120 and around[0] == 0 and around[-1] == pytest.approx(2 * np.pi * 119 / 120)
    assert np.allclose(np.diff(around), np.radians(3))


def test_clip_r_counts_views_then_objects() -> None:
    texts = np.eye(3)
    views = np.stack(
        [np.tile(texts[0], (4, 1)), np.concatenate([np.tile(texts[1], (1, 1)), np.tile(texts[2], (3, 1))])]
    )
    mean, each = clip_r(views * 5, texts, np.array([0, 1]))
    assert each.tolist() == [1.0, 0.25] and mean == pytest.approx(0.625)


def test_mean_cosine_forgets_lengths() -> None:
    views = np.array([[3.0, 0.0], [0.0, 0.5], [1.0, 1.0]])
    assert mean_cosine(views, np.array([7.0, 0.0])) == pytest.approx((1 + 0 + np.sqrt(0.5)) / 3)
    with pytest.raises(BadInput, match="zero"):
        mean_cosine(np.zeros((2, 2)), np.ones(2))
    with pytest.raises(BadInput, match=r"\(V, D\)"):
        mean_cosine(np.ones((2, 3)), np.ones(2))


def test_two_faces_score_and_a_ball_does_not() -> None:
    face, side, back = np.eye(3)
    honest = np.stack([face, side, back, side])
    two_faced = np.stack([face, side, face, side])
    ball = np.tile(face, (8, 1))
    assert janus(honest) == pytest.approx(0)
    assert janus(two_faced) == pytest.approx(1)
    assert janus(ball) == pytest.approx(0)
    with pytest.raises(BadInput, match="multiples of four"):
        janus(np.ones((6, 2)))


def test_sanity_of_a_ball() -> None:
    axis = np.linspace(-1, 1, 48, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    facts = sanity(surface(np.sqrt((grid**2).sum(0)) - np.float32(0.7), -1.0, float(axis[1] - axis[0])))
    assert facts["ok"] and facts["watertight"] and facts["bodies"] == 1
    assert facts["filled"] == pytest.approx(np.pi / 6, rel=0.02)


def test_an_interval_needs_two_objects() -> None:
    assert interval([0.5]) == {"mean": 0.5, "interval90": None, "n": 1}
    found = interval([0.0, 1.0] * 20)
    low, high = found["interval90"]
    assert low < 0.5 < high and found["mean"] == 0.5
