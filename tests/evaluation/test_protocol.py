"""The protocol on a system whose mistakes are known: every number can be worked out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from anyform.errors import BadSetting
from anyform.evaluation.metrics import volume_iou
from anyform.evaluation.protocol import (
    CONDITIONS,
    Plan,
    check_bars,
    evaluate_wala,
    fix_guidance,
    look_up,
    quarter_of,
    summary,
    surface_samples,
    turned,
)
from anyform.evaluation.reference import Reference
from anyform.geometry.marching_cubes import surface
from anyform.types.camera import Cameras


@pytest.mark.parametrize("degrees", [0, 30, 44, 46, 90, 170, 181, 269, 300, 359])
def test_turning_brings_the_viewed_side_to_the_front(degrees: int) -> None:
    azimuth = np.radians(degrees)
    volume = np.zeros((9, 9, 9), bool)
    seen = Cameras.orbit(np.array([azimuth]), 0.0, 3.0, 0.5, 8).camera_to_world[0, :3, 2]
    marked = np.round(4 + 4 * seen).astype(int)
    volume[tuple(marked)] = True
    x, y, z = np.argwhere(turned(volume, quarter_of(azimuth)))[0] - 4
    assert y == 0
    assert z > 0
    assert abs(x) <= z


def test_four_quarters_are_a_whole_turn_and_y_stays() -> None:
    volume = np.random.default_rng(0).random((5, 5, 5))
    np.testing.assert_array_equal(turned(volume, 4), volume)
    np.testing.assert_array_equal(turned(turned(volume, 1), 3), volume)
    np.testing.assert_array_equal(turned(volume, 2).sum((0, 2)), volume[::-1, :, ::-1].sum((0, 2)))


def test_a_system_without_mistakes_scores_one_everywhere(known: Any, targets: Any, reference: Reference) -> None:
    result = evaluate_wala(known, targets, reference)
    assert json.loads(json.dumps(result)) == result
    assert look_up(result, "reconstruction.iou.mean") == look_up(result, "reconstruction.f1.mean") == 1
    assert look_up(result, "reconstruction.iou_filled.n") == 2
    for condition in CONDITIONS:
        measured = result["generation"][condition]
        assert measured["iou"]["mean"] == measured["f1"]["mean"] == measured["f_score_002"]["mean"] == 1
        assert measured["chamfer_e3"]["mean"] == 0
        assert measured["passes_check"] == 1
        assert measured["failures"] == []
    assert look_up(result, "baselines.oracle.mean") == 1
    assert look_up(result, "generation.voxels.baselines.prompt.mean") == 1
    assert result["generation"]["text"]["category"] == {"generated": 1, "retrieval": 1, "truth": 1, "chance": 0.3333}
    assert look_up(result, "generation.text.between_seeds.mean") == 1
    assert {row["what"] for row in result["bars"] if not row["ok"]} == {
        "voxels above the oracle training shape",  # equal is not above
        "points above the oracle training shape",
        "depth above the oracle training shape",
        "views above the oracle training shape",
        "text IoU between seeds",
    }


def test_retrieved_shapes_are_turned_into_the_pictures_frame(known: Any, targets: Any, reference: Reference) -> None:
    result = evaluate_wala(known, targets, reference, Plan(conditions=("image", "text")))
    plank = turned(reference.inside(1), 1)
    expected = (volume_iou(plank, targets[0].sdf < 0) + 1) / 2
    assert look_up(result, "generation.image.baselines.retrieval.mean") == pytest.approx(expected, abs=1e-4)
    assert look_up(result, "generation.text.baselines.retrieval.mean") == 1
    assert set(result["generation"]) == {"image", "text"}


def test_seeds_guidance_and_empty_results_are_counted(known: Any, targets: Any, reference: Reference) -> None:
    known.error = lambda condition, seed: {"text": 3 * seed, "points": None}.get(condition, 0)
    result = evaluate_wala(known, targets, reference, Plan(conditions=("points", "text")))
    points, text = result["generation"]["points"], result["generation"]["text"]
    assert (points["passes_check"], points["iou"]["mean"], points["f_score_002"]["mean"]) == (0, 0, 0)
    assert points["failures"] == ["t0 ball blue: nothing was generated", "t1 plank: nothing was generated"]
    assert points["chamfer_e3"] == {"n": 0}
    assert text["iou"]["mean"] == 1
    assert text["between_seeds"]["mean"] < 0.6
    assert {seed for condition, seed, _ in known.asked if condition == "text"} == {0, 1}
    evaluate_wala(known, targets, reference, Plan(conditions=("voxels",), guidance={"voxels": 3.0}))
    assert known.asked[-1] == ("voxels", 0, 3.0)


def test_guidance_is_fixed_where_iou_is_best(known: Any, targets: Any) -> None:
    assert fix_guidance(known, targets, ("voxels", "image")) == {"voxels": 1.5, "image": 1.5}
    assert fix_guidance(known, targets, ("text",), scales=(1.0, 4.0, 3.0)) == {"text": 1.0}


def test_bars_compare_what_was_measured_and_nothing_else() -> None:
    result = {
        "generation": {"voxels": {"iou": {"mean": 0.71}, "passes_check": 1.0}, "depth": {"iou": {"mean": 0.7}}},
        "baselines": {"oracle": {"mean": 0.7}},
    }
    rows = {row["what"]: row["ok"] for row in check_bars(result)}
    assert rows == {
        "generation.voxels.iou.mean": False,
        "generation.depth.iou.mean": True,
        "voxels above the oracle training shape": True,
        "depth above the oracle training shape": False,
        "voxels meshes that pass the check": True,
    }


def test_a_condition_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadSetting, match="smell"):
        Plan(conditions=("smell",))


def test_summary_and_surface_samples() -> None:
    numbers = summary([0.0, 0.5, 1.0])
    assert (numbers["mean"], numbers["median"], numbers["n"]) == (0.5, 0.5, 3)
    assert numbers["low"] <= 0.5 <= numbers["high"]
    assert summary([]) == {"n": 0}
    along = np.linspace(-0.95, 0.95, 20)
    x, y, z = np.meshgrid(along, along, along, indexing="ij")
    points = surface_samples(surface((np.sqrt(x**2 + y**2 + z**2) - 0.7).astype(np.float32), -0.95, 0.1))
    assert points.shape == (4096, 3)
    assert np.abs(np.linalg.norm(points, axis=1) - 0.7).max() < 0.02
    assert np.abs(points.mean(0)).max() < 0.03
