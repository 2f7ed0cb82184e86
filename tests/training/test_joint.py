"""Training the joint space on toy prompts: what belongs together comes together; augmentation keeps its promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anyform.encoders.joint import Joint, JointConfig
from anyform.encoders.speech import BANDS, WINDOW
from anyform.training import joint_augmentation as augmentation
from anyform.training.joint import JointArrays, JointLoss, read_text, vocabulary
from anyform.training.joint_scores import scores
from anyform.training.loop import TrainConfig, fit, load_state
from anyform.types.progress import silent

OBJECTS, SOUNDS = 12, 40


def small_model() -> Joint:
    torch.manual_seed(0)
    return Joint(
        JointConfig(
            dim=16, picture_widths=(8, 16), sketch_widths=(8, 16), point_widths=(8, 16), speech_width=16,
            speech_layers=1, speech_heads=2, words=("red", "blue"),
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def arrays() -> JointArrays:
    """Objects of six kinds; every kind has a colour, a stroke, a shape, a sentence and a band that sounds."""
    rng = np.random.default_rng(0)
    kind = np.arange(OBJECTS) % 6
    framed = np.zeros((OBJECTS, 12, 64, 64, 4), np.uint8)
    sketch = np.zeros((OBJECTS, 12, 64, 64), np.uint8)
    points = rng.normal(size=(OBJECTS, 600, 3)).astype(np.float16)
    sentences = rng.standard_normal((6, 384)).astype(np.float32)
    sentences /= np.linalg.norm(sentences, axis=1, keepdims=True)
    for at, k in enumerate(kind):
        framed[at, :, 12:52, 12:52] = [40 * k, 250 - 40 * k, 255 * (k % 2), 255]
        sketch[at, :, 8 : 8 + 8 * k + 4, 8:56] = 255
        points[at] *= np.array([1, 0.05 + 0.3 * k, 1.0])
    said = np.where(np.arange(SOUNDS) % 5 == 4, -1, np.arange(SOUNDS) % 6)
    mel = rng.normal(-8, 0.1, (SOUNDS, WINDOW, BANDS))
    for at, sentence in enumerate(said):
        mel[at, :, 10 * sentence + 2 : 10 * sentence + 8] += 6 * (sentence >= 0)
    return JointArrays(
        framed=framed, sketch=sketch, points=points, text=np.repeat(sentences[kind][:, None], 4, 1), group=kind,
        mel=mel.astype(np.float16), length=np.full(SOUNDS, 90), said=said, sentences=sentences,
        words=np.eye(6, dtype=bool)[:, :2],
    )  # fmt: skip


def test_a_step_is_a_function_of_its_seed_and_reaches_every_part(arrays: JointArrays) -> None:
    model = small_model()
    loss = JointLoss(arrays, np.arange(OBJECTS), np.arange(SOUNDS), 6, 12)
    first, numbers = loss(model, np.random.default_rng(3))
    with torch.no_grad():
        assert first.item() == float(loss(model, np.random.default_rng(3))[0])
        assert first.item() != float(loss(model, np.random.default_rng(4))[0])
    assert set(numbers) == {
        "image_text", "sketch_text", "points_text", "image_points", "sketch_points", "image_sketch", "speech_text",
        "words", "any",
    }  # fmt: skip
    first.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_training_pulls_together(arrays: JointArrays, tmp_path: Path) -> None:
    config = TrainConfig(steps=50, learning_rate=3e-3, warmup=5, decay_part=0.0, ema_decay=0.9, checkpoint_every=100)
    loss = JointLoss(arrays, np.arange(OBJECTS), np.arange(SOUNDS), 6, 12)
    trained = fit(small_model(), lambda: loss, config, tmp_path, silent)
    assert isinstance(trained, Joint) and load_state(tmp_path / "checkpoint.pt").step == 50
    catalogue = [{"split": "val", "caption": f"kind {k}"} for k in arrays.group]
    rows = [
        {"split": "val", "text": "" if said < 0 else f"kind {said}", "seen": at % 2 == 0}
        for at, said in enumerate(arrays.said)
    ]
    before, after = (scores(model.eval(), arrays, catalogue, rows, "val") for model in (small_model(), trained))
    assert after["image>text chance1"] == pytest.approx(16.7) and after["image>text chance5"] == pytest.approx(83.3)
    assert after["image>text R1"] > max(60, before["image>text R1"])
    assert after["speech unseen>text R1"] > 60
    assert {"points>image R5", "sketch>points R1", "speech seen>points R1", "sounds refused"} <= after.keys()
    assert all(0 <= value <= 100 for value in after.values())


def test_pictures_keep_their_object_and_change_their_ground() -> None:
    rgba = np.zeros((40, 64, 64, 4), np.uint8)
    rgba[:, 16:48, 16:48] = [200, 30, 30, 255]
    shown = augmentation.pictures(rgba, np.random.default_rng(0))
    assert shown.shape == (40, 3, 64, 64) and float(shown.min()) >= 0 and float(shown.max()) <= 1
    middle, corner = shown[:, :, 30:34, 30:34].mean((2, 3)), shown[:, :, 1:3, 1:3].mean((2, 3))
    assert (middle[:, 0] > middle[:, 1] + 0.3).all()
    white = (corner > 0.9).all(1).float().mean()
    assert 0.25 < float(white) < 0.7 and float(corner.std(0).min()) > 0.2


def test_clouds_are_boxed_and_turned_about_the_vertical_only() -> None:
    rng = np.random.default_rng(0)
    flat = rng.uniform(-1, 1, (8, 2000, 3)) * [1, 0.1, 1]
    moved = augmentation.clouds(flat, 500, rng)
    assert moved.shape == (8, 500, 3) and moved.dtype == torch.float32
    sides = moved.amax(1) - moved.amin(1)
    assert torch.allclose(sides.amax(1), torch.full((8,), 1.8), atol=1e-5)
    assert (sides[:, 1] < 0.3).all()


def test_sounds_and_sketches_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    mel = rng.normal(-8, 2, (6, WINDOW, BANDS)).astype(np.float16)
    length = np.array([2, 30, 100, 200, 319, 320])
    windows = augmentation.sounds(mel, length, rng)
    assert windows.shape == (6, WINDOW, BANDS) and np.isfinite(windows).all()
    used = (np.abs(windows).sum(2) > 0).sum(1)
    assert (used >= 0.84 * length - 1).all() and (used <= np.minimum(1.21 * length + 1, WINDOW)).all()
    drawn = augmentation.sketches(rng.integers(0, 256, (5, 64, 64), np.uint8), rng)
    assert drawn.shape == (5, 1, 64, 64) and float(drawn.min()) >= 0 and float(drawn.max()) <= 1


def test_words_and_groups() -> None:
    assert vocabulary(["a red mug", "Red car", "mug a", "blue"]) == ("mug", "red")
    rows = [{"caption": "Mug"}, {"caption": "car"}, {"caption": "mug"}]
    assert read_text(rows).tolist() == [1, 0, 1]
