"""Foundations from files and folders: the embedded format, tiny diffusers pipelines with their text encoders."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from anyform.diffusion.schedule import cosine, scaled_linear
from anyform.errors import WeightsError
from anyform.systems.tunemv3d.foundation_diffusers import AutoencoderCodec, latent_codec, load_unet
from anyform.systems.tunemv3d.foundations import FAMILIES, load_foundation, schedule_of

DDPM: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def stable_diffusion(folder: Path, tiny_foundation: ModuleType) -> Path:
    """A StableDiffusionPipeline folder of a few thousand weights, in the layout that diffusers saves."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    config, _ = tiny_foundation.FAMILIES["stable-diffusion"]
    UNet2DConditionModel(**config).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=32,
    ).save_pretrained(folder / "vae")  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, eos_token_id=1
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    vocabulary = [
        "<|startoftext|>",
        "<|endoftext|>",
        "a",
        "c",
        "h",
        "i",
        "r",
        "r</w>",
        "a</w>",
        "ch",
        "ai",
        "chai",
        "chair</w>",
    ]
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}), encoding="utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\nc h\na i\nch ai\nchai r</w>\n", encoding="utf-8")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}),
        encoding="utf-8",
    )
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(DDPM), encoding="utf-8")
    index = {"_class_name": "StableDiffusionPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def test_a_stable_diffusion_folder_is_a_latent_foundation(tiny_foundation: ModuleType, tmp_path: Path) -> None:
    foundation = load_foundation(stable_diffusion(tmp_path / "sd", tiny_foundation))
    spec = foundation.spec
    assert (spec.kind, spec.channels, spec.size, spec.picture_size, spec.reading) == ("latent", 4, 16, 32, "eps")
    assert spec.commercial_use == FAMILIES["StableDiffusionPipeline"].commercial_use
    assert torch.equal(foundation.schedule.betas, scaled_linear(0.00085, 0.012).betas)
    one, two = foundation.captions(["a chair", ""]).tokens
    assert one.shape == (77, 16) and not torch.allclose(one, two)
    x0 = foundation.codec.encode(torch.rand(2, 3, 32, 32))
    assert x0.shape == (2, 4, 16, 16) and foundation.codec.decode(x0).shape == (2, 3, 32, 32)
    assert len(spec.background) == 4
    said = foundation.predict(x0, torch.tensor([5, 900]), foundation.captions(["a chair"]).repeated(2))
    assert said.value.shape == x0.shape and torch.isfinite(said.value).all()
    again = load_foundation(tmp_path / "sd")
    assert again.fingerprint() == foundation.fingerprint()


def test_the_autoencoder_gives_its_mode_and_its_scale(tiny_foundation: ModuleType, tmp_path: Path) -> None:
    folder = stable_diffusion(tmp_path / "sd", tiny_foundation)
    codec, white, factor = latent_codec(folder, "cpu")
    assert isinstance(codec, AutoencoderCodec) and factor == 2
    picture = torch.rand(1, 3, 16, 16)
    assert torch.equal(codec.encode(picture), codec.encode(picture))  # no draw
    mode = codec.network.encode(picture * 2 - 1).latent_dist.mode()
    assert torch.allclose(codec.encode(picture), mode * codec.scale)
    flat = codec.encode(torch.ones(1, 3, 32, 32))
    assert torch.allclose(flat.mean((0, 2, 3)), torch.tensor(white), atol=0.5)


def test_the_embedded_format_is_a_folded_pixel_foundation(tiny_foundation: ModuleType, tmp_path: Path) -> None:
    path = tiny_foundation.embedded_file(tmp_path / "foundation.safetensors")
    foundation = load_foundation(path)
    spec = foundation.spec
    assert (spec.id, spec.kind, spec.packing, spec.reading, spec.size) == ("anyform/foundation", "pixel", 2, "v", 16)
    caption = foundation.captions(["a chair", "", "a red chair"])
    assert caption.tokens.shape == (3, 16, 16) and caption.vectors["labels"].shape == (3, 16)
    assert not caption.tokens.requires_grad
    x = torch.randn(3, 3, 16, 16)
    said = foundation.predict(x, torch.tensor([1, 500, 999]), caption)
    assert said.value.shape == x.shape and torch.isfinite(said.x0).all()
    other = load_foundation(tiny_foundation.embedded_file(tmp_path / "other.safetensors", seed=4))
    assert other.fingerprint()["revision"] != foundation.fingerprint()["revision"]
    assert other.fingerprint()["config_sha256"] == foundation.fingerprint()["config_sha256"]


def test_what_is_no_foundation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no readable model_index"):
        load_foundation(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}', encoding="utf-8")
    with pytest.raises(WeightsError, match="FluxPipeline, which is no foundation"):
        load_foundation(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_unet(tmp_path)
    with pytest.raises(WeightsError, match="neither here"):
        load_foundation("someone/something")


def test_schedules_of_schedulers() -> None:
    assert torch.equal(schedule_of({"beta_schedule": "squaredcos_cap_v2"}).betas, cosine(1000).betas)
    linear = schedule_of({"beta_schedule": "linear", "beta_start": 0.1, "beta_end": 0.3, "num_train_timesteps": 3})
    assert linear.betas.tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(WeightsError, match="sigmoid"):
        schedule_of({"beta_schedule": "sigmoid"})


def test_licences_that_forbid_sale_say_so() -> None:
    assert FAMILIES["IFPipeline"].commercial_use == "no" and FAMILIES["IFPipeline"].kind == "pixel"


def test_the_random_foundation_is_the_same_everywhere_and_disturbs_nobody(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = load_foundation("random"), load_foundation("random")
    assert torch.equal(torch.get_rng_state(), before)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 990])
    caption = one.captions(["a chair"]).repeated(2)
    assert torch.equal(one.predict(x, t, caption).value, two.predict(x, t, caption).value)
    assert one.fingerprint() == two.fingerprint() and one.spec.id == "random"
