"""Miniatures in the published layout: read, compared with the published formulas, converted, read again, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from anyform.errors import BadInput, WeightsError
from anyform.systems.wala import checkpoint
from anyform.systems.wala.released_shapes import infer
from anyform.types.camera import Cameras
from anyform.types.prompt import Image, Points, Sketch, Views, Voxels
from anyform.weights import InMemory

KINDS = {
    "voxels": ("voxel_state", {}, 40, {"use_voxel_conditions": True, "voxel_dim": 8}),
    "points": ("pointnet_state", {}, 40, {"use_pointcloud_conditions": True, "num_inds": 9}),
    "points-simple": ("pointnet_state", {"simple": True}, 40, {"pc_encoder_type": "PointNet_Simple"}),
    "image": ("dino_state", {}, 64, {"use_image_conditions": True, "clip_model_type": "dino-l-14"}),
    "views": (
        "dino_state",
        {"views": 4, "mapping": 1},
        64,
        {"use_multiple_views_grids": True, "use_camera_index": True, "training_views": [3, 6, 10, 26]},
    ),
    "depths": (
        "dino_state",
        {"views": 2},
        64,
        {"use_depth_conditions": True, "use_multiple_views_grids": True, "training_views": [49, 50]},
    ),
}


def state_of(miniature, kind: str, seed: int = 0) -> dict[str, torch.Tensor]:
    builder, options, context, _ = KINDS[kind]
    return {
        **miniature.uvit_state(seed, context=context),
        **miniature.vq_state(seed + 1),
        **getattr(miniature, builder)(seed + 2, **options),
    }


@pytest.fixture(scope="module")
def folders(miniature, tmp_path_factory) -> dict[str, Path]:
    """One published folder a kind of condition."""
    root = tmp_path_factory.mktemp("released")
    return {kind: miniature.write(root / kind, state_of(miniature, kind), KINDS[kind][3]) for kind in KINDS}


def prompt_of(kind: str):
    rng = np.random.default_rng(0)
    if kind == "voxels":
        return Voxels(rng.random((16, 16, 16)) < 0.3)
    if kind.startswith("points"):
        return Points(rng.uniform(-0.9, 0.9, (80, 3)).astype(np.float32))
    if kind == "image":
        return Image(rng.integers(0, 256, (50, 70, 4), dtype=np.uint8))
    views = KINDS[kind][3]["training_views"]
    cameras = Cameras.orbit(np.arange(len(views)) * 1.0, np.float64(0.2), 2.0, 0.7, 48)
    if kind == "views":
        return Views("rgb", rng.random((4, 48, 48, 4)).astype(np.float32), cameras, tuple(views))
    depth = rng.uniform(1, 3, (2, 48, 48, 1)).astype(np.float32)
    depth[:, :5] = np.inf
    return Views("depth", depth, cameras, tuple(views))


def test_a_published_folder_is_read_through_the_child_process(folders, miniature) -> None:
    model = checkpoint.load(folders["points"])
    state = state_of(miniature, "points")
    assert torch.equal(model.network.blocks[1].mlp.second.weight, state["network.unet.blocks.1.mlp.fc2.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_folder_is_read_and_survives_conversion(kind, folders, miniature, tmp_path) -> None:
    model = checkpoint.load(folders[kind])
    state = state_of(miniature, kind)
    assert model.config.uvit.grid == model.config.vqvae.latent_size == 6
    assert model.config.sdf_size == 64
    assert not model.network.training

    condition = model.conditions.condition(prompt_of(kind))
    null = model.conditions.null_condition()
    assert condition.tokens.shape == null.tokens.shape
    assert not torch.allclose(condition.tokens, null.tokens)
    x = torch.randn(1, 4, 6, 6, 6)
    with torch.no_grad():
        found = model.network(x, torch.tensor([250]), condition)
    uvit = {name: value for name, value in state.items() if name.startswith("network.unet.")}
    expected = miniature.uvit_oracle(uvit, x, torch.tensor([250]), condition.tokens)
    assert torch.allclose(found.double(), expected, atol=1e-4 * expected.abs().max().item())

    out = checkpoint.convert(folders[kind], tmp_path / "converted")
    assert sorted(path.name for path in out.iterdir()) == [
        "cond.safetensors", "config.json", "net.safetensors", "vq.safetensors",
    ]  # fmt: skip
    again = checkpoint.load(out)
    assert again.config == model.config
    for part, module in model.parts().items():
        for name, value in module.state_dict().items():
            assert torch.equal(value, again.parts()[part].state_dict()[name]), name
    assert torch.equal(again.conditions.condition(prompt_of(kind)).tokens, condition.tokens)
    assert torch.equal(again.conditions.null_condition().tokens, null.tokens)
    latent = torch.randn(1, 4, 6, 6, 6)
    with torch.no_grad():
        assert torch.equal(again.network(x, torch.tensor([250]), condition), found)
        assert torch.equal(again.vqvae.decode(latent), model.vqvae.decode(latent))


@pytest.mark.parametrize("kind", ["voxels", "points", "image"])
def test_every_published_tensor_arrives_once(kind, folders, miniature) -> None:
    """The values in our modules are the published values, as multisets: nothing dropped, doubled or changed."""
    model = checkpoint.load(folders[kind])
    dropped = ("dwt_", "autoencoder.dwt_", "clip_model.dinov2.mask_token")
    expected = [v for name, v in state_of(miniature, kind).items() if not name.startswith(dropped)]
    found = [value for module in model.parts().values() for value in module.state_dict().values()]
    assert len(found) == len(expected)
    fingerprints = [sorted((tuple(v.shape), v.double().sum().item()) for v in values) for values in (found, expected)]
    assert fingerprints[0] == fingerprints[1]


def test_named_tensors_land_where_the_tables_say(folders, miniature) -> None:
    state, model = state_of(miniature, "voxels"), checkpoint.load(folders["voxels"])
    vq, net, cond = model.vqvae, model.network, model.conditions
    pairs = [
        (vq.encoder.stages[1][1].conv2.weight, "autoencoder.encoder.res_2_1.out_layers.3.weight"),
        (vq.encoder.last.norm1.bias, "autoencoder.encoder.res_out.in_norm.bias"),
        (vq.decoder.first.conv1.weight, "autoencoder.decoder.res_in.in_conv.weight"),
        (vq.decoder.stages[0][0].conv1.weight, "autoencoder.decoder.res_1.in_conv.weight"),
        (vq.decoder.stages[2][1].norm2.weight, "autoencoder.decoder.res_3_1.out_layers.0.weight"),
        (vq.codebook.embedding, "autoencoder.quantize.embedding.weight"),
        (net.time.second.weight, "network.unet.t_embedder.mlp.2.weight"),
        (net.pool_residual.out1.bias, "network.unet.res_cond_proj_layer.mlp.0.bias"),
        (net.pool_block.norm2.weight, "network.unet.global_proj.proj_layer.4.weight"),
        (net.up[1].skip_norm.weight, "network.unet.output_blocks.1.skip_norm.weight"),
        (net.down[0].factor.weight, "network.unet.input_blocks.0.linear_res_emb.weight"),
        (net.blocks[1].cross_attention.kv.weight, "network.unet.blocks.1.cross_attn.kv.weight"),
        (net.blocks[0].modulation.bias, "network.unet.blocks.0.adaLN_modulation.1.bias"),
        (net.patch_in.linear.weight, "network.unet.to_patch_att_embedding_input.2.weight"),
        (net.patch_out.linear.weight, "network.unet.to_patch_att_embedding_output.1.weight"),
        (cond.positions, "network.cond_pos_emb"),
        (cond.encoder.coarse[2].conv1.weight, "encoder.res_6.in_conv.weight"),
        (cond.encoder.fine[0].conv2.weight, "encoder.res_1.out_layers.3.weight"),
    ]
    for ours, theirs in pairs:
        assert torch.equal(ours, state[theirs]), theirs


def test_optional_parts_are_seen_in_the_shapes(miniature) -> None:
    state = {
        **miniature.uvit_state(0, patch=2, registers=3, reduction=4, pooled=False, depth=3),
        **miniature.vq_state(1, token_blocks=2),
        **miniature.voxel_state(2),
    }
    args = {"resolution": 64, "diffusion_model_var_type": "FIXED_LARGE", "normalize_latent": "l2_norm"}
    config = infer(InMemory(state), args)
    assert (config.uvit.patch, config.uvit.registers, config.uvit.learnable_skip, config.uvit.depth) == (2, 3, 4, 3)
    assert not config.uvit.pooled_modulation
    assert config.vqvae.transformer_blocks == (2, 2)
    assert config.vqvae.normalised_codes
    assert config.variance == "fixed_large"
    model = checkpoint.assemble(InMemory(state), config)
    assert torch.equal(
        model.vqvae.encoder.tblocks.blocks[1].k.weight, state["autoencoder.encoder.t_blocks.1.att.to_k.1.weight"]
    )
    unconditional = {
        **miniature.uvit_state(0, cross=False, pooled=False, factor=0),
        **miniature.vq_state(1),
    }
    model = checkpoint.assemble(InMemory(unconditional), infer(InMemory(unconditional), {"resolution": 64}))
    assert model.conditions is None
    assert model.config.uvit.condition_width == 0


def test_ema_and_compiled_weights_are_a_choice(miniature, tmp_path) -> None:
    plain, averaged = state_of(miniature, "voxels", 0), state_of(miniature, "voxels", 10)
    compiled = {name.replace("autoencoder.", "autoencoder._orig_mod."): value for name, value in plain.items()}
    folder = miniature.write(tmp_path / "both", compiled, {}, ema=averaged)
    name = "network.unet.conv_in.weight"
    assert torch.equal(checkpoint.load(folder).network.stem.weight, plain[name])
    assert torch.equal(checkpoint.load(folder, "ema").network.stem.weight, averaged[name])
    with pytest.raises(WeightsError, match="no EMA weights"):
        checkpoint.select([f"state_dict.{name}"], "ema")
    assert checkpoint.select(plain, "state_dict")[name] == name


def test_null_tokens_are_the_embeddings_themselves(folders, miniature) -> None:
    state, model = state_of(miniature, "depths"), checkpoint.load(folders["depths"])
    tokens = model.conditions.null_condition().tokens.reshape(1, 2, 9, 64)
    for view in range(2):
        expected = state["network.cond_pos_emb"][0] + state["network.camera_emb.weight"][view]
        assert torch.allclose(tokens[0, view], expected, atol=1e-6)


def test_views_take_their_camera_by_training_order(folders) -> None:
    conditions = checkpoint.load(folders["views"]).conditions
    views = prompt_of("views")
    order = [2, 0, 3, 1]
    cameras = Cameras(views.cameras.camera_to_world[order], views.cameras.fov_y[order], 48, 48)
    shuffled = Views("rgb", views.pixels[order], cameras, tuple(views.view_ids[i] for i in order))
    assert torch.equal(conditions.condition(shuffled).tokens, conditions.condition(views).tokens)
    unnamed = Views("rgb", views.pixels, views.cameras)
    assert torch.equal(conditions.condition(unnamed).tokens, conditions.condition(views).tokens)
    with pytest.raises(BadInput, match=r"\[3, 6, 10, 26\].*\[0, 6, 10, 26\]"):
        conditions.condition(Views("rgb", views.pixels, views.cameras, (0, 6, 10, 26)))
    with pytest.raises(BadInput, match="4 views, got 2"):
        half = Cameras(views.cameras.camera_to_world[:2], views.cameras.fov_y[:2], 48, 48)
        conditions.condition(Views("rgb", views.pixels[:2], half))


@pytest.mark.parametrize(
    ("kind", "wrong"), [("voxels", "points"), ("points", "image"), ("image", "depths"), ("depths", "views")]
)
def test_a_prompt_of_another_kind_is_refused(kind, wrong, folders) -> None:
    with pytest.raises(BadInput, match="this WaLa checkpoint reads"):
        checkpoint.load(folders[kind]).conditions.condition(prompt_of(wrong))


def test_an_image_model_reads_a_sketch_as_black_lines_on_white(folders) -> None:
    conditions = checkpoint.load(folders["image"]).conditions
    ink = np.zeros((60, 60), np.float32)
    ink[20:24, 10:50] = 1
    drawing = np.full((60, 60, 4), 255, np.uint8)
    drawing[20:24, 10:50, :3] = 0
    assert torch.equal(conditions.condition(Sketch(ink)).tokens, conditions.condition(Image(drawing)).tokens)


def test_other_models_are_refused_with_the_first_keys(miniature, tmp_path) -> None:
    state = state_of(miniature, "voxels")
    missing = {name: v for name, v in state.items() if ".res_2_1." not in name}
    with pytest.raises(
        WeightsError, match=r"16 tensors are missing \(autoencoder.decoder.res_2_1.in_conv.bias, .*, .*\)"
    ):
        checkpoint.assemble(InMemory(missing), infer(InMemory(missing), {"resolution": 64}))
    extra = {**state, "network.unet.surprise": torch.zeros(1), "cond_zero_emb": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"2 are unexpected \(cond_zero_emb, network.unet.surprise\)"):
        checkpoint.assemble(InMemory(extra), infer(InMemory(extra), {"resolution": 64}))
    shape = {**state, "network.unet.out.0.bias": torch.zeros(7)}
    with pytest.raises(WeightsError, match=r"network.unet.out.0.bias is \(7,\), expected \(32,\)"):
        checkpoint.assemble(InMemory(shape), infer(InMemory(shape), {"resolution": 64}))
    with pytest.raises(WeightsError, match=r"network\.unet\.pos_emb is missing"):
        infer(InMemory({"model.diffusion_model.weight": torch.zeros(1)}), {})
    for args, message in [
        ({"resolution": 256}, "latent of 12³, the denoiser works on 6³"),
        ({"wavelet": "haar"}, "wavelet = 'haar'"),
        ({"diffusion_model_mean_type": "EPSILON"}, "predicts EPSILON"),
        ({"resolution": "big"}, "resolution = 'big'"),
        ({"padding_mode": "reflect"}, "reflect"),
    ]:
        with pytest.raises(WeightsError, match=message):
            infer(InMemory(state), {"resolution": 64, **args})


def test_damaged_files_are_refused(miniature, tmp_path) -> None:
    folder = miniature.write(tmp_path / "model", state_of(miniature, "voxels"), {})
    whole = (folder / "checkpoint.ckpt").read_bytes()
    (folder / "checkpoint.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError):
        checkpoint.load(folder)
    (folder / "checkpoint.ckpt").write_bytes(whole)
    (folder / "args.json").write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(WeightsError, match="no JSON object"):
        checkpoint.load(folder)
    (folder / "args.json").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        checkpoint.load(folder)
    assert checkpoint.is_released(folder)
    assert not checkpoint.is_released(tmp_path)


def test_converting_keeps_what_is_there_and_half_precision_is_a_choice(folders, tmp_path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(BadInput, match="exists"):
        checkpoint.convert(folders["voxels"], taken)
    with pytest.raises(BadInput, match="cannot be written"):
        checkpoint.convert(folders["voxels"], tmp_path / "absent" / "out")
    half = checkpoint.load(checkpoint.convert(folders["voxels"], tmp_path / "half", dtype=torch.bfloat16))
    exact = checkpoint.load(folders["voxels"])
    assert torch.equal(half.network.stem.weight, exact.network.stem.weight.bfloat16().float())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "taken"]


def test_a_changed_config_is_refused(folders, tmp_path) -> None:
    out = checkpoint.convert(folders["voxels"], tmp_path / "converted")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    for change, message in [
        ({"format": "other"}, "not of the format"),
        ({"uvit": {**config["uvit"], "depth": 3}}, "3 tensors|tensors are missing"),
        ({"uvit": {**config["uvit"], "surprise": 3}}, "surprise"),
        ({"condition": {**config["condition"], "encoder": {"stem": 3}}}, "no known encoder"),
    ]:
        (out / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
        with pytest.raises(WeightsError, match=message):
            checkpoint.load(out)
