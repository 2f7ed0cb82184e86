"""`anyform train tunemv3d` on two fixtures: whole, interrupted and continued, its file read and refused."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from anyform import cli
from anyform.data.corpus import open_collection
from anyform.data.multiview import MultiviewPlan, ViewArrays, write_views
from anyform.errors import BadInput, Interrupted, WeightsError
from anyform.systems.tunemv3d import train
from anyform.systems.tunemv3d.branch_file import FORMAT, describe_branch, read_branch, write_branch
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundations import load_foundation
from anyform.systems.tunemv3d.training_plan import PLANS, changed
from anyform.types.progress import Progress, silent
from anyform.weights import read_safetensors


@pytest.fixture(scope="module")
def data(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "meshes").mkdir()
    for name in ("mug", "table"):
        shutil.copy(fixtures / "meshes" / f"{name}.glb", folder / "meshes")
    plan = MultiviewPlan(num_ring=4, num_free=2, size=16, supersampling=1)
    write_views(open_collection(folder / "meshes"), folder / "views", plan)
    return folder / "views"


@pytest.fixture(scope="module")
def weights(tiny_foundation: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_foundation.embedded_file(tmp_path_factory.mktemp("foundation") / "foundation.safetensors")


def smoke(data: Path, weights: Path, out: Path, *more: str, report: object = silent) -> dict:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    command = [str(data), "--out", str(out), "--preset", "smoke", "--foundation", str(weights)]
    command += ["--set", "recipe.held_out=0.0", "--set", "branch.num_views=4"]
    return train.run(parser.parse_args([*command, *more]), report)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    record = smoke(data, weights, out)
    assert record["train"] + record["val"] + record["test"] == 2 and record["held_out"] == 0
    assert record["branch"] == str(out / train.BRANCH)
    return out


def test_a_run_leaves_curves_scores_and_a_branch(whole: Path, weights: Path) -> None:
    for phase, term in (("field", "render"), ("joint", "denoise")):
        rows = [json.loads(line) for line in (whole / phase / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["step"] for row in rows] == [2, 4] and all(row[term] > 0 for row in rows)
        result = json.loads((whole / phase / "result.json").read_text(encoding="utf-8"))
        assert {"psnr_input_600", "psnr_novel_600", "denoise_ratio_600"} <= result.keys()
    foundation = load_foundation(weights)
    branch = read_branch(whole / train.BRANCH, foundation)
    assert any(parameter.abs().sum() > 0 for parameter in branch.zeros.parameters())
    config, recorded = describe_branch(whole / train.BRANCH)
    assert config == branch.config and recorded == foundation.fingerprint()
    assert not any(parameter.requires_grad for parameter in branch.parameters())


def test_interrupted_in_both_phases_and_continued_is_the_same_to_the_bit(
    data: Path, weights: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def stop_in(phase: str):
        def report(progress: Progress) -> None:
            started = (out / phase / "log.jsonl").is_file()
            if progress.stage == "train" and progress.step == 4 and started:
                raise KeyboardInterrupt

        return report

    with pytest.raises(Interrupted, match="--resume"):
        smoke(data, weights, out, report=stop_in("field"))
    with pytest.raises(Interrupted):
        smoke(data, weights, out, "--resume", report=stop_in("joint"))
    assert not (out / train.BRANCH).exists()
    smoke(data, weights, out, "--resume")
    resumed, plain = (read_safetensors(run / train.BRANCH)[0] for run in (out, whole))
    assert resumed.keys() == plain.keys()
    assert [name for name in plain if not torch.equal(resumed[name], plain[name])] == []


def test_a_run_is_continued_only_as_itself(data: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="add --resume"):
        smoke(data, weights, whole)
    with pytest.raises(BadInput, match=r"begun with recipe\.batch=1, not 2"):
        smoke(data, weights, whole, "--resume", "--set", "recipe.batch=2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(BadInput, match="not empty"):
        smoke(data, weights, tmp_path / "full")
    with pytest.raises(BadInput, match="--ring 8"):
        smoke(data, weights, tmp_path / "other", "--set", "branch.num_views=8")
    assert not (tmp_path / "other").exists()


def test_a_branch_for_another_foundation_is_refused(whole: Path, tiny_foundation: ModuleType, tmp_path: Path) -> None:
    other = tiny_foundation.embedded_file(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(WeightsError, match="revision differs"):
        read_branch(whole / train.BRANCH, load_foundation(other))


def test_damaged_and_foreign_branch_files_are_refused(whole: Path, weights: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    foundation = load_foundation(weights)
    with pytest.raises(WeightsError, match="no branch"):
        read_branch(weights, foundation)
    tensors, metadata = read_safetensors(whole / train.BRANCH)
    assert metadata["format"] == FORMAT
    short = tmp_path / "short.safetensors"
    save_file({name: value for name, value in tensors.items() if "sharpness" not in name}, short, metadata)
    with pytest.raises(WeightsError, match="damaged"):
        read_branch(short, foundation)
    save_file(tensors, short, {**metadata, "config": '{"num_views": 4, "speed": 9}'})
    with pytest.raises(WeightsError, match="does not say what it is"):
        read_branch(short, foundation)


def test_writing_and_reading_keeps_what_it_says(tiny_foundation: ModuleType, tmp_path: Path) -> None:
    foundation = tiny_foundation.ours()
    branch = ControlBranch(foundation, PLANS["smoke"]().branch)
    path = tmp_path / "branch.safetensors"
    write_branch(path, branch, foundation, {"licence": "CC0-1.0"})
    again = read_branch(path, foundation)
    assert torch.equal(again.latent_neus.field.sharpness, branch.latent_neus.field.sharpness)
    for one, two in zip(branch.parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-3)
    assert list(tmp_path.glob("*.partial")) == []
    little = tmp_path / "small.safetensors"
    write_branch(little, branch, foundation, {"licence": "CC0-1.0"}, small=True)
    rough = read_branch(little, foundation)
    assert torch.equal(rough.latent_neus.field.sharpness, branch.latent_neus.field.sharpness)
    for one, two in zip(branch.parameters(), rough.parameters(), strict=True):
        assert torch.allclose(one, two, atol=max(1e-3, float(one.detach().abs().max()) / 100))


def test_held_out_nouns_are_kept_from_training(data: Path, weights: Path) -> None:
    arrays = ViewArrays.open(data)
    everything = train.split_rows(arrays, 1.0, 4)
    assert len(everything["held_out"]) == 2 and not everything["train"]
    plan = changed(PLANS["smoke"](), ["recipe.held_out=1.0", "branch.num_views=4"])
    with pytest.raises(BadInput, match=r"lower recipe\.held_out"):
        train.train(plan, arrays, load_foundation(weights), data, "cpu", silent)


def test_presets_and_settings() -> None:
    plan = changed(PLANS["embedded"](), ["steps=7", "joint.learning_rate=0.001", "recipe.batch=3"])
    assert (plan.field.steps, plan.joint.steps, plan.recipe.batch) == (7, 7, 3)
    assert plan.joint.learning_rate == 1e-3 and plan.field.learning_rate != 1e-3
    paper = PLANS["paper"]()
    assert (paper.recipe.batch, paper.joint.learning_rate, paper.joint.weight_decay) == (4, 5e-5, 1e-3)
    assert paper.branch.evaluator == "points" and paper.recipe.weight_eikonal == 0


def test_the_command_without_weights_says_what_to_train(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The embedded foundation is shipped, or its absence ends with exit 3 and the recipe's name."""
    from anyform.weights import EMBEDDED

    if "foundation" in EMBEDDED:
        pytest.skip("the embedded foundation is here")
    command = ["train", "tunemv3d", str(data), "--out", str(tmp_path / "run"), "--preset", "smoke"]
    code = cli.main([*command, "--set", "branch.num_views=4"])
    assert code == 3 and "embedded_foundation.py" in capsys.readouterr().err
