"""Stable unCLIP: class labels against diffusers' own pipeline, and a tiny folder in the released layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anyform.diffusion.prior import guided
from anyform.diffusion.schedule import cosine
from anyform.encoders.clip_tokens import tokenise
from anyform.encoders.clip_towers import TextTower, TowerConfig
from anyform.errors import BadInput, BadSetting, WeightsError
from anyform.nn.unet2d import UNet2D, config_of_diffusers
from anyform.priors import sd_unclip

WIDTH = 12


def test_class_labels_by_hand() -> None:
    embedding, noise = torch.tensor([[3.0, -1.0, 0.5, 2.0]]), torch.tensor([[0.3, 0.1, -2.0, 1.0]])
    labels = sd_unclip.class_labels(embedding, 700, noise=noise)
    alpha_bar = float(cosine(1000).alphas_cumprod[700])
    assert labels.shape == (1, 8)
    assert torch.allclose(labels[:, :4], alpha_bar**0.5 * embedding + (1 - alpha_bar) ** 0.5 * noise, atol=1e-6)
    frequency = torch.tensor([1.0, 0.01])
    assert torch.allclose(labels[0, 4:], torch.cat([(700 * frequency).cos(), (700 * frequency).sin()]), atol=1e-4)


def test_a_level_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadSetting, match="between 0 and 999"):
        sd_unclip.class_labels(torch.ones(1, 4), 1000)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """diffusers' own pipeline of tiny random parts, without tokenizer and feature extractor."""
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), cross_attention_dim=32, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH, layers_per_block=1,
        use_linear_projection=True,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 64), latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1,
    )  # fmt: skip
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, vocab_size=49408,
            hidden_act="gelu", projection_dim=WIDTH,
        )
    )  # fmt: skip
    tower = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=4,
            image_size=8, projection_dim=WIDTH,
        )
    )  # fmt: skip
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    normaliser = StableUnCLIPImageNormalizer(embedding_dim=WIDTH)
    normaliser.mean.data, normaliser.std.data = torch.randn(1, WIDTH), torch.rand(1, WIDTH) + 0.5
    return diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=None, image_encoder=tower.eval(), image_normalizer=normaliser.eval(), tokenizer=None,
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"), text_encoder=text.eval(),
        unet=unet.eval(), vae=vae.eval(),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            clip_sample=False, set_alpha_to_one=False,
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pipeline: Any) -> Path:
    made = tmp_path_factory.mktemp("unclip")
    for name in (
        "unet",
        "vae",
        "text_encoder",
        "image_encoder",
        "image_normalizer",
        "scheduler",
        "image_noising_scheduler",
    ):
        getattr(pipeline, name).save_pretrained(made / name)
    return made


def test_class_labels_are_the_pipelines(pipeline: Any) -> None:
    embedding, noise = torch.randn(2, WIDTH), torch.randn(2, WIDTH)
    normaliser = pipeline.image_normalizer
    expected = pipeline.noise_image_embeddings(embedding, noise_level=321, noise=noise).detach()
    found = sd_unclip.class_labels(embedding, 321, noise=noise, mean=normaliser.mean.data, std=normaliser.std.data)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_folder_computes_what_the_pipeline_computes(folder: Path, pipeline: Any) -> None:
    prior = sd_unclip.load(folder)
    torch.manual_seed(4)
    embedding, noise, x_t = torch.randn(1, WIDTH), torch.randn(1, WIDTH), torch.randn(2, 4, 8, 8)
    ids = {text: torch.from_numpy(tokenise([text])) for text in ("", "a red chair")}
    with torch.no_grad():
        states = {text: pipeline.text_encoder(one)[0] for text, one in ids.items()}
        labels = pipeline.noise_image_embeddings(embedding, noise_level=5, noise=noise)
        expected = [
            pipeline.unet(
                x_t, torch.tensor(400), encoder_hidden_states=tokens.expand(2, -1, -1), class_labels=given.expand(2, -1)
            ).sample
            for tokens, given in ((states["a red chair"], labels), (states[""], torch.zeros_like(labels)))
        ]
        condition = prior.condition(text="a red chair", embedding=embedding, noise_level=5, noise=noise)
        said, null = prior.denoiser(x_t, 400, condition), prior.null(condition)
    assert condition.tokens is not None and torch.allclose(condition.tokens, states["a red chair"], atol=1e-5)
    assert null.labels is not None and null.labels.shape == (1, 2 * WIDTH) and not null.labels.any()
    assert said.reading == "v" and torch.allclose(said.v, expected[0], atol=1e-5)
    alpha, sigma = prior.schedule.alpha_sigma(400)
    assert torch.allclose(said.eps, float(alpha) * expected[0] + float(sigma) * x_t, atol=1e-5)
    with torch.no_grad():
        scaled = guided(prior, condition, 10.0)(x_t, 400).v
    assert torch.allclose(scaled, expected[1] + 10 * (expected[0] - expected[1]), atol=1e-4)


def test_the_codec_is_the_scaled_mode(folder: Path, pipeline: Any) -> None:
    prior, image = sd_unclip.load(folder), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        mode = pipeline.vae.encode(image * 2 - 1).latent_dist.mode()
        assert torch.allclose(prior.codec.encode(image), mode * 0.18215, atol=1e-5)
    assert (prior.image_size, prior.latent_shape) == (16, (4, 8, 8))


def test_the_whole_pipeline_from_the_same_noise(folder: Path, pipeline: Any) -> None:
    """Four DDIM steps under guidance, from the pipeline's latents to its picture."""
    from anyform.diffusion.samplers import ddim_step

    prior = sd_unclip.load(folder)
    embedding, start = torch.randn(1, WIDTH), torch.randn(1, 4, 8, 8)
    noise = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        condition = prior.condition(embedding=embedding, noise=noise)
        expected = pipeline(
            image_embeds=embedding, prompt_embeds=condition.tokens, negative_prompt_embeds=condition.tokens,
            latents=start, num_inference_steps=4, guidance_scale=10.0, output_type="pt",
            generator=torch.Generator().manual_seed(9),
        ).images  # fmt: skip
        x, denoise, alpha_bar = start, guided(prior, condition, 10.0), prior.schedule.alphas_cumprod
        for t in pipeline.scheduler.timesteps.tolist():
            x = ddim_step(denoise(x, t), alpha_bar[max(0, t - 250)])
    assert torch.allclose(prior.codec.decode(x), expected, atol=2e-4)


def test_another_vocabulary_is_read_from_the_folder(tmp_path: Path) -> None:
    pieces = [
        "l",
        "o",
        "w",
        "e",
        "r",
        "n",
        "lo",
        "w</w>",
        "r</w>",
        "er</w>",
        "low</w>",
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (tmp_path / "tokenizer").mkdir()
    vocabulary = json.dumps({piece: number for number, piece in enumerate(pieces)})
    (tmp_path / "tokenizer" / "vocab.json").write_text(vocabulary, encoding="utf-8")
    merges = "#version: 0.2\nl o\nlo w</w>\ne r</w>\n"
    (tmp_path / "tokenizer" / "merges.txt").write_text(merges, encoding="utf-8")
    tower = TextTower(TowerConfig(width=8, layers=1, heads=1, hidden=8, length=11, vocabulary=len(pieces)))
    read = sd_unclip.tokeniser(tmp_path, tower)
    assert read("Lower  newer low").tolist() == [[11, 6, 2, 9, 5, 3, 2, 9, 10, 12, 12]]
    assert read("low " * 30).tolist() == [[11, *[10] * 9, 12]] and read("").tolist() == [[11, *[12] * 10]]
    (tmp_path / "tokenizer" / "merges.txt").write_text(merges + "n o\n", encoding="utf-8")
    with pytest.raises(WeightsError, match="make 'no', which is no piece"):
        sd_unclip.tokeniser(tmp_path, tower)
    (tmp_path / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(WeightsError, match="no vocabulary of CLIP's kind"):
        sd_unclip.tokeniser(tmp_path, tower)


def test_full_size_is_the_published_network() -> None:
    table = {
        "in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048,
        "use_linear_projection": True, "norm_num_groups": 32,
    }  # fmt: skip
    with torch.device("meta"):
        unet = UNet2D(config_of_diffusers(table))
        reference = pytest.importorskip("diffusers").UNet2DConditionModel(sample_size=96, **table)
    theirs = {name: tuple(value.shape) for name, value in reference.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in unet.state_dict().items()} == theirs
    assert theirs["class_embedding.linear_1.weight"] == (1280, 2048)


def test_other_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(WeightsError, match="missing or is no JSON"):
        sd_unclip.load(tmp_path)
    with pytest.raises(BadInput, match=f"5 dimensions, {folder.name} reads {WIDTH}"):
        sd_unclip.load(folder).condition(embedding=torch.ones(1, 5))
    table = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({**table, "beta_schedule": "linear"}), encoding="utf-8"
    )
    with pytest.raises(WeightsError, match="none of Stable Diffusion's"):
        sd_unclip.load(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(table), encoding="utf-8")
