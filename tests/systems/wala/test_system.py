"""WaLa as a user meets it: every kind of prompt on the shipped weights, and released layouts in miniature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anyform.errors import BadInput, BadSetting, GateFailed, WeightsError
from anyform.geometry.gate import gate
from anyform.systems.wala.config import WalaSettings
from anyform.systems.wala.system import EmbeddedWala, Wala, load, shortened
from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Views, Voxels

DRAFT = WalaSettings(quality="draft")


@pytest.fixture(scope="module")
def wala() -> EmbeddedWala:
    system = load(settings=DRAFT)
    assert isinstance(system, EmbeddedWala)
    return system


def prompts(fixtures: Path) -> dict[str, object]:
    return {
        "text": Text("a wooden chair"),
        "image": Image.open(fixtures / "image.png"),
        "plain image": Image.open(fixtures / "image_plain.png"),
        "sketch": Sketch.open(fixtures / "sketch.png"),
        "points": Points.open(fixtures / "points.ply"),
        "voxels": Voxels.open(fixtures / "voxels.json"),
        "views": Views.open(fixtures / "views", kind="rgb"),
        "depths": Views.open(fixtures / "depths", kind="depth"),
    }


@pytest.mark.parametrize("kind", ["text", "image", "plain image", "sketch", "points", "voxels", "views", "depths"])
def test_every_prompt_becomes_a_closed_coloured_mesh(wala, fixtures, kind):
    asset = wala.generate(prompts(fixtures)[kind], seed=1)
    report = gate(asset.mesh, allow_parts=True)
    assert report.ok, report.failures
    assert asset.mesh.vertex_color is not None
    assert asset.mesh.vertex_color.std() > 0
    assert np.abs(asset.mesh.vertices).max() <= 1.0
    assert asset.provenance.weights
    assert all(record.commercial_use == "yes" for record in asset.provenance.weights)


def test_the_same_seed_gives_the_same_mesh_and_another_seed_another(wala):
    first, again, other = (wala.generate(Text("a table"), seed=seed).mesh for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.vertices, again.vertices)
    np.testing.assert_array_equal(first.vertex_color, again.vertex_color)
    assert len(first.vertices) != len(other.vertices) or not np.allclose(first.vertices, other.vertices)


def test_provenance_names_the_shape_it_started_from(wala):
    asset = wala.generate(Text("a chair"), seed=0)
    (source,) = asset.provenance.sources
    assert source.licence == "CC0-1.0"
    assert source.share == pytest.approx(1 - DRAFT.variation)
    assert source.author
    alone = EmbeddedWala(
        wala.codec, wala.denoiser, wala.conditions, replace(DRAFT, from_scratch=True), wala.weights, wala.accepts
    )
    read = alone.conditions.read(Text("a chair"))
    assert alone.plan(read, 0) is None
    assert wala.plan(wala.conditions.read(Points(np.random.default_rng(0).random((100, 3), np.float32))), 0) is None


def test_a_prompt_far_from_the_corpus_is_told_so(wala):
    notes = wala._warnings(wala.conditions.read(Text("quantum chromodynamics of the theremin")))
    assert len(notes) == 1
    assert "nearest:" in notes[0]
    assert wala._warnings(wala.conditions.read(Text("a chair"))) == ()


def test_no_variation_gives_the_retrieved_shape_itself(wala):
    still = EmbeddedWala(
        wala.codec, wala.denoiser, wala.conditions, replace(DRAFT, variation=0.0), wala.weights, wala.accepts
    )
    prompt = Text("a wooden chair")
    neighbour = still.plan(still.conditions.read(prompt), 5)
    latent = still.conditions.latent(neighbour)
    np.testing.assert_array_equal(still.generate_sdf(prompt, seed=5), still.decode(latent)[0])


def test_sampling_draws_noise_as_the_public_code_does(wala):
    """x_T first, then one draw a step, the last included: replaying the draws by hand gives the same latent."""
    condition = wala.condition(Text("a lamp"))
    latent = wala.sample(condition, num_inference_steps=3, guidance_scale=1.5, seed=11)
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(latent.shape, generator=generator)
    schedule, steps = wala.denoiser.schedule, [0, 500, 999]
    with torch.inference_mode():
        for k in (2, 1, 0):
            null, full = (wala.denoiser(x, steps[k], c).x0 for c in (wala.null_condition(), condition))
            x0 = null + 1.5 * (full - null)
            bar = float(schedule.alphas_cumprod[steps[k]])
            before = float(schedule.alphas_cumprod[steps[k - 1]]) if k else 1.0
            beta = 1 - bar / before
            mean = beta * before**0.5 / (1 - bar) * x0 + (1 - before) * (1 - beta) ** 0.5 / (1 - bar) * x
            x = mean + (beta * (1 - before) / (1 - bar)) ** 0.5 * torch.randn(latent.shape, generator=generator) * (
                k > 0
            )
    torch.testing.assert_close(latent, x, atol=2e-3, rtol=1e-3)


def test_shortened_chain_starts_where_the_variation_says():
    assert shortened([0, 250, 500, 749, 999], 0.5)[-1] == 500
    assert shortened([0, 999], 1.0) == [0, 999]


def test_injected_nan_and_memory_end_as_the_right_error(wala, monkeypatch):
    monkeypatch.setenv("ANYFORM_FAULT", "nan:step=2")
    with pytest.raises(GateFailed, match="step 2"):
        wala.generate(Text("a chair"), seed=0)
    monkeypatch.setenv("ANYFORM_FAULT", "nan:stage=decode")
    with pytest.raises(GateFailed, match="NaN"):
        wala.generate(Text("a chair"), seed=0)
    monkeypatch.setenv("ANYFORM_FAULT", "oom:stage=decode")
    with pytest.raises(MemoryError):
        wala.generate(Text("a chair"), seed=0)


def test_an_empty_field_is_refused(wala, monkeypatch):
    monkeypatch.setattr(type(wala), "decode", lambda self, latent: np.ones((1, 64, 64, 64), np.float32))
    with pytest.raises(GateFailed, match="empty"):
        wala.generate(Text("a chair"), seed=0)


def test_audio_is_refused_with_what_is_read(wala):
    sound = np.sin(np.arange(16000) / 10).astype(np.float32)
    with pytest.raises(BadInput, match="not Audio"):
        wala.condition(Audio(sound, 16000))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_inference_steps", 1),
        ("guidance_scale", -1.0),
        ("variation", 1.5),
        ("resolution", 4096),
        ("faces", 3),
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(BadSetting, match=field):
        WalaSettings(**{field: value})


def test_a_released_folder_makes_meshes_without_colours(miniature, tmp_path):
    state = miniature.vq_state(0) | miniature.uvit_state(1, context=40) | miniature.voxel_state(2)
    folder = miniature.write(tmp_path / "VX16", state, {"use_voxel_conditions": True, "voxel_dim": 8, "resolution": 64})
    system = load(folder, "cpu", WalaSettings(quality="draft", num_inference_steps=2))
    assert isinstance(system, Wala)
    assert system.accepts == (Voxels,)
    occupancy = np.zeros((16, 16, 16), bool)
    occupancy[4:12, 4:12, 4:12] = True
    condition = system.condition(Voxels(occupancy))
    assert condition.tokens is not None
    latent = system.sample(condition, num_inference_steps=2, guidance_scale=3.0, seed=0)
    field = system.decode(latent)
    assert field.shape == (1, 64, 64, 64)
    np.testing.assert_array_equal(system.generate_sdf(Voxels(occupancy), seed=0).shape, (64, 64, 64))
    record = system.weights[0]
    assert record.id == "VX16"
    assert record.commercial_use == "unknown"
    packed = system.codec.pack(torch.from_numpy(field))
    snapped, codes = system.vqvae.quantise(system.vqvae.encode(packed))
    assert codes.shape[1] == snapped[0, 0].numel()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(WeightsError):
        load(tmp_path)


@pytest.mark.gpu
def test_a_gpu_samples_what_the_cpu_samples(miniature, tmp_path):
    state = miniature.vq_state(0) | miniature.uvit_state(1, context=40) | miniature.voxel_state(2)
    folder = miniature.write(tmp_path / "VX16", state, {"use_voxel_conditions": True})
    prompt = Voxels(np.random.default_rng(0).random((16, 16, 16)) < 0.3)
    latents = []
    for device in ("cpu", "cuda"):
        system = load(folder, device, WalaSettings(num_inference_steps=3, precision="float32"))
        condition = system.condition(prompt)
        latent = system.sample(condition, num_inference_steps=3, guidance_scale=1.5, seed=0)
        assert latent.device.type == device
        assert system.decode(latent).shape == (1, 64, 64, 64)
        latents.append(latent.cpu())
    assert torch.allclose(latents[0], latents[1], atol=1e-3 * latents[0].abs().max().item())


def test_what_depends_on_a_device_is_where_the_network_is(miniature, tmp_path, monkeypatch):
    """Without a GPU: everything that a step multiplies has to be on the network's device, here the one without data."""
    state = miniature.vq_state(0) | miniature.uvit_state(1, context=40) | miniature.voxel_state(2)
    folder = miniature.write(tmp_path / "VX16", state, {"use_voxel_conditions": True})
    system = load(folder, "cpu", WalaSettings(num_inference_steps=2, precision="float32"))
    system.denoiser.network.to("meta")
    system.conditions.to("meta")
    monkeypatch.setattr(torch, "isfinite", lambda value: torch.ones(1, dtype=torch.bool))  # meta tensors have no values
    condition = system.condition(Voxels(np.ones((16, 16, 16), bool)))
    latent = system.sample(condition, num_inference_steps=2, guidance_scale=1.5, seed=0)
    assert latent.device.type == "meta" and latent.shape == (1, 4, 6, 6, 6)


@pytest.mark.parametrize("paint", [None, True])
def test_released_shapes_are_coloured_only_when_asked(miniature, tmp_path, monkeypatch, paint):
    state = miniature.vq_state(0) | miniature.uvit_state(1, context=40) | miniature.voxel_state(2)
    folder = miniature.write(tmp_path / "VX16", state, {"use_voxel_conditions": True})
    axis = np.linspace(-1, 63 / 32 - 1, 64, dtype=np.float32)
    ball = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis))) - np.float32(0.6)
    monkeypatch.setattr(Wala, "decode", lambda self, latent: ball[None])
    system = load(folder, "cpu", WalaSettings(quality="draft", num_inference_steps=2, paint=paint))
    asset = system.generate(Voxels(np.ones((16, 16, 16), bool)), seed=0)
    assert (asset.mesh.vertex_color is not None) == (paint is True)
    assert any("not WaLa's" in note for note in asset.provenance.notes) == (paint is True)
    assert np.abs(np.linalg.norm(asset.mesh.vertices, axis=1) - 0.6).max() < 0.02


def test_number_formats_are_a_setting_and_agree(miniature, tmp_path):
    state = miniature.vq_state(0) | miniature.uvit_state(1, context=64) | miniature.dino_state(2)
    folder = miniature.write(tmp_path / "SV", state, {"use_image_conditions": True})
    picture = Image(np.random.default_rng(0).integers(0, 256, (60, 60, 4), dtype=np.uint8))
    latents = {}
    for precision in ("float32", "bfloat16"):
        system = load(folder, "cpu", WalaSettings(num_inference_steps=2, precision=precision))
        wanted = torch.bfloat16 if precision == "bfloat16" else torch.float32
        assert system.denoiser.network.blocks[0].mlp.first.weight.dtype == wanted
        assert system.conditions.encoder.blocks[0].mlp.first.weight.dtype == wanted
        assert system.denoiser.network.head.weight.dtype == system.conditions.positions.dtype == torch.float32
        latents[precision] = system.sample(system.condition(picture), num_inference_steps=2, guidance_scale=1.8, seed=0)
    error = (latents["bfloat16"] - latents["float32"]).norm() / latents["float32"].norm()
    assert 0 < error < 0.03
