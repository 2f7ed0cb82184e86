"""The joint space on a small random network in the shipped format: every prompt, what is refused, the file itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anyform.encoders import embedded, joint_inputs, speech
from anyform.encoders.joint import Joint, JointConfig, heard
from anyform.errors import BadInput, WeightsError
from anyform.nn.int8 import quantise
from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Voxels

CONFIG = JointConfig(
    dim=24, picture_widths=(8, 16), sketch_widths=(8, 16), point_widths=(8, 16), speech_width=16, speech_layers=1,
    speech_heads=2, words=("chair", "red", "table"),
)  # fmt: skip
SAID = Audio((np.sin(np.arange(24_000) * 0.2) * np.sin(np.arange(24_000) * 0.001)).astype(np.float32), 16_000)


def network(spoken: float = 9.0) -> Joint:
    torch.manual_seed(0)
    model = Joint(CONFIG)
    with torch.no_grad():
        model.spoken_head.bias.fill_(spoken)
        model.word_head.bias.copy_(torch.tensor([4.0, 6.0, -9.0]))
        model.word_head.weight.mul_(0.01)
    return model


def written(folder: Path, model: Joint, config: str | None = None) -> Path:
    save_file(quantise(model.state_dict()), folder / "joint.safetensors", {"config": config or CONFIG.to_json()})
    return folder / "joint.safetensors"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("joint"), network())


def prompts() -> list[Text | Image | Sketch | Points | Audio]:
    rng = np.random.default_rng(0)
    ink = np.zeros((90, 70), np.float32)
    ink[20:60, [15, 50]] = ink[[20, 60], 15:51] = 1
    points = Points(rng.normal(size=(3000, 3)).astype(np.float32))
    return [
        Text("a red chair"),
        Image.from_rgba(rng.integers(0, 255, (50, 80, 3), np.uint8)),
        Sketch(ink),
        points,
        SAID,
    ]


def test_every_prompt_becomes_a_unit_vector(file: Path) -> None:
    encoder = embedded.load(file)
    assert encoder.dim == 24
    for prompt in prompts():
        vector = encoder.embed(prompt)
        assert vector.shape == (24,) and vector.dtype == torch.float32
        assert abs(float(vector.norm()) - 1) < 1e-5
        assert torch.equal(vector, encoder.embed(prompt))
    with pytest.raises(BadInput, match="not Voxels"):
        encoder.embed(Voxels(np.ones((4, 4, 4), bool)))


def test_words_are_told_likeliest_first(file: Path) -> None:
    assert embedded.load(file).words(SAID) == ["red", "chair"]


def test_sounds_without_speech_are_refused_with_the_sentence(tmp_path: Path) -> None:
    encoder = embedded.load(written(tmp_path, network(spoken=-9.0)))
    with pytest.raises(BadInput, match=r"^recognised no speech; sounds need --encoder imagebind$"):
        encoder.embed(SAID)


def test_speech_is_what_sounds_like_it_and_names_a_word() -> None:
    spoken, words = torch.tensor([1.0, 1.0, -1.0]), torch.tensor([[-5.0, 2.0], [-5.0, -4.0], [3.0, 3.0]])
    assert heard(spoken, words).tolist() == [True, False, False]


def test_renders_are_embedded_with_a_gradient_and_as_pictures_are(file: Path) -> None:
    encoder = embedded.load(file)
    rgb = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    shown = (torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255).requires_grad_()
    vector = encoder.images(shown)
    assert torch.allclose(vector[0], encoder.embed(Image.from_rgba(rgb)), atol=1e-5)
    vector[0, 0].backward()
    assert shown.grad is not None and shown.grad.abs().max() > 0
    assert encoder.images(torch.rand(2, 3, 100, 100)).shape == (2, 24)


def test_a_file_that_is_missing_or_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"runs/embedded_joint\.py"):
        embedded.load(tmp_path / "joint.safetensors").embed(Text("a chair"))
    assert embedded.load(tmp_path / "joint.safetensors").text(["a chair"])[0].shape == (1, 384)
    wider = dataclasses.replace(CONFIG, dim=16).to_json()
    for number, config in enumerate((wider, '{"dimension": 3}', "[")):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(WeightsError, match="config"):
            embedded.load(written(folder, network(), config)).embed(Text("a chair"))


def test_points_are_boxed_and_their_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(500, 3)).astype(np.float32) * [1, 4, 2] + 7
    boxed = joint_inputs.points(Points(cloud))
    assert np.abs(boxed).max() == pytest.approx(0.9, abs=1e-6) and np.abs(boxed.max(0) + boxed.min(0)).max() < 1e-6
    model = network().eval()
    first = model.points(torch.from_numpy(boxed)[None])
    second = model.points(torch.from_numpy(boxed[rng.permutation(500)])[None])
    assert torch.allclose(first, second, atol=1e-5)
    assert len(joint_inputs.points(Points(rng.normal(size=(5000, 3))))) == 1024


def test_a_masked_object_fills_the_frame_on_white_and_a_plain_picture_stays() -> None:
    rgba = np.zeros((100, 100, 4), np.uint8)
    rgba[40:60, 30:50] = [255, 0, 0, 255]
    framed = joint_inputs.picture(Image(rgba))
    assert framed.shape == (3, 64, 64) and np.allclose(framed[:, 0, 0], 1) and np.allclose(framed[:, 32, 32], [1, 0, 0])
    assert abs((framed[1] < 0.5).sum() - (0.85 * 64) ** 2) < 120
    rgba[..., 3] = 255
    assert np.allclose(joint_inputs.picture(Image(rgba))[:, 32, 25], [1, 0, 0])
    assert np.allclose(joint_inputs.picture(Image(rgba))[:, 0, 0], 0)


def test_a_sketch_is_framed_by_what_it_encloses() -> None:
    ink = np.zeros((120, 120), np.float32)
    ink[10:31, [10, 30]] = ink[[10, 30], 10:31] = 1
    small = joint_inputs.sketch(Sketch(ink))
    assert small.shape == (1, 64, 64) and small.max() > 0.8 and small[0, 32, 32] == 0
    rows, columns = np.nonzero(small[0] > 0.3)
    assert rows.min() < 8 and rows.max() > 56 and columns.min() < 8 and columns.max() > 56


def test_windows_of_speech() -> None:
    noise = np.random.default_rng(1).standard_normal(24_000) * 0.1
    burst = np.concatenate([np.zeros(16_000), noise, np.zeros(16_000)])
    kept = speech.frames(burst, 16_000)
    assert 148 < len(kept) < 170  # 1.5 s and a margin, without the silence around it
    loud = speech.windows(burst, 16_000)
    assert loud.shape == (1, speech.WINDOW, speech.BANDS)
    assert np.allclose(loud, speech.windows(burst * 0.01, 16_000), atol=1e-2)  # however loud
    assert not loud[0, len(kept) :].any() and abs(float(loud[0, : len(kept)].mean())) < 1e-4
    long = speech.windows(np.random.default_rng(0).standard_normal(16_000 * 8), 16_000)
    assert len(long) == 4 and speech.windows(np.ones(100), 16_000).shape == (1, speech.WINDOW, speech.BANDS)


def test_the_bundled_sentence_is_one_window_of_speech(fixtures: Path) -> None:
    pytest.importorskip("soundfile")
    said = Audio.open(fixtures / "say_a_red_chair.wav")
    mel = joint_inputs.speech(said)
    assert said.sample_rate == 16_000 and mel.shape == (1, speech.WINDOW, speech.BANDS)
    assert 70 < (np.abs(mel[0]).sum(1) > 0).sum() < 130
