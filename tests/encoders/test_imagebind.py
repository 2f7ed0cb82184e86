"""ImageBind: the published names and shapes, a float64 oracle of a trunk, a miniature in the format, inputs."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from anyform.encoders import clip_pictures, imagebind, imagebind_inputs
from anyform.encoders.imagebind_network import ImageBind, ImageBindConfig, TrunkConfig
from anyform.errors import BadInput, LicenceNotAccepted, WeightsError
from anyform.types.prompt import Audio, Image, Points, Sketch, Text
from anyform.weights import convert_pickle

HEADS = {"vision": 2, "text": 4, "audio": 2, "depth": 4, "thermal": 2, "imu": 2}


def miniature() -> ImageBind:
    released = ImageBindConfig()
    widths = {"vision": 16, "text": 24, "audio": 16, "depth": 16, "thermal": 8, "imu": 8}
    trunks = {
        name: TrunkConfig(
            width=widths[name], layers=2, heads=HEADS[name], tokens=known.tokens, pre_norm=known.pre_norm,
            bias_kv=known.bias_kv, gain=known.gain,
        )
        for name, known in released.trunks.items()
    }  # fmt: skip
    torch.manual_seed(0)
    model = ImageBind(ImageBindConfig(dim=32, trunks=trunks)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagebind")
    torch.save(miniature().state_dict(), folder / "imagebind_huge.pth")
    (folder / "config.json").write_text(json.dumps({"heads": HEADS}), encoding="utf-8")
    return folder / "imagebind_huge.pth"


@pytest.fixture(autouse=True)
def accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(imagebind.ACCEPT_VARIABLE, "other, imagebind")


def test_all_names_and_shapes_of_the_released_checkpoint(root: Path) -> None:
    published = json.loads((root / "tests/encoders/imagebind_huge_keys.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = ImageBind()
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == published
    assert len(published) == 1311
    assert sum(value.numel() for value in model.state_dict().values()) == 1_200_786_990
    assert [name for name, _ in model.named_parameters() if "logit_scale" in name] == [
        "modality_postprocessors.text.1.log_logit_scale"
    ]


def test_the_audio_trunk_is_the_formula() -> None:
    """Head by head with plain products: stem with its own epsilon, bias key and value, pre-norm blocks, class token."""
    model = miniature().double()
    s = model.state_dict()
    mel = torch.randn(1, 1, 128, 204, dtype=torch.float64)

    def norm(name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * s[name + ".weight"] + s[name + ".bias"]

    at = "modality_preprocessors.audio."
    kernel = s[at + "rgbt_stem.proj.weight"].reshape(16, -1)
    cells = [mel[0, 0, 10 * i : 10 * i + 16, 10 * j : 10 * j + 16].reshape(-1) for i in range(12) for j in range(19)]
    x = norm(at + "rgbt_stem.norm_layer", torch.stack(cells) @ kernel.T, 1e-5)
    x = torch.cat([s[at + "cls_token"][0], x]) + s[at + "pos_embedding_helper.pos_embed"][0]
    for n in range(2):
        b = f"modality_trunks.audio.blocks.{n}."
        h = norm(b + "norm_1", x, 1e-6)
        q, k, v = (h @ s[b + "attn.in_proj_weight"].T + s[b + "attn.in_proj_bias"]).chunk(3, -1)
        k, v = torch.cat([k, s[b + "attn.bias_k"][0]]), torch.cat([v, s[b + "attn.bias_v"][0]])
        heads = []
        for part in (slice(0, 8), slice(8, 16)):
            heads.append((q[:, part] @ k[:, part].T / 8**0.5).softmax(-1) @ v[:, part])
        x = x + torch.cat(heads, -1) @ s[b + "attn.out_proj.weight"].T + s[b + "attn.out_proj.bias"]
        h = norm(b + "norm_2", x, 1e-6) @ s[b + "mlp.fc1.weight"].T + s[b + "mlp.fc1.bias"]
        h = h * (1 + torch.erf(h / 2**0.5)) / 2
        x = x + h @ s[b + "mlp.fc2.weight"].T + s[b + "mlp.fc2.bias"]
    expected = norm("modality_heads.audio.0", x[0], 1e-6) @ s["modality_heads.audio.2.weight"].T
    assert torch.allclose(model.features("audio", mel)[0], expected, atol=1e-10)
    embedded = model.embed("audio", mel)[0]
    assert torch.allclose(embedded, 20 * expected / expected.norm(), atol=1e-8)


def test_a_picture_is_two_equal_frames_and_text_reads_only_what_came_before() -> None:
    model = miniature()
    picture = torch.randn(1, 3, 224, 224)
    film = picture[:, None, :, None].expand(1, 1, 3, 2, 224, 224)
    assert torch.allclose(model.embed("vision", picture), model.embed("vision", film), atol=1e-6)
    ids = torch.zeros(2, 77, dtype=torch.long)
    ids[:, :3] = torch.tensor([49406, 320, 49407])
    ids[1, 5] = 1000  # after the end mark
    first, second = model.features("text", ids)
    assert torch.allclose(first, second, atol=1e-6)
    ids[1, 1] = 1929
    assert not torch.allclose(*model.features("text", ids), atol=1e-3)


def test_lengths_after_post_processing_and_the_mean_of_clips() -> None:
    model = miniature()
    inputs = {
        "vision": torch.randn(2, 3, 224, 224), "text": torch.randint(1, 49407, (2, 77)),
        "depth": torch.randn(2, 1, 224, 224), "thermal": torch.randn(2, 1, 224, 224), "imu": torch.randn(2, 6, 2000),
    }  # fmt: skip
    lengths = {name: model.embed(name, value).norm(dim=-1) for name, value in inputs.items()}
    for name, length in {"vision": 1, "text": 1 / 0.07, "depth": 5, "thermal": 10, "imu": 5}.items():
        assert torch.allclose(lengths[name], torch.full((2,), float(length)), rtol=1e-4), name
    clips = torch.randn(1, 3, 1, 128, 204)
    each = torch.stack([model.embed("audio", clips[:, i])[0] for i in range(3)])
    assert torch.allclose(model.embed("audio", clips)[0], each.mean(0), atol=1e-5)
    assert each.mean(0).norm() < 20
    model.modality_postprocessors["text"][1].log_logit_scale.fill_(9.0)  # the gain ends at 100
    assert torch.allclose(model.embed("text", inputs["text"]).norm(dim=-1), torch.tensor(100.0))


def test_a_checkpoint_and_its_conversion_give_equal_vectors(checkpoint: Path, tmp_path: Path) -> None:
    converted = convert_pickle(checkpoint, tmp_path / "imagebind.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({f"{name}_num_heads": count for name, count in HEADS.items()}), encoding="utf-8"
    )
    first, second = imagebind.load(checkpoint), imagebind.load(tmp_path)
    own, rng = miniature(), np.random.default_rng(0)
    image = Image.from_rgba(rng.integers(0, 255, (230, 300, 3), np.uint8))
    sound = Audio(np.sin(np.arange(40_000) * 0.05).astype(np.float32) * 0.5, 16_000)
    for prompt in (Text("a red chair"), image, sound, Sketch((rng.random((64, 64)) > 0.7).astype(np.float32))):
        vector = first.embed(prompt)
        assert vector.shape == (first.dim,) == (32,) and vector.dtype == torch.float32
        assert torch.equal(vector, second.embed(prompt))
    expected = own.embed("vision", torch.from_numpy(clip_pictures.picture(image))[None])[0]
    assert torch.equal(first.embed(image), expected)
    shown = torch.full((1, 3, 224, 224), 0.5).requires_grad_()
    own.embed("vision", clip_pictures.normalised(shown)).sum().backward()
    assert shown.grad is not None and shown.grad.abs().max() > 0
    assert torch.allclose(first.images(shown).norm(dim=-1), torch.ones(1))
    assert first.features(sound).shape == (3, 32) and first.features(image).shape == (32,)
    assert converted.is_file()
    with pytest.raises(BadInput, match="not Points"):
        first.embed(Points(rng.random((80, 3), np.float32)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("modality_heads.imu.3.weight"), "1 tensors are missing"),
        (lambda s: s.update(extra=torch.zeros(2)), "1 unknown, 0 of another shape, such as extra"),
        (lambda s: s.update({"modality_heads.audio.2.weight": torch.zeros(5, 5)}), "1 of another shape"),
        (lambda s: s.pop("modality_heads.vision.2.weight"), "no tensor modality_heads.vision.2.weight"),
    ],
)
def test_other_tensors_are_refused(change, says: str, tmp_path: Path) -> None:
    state = miniature().state_dict()
    change(state)
    torch.save(state, tmp_path / "x.pth")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": HEADS}), encoding="utf-8")
    with pytest.raises(WeightsError, match=says):
        imagebind.load(tmp_path / "x.pth")


@pytest.mark.parametrize("config", [None, "{}", '{"heads": {"vision": 3}}', '{"heads": {"vision": "2"}}', "[", "[1]"])
def test_head_counts_have_to_be_said(config: str | None, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(checkpoint.read_bytes())
    if config is not None:
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"heads|head counts|config\.json"):
        imagebind.load(tmp_path / "x.pth")


def test_the_licence_is_shown_and_asked(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imagebind.load(checkpoint)
        imagebind.require_licence()
    monkeypatch.delenv(imagebind.ACCEPT_VARIABLE)
    with pytest.warns(UserWarning, match="CC BY-NC-SA 4.0"):
        assert imagebind.load(checkpoint).licence == "CC BY-NC-SA 4.0"
    with pytest.raises(LicenceNotAccepted, match="--accept-licence imagebind"):
        imagebind.require_licence()
    with pytest.raises(BadInput, match="'left'"):
        imagebind.load(checkpoint, "right")  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="no single"):
        imagebind.load(checkpoint.parent / "nothing")


@pytest.mark.parametrize(("width", "offset"), [(224, 0), (225, 0), (227, 2), (229, 2), (231, 4), (226, 1)])
def test_the_crop_rounds_halves_to_even(width: int, offset: int) -> None:
    ramp = np.zeros((224, width, 4), np.uint8)
    ramp[..., 0] = np.arange(width) % 251
    ramp[..., 3] = 255
    found = clip_pictures.picture(Image(ramp))[0, 0]
    expected = (ramp[0, offset : offset + 224, 0].astype(np.float32) / 255 - 0.48145466) / 0.26862954
    assert np.abs(found - expected).max() < 1e-6


def test_a_picture_is_resized_in_eight_bits_and_its_alpha_dropped() -> None:
    rng = np.random.default_rng(1)
    rgba = rng.integers(0, 255, (300, 451, 4), np.uint8)
    small = Pillow.fromarray(rgba[..., :3]).resize((336, 224), Pillow.Resampling.BICUBIC)
    pixels = np.asarray(small)[:, 56:280] / 255
    expected = (pixels - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    assert np.abs(clip_pictures.picture(Image(rgba)) - expected.transpose(2, 0, 1)).max() < 1e-5


def test_clips_are_cut_where_floating_point_cuts_them() -> None:
    assert imagebind_inputs.clip_bounds(36_800) == [(0, 32_000), (2399, 34_399), (4799, 36_799)]
    assert imagebind_inputs.clip_bounds(64_000) == [(0, 32_000), (16_000, 48_000), (32_000, 64_000)]
    assert imagebind_inputs.clip_bounds(9_000) == [(0, 32_000)] * 3


def test_sound_is_padded_before_it_is_normalised_and_heard_from_the_left() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 16_000)).astype(np.float32) * 0.1
    stereo = Audio((left + right) / 2, 16_000, left)
    mixed, first = imagebind_inputs.sound(stereo, "mix"), imagebind_inputs.sound(stereo, "left")
    assert first.shape == (3, 1, 128, 204) and np.array_equal(first[0], first[2])
    assert np.array_equal(first, imagebind_inputs.sound(Audio(left, 16_000), "mix"))
    assert np.abs(first - mixed).max() > 0.05
    assert np.allclose(first[0, 0, :, 98:], 4.268 / 9.138)
    assert np.array_equal(first, imagebind_inputs.sound(Audio(left + np.float32(0.2), 16_000), "left")) or np.allclose(
        first, imagebind_inputs.sound(Audio(left + np.float32(0.2), 16_000), "left"), atol=1e-3
    )
    assert math.isclose(float(first[..., :98].std()), 0.2, abs_tol=0.2)
