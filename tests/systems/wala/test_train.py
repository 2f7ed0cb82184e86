"""`anyform train wala` on three fixtures: whole, killed and continued, loaded, and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from anyform import cli
from anyform.data.prepare import prepare
from anyform.data.shards import TRUNCATION, read_shards
from anyform.errors import BadInput, BadSetting, WeightsError
from anyform.systems.wala import latents, train, trained
from anyform.systems.wala.gather import gather
from anyform.systems.wala.retrieval import Index, picture_key
from anyform.systems.wala.stages import fill, new_codec, validation_rows
from anyform.systems.wala.training_plan import PHASES, PLANS, changed, smoke
from anyform.types.progress import Progress, silent
from anyform.weights import read_safetensors

MESHES = ("mug", "table", "wardrobe")
ARRAYS = ("field", "points_field", "depth_field", "hull_field", "framed", "sketch", "outline", "key", "text", "color")

# Prints its progress; with KILL_IN=<phase> it kills itself between that phase's second and third checkpoint.
SCRIPT = """
import argparse, os, signal
from anyform.systems.wala import train
parser = argparse.ArgumentParser()
train.add_arguments(parser)
arguments = parser.parse_args()

def report(progress):
    print(progress.stage, progress.step, progress.message.split()[:1], flush=True)
    phase = arguments.out / os.environ.get("KILL_IN", "none")
    if progress.stage == "train" and progress.step == 6 and (phase / "log.jsonl").is_file():
        os.kill(os.getpid(), signal.SIGKILL)

train.run(arguments, report)
"""


@pytest.fixture(scope="module")
def shards(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three meshes, a shard each, so that an interrupted gathering has something to keep."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "meshes").mkdir()
    for name in MESHES:
        shutil.copy(fixtures / "meshes" / f"{name}.glb", folder / "meshes")
    assert prepare(folder / "meshes", folder / "shards", shard_size=1, workers=0).samples == 3
    return folder / "shards"


def smoke_run(shards: Path, out: Path, *more: str, kill_in: str = "none") -> tuple[int, list[str]]:
    """The smoke run in a process of its own: exit code and the lines it printed."""
    command = [sys.executable, "-c", SCRIPT, str(shards), "--out", str(out), "--preset", "smoke", *more]
    environment = {**os.environ, "KILL_IN": kill_in}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    return done.returncode, done.stdout.splitlines()


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert smoke_run(shards, out)[0] == 0
    return out


@pytest.mark.slow
def test_kill_9_in_both_stages_then_resume_changes_no_bit(shards: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    assert smoke_run(shards, out, kill_in="second")[0] == -signal.SIGKILL
    assert not (out / "second" / "result.json").exists()
    assert smoke_run(shards, out, "--resume", kill_in="denoiser")[0] == -signal.SIGKILL
    assert (out / "second" / "result.json").exists() and not (out / "denoiser" / "result.json").exists()
    code, lines = smoke_run(shards, out, "--resume")
    assert code == 0 and "train 4 ['resumed']" in lines
    for name in (trained.WEIGHTS, trained.INDEX):  # as read: safetensors writes its metadata in any order
        (resumed, facts), (uninterrupted, same) = (read_safetensors(run / "model" / name) for run in (out, whole))
        assert facts == same
        assert resumed.keys() == uninterrupted.keys()
        assert [key for key in resumed if not torch.equal(resumed[key], uninterrupted[key])] == []
    names = [f"model/{trained.CONFIG}"]
    names += [f"arrays/{name}.npy" for name in (*ARRAYS, "latent", "near_text", "near_view")]
    assert [name for name in names if (out / name).read_bytes() != (whole / name).read_bytes()] == []
    assert list(out.rglob("*.partial")) == []


@pytest.mark.slow
def test_a_whole_run_is_not_run_again(shards: Path, whole: Path) -> None:
    before = {phase: (whole / phase / "log.jsonl").read_bytes() for phase in PHASES}
    code, lines = smoke_run(shards, whole, "--resume")
    assert code == 0 and [line for line in lines if line.startswith("train")] == []
    assert sum("'whole'" in line for line in lines) == 3
    assert {phase: (whole / phase / "log.jsonl").read_bytes() for phase in PHASES} == before


def test_a_run_leaves_curves_scores_and_a_catalogue(whole: Path) -> None:
    for phase in PHASES:
        rows = [json.loads(line) for line in (whole / phase / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["step"] for row in rows] == [2, 4, 6, 8]
        assert all(np.isfinite(row["loss"]) for row in rows)
        result = json.loads((whole / phase / "result.json").read_text(encoding="utf-8"))
        assert result["step"] == 8 and all(0 <= result[key] <= 1 for key in result if key.startswith("iou"))
    rows = json.loads((whole / "arrays" / "catalog.json").read_text(encoding="utf-8"))
    assert sorted(row["caption"] for row in rows) == sorted(MESHES)
    assert all(row["group"] == row["id"] and len(row["mean_rgb"]) == 3 for row in rows)


def test_latents_are_standardised_and_neighbours_are_others(whole: Path) -> None:
    latent = np.load(whole / "arrays" / "latent.npy").astype(np.float64)
    assert latent.shape == (3, 4, 16, 8, 8, 8)
    assert np.abs(latent.mean((0, 1, 3, 4, 5))).max() < 0.01
    assert np.abs(latent.std((0, 1, 3, 4, 5)) - 1).max() < 0.02
    near_text, near_view = (np.load(whole / "arrays" / f"near_{name}.npy") for name in ("text", "view"))
    assert near_text.shape == (3, 3) and near_view.shape == (3, 4, 3)
    assert all(set(near_text[row, :2]) == {0, 1, 2} - {row} for row in range(3))
    assert all(row not in near_view[row, :, :2] // 4 for row in range(3))


def test_the_model_loads_and_finds_its_own_shapes(whole: Path) -> None:
    import anyform

    wala = anyform.load("wala", weights=whole / "model", settings={"num_inference_steps": 2})
    assert wala.weights[0].id == "model/wala.safetensors" and wala.weights[0].commercial_use == "unknown"
    read = wala.conditions.read(anyform.Text("a mug"))
    assert wala.conditions.index.owners[wala.conditions.neighbours(read, 1)[0].row].caption == "mug"
    codec, _ = trained.read(whole / "model")
    stored = torch.load(whole / "second" / "checkpoint.pt", weights_only=True)["average"]
    assert torch.equal(codec.vqvae.codebook.embedding, stored["vqvae.codebook.embedding"])
    weight = stored["vqvae.decoder.head.weight"]
    assert torch.equal(codec.vqvae.decoder.head.weight, weight.to(torch.float16).float())


def test_codes_of_the_index_are_the_quantised_latents(whole: Path) -> None:
    index, codec = Index.load(whole / "model" / trained.INDEX), trained.read(whole / "model")[0]
    assert len(index.owners) == 3 and index.arrays["codes"].shape == (3, 8**3 * 4)
    latent = torch.from_numpy(np.load(whole / "arrays" / "latent.npy")[:, 0].astype(np.float32))
    own = codec.vqvae.quantise(codec.destandardise(latent))[0]
    stored = codec.vqvae.codebook.lookup(torch.from_numpy(index.arrays["codes"].astype(np.int64)), 8)
    # latents are kept in float16, so a few snap to another code that is as near
    assert float((own - stored).abs().mean()) < 0.02 * float(stored.std())


@pytest.mark.parametrize("damage", ["config", "missing", "extra"])
def test_a_damaged_model_is_refused(whole: Path, tmp_path: Path, damage: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(whole / "model", tmp_path / "model")
    if damage == "config":
        text = (folder / trained.CONFIG).read_text(encoding="utf-8")
        (folder / trained.CONFIG).write_text(text.replace('"lift_channels": 4', '"lift_channels": 5'), encoding="utf-8")
    else:
        tensors = load_file(folder / trained.WEIGHTS)
        tensors["codec.more"] = tensors["codec.mean"].clone()
        if damage == "missing":
            del tensors["codec.more"], tensors["denoiser.prompts.no_text"]
        save_file(tensors, folder / trained.WEIGHTS)
    with pytest.raises(WeightsError, match="does not fit"):
        trained.read(folder)


class Stopped(Exception):
    """Raised by a report to stop a run where a test wants it."""


def test_gathering_goes_on_after_a_stop_and_says_what_the_shards_say(shards: Path, whole: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []

    def stop_in_the_third(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == 3 and len(seen) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        gather(shards, tmp_path / "arrays", stop_in_the_third)
    assert not (tmp_path / "arrays" / "catalog.json").exists()
    rows = gather(shards, tmp_path / "arrays", stop_in_the_third)
    assert [progress.step for progress in seen] == [1, 2, 3, 3]
    for name in ARRAYS:
        assert (tmp_path / "arrays" / f"{name}.npy").read_bytes() == (whole / "arrays" / f"{name}.npy").read_bytes()
    load = {name: np.load(tmp_path / "arrays" / f"{name}.npy") for name in ARRAYS}
    for place, sample in enumerate(read_shards(shards)):
        assert rows[place]["id"] == sample.row["id"]
        np.testing.assert_allclose(load["field"][place] / 127, sample.sdf / TRUNCATION, atol=1e-5)
        np.testing.assert_array_equal(load["key"][place, 5], picture_key(load["framed"][place, 5]))
        inside = load["field"][place] < 0
        for name, part, least in (("points_field", 0, 0.3), ("depth_field", 2, 0.3)):
            made = load[name][place, part] < 0
            assert (made & inside).sum() / (made | inside).sum() > least, name
        hull = load["hull_field"][place] < 0
        assert (hull & inside).sum() > 0.9 * inside.sum()  # a visual hull leaves nothing of the object out
        assert load["outline"][place].mean() > load["sketch"][place].mean() > 1
    np.testing.assert_allclose(np.linalg.norm(load["text"].astype(np.float32), axis=-1), 1, atol=1e-3)


def test_fields_alone_are_enough_for_the_released_shape(shards: Path, tmp_path: Path) -> None:
    gather(shards, tmp_path / "arrays", silent, conditions=False)
    assert sorted(path.stem for path in (tmp_path / "arrays").glob("*.npy")) == ["field"]
    with pytest.raises(BadInput, match="other shards"):
        gather(shards, tmp_path / "arrays", silent, conditions=True)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `anyform train wala` says when it refuses with exit code 2."""
    assert cli.main(["train", "wala", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_bad_input_is_refused_in_a_sentence(
    shards: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no mesh", encoding="utf-8")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "plan.json").write_text("{}", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine", encoding="utf-8")
    new = ("--out", tmp_path / "new", "--preset", "smoke")
    table = [
        ((tmp_path / "empty", *new), "no mesh file"),
        ((tmp_path / "texts", *new), "no mesh file"),
        ((tmp_path / "nothing", *new), "not a folder"),
        ((tmp_path / "begun", *new), "data prepare"),
        ((shards, *new, "--set", "first.step=3"), "did you mean 'steps'"),
        ((shards, *new, "--set", "steps=many"), "expected int"),
        ((shards, *new, "--set", "steps"), "field=value"),
        ((shards, *new, "--workers", "0"), "at least 1"),
        ((shards, "--out", tmp_path / "new", "--preset", "huge"), "invalid choice"),
        ((shards, "--out", tmp_path / "new", "--preset", "paper"), "--size 256"),
        ((shards, "--out", tmp_path / "full", "--preset", "smoke"), "not empty"),
        ((shards, "--out", whole, "--preset", "smoke"), "--resume"),
        ((shards, "--out", whole, "--preset", "embedded", "--resume"), "begun with preset smoke"),
        ((shards, "--out", whole, "--preset", "smoke", "--resume", "--set", "seed=5"), "denoiser.seed=0, not 5"),
    ]
    for arguments, said in table:
        assert said in refused(capsys, *arguments), said
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_ctrl_c_says_how_to_go_on(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "gather", stop)
    assert cli.main(["train", "wala", str(shards), "--out", str(tmp_path / "run"), "--preset", "smoke"]) == 130
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_a_stage_before_its_turn_is_refused(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    text = json.dumps({"preset": "smoke", "plan": trained.describe(smoke())})
    (tmp_path / "run" / "run.json").write_text(text, encoding="utf-8")
    gather(shards, tmp_path / "run" / "arrays", silent)
    for stage, said in (("latents", "no checkpoint.pt"), ("denoiser", "--stage latents"), ("pack", "no checkpoint.pt")):
        arguments = (shards, "--out", tmp_path / "run", "--preset", "smoke", "--resume", "--stage", stage)
        assert said in refused(capsys, *arguments)


def test_a_checkpoint_of_another_network_is_refused(whole: Path) -> None:
    with pytest.raises(BadInput, match="another network"):
        fill(new_codec(PLANS["embedded"]().codec), whole / "first" / "checkpoint.pt")


def test_settings_reach_one_phase_or_all() -> None:
    plan = changed(smoke(), ["steps=3", "second.clip=0.25", "coefficients.batch=2", "codec.vqvae.codebook_size=64"])
    assert [getattr(plan, phase).steps for phase in PHASES] == [3, 3, 3]
    assert (plan.first.clip, plan.second.clip) == (1.0, 0.25)
    assert (plan.coefficients.batch, plan.codec.vqvae.codebook_size) == (2, 64)
    with pytest.raises(BadSetting):
        changed(plan, ["second.nothing=1"])


def test_every_plan_says_what_the_paper_says() -> None:
    paper = PLANS["paper"]()
    assert (paper.loss, paper.first.learning_rate, paper.first.ema_decay) == ("coefficients", 1e-4, 0.9999)
    assert (paper.codec.size, paper.codec.grid, paper.coefficients.balanced_per_dataset) == (256, "cell", 10_000)
    assert PLANS["vqvae-dense-loss"]().coefficients.variant == "dense"
    assert PLANS["vqvae-sampled-loss"]().coefficients.balanced_per_dataset == 0


def test_validation_is_spread_and_never_empty(tmp_path: Path) -> None:
    rows = [{"split": "val" if i % 2 else "train"} for i in range(20)]
    (tmp_path / "catalog.json").write_text(json.dumps(rows), encoding="utf-8")
    assert validation_rows(tmp_path, 5).tolist() == [1, 5, 9, 13, 17]
    (tmp_path / "catalog.json").write_text(json.dumps([{"split": "train"}] * 3), encoding="utf-8")
    assert validation_rows(tmp_path, 1).tolist() == [0]


def test_nothing_to_retrieve_is_refused(tmp_path: Path) -> None:
    rows = [{"split": "train", "license": "CC-BY-3.0"}, {"split": "test", "license": "CC0-1.0"}]
    empty = np.zeros((2, 1), np.uint8)
    with pytest.raises(BadInput, match="no training object"):
        latents.write_index(rows, empty.astype(np.uint16), empty.astype(float), empty, empty, tmp_path / "index")
