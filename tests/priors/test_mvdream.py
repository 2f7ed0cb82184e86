"""MVDream in the original one-file layout: names and numbers against diffusers and transformers, cameras, sampler."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from anyform.encoders.open_clip_text import OpenClipTextConfig
from anyform.errors import BadInput, WeightsError
from anyform.nn.autoencoder_kl import AutoencoderConfig
from anyform.nn.ldm_keys import autoencoder_names, averaged_name, unet_names
from anyform.nn.unet2d import UNet2DConfig
from anyform.priors import mvdream
from anyform.weights import RELEASED

TINY = mvdream.MVDreamConfig(
    unet=UNet2DConfig(
        widths=(64, 128), attends=(False, True), layers=2, heads=(1, 2), token_width=64, labels=16, linear=True
    ),
    autoencoder=AutoencoderConfig(widths=(32, 32, 32, 32), layers=1),
    text=OpenClipTextConfig(width=64, layers=3, heads=1),
)


@pytest.fixture(scope="module")
def model() -> mvdream.MVDream:
    torch.manual_seed(0)
    made = mvdream.MVDream(TINY).eval().requires_grad_(False)
    for value in made.state_dict().values():
        value.normal_(std=0.05)
    for name, value in made.state_dict().items():
        if "norm" in name and name.endswith("weight"):
            value.add_(1)
    return made


def published(model: mvdream.MVDream, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors under their published names, with the leftovers that real files hold."""
    config = model.config
    state = {
        **{theirs: model.unet.state_dict()[ours] for ours, theirs in
           unet_names(model.unet, config.unet, "camera_embed").items()},
        **{theirs: model.autoencoder.state_dict()[ours] for ours, theirs in
           autoencoder_names(model.autoencoder, config.autoencoder).items()},
        **{f"cond_stage_model.model.{name}": value for name, value in model.text.state_dict().items()},
    }  # fmt: skip
    for name, value in state.items():
        if ".attn_1." in name and value.ndim == 2:
            state[name] = value[:, :, None, None]  # 1×1 convolutions in the original
    leftovers = ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_recip_alphas_cumprod",
                 "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
                 "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "logvar",
                 "cond_stage_model.model.logit_scale", "cond_stage_model.model.text_projection")  # fmt: skip
    state |= {name: torch.zeros(3) for name in leftovers}
    return {prefix + name: value for name, value in state.items()}


def test_released_sizes() -> None:
    with torch.device("meta"):
        full = mvdream.MVDream(mvdream.MVDreamConfig())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in full.named_children()}
    assert sum(counts.values()) == RELEASED["ADSKAILab/WaLa-MVDream-DM6"].parameters
    camera = 16 * 1280 + 1280 + 1280 * 1280 + 1280
    assert counts["unet"] == 865_910_724 + camera  # Stable Diffusion 2.1's U-Net
    assert counts["autoencoder"] == 83_653_863
    assert counts["text"] == 354_032_641 - 1024 * 1024 - 1  # OpenCLIP ViT-H's text side without projection and scale


@pytest.mark.parametrize("wrapped", [False, True])
def test_files_of_both_kinds_load_strictly(model: mvdream.MVDream, tmp_path: Path, wrapped: bool) -> None:
    state = published(model, "model." if wrapped else "")
    torch.save({"state_dict": state, "epoch": 1} if wrapped else state, tmp_path / "checkpoint.ckpt")
    again = mvdream.load(tmp_path)
    assert again.config == TINY
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    half = mvdream.load(tmp_path / "checkpoint.ckpt", dtype=torch.bfloat16)
    assert torch.equal(half.unet.conv_in.weight, model.unet.conv_in.weight.bfloat16())


def test_averaged_weights_are_used_where_they_are(model: mvdream.MVDream, tmp_path: Path) -> None:
    state = published(model)
    averaged = {averaged_name(name): value + 1 for name, value in state.items() if name.startswith("model.")}
    assert "model_ema.diffusion_modelinput_blocks00weight" in averaged
    torch.save({"state_dict": state | averaged}, tmp_path / "a.ckpt")
    weight = model.unet.conv_in.weight
    assert torch.equal(mvdream.load(tmp_path / "a.ckpt").unet.conv_in.weight, weight + 1)
    assert torch.equal(mvdream.load(tmp_path / "a.ckpt", ema=False).unet.conv_in.weight, weight)
    torch.save(state, tmp_path / "b.ckpt")
    with pytest.raises(WeightsError, match="no averaged weights"):
        mvdream.load(tmp_path / "b.ckpt", ema=True)


def test_other_files_are_refused(model: mvdream.MVDream, tmp_path: Path) -> None:
    state = published(model)
    lost = next(name for name in state if name.endswith("attn1.to_q.weight"))
    for change, words in (
        ({lost: None}, "1 tensors are missing"),
        ({"model.diffusion_model.surprise": torch.zeros(1)}, r"1 are unexpected \(model.diffusion_model.surprise\)"),
        ({"model.diffusion_model.out.0.bias": torch.zeros(3)}, "another shape"),
        ({"model.diffusion_model.camera_embed.0.weight": None}, "camera_embed.0.weight is missing"),
    ):
        changed = {name: value for name, value in (state | change).items() if value is not None}
        torch.save(changed, tmp_path / "a.ckpt")
        with pytest.raises(WeightsError, match=words):
            mvdream.load(tmp_path / "a.ckpt")
    torch.save({"w": torch.zeros(1)}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match="never halves"):
        mvdream.load(tmp_path / "a.ckpt")


def test_names_are_those_that_diffusers_converts(model: mvdream.MVDream) -> None:
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    state = published(model)
    found = single_file.convert_ldm_vae_checkpoint(
        dict(state), {"down_block_types": [0] * 4, "up_block_types": [0] * 4}
    )
    own = model.autoencoder.state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name].reshape(own[name].shape), own[name]) for name in own)
    labels = {name.replace("camera_embed", "label_emb.0"): value for name, value in state.items()}
    options = {"layers_per_block": 2, "class_embed_type": "projection", "down_block_types": [0] * 2}
    found = single_file.convert_ldm_unet_checkpoint(labels, options)
    own = model.unet.state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_the_network_is_diffusers_with_joint_self_attention(model: mvdream.MVDream) -> None:
    diffusers = pytest.importorskip("diffusers")
    frames, objects = 3, 2
    theirs = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(64, 128), layers_per_block=2, attention_head_dim=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64, use_linear_projection=True, class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    ).double()  # fmt: skip
    theirs.load_state_dict(model.unet.state_dict())

    class Joint:
        """diffusers' attention, written out, over the frames of an object together."""

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
            x = hidden_states
            if encoder_hidden_states is None:
                x = x.reshape(objects, -1, x.shape[-1])
            source = x if encoder_hidden_states is None else encoder_hidden_states
            heads = [part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in
                     (attn.to_q(x), attn.to_k(source), attn.to_v(source))]  # fmt: skip
            scores = (heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(heads[0].shape[-1])).softmax(-1)
            out = (scores @ heads[2]).transpose(1, 2).flatten(2)
            return attn.to_out[0](out).reshape(hidden_states.shape)

    theirs.set_attn_processor(Joint())
    generator = torch.Generator().manual_seed(1)
    count = frames * objects
    x, tokens = torch.randn(count, 4, 8, 8, generator=generator), torch.randn(count, 5, 64, generator=generator)
    cameras, t = torch.randn(count, 16, generator=generator), torch.full((count,), 499)
    with torch.no_grad():
        wanted = theirs(x.double(), t, tokens.double(), class_labels=cameras.double()).sample
        found = model.predict(x, t, tokens, cameras, frames)
        alone = model.predict(x, t, tokens, cameras, 1)
    assert torch.allclose(found.double(), wanted, atol=1e-4 * wanted.abs().max().item())
    assert not torch.allclose(found, alone, atol=1e-3 * wanted.abs().max().item()), "frames see each other"


def test_the_text_tower_is_transformers_penultimate_layer(model: mvdream.MVDream) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=1,
        hidden_act="gelu", max_position_embeddings=77, eos_token_id=49407, bos_token_id=49406,
    )  # fmt: skip
    theirs = transformers.CLIPTextModel(config).eval()
    own, state = model.text.state_dict(), {}
    state["embeddings.token_embedding.weight"] = own["token_embedding.weight"]
    state["embeddings.position_embedding.weight"] = own["positional_embedding"]
    for n in range(3):
        ours, block = f"transformer.resblocks.{n}.", f"encoder.layers.{n}."
        for kind in ("weight", "bias"):
            parts = own[f"{ours}attn.in_proj_{kind}"].chunk(3)
            state |= {f"{block}self_attn.{p}_proj.{kind}": part for p, part in zip("qkv", parts, strict=True)}
            for a, b in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
                         ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):  # fmt: skip
                state[f"{block}{b}.{kind}"] = own[f"{ours}{a}.{kind}"]
    for kind in ("weight", "bias"):
        state[f"final_layer_norm.{kind}"] = own[f"ln_final.{kind}"]
    wrapped = any(name.startswith("text_model.") for name in theirs.state_dict())
    missing = theirs.load_state_dict(
        {("text_model." if wrapped else "") + k: v for k, v in state.items()}, strict=False
    )
    assert not missing.unexpected_keys and all("position_ids" in name for name in missing.missing_keys)
    ids = torch.randint(0, 49408, (2, 77), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = theirs(input_ids=ids, output_hidden_states=True).hidden_states[-2]
        norm = theirs.text_model.final_layer_norm if wrapped else theirs.final_layer_norm
        assert torch.allclose(model.text(ids), norm(hidden), atol=1e-5)


def test_cameras_are_z_up_matrices_on_the_unit_sphere() -> None:
    vectors = mvdream.camera_vectors(mvdream.DEPTH_VIEWS)
    assert vectors.shape == (6, 16)
    for (azimuth, elevation), vector in zip([mvdream.VIEWS[v] for v in mvdream.DEPTH_VIEWS], vectors, strict=True):
        a, e, pose = math.radians(azimuth), math.radians(elevation), vector.double().reshape(4, 4).numpy()
        x, y, z = math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)
        np.testing.assert_allclose(pose[:3, 3], [x, -z, y], atol=1e-6)
        np.testing.assert_allclose(pose[:3, 2], pose[:3, 3], atol=1e-6)  # looks at the origin along −z of its own
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)
        assert np.linalg.det(pose[:3, :3]) > 0.99 and abs(pose[2, 0]) < 1e-6 and pose[2, 1] > 0
        np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])


def test_schedule_and_steps() -> None:
    chain = mvdream.schedule()
    assert math.isclose(chain.betas[0], 0.00085) and math.isclose(chain.betas[-1], 0.02)
    steps = mvdream.trailing(50)
    assert steps[:2] == [19, 39] and steps[-1] == 999 and len(steps) == 50
    for bad in (1, 0, 7, 1001):
        with pytest.raises(BadInput, match="divide 1000"):
            mvdream.trailing(bad)


def test_the_sampler_is_plain_ddim_in_float64() -> None:
    """Against the formula written out, ᾱ_0 at the end, for a made-up network."""
    noise = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def denoise(x: torch.Tensor, t: int) -> torch.Tensor:
        return torch.tanh(x) * (0.5 + t / 2000)

    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2, 0)
    x = noise
    for t, previous in ((999, 749), (749, 499), (499, 249), (249, 0)):
        eps = denoise(x, t)
        clean = (x - (1 - alphas[t]).sqrt() * eps) / alphas[t].sqrt()
        x = alphas[previous].sqrt() * clean + (1 - alphas[previous]).sqrt() * eps
    seen = []
    found = mvdream.sample(denoise, noise, 4, seen.append)
    assert torch.allclose(found, x, atol=1e-12)
    assert [(r.step, r.total) for r in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_words_and_seeds_decide_the_pictures(model: mvdream.MVDream) -> None:
    cameras = mvdream.camera_vectors(mvdream.COLOUR_VIEWS[:2])
    draw = lambda text, seed: model.draw(text, cameras, seed=seed, num_inference_steps=2)  # noqa: E731
    one = draw("a cup", 1)
    assert one.shape == (2, 256, 256, 3) and one.dtype == np.uint8 and one.std() > 0
    assert np.array_equal(one, draw("a cup", 1))
    assert not np.array_equal(one, draw("a cup", 2)) and not np.array_equal(one, draw("a wooden chair", 1))
    assert mvdream.as_asset("a cup") == "a cup, 3d asset" and mvdream.as_asset("a 3D cup") == "a 3D cup"
    with pytest.raises(BadInput, match="empty"):
        draw("  ", 0)
