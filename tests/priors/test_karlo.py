"""Karlo's prior against diffusers' PriorTransformer, UnCLIPScheduler and transformers' text tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from anyform.encoders.clip_tokens import tokenise
from anyform.errors import WeightsError
from anyform.priors import karlo

WIDTH = 12
SHAPE = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": WIDTH}


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    prior = diffusers.PriorTransformer(num_embeddings=77, additional_embeddings=4, **SHAPE).eval()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    text = transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, projection_dim=WIDTH,
            vocab_size=49408, hidden_act="quick_gelu", eos_token_id=49407,
        )
    )  # fmt: skip
    return prior, text.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, parts: tuple[Any, Any]) -> Path:
    made = tmp_path_factory.mktemp("karlo")
    parts[0].save_pretrained(made / "prior")
    parts[1].save_pretrained(made / "text_encoder")
    return made


def test_the_sentence_is_the_text_towers(folder: Path, parts: tuple[Any, Any]) -> None:
    sentence, states, shown = karlo.load(folder).read("a red chair")
    with torch.no_grad():
        expected = parts[1](torch.from_numpy(tokenise(["a red chair"])))
    assert torch.allclose(sentence, expected.text_embeds, atol=1e-5)
    assert torch.allclose(states, expected.last_hidden_state, atol=1e-5)
    assert shown.sum().item() == 5  # start, three words, end


def test_the_network_is_diffusers(folder: Path, parts: tuple[Any, Any]) -> None:
    made = karlo.load(folder)
    x_t, t, sentence, states = (
        torch.randn(2, WIDTH),
        torch.tensor([3, 900]),
        torch.randn(2, WIDTH),
        torch.randn(2, 77, WIDTH),
    )
    shown = torch.arange(77)[None] < torch.tensor([[5], [77]])
    with torch.no_grad():
        expected = parts[0](
            x_t, timestep=t, proj_embedding=sentence, encoder_hidden_states=states, attention_mask=shown
        ).predicted_image_embedding
        found = made.network(x_t, t, sentence, states, shown)
    assert expected.std() > 0.05 and torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_embedding_is_the_schedulers_walk(folder: Path, parts: tuple[Any, Any]) -> None:
    """The same draws through diffusers' scheduler, as its pipeline steps it."""
    from diffusers import UnCLIPScheduler

    made, steps = karlo.load(folder), 6
    found = made.embed("a mug", seed=3, num_inference_steps=steps, guidance_scale=4.0)
    scheduler = UnCLIPScheduler(
        variance_type="fixed_small_log", clip_sample=True, clip_sample_range=5.0, prediction_type="sample",
        beta_schedule="squaredcos_cap_v2",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(3)
    x, times = torch.randn(1, WIDTH, generator=generator), scheduler.timesteps
    sentence, states, shown = (torch.cat(pair) for pair in zip(made.read("a mug"), made.read(""), strict=True))
    with torch.no_grad():
        for k, t in enumerate(times):
            said = parts[0](
                torch.cat([x, x]), timestep=t, proj_embedding=sentence, encoder_hidden_states=states,
                attention_mask=shown,
            ).predicted_image_embedding  # fmt: skip
            conditional, null = said.chunk(2)
            previous = times[k + 1] if k + 1 < len(times) else None
            x = scheduler.step(
                null + 4 * (conditional - null), t, x, generator=generator, prev_timestep=previous
            ).prev_sample
        expected = parts[0].post_process_latents(x)
    assert torch.allclose(found, expected, rtol=5e-3, atol=5e-3)  # its schedule is float32, ours float64
    assert not torch.allclose(found, made.embed("a mug", seed=4, num_inference_steps=steps), rtol=1e-2, atol=2e-2)


def test_full_size_names_and_shapes_are_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        ours = karlo.KarloPrior(karlo.KarloConfig())
        theirs = diffusers.PriorTransformer()
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == shapes
    assert sum(value.numel() for value in ours.state_dict().values()) == pytest.approx(1.0e9, rel=0.03)


def test_another_structure_is_refused() -> None:
    table = {**SHAPE, "num_embeddings": 77, "added_emb_type": None}
    with pytest.raises(WeightsError, match="another structure than Karlo"):
        karlo.config_of_diffusers(table)
