"""Zero-1-to-3 in its released layouts against diffusers and transformers holding the same weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anyform.diffusion.schedule import scaled_linear
from anyform.encoders.clip_towers import TowerConfig, VisionTower, clip_pixels, openai_name
from anyform.errors import WeightsError
from anyform.nn.autoencoder_kl import AutoencoderConfig, AutoencoderKL
from anyform.nn.unet2d import UNet2D
from anyform.priors import ldm_keys, zero123


@pytest.fixture(scope="module")
def state(miniatures: Any) -> dict[str, Tensor]:
    return miniatures.ldm_state()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, miniatures: Any, state: dict[str, Tensor]) -> Path:
    made = tmp_path_factory.mktemp("zero123")
    miniatures.write_checkpoint(made, state)
    return made


def foreign(state: dict[str, Tensor], *, ema: bool) -> tuple[Any, Any, Any]:
    """diffusers' U-Net and autoencoder through diffusers' own converters, transformers' tower through a map of ours."""
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    from diffusers.loaders import single_file_utils as converters

    shape = {"norm_num_groups": 32, "layers_per_block": 1}
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=8, out_channels=4, block_out_channels=(32, 64), cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, **shape,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 64), latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, **shape,
    ).eval()  # fmt: skip
    raw = dict(state)
    if ema:
        for name in [name for name in raw if name.startswith("model.diffusion_model.")]:
            raw[name] = state["model_ema." + name.removeprefix("model.").replace(".", "")]
    unet.load_state_dict(converters.convert_ldm_unet_checkpoint(dict(raw), config=dict(unet.config)))
    vae.load_state_dict(converters.convert_ldm_vae_checkpoint(dict(raw), config=dict(vae.config)))
    config = transformers.CLIPVisionConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96, patch_size=4, image_size=16,
        projection_dim=16, hidden_act="quick_gelu",
    )  # fmt: skip
    tower = transformers.CLIPVisionModelWithProjection(config).eval()
    tower.load_state_dict(transformers_tower(state))
    return unet, vae, tower


def transformers_tower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    visual = {name.split("visual.")[1]: value for name, value in state.items() if "visual." in name}
    made = {
        "vision_model.embeddings.class_embedding": visual["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": visual["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": visual["positional_embedding"],
        "visual_projection.weight": visual["proj"].T,
    }
    for ours, theirs in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        for kind in ("weight", "bias"):
            made[f"vision_model.{ours}.{kind}"] = visual[f"{theirs}.{kind}"]
    for layer in range(2):
        block, place = f"transformer.resblocks.{layer}.", f"vision_model.encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            for part, name in zip(visual[f"{block}attn.in_proj_{kind}"].split(64), "qkv", strict=True):
                made[f"{place}self_attn.{name}_proj.{kind}"] = part
            for ours, theirs in (
                ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
            ):  # fmt: skip
                made[f"{place}{ours}.{kind}"] = visual[f"{block}{theirs}.{kind}"]
    return {name: value.clone() for name, value in made.items()}


@pytest.mark.parametrize("ema", [None, False])
def test_a_checkpoint_computes_what_diffusers_computes(
    folder: Path, state: dict[str, Tensor], ema: bool | None
) -> None:
    prior = zero123.load(folder / "mini.ckpt", ema)
    unet, vae, tower = foreign(state, ema=ema is None)
    torch.manual_seed(1)
    image, camera = torch.rand(1, 3, 16, 16), torch.tensor([[0.2, 0.5, 0.8, -0.1], [-0.3, 0.0, 1.0, 0.0]])
    x_t, t = torch.randn(2, 4, 8, 8), torch.tensor([11, 870])
    with torch.no_grad():
        seen = tower(pixel_values=clip_pixels(image, 16)).image_embeds.expand(2, -1)
        joined = torch.cat([seen, camera], -1)
        tokens = (joined @ state["cc_projection.weight"].T + state["cc_projection.bias"])[:, None]
        mode = vae.encode(image * 2 - 1).latent_dist.mode()
        expected = unet(torch.cat([x_t, mode.expand(2, -1, -1, -1)], 1), t, encoder_hidden_states=tokens).sample
        condition = prior.condition(image, camera)
        found = prior.denoiser(x_t, t, condition)
    assert condition.tokens is not None and condition.image_latent is not None
    assert torch.allclose(condition.tokens, tokens, atol=1e-5)
    assert torch.allclose(condition.image_latent, mode.expand(2, -1, -1, -1), atol=1e-5)  # the mode, unscaled
    assert expected.std() > 0.05 and torch.allclose(found.eps, expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(prior.codec.encode(image), mode * 0.2, atol=1e-5)
    assert torch.allclose(
        prior.codec.decode(mode * 0.2), ((vae.decode(mode).sample.detach() + 1) / 2).clamp(0, 1), atol=1e-5
    )
    assert (prior.image_size, prior.latent_shape) == (16, (4, 8, 8))


def test_the_null_is_zero_after_the_projection(folder: Path) -> None:
    prior = zero123.load(folder / "mini.ckpt")
    null = prior.null(prior.condition(torch.rand(1, 3, 16, 16), torch.zeros(3, 4)))
    assert null.tokens is not None and null.image_latent is not None
    assert null.tokens.shape == (3, 1, 16) and not null.tokens.any()
    assert null.image_latent.shape == (3, 4, 8, 8) and not null.image_latent.any()


def test_a_larger_reference_is_resized(folder: Path) -> None:
    prior = zero123.load(folder / "mini.ckpt")
    condition = prior.condition(torch.rand(1, 3, 40, 40), torch.zeros(1, 4))
    assert condition.image_latent is not None and condition.image_latent.shape == (1, 4, 8, 8)


@pytest.mark.parametrize("component, key", [("cc_projection", "projection"), ("clip_camera_projection", "proj")])
def test_a_diffusers_folder_is_the_same_prior(
    tmp_path: Path, folder: Path, state: dict[str, Tensor], component: str, key: str
) -> None:
    from safetensors.torch import save_file

    unet, vae, tower = foreign(state, ema=True)
    unet.save_pretrained(tmp_path / "unet")
    vae.register_to_config(scaling_factor=0.2)
    vae.save_pretrained(tmp_path / "vae")
    tower.save_pretrained(tmp_path / "image_encoder")
    (tmp_path / component).mkdir()
    linear = {f"{key}.weight": state["cc_projection.weight"], f"{key}.bias": state["cc_projection.bias"]}
    save_file(linear, tmp_path / component / "diffusion_pytorch_model.safetensors")
    (tmp_path / "scheduler").mkdir()  # as the public converter writes it: a hundred times the betas
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"beta_start": 0.02, "beta_end": 0.085, "beta_schedule": "scaled_linear"}), encoding="utf-8"
    )
    ours, original = zero123.load(tmp_path), zero123.load(folder / "mini.ckpt")
    expected = scaled_linear(0.00085, 0.012, 1000).alphas_cumprod
    assert torch.equal(ours.schedule.alphas_cumprod, expected) and float(expected[-1]) == pytest.approx(
        0.00466, abs=1e-5
    )
    torch.manual_seed(2)
    image, camera, x_t = torch.rand(1, 3, 16, 16), torch.tensor([[0.1, 0.0, 1.0, 0.3]]), torch.randn(1, 4, 8, 8)
    first = ours.denoiser(x_t, 500, ours.condition(image, camera)).eps
    assert torch.allclose(first, original.denoiser(x_t, 500, original.condition(image, camera)).eps, atol=1e-5)


def test_full_size_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        unet = UNet2D(ldm_keys.unet_config(zero123.RELEASED["unet_config"]["params"]))
        vae = AutoencoderKL(AutoencoderConfig())
        tower = VisionTower(TowerConfig())
    shapes = {ldm_keys.unet_name(name, unet.config): tuple(value.shape) for name, value in unet.state_dict().items()}
    assert len(shapes) == len(unet.state_dict()) == 686
    assert shapes["input_blocks.0.0.weight"] == (320, 8, 3, 3)
    assert shapes["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)
    assert shapes["input_blocks.9.0.op.weight"] == (1280, 1280, 3, 3)
    assert shapes["middle_block.1.proj_in.weight"] == (1280, 1280, 1, 1)
    assert shapes["output_blocks.2.1.conv.weight"] == (1280, 1280, 3, 3)
    assert shapes["output_blocks.5.2.conv.weight"] == (1280, 1280, 3, 3)
    assert shapes["output_blocks.11.0.skip_connection.weight"] == (320, 640, 1, 1)
    assert shapes["out.2.weight"] == (4, 320, 3, 3)
    first_stage = {ldm_keys.autoencoder_name(name, vae.config) for name in vae.state_dict()}
    assert len(first_stage) == len(vae.state_dict()) == 248
    assert {"decoder.up.0.block.2.conv2.weight", "encoder.down.2.downsample.conv.bias"} <= first_stage
    assert {"decoder.up.3.upsample.conv.weight", "encoder.mid.attn_1.proj_out.weight"} <= first_stage
    assert sum(value.numel() for value in tower.state_dict().values()) == pytest.approx(303.97e6, rel=1e-4)
    assert len({openai_name(name)[0] for name in tower.state_dict()}) == 8 + 24 * 12


def test_what_is_missing_or_left_over_is_named(tmp_path: Path, miniatures: Any, state: dict[str, Tensor]) -> None:
    without = {name: value for name, value in state.items() if not name.startswith("model_ema.")}
    path = miniatures.write_checkpoint(tmp_path, without)
    assert zero123.load(path).image_size == 16
    with pytest.raises(WeightsError, match="no moving averages"):
        zero123.load(path, ema=True)
    miniatures.write_checkpoint(tmp_path, {**without, "model.diffusion_model.extra.weight": torch.zeros(2)})
    with pytest.raises(WeightsError, match="1 tensors its configuration has no place for"):
        zero123.load(path)
    miniatures.write_checkpoint(tmp_path, {n: v for n, v in without.items() if "middle_block.0" not in n})
    with pytest.raises(WeightsError, match="lack 10 tensors"):
        zero123.load(path)
    section = copy.deepcopy(miniatures.SECTION)
    section["unet_config"]["params"]["context_dim"] = 24
    miniatures.write_checkpoint(tmp_path, without, section)
    with pytest.raises(WeightsError, match=r"is \(\d+, 16\), this model has"):
        zero123.load(path)
    path.with_suffix(".yaml").write_text("model: [1, 2]", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"no model\.params"):
        zero123.load(path)
    with pytest.raises(WeightsError, match="is missing or is no JSON"):
        zero123.load(tmp_path)
