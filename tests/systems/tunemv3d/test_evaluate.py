"""`anyform evaluate tunemv3d` on tiny weights: every method and baseline is there, claims follow from the table."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from anyform import cli
from anyform.data.corpus import open_collection
from anyform.data.multiview import MultiviewPlan, write_views
from anyform.evaluation.consistency import FitPlan, leave_out_psnr, reprojection
from anyform.systems.tunemv3d import evaluate
from anyform.systems.tunemv3d.branch_file import write_branch
from anyform.systems.tunemv3d.config import tiny
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundations import load_foundation
from anyform.systems.tunemv3d.references import preset

METHODS = {
    "tunemv3d", "without_consistency_guidance", "field_only", "pairwise_only", "independent",
    "ground_truth", "shuffled",
}  # fmt: skip


@pytest.fixture(scope="module")
def places(fixtures: Path, tiny_foundation: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(views, run): three objects, all of the test split, and an untrained branch."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "meshes").mkdir()
    for name in ("mug", "table", "wardrobe"):
        shutil.copy(fixtures / "meshes" / f"{name}.glb", folder / "meshes")
    plan = MultiviewPlan(num_ring=4, num_free=0, size=16, supersampling=1)
    write_views(open_collection(folder / "meshes"), folder / "views", plan)
    rows = (folder / "views" / "rows.jsonl").read_text(encoding="utf-8")
    for split in ("train", "val"):
        rows = rows.replace(f'"split": "{split}"', '"split": "test"')
    (folder / "views" / "rows.jsonl").write_text(rows, encoding="utf-8")
    run = folder / "run"
    run.mkdir()
    foundation = load_foundation(tiny_foundation.embedded_file(run / "foundation.safetensors"))
    torch.manual_seed(0)
    branch = ControlBranch(foundation, tiny())
    for parameter in branch.zeros.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    write_branch(run / "branch.safetensors", branch, foundation, {"licence": "CC0-1.0", "held_out": "0.5"})
    return folder / "views", run


@pytest.mark.slow
def test_the_whole_protocol(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    views, run = places
    small = FitPlan(resolution=8, steps=4, rays=128, sections=8)
    monkeypatch.setattr(evaluate, "leave_out_psnr", partial(leave_out_psnr, plan=small))
    monkeypatch.setattr(evaluate, "reprojection", partial(reprojection, plan=small))
    place = str(run / "foundation.safetensors")
    command = ["--data", str(views), "--weights", str(run), "--foundation", place, "--also", f"global={run}"]
    assert cli.main(["evaluate", "tunemv3d", *command, "--prompts", "2", "--steps", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] and record["prompts"] == 2 and record["steps"] == 2
    assert set(record["methods"]) == METHODS | {"global"}
    for name, row in record["methods"].items():
        assert {"leave_out_psnr", "hull_iou", "foreground"} <= row.keys()
        low, high = row["hull_iou"]["interval"]
        assert 0 <= low <= row["hull_iou"]["mean"] <= high <= 1
        assert ("field_psnr" in row) == (name not in ("independent", "ground_truth", "shuffled"))
    assert record["methods"]["global"] == record["methods"]["tunemv3d"]  # the same branch under another name
    assert record["methods"]["ground_truth"]["hull_iou"]["mean"] > record["methods"]["shuffled"]["hull_iou"]["mean"]
    assert set(record["image_to_views"]) == {"tunemv3d", "copy", "mean_view"}
    assert record["diversity"]["tunemv3d"] > 0 and record["diversity"]["independent"] > 0
    assert record["text"]["measured"] or record["text"]["reason"]
    claim = record["claims"]["leave_out_psnr"]
    assert claim["above_independent"] == (claim["interval"][0] > 0)


def test_claims_are_arithmetic() -> None:
    def row(value: float) -> dict[str, np.ndarray]:
        return dict.fromkeys(("leave_out_psnr", "hull_iou"), np.array([value, value + 1]))

    table = {"tunemv3d": row(16.0), "independent": row(10.0), "ground_truth": row(20.0)}
    found = evaluate.claims(table)["hull_iou"]
    assert found["gain"] == 6 and found["way_to_truth"] == 0.6 and found["half_way"] and found["above_independent"]
    worse = evaluate.claims({**table, "tunemv3d": row(9.0)})["hull_iou"]
    assert not worse["above_independent"] and not worse["half_way"] and worse["way_to_truth"] < 0


def test_shuffled_views_come_from_different_objects() -> None:
    cameras = preset(3, 8)
    targets = [evaluate.Target({}, torch.full((3, 3, 2, 2), float(k)), cameras) for k in range(4)]
    made = evaluate.shuffled(targets)
    assert [int(v) for v in made[3].pictures[:, 0, 0, 0]] == [3, 0, 1]


def test_summaries_leave_out_what_no_object_gives() -> None:
    found = evaluate.summary({"a": np.array([1.0, np.nan, 3.0]), "b": np.array([np.nan])})
    assert found["a"]["mean"] == 2.0 and "b" not in found


def test_data_that_does_not_fit_is_refused(places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    views, run = places
    command = ["evaluate", "tunemv3d", "--data", str(views), "--weights", str(run)]
    command += ["--foundation", str(run / "foundation.safetensors")]
    assert cli.main([*command, "--split", "val"]) == 2
    assert "0 objects in the val split" in capsys.readouterr().err
    assert cli.main([*command, "--also", "nothing"]) == 2
