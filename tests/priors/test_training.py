"""What the embedded priors learn from: batches, weights, losses that fall, and recipes that resume."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from anyform.errors import BadInput
from anyform.priors.arrays import PriorArrays, sentences
from anyform.priors.embedded import PriorConfig, PriorNetwork
from anyform.priors.training import PriorLoss, PriorRecipe, compose, random_background, velocity_errors

OBJECTS, GROUPS, PER_GROUP, SIZE = 4, 2, 2, 16
COLOURS = ("red", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs whose colour is their group's word; joint vectors of 8, tokens of 10 numbers."""
    out = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    rgba = np.zeros((OBJECTS, GROUPS * PER_GROUP, SIZE, SIZE, 4), np.uint8)
    row, column = np.mgrid[:SIZE, :SIZE]
    for o in range(OBJECTS):
        for v in range(GROUPS * PER_GROUP):
            inside = (row - 8) ** 2 + (column - 5 - o) ** 2 < 20
            rgba[o, v, inside] = (220, 30, 30, 255) if v < PER_GROUP else (30, 30, 220, 255)
    words = [
        {"index": o, "id": str(o), "split": "train" if o else "val",
         "captions": [[f"disc {o}", f"a disc {o}", f"a {word} disc {o}"] for word in COLOURS]}
        for o in range(OBJECTS)
    ]  # fmt: skip
    unique = sentences(words)
    np.save(out / "rgba.npy", rgba)
    np.save(out / "camera.npy", rng.uniform(0.5, 1.5, (OBJECTS, GROUPS * PER_GROUP, 3)).astype(np.float32))
    np.save(out / "tokens.npy", rng.normal(size=(len(unique), 16, 10)).astype(np.float16))
    unit = rng.normal(size=(OBJECTS, GROUPS * PER_GROUP, 8))
    np.save(out / "joint_pictures.npy", (unit / np.linalg.norm(unit, axis=-1, keepdims=True)).astype(np.float16))
    np.save(out / "joint_captions.npy", np.full((len(unique), 8), 8**-0.5, np.float16))
    (out / "captions.json").write_text(json.dumps(unique), encoding="utf-8")
    text = "".join(json.dumps(one) + "\n" for one in words)
    (out / "words-00-of-01.jsonl").write_text(text, encoding="utf-8")
    return out


def network(view: bool) -> PriorNetwork:
    torch.manual_seed(0)
    sizes = {"image_size": SIZE, "widths": (16, 32), "attends": (False, True), "heads": (1, 2), "token_width": 12}
    return PriorNetwork(PriorConfig(view=view, text_width=10, joint=8, **sizes))  # type: ignore[arg-type]


def test_arrays_know_their_groups_and_say_what_is_missing(folder: Path, tmp_path: Path) -> None:
    arrays = PriorArrays.open(folder)
    assert [arrays.group(view) for view in range(4)] == [0, 0, 1, 1]
    assert arrays.objects("train").tolist() == [1, 2, 3] and arrays.sentences[0] == ""
    assert arrays.sentences[arrays.captions[2][1][2]] == "a blue disc 2"
    with pytest.raises(BadInput, match=r"no rgba\.npy: make it with runs/embedded_pictures\.py pictures"):
        PriorArrays.open(tmp_path)


def test_backgrounds_show_only_where_alpha_lets_them() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0], rgba[1, 1] = (255, 0, 0, 255), (0, 0, 255, 128)
    picture = compose(rgba, np.array([1.0, 1.0, 1.0]))
    assert picture[:, 0, 0].tolist() == [1, 0, 0] and picture[:, 0, 1].tolist() == [1, 1, 1]
    assert picture[:, 1, 1].tolist() == pytest.approx([127 / 255, 127 / 255, 1], abs=1e-6)
    rng = np.random.default_rng(0)
    made = [random_background(8, 0.8, rng) for _ in range(400)]
    assert 0.72 < np.mean([one.shape == (3,) and bool((one == 1).all()) for one in made]) < 0.88
    assert all(one.min() >= 0 and one.max() <= 1 for one in made) and any(one.ndim == 3 for one in made)


def test_a_batch_of_the_foundation_holds_what_its_pictures_show(folder: Path) -> None:
    recipe = PriorRecipe(batch=64, drop=0, drop_all=0, white=1, coloured=1, label_of_caption=0, clean_label=1)
    loss = PriorLoss(folder, np.array([1, 2, 3]), recipe, "foundation")
    batch = loss.batch(np.random.default_rng(0))
    arrays = PriorArrays.open(folder)
    assert batch.clean.shape == (64, 12, 8, 8) and batch.states.shape == (64, 16, 10) and batch.labels.shape == (64, 16)
    known = {arrays.tokens[i].tobytes(): text for i, text in enumerate(arrays.sentences)}
    for clean, states in zip(batch.clean, batch.states, strict=True):
        text = known[states.numpy().astype(np.float16).tobytes()]
        picture = (loss.codec.decode(clean[None])[0] * 255).round()
        middle = picture[:, 8, 4:12].mT
        red = bool((middle == torch.tensor([220.0, 30, 30])).all(-1).any())
        assert ("red" in text) == red and ("blue" in text) == (not red)


def test_conditions_are_dropped_at_their_rates(folder: Path) -> None:
    loss = PriorLoss(folder, np.array([1, 2, 3]), PriorRecipe(batch=600), "foundation")
    batch = loss.batch(np.random.default_rng(1))
    silent = torch.from_numpy(loss.arrays.tokens[0].astype(np.float32))
    no_words = (batch.states == silent).all((1, 2)) if silent.ndim == 2 else None
    assert no_words is not None
    no_labels = (batch.labels == 0).all(1)
    assert 0.10 < no_words.float().mean() < 0.19 and 0.10 < no_labels.float().mean() < 0.19  # 0.1 + 0.05 − both
    assert 0.03 < (no_words & no_labels).float().mean() < 0.10


def test_a_view_batch_pairs_views_of_one_group(folder: Path) -> None:
    loss = PriorLoss(folder, np.array([1, 2, 3]), PriorRecipe(batch=200), "view")
    batch = loss.batch(np.random.default_rng(0))
    assert batch.reference is not None and batch.pose is not None and batch.present is not None
    assert batch.pose.shape == (200, 12)
    shown = batch.present > 0
    assert 0.8 < shown.float().mean() < 0.97
    target, reference = loss.codec.decode(batch.clean), loss.codec.decode(batch.reference)
    colour = (target[:, 0] - target[:, 2]).sum((1, 2)).sign()  # red against blue
    assert torch.equal(colour[shown], (reference[:, 0] - reference[:, 2]).sum((1, 2)).sign()[shown])
    assert not batch.reference[~shown].any() and not batch.labels[~shown].any()
    assert torch.allclose(batch.pose[:, 9] ** 2 + batch.pose[:, 10] ** 2, torch.ones(200), atol=1e-6)


def test_a_pose_is_the_relative_camera_of_the_pair(folder: Path) -> None:
    loss = PriorLoss(folder, np.array([1]), PriorRecipe(), "view")
    camera = np.array([[0.2, 0.1, 3.0], [0.2 + np.pi / 2, 0.5, 3.6]])
    assert loss.pose(camera).tolist() == pytest.approx([-0.4, 1, 0, 1.85 * 0.2], abs=1e-6)


def test_weights_are_min_snr_with_a_floor(folder: Path) -> None:
    loss = PriorLoss(folder, np.array([1]), PriorRecipe(), "foundation")
    weight = loss.weight(torch.tensor([0, 999]))
    snr = float(loss.schedule.alphas_cumprod[0] / (1 - loss.schedule.alphas_cumprod[0]))
    assert weight.tolist() == pytest.approx([5.25 / (snr + 1), 0.25], rel=1e-5)


def test_the_error_of_the_true_velocity_is_zero(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = PriorLoss(folder, np.array([1, 2]), PriorRecipe(batch=4), "foundation")
    batch, t = loss.batch(np.random.default_rng(0)), torch.tensor([1, 300, 700, 999])
    model = network(view=False)
    torch.manual_seed(5)
    noise = torch.randn(batch.clean.shape)
    alpha, sigma = (part.float()[:, None, None, None] for part in loss.schedule.alpha_sigma(t))
    truth = alpha * noise - sigma * batch.clean
    monkeypatch.setattr(PriorNetwork, "forward", lambda self, x, t, tokens, labels: truth)
    torch.manual_seed(5)
    assert torch.allclose(velocity_errors(model, loss, batch, t), torch.zeros(4), atol=1e-10)


@pytest.mark.parametrize("kind", ["foundation", "view"])
def test_the_loss_falls_and_a_resumed_run_is_the_same(folder: Path, tmp_path: Path, kind: str) -> None:
    from anyform.training.loop import TrainConfig, fit, load_state

    make_loss = partial(PriorLoss, folder, np.array([1, 2, 3]), PriorRecipe(batch=8), kind)  # type: ignore[arg-type]
    config = TrainConfig(steps=24, learning_rate=3e-3, warmup=2, decay_part=0, log_every=8, checkpoint_every=12)

    def run(name: str, steps: int) -> dict[str, torch.Tensor]:
        part = TrainConfig(**{**{f: getattr(config, f) for f in config.__slots__}, "steps": steps})  # type: ignore[attr-defined]
        fit(network(kind == "view"), make_loss, part, tmp_path / name, lambda progress: None)
        return load_state(tmp_path / name / "checkpoint.pt").model

    whole = run("whole", 24)
    run("halves", 12)
    halves = run("halves", 24)
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["loss"] < 0.85 * rows[0]["loss"] and {"v_0", "v_750"} <= set(rows[-1])
