"""Our CLIP against transformers' own on a tiny random model, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anyform.encoders import clip
from anyform.encoders.clip_pictures import normalised, picture
from anyform.encoders.clip_tokens import tokenise
from anyform.errors import BadInput, WeightsError
from anyform.types.prompt import Image, Points, Text

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "hidden_act": "gelu"}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**sizes, "patch_size": 56, "hidden_act": "gelu"}, projection_dim=24
    )
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image() -> Image:
    return Image.from_rgba(np.random.default_rng(0).integers(0, 255, (260, 331, 3), np.uint8))


def test_equal_to_transformers(whole: Path, image: Image) -> None:
    encoder = clip.load(whole)
    theirs = transformers.CLIPModel.from_pretrained(whole).eval()
    pixels = torch.from_numpy(picture(image))[None]
    ids = torch.from_numpy(tokenise(["a red chair"]))
    with torch.no_grad():
        both = theirs(input_ids=ids, pixel_values=pixels)
    assert torch.allclose(encoder.embed(image), both.image_embeds[0], atol=1e-6)
    assert torch.allclose(encoder.embed(Text("a red chair")), both.text_embeds[0], atol=1e-6)
    raw = encoder.features(image)
    assert encoder.dim == 24 and raw.shape == (24,) and not torch.allclose(raw.norm(), torch.tensor(1.0), atol=1e-2)


def test_the_picture_tower_of_a_diffusers_folder(whole: Path, image: Image, tmp_path: Path) -> None:
    both = transformers.CLIPModel.from_pretrained(whole)
    config = both.config.vision_config
    config.projection_dim = 24
    tower = transformers.CLIPVisionModelWithProjection(config)
    tower.vision_model.load_state_dict(both.vision_model.state_dict())
    tower.visual_projection.load_state_dict(both.visual_projection.state_dict())
    tower.save_pretrained(tmp_path / "image_encoder")
    encoder = clip.load(tmp_path)
    assert torch.allclose(encoder.embed(image), clip.load(whole).embed(image), atol=1e-6)
    with pytest.raises(BadInput, match="picture tower alone"):
        encoder.embed(Text("a chair"))
    with pytest.raises(BadInput, match="not Points"):
        encoder.embed(Points(np.random.default_rng(0).random((80, 3), np.float32)))


def test_renders_are_embedded_with_a_gradient(whole: Path) -> None:
    encoder = clip.load(whole)
    shown = torch.rand(2, 3, 64, 64, requires_grad=True)
    vectors = encoder.images(shown)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2), atol=1e-5)
    vectors[:, 0].sum().backward()
    assert shown.grad is not None and (shown.grad.abs().sum((1, 2, 3)) > 0).all()


def test_a_render_and_the_same_picture_agree() -> None:
    smooth = np.linspace(0, 255, 224 * 3).reshape(1, 224, 3).repeat(224, 0).astype(np.uint8)
    render = torch.from_numpy(smooth).permute(2, 0, 1)[None] / 255
    assert np.abs(normalised(render)[0].numpy() - picture(Image.from_rgba(smooth))).max() < 1e-5


def test_what_is_no_clip_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no config\.json"):
        clip.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(WeightsError, match="'bert'"):
        clip.load(tmp_path)
    (tmp_path / "config.json").write_text((whole / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(WeightsError, match="no safetensors"):
        clip.load(tmp_path)
    from safetensors.torch import load_file, save_file

    state = load_file(whole / "model.safetensors")
    state.pop("visual_projection.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="disagrees with CLIPModel in 1 tensors, first visual"):
        clip.load(tmp_path)
