"""Metrics against closed forms, brute force and published values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from skimage.color import lab2rgb

from anyform.errors import BadInput
from anyform.evaluation import metrics
from anyform.types.camera import Cameras


def grid(size: int) -> np.ndarray:
    along = -1 + (2 * np.arange(size) + 1) / size
    return np.stack(np.meshgrid(along, along, along, indexing="ij"), -1)


def sphere(size: int, radius: float) -> np.ndarray:
    return np.linalg.norm(grid(size), axis=-1) - radius


@given(seed=st.integers(0, 1000))
def test_point_metrics_agree_with_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rng.integers(1, 30), 3)), rng.normal(size=(rng.integers(1, 30), 3))
    distance = cdist(a, b)
    to_b, to_a = distance.min(1), distance.min(0)
    assert metrics.chamfer(a, b) == pytest.approx((to_b.mean() + to_a.mean()) / 2)
    assert metrics.chamfer(a, b) == pytest.approx(metrics.chamfer(b, a))
    precision, recall = (to_b <= 0.8).mean(), (to_a <= 0.8).mean()
    expected = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    assert metrics.f_score(a, b, 0.8) == pytest.approx(expected)


def test_chamfer_scales_and_moves_with_the_points() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 3)), rng.normal(size=(60, 3))
    assert metrics.chamfer(3 * a + 5, 3 * b + 5) == pytest.approx(3 * metrics.chamfer(a, b))
    assert metrics.chamfer(a, a[::-1]) == 0
    assert metrics.chamfer(np.zeros((1, 3)), np.array([[3.0, 4, 0]])) == 5


def test_a_point_exactly_at_the_threshold_counts() -> None:
    a, b = np.zeros((1, 3)), np.array([[0.5, 0, 0]])
    assert metrics.f_score(a, b, 0.5) == 1
    assert metrics.f_score(a, b, 0.4999) == 0


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((4, 2)), np.full((2, 3), np.nan)])
def test_points_that_are_none_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadInput, match="points"):
        metrics.chamfer(bad, np.zeros((1, 3)))


def test_volume_iou_in_closed_form() -> None:
    # concentric balls: the ratio of their volumes
    assert metrics.volume_iou(sphere(96, 0.4) < 0, sphere(96, 0.8) < 0) == pytest.approx(1 / 8, rel=0.01)
    left, right = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    left[:3], right[1:] = True, True
    assert metrics.volume_iou(left, right) == 0.5
    assert metrics.volume_iou(left, ~left) == 0
    assert metrics.volume_iou(left & ~left, right & ~right) == 1
    with pytest.raises(BadInput, match="shapes"):
        metrics.volume_iou(left, right[:2])


def test_surface_f1_forgives_one_voxel_and_no_more() -> None:
    voxel = 2 / 48
    truth = sphere(48, 0.6)
    assert metrics.surface_f1(truth, truth, voxel) == 1
    assert metrics.surface_f1(truth, sphere(48, 0.6 + 0.5 * voxel), voxel) == 1
    assert metrics.surface_f1(truth, sphere(48, 0.6 + 2 * voxel), voxel) == 0
    half = np.where(grid(48)[..., 0] > 0, truth, 1.0)
    # precision 1, recall a half (voxels beside the cut match nothing)
    assert metrics.surface_f1(half, truth, voxel) == pytest.approx(2 / 3, abs=0.03)
    assert metrics.surface_f1(half, truth, voxel) == pytest.approx(metrics.surface_f1(truth, half, voxel))
    assert metrics.surface_f1(truth, np.ones_like(truth), voxel) == 0
    assert metrics.surface_f1(np.ones_like(truth), np.ones_like(truth), voxel) == 1


def test_retrieval_precision_counts_views_or_votes() -> None:
    texts = np.eye(4)
    views = np.array([
        [[9, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]],  # two of three views right: wins the vote
        [[0, 0, 1, 0], [0, 0, 2, 0], [0, 1, 0, 0]],  # one of three right: loses the vote
        [[0, 0, 1, 0.1], [0, 0, 0, 1], [0, 1, 0, 0.2]],  # a tie of three: the exact match decides
    ], float)  # fmt: skip
    truth = np.array([0, 1, 3])
    assert metrics.retrieval_precision(views, texts, truth) == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)
    assert metrics.retrieval_precision(views, texts, truth, vote=True) == pytest.approx(2 / 3)
    assert metrics.retrieval_precision(texts[:, None], 5 * texts, np.arange(4)) == 1
    with pytest.raises(BadInput, match="shapes"):
        metrics.retrieval_precision(views, texts, truth[:2])


def test_hull_iou_of_true_views_is_one_and_of_mixed_views_is_not() -> None:
    azimuth = np.arange(6) * np.pi / 3
    cameras = Cameras.orbit(azimuth, np.radians(20), 4.4, np.radians(40), 48)
    origins, directions = cameras.rays()

    def ball(centre: list[float], radius: float) -> np.ndarray:
        towards = np.array(centre) - origins
        beside = np.linalg.norm(towards - (towards * directions).sum(-1, keepdims=True) * directions, axis=-1)
        return beside < radius

    true = ball([0.2, 0.1, -0.3], 0.5)
    assert metrics.hull_iou(true, cameras) > 0.95
    mixed = true.copy()
    mixed[::2] = ball([0.2, 0.7, -0.3], 0.2)[::2]
    assert metrics.hull_iou(mixed, cameras) < 0.3
    assert metrics.hull_iou(np.zeros_like(true), cameras) == 1
    with pytest.raises(BadInput, match="masks"):
        metrics.hull_iou(true[:3], cameras)


@pytest.mark.parametrize(("first", "second", "expected"), [
    ([50.0, 2.6772, -79.7751], [50.0, 0.0, -82.7485], 2.0425),
    ([50.0, 2.5, 0.0], [73.0, 25.0, -18.0], 27.1492),
    ([60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387], 1.2644),
])  # fmt: skip
def test_delta_e_gives_the_published_differences(first: list[float], second: list[float], expected: float) -> None:
    """Pairs of Sharma, Wu and Dalal (2005), table 1; those within sRGB come through the sRGB round trip too."""
    from skimage.color import deltaE_ciede2000

    assert deltaE_ciede2000(np.array([first]), np.array([second]))[0] == pytest.approx(expected, abs=1e-4)
    a, b = lab2rgb(np.array([[first], [second]]))[:, 0]
    if min(a.min(), b.min()) > 0.01 and max(a.max(), b.max()) < 0.99:
        assert metrics.delta_e(a[None], b[None])[0] == pytest.approx(expected, abs=0.02)


def test_delta_e_of_black_and_white_is_a_hundred_and_of_equals_nothing() -> None:
    assert metrics.delta_e(np.zeros((1, 3)), np.ones((1, 3)))[0] == pytest.approx(100, abs=1e-3)
    colours = np.random.default_rng(0).random((20, 3))
    assert np.abs(metrics.delta_e(colours, colours)).max() < 1e-9
    with pytest.raises(BadInput, match="colours"):
        metrics.delta_e(colours, colours[:3])


@pytest.mark.parametrize(("caption", "noun"), [
    ("chair with cushion", "chair"), ("banner thin red", "banner"), ("jar b small", "jar"), ("desk lamp", "lamp"),
    ("potion 2full", "potion"), ("stairs walled", "walled"), ("wooden chairs", "chair"), ("glass", "glass"),
    ("cactus", "cactus"), ("crate long empty", "crate"), ("Sofa, modern", "sofa"), ("red", "red"), ("bus", "bus"),
])  # fmt: skip
def test_head_nouns(caption: str, noun: str) -> None:
    assert metrics.head_noun(caption) == noun


def test_category_accuracy() -> None:
    assert metrics.category_accuracy(["red chair", "a lamp"], ["chair with arms", "table"]) == 0.5
    with pytest.raises(BadInput, match="compared"):
        metrics.category_accuracy([], [])


def test_bootstrap_encloses_the_mean_and_narrows_with_data() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.normal(size=20), rng.normal(size=2000)
    for values in (few, many):
        low, high = metrics.bootstrap(values)
        assert low < values.mean() < high
    # 90 % of a normal mean lies within ±1.645 σ/√N
    low, high = metrics.bootstrap(many)
    assert high - low == pytest.approx(2 * 1.645 / np.sqrt(2000), rel=0.1)
    assert metrics.bootstrap(many) == (low, high)
    assert metrics.bootstrap(np.full(5, 0.3)) == pytest.approx((0.3, 0.3))
