"""Karlo's prior: a sentence to the picture embedding that Stable unCLIP draws (Ramesh et al., section 2.2; Lee et al.,
"Karlo-v1.0.alpha", 2022).

A causal transformer over [77 token states, sentence embedding, timestep, noisy picture embedding, query] predicts the
clean embedding at the query. It is sampled by ancestral DDPM on a cosine schedule under classifier-free guidance, and
its result unscaled by the checkpoint's own mean and deviation. Parameter names are diffusers' of PriorTransformer;
folders are laid out as `kakaobrain/karlo-v1-alpha`: `prior`, `text_encoder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.diffusion.guidance import classifier_free
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.samplers import ancestral, spaced_timesteps
from anyform.diffusion.schedule import cosine
from anyform.encoders.clip_towers import TextTower
from anyform.errors import WeightsError
from anyform.nn.attention import join_heads, split_heads
from anyform.nn.unet2d import Embedding, sinusoid
from anyform.priors.folders import fill_exactly, load_tower, read_json
from anyform.priors.sd_unclip import tokeniser

CLIP_RANGE = 5.0  # of the normalised embedding, at every step
_EXTRA = 4  # sentence, timestep, picture, query


@dataclass(frozen=True, slots=True, kw_only=True)
class KarloConfig:
    """Sizes. Defaults: karlo-v1-alpha, 1.0 G parameters; length: tokens of a sentence."""

    heads: int = 32
    head_width: int = 64
    layers: int = 20
    embedding: int = 768
    length: int = 77


def config_of_diffusers(table: dict[str, Any]) -> KarloConfig:
    """The `prior/config.json` of a folder -> ours. Raises WeightsError for a structure that is another."""
    usual = {"added_emb_type": "prd", "encoder_hid_proj_type": "linear", "encoder_hid_proj": "linear"}
    odd = {key: table[key] for key, value in usual.items() if table.get(key, value) != value}
    odd |= {key: table[key] for key in ("embedding_proj_norm_type", "norm_in_type", "time_embed_act_fn")
            if table.get(key) not in (None, "silu")}  # fmt: skip
    if odd or table.get("additional_embeddings", _EXTRA) != _EXTRA:
        raise WeightsError(f"this prior is of another structure than Karlo's: {odd or table['additional_embeddings']}")
    return KarloConfig(
        heads=table["num_attention_heads"],
        head_width=table["attention_head_dim"],
        layers=table["num_layers"],
        embedding=table["embedding_dim"],
        length=table["num_embeddings"],
    )


class MaskedAttention(nn.Module):
    """Multi-head self attention with biases and an additive mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, N, W), (B, N, N) -> (B, N, W)."""
        q, k, v = (split_heads(part(x), self.heads) for part in (self.to_q, self.to_k, self.to_v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return self.to_out[0](join_heads(mixed))


class Gelu(nn.Module):
    """A projection and GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, hidden)."""
        return functional.gelu(self.proj(x))


class FeedForward(nn.Module):
    """To four times the width and back; the middle entry is diffusers' dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Gelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, W) -> the same shape."""
        return self.net(x)


class Block(nn.Module):
    """Pre-normalised attention and feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), MaskedAttention(width, heads)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        x = x + self.attn1(self.norm1(x), mask)
        return x + self.ff(self.norm3(x))


class KarloPrior(nn.Module):
    """Noisy embedding, timestep and a sentence -> the clean embedding, normalised."""

    def __init__(self, config: KarloConfig) -> None:
        super().__init__()
        self.config = config
        width = config.heads * config.head_width
        self.width = width
        self.time_embedding = Embedding(width, width)
        self.proj_in = nn.Linear(config.embedding, width)
        self.embedding_proj = nn.Linear(config.embedding, width)
        self.encoder_hidden_states_proj = nn.Linear(config.embedding, width)
        self.positional_embedding = nn.Parameter(torch.zeros(1, config.length + _EXTRA, width))
        self.prd_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer_blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(width)
        self.proj_to_clip_embeddings = nn.Linear(width, config.embedding)
        self.clip_mean, self.clip_std = (nn.Parameter(torch.zeros(1, config.embedding)) for _ in range(2))

    def forward(self, x_t: Tensor, t: Tensor, sentence: Tensor, states: Tensor, shown: Tensor) -> Tensor:
        """x_t (B, D), t (B,), sentence (B, D), states (B, 77, D), shown (B, 77) bool, False = padding -> x_0 (B, D)."""
        time = self.time_embedding(sinusoid(t, self.width).to(x_t))
        parts = [
            self.encoder_hidden_states_proj(states),
            self.embedding_proj(sentence)[:, None],
            time[:, None],
            self.proj_in(x_t)[:, None],
            self.prd_embedding.expand(len(x_t), -1, -1),
        ]
        x = torch.cat(parts, 1) + self.positional_embedding
        count = x.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool, device=x.device).tril()
        seen = functional.pad(shown, (0, _EXTRA), value=True)
        mask = torch.zeros(len(x), count, count, device=x.device, dtype=x.dtype)
        mask = mask.masked_fill(~seen[:, None], -10_000.0).masked_fill(~causal, -10_000.0)
        for block in self.transformer_blocks:
            x = block(x, mask)
        return self.proj_to_clip_embeddings(self.norm_out(x)[:, -1])


@dataclass(frozen=True, slots=True, eq=False)
class Karlo:
    """The prior with its text tower: sentences to picture embeddings."""

    network: KarloPrior
    tower: TextTower
    folder: Path

    @torch.inference_mode()
    def embed(
        self, text: str, *, seed: int, num_inference_steps: int = 25, guidance_scale: float = 4.0
    ) -> Float[Tensor, "1 d"]:
        """(1, D): the embedding of a picture of the sentence, in the scale of the encoder's head; a seed, a picture."""
        sentence, states, shown = (torch.cat(pair) for pair in zip(self.read(text), self.read(""), strict=True))
        schedule = cosine(1000)

        def denoise(x_t: Tensor, t: int) -> Prediction:
            times = torch.full((2,), t, device=x_t.device)
            conditional, null = self.network(torch.cat([x_t, x_t]), times, sentence, states, shown).chunk(2)
            clean = classifier_free(conditional, null, guidance_scale).clamp(-CLIP_RANGE, CLIP_RANGE)
            return Prediction.from_x0(clean, x_t, *schedule.alpha_sigma(t))

        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(1, self.network.config.embedding, generator=generator).to(sentence)
        made = ancestral(denoise, start, schedule, spaced_timesteps(num_inference_steps), generator=generator)
        return made * self.network.clip_std + self.network.clip_mean

    def read(self, text: str) -> tuple[Tensor, Tensor, Tensor]:
        """(1, D) sentence embedding, (1, 77, D) token states, (1, 77) which of them are of the sentence."""
        ids = tokeniser(self.folder, self.tower)(text)
        end = ids.argmax(1)  # the end mark is the last of the vocabulary
        states = self.tower(ids.to(self.network.proj_in.weight.device))
        assert self.tower.text_projection is not None
        sentence = self.tower.text_projection(states[torch.arange(len(ids)), end])
        return (
            sentence,
            states,
            torch.arange(ids.shape[1], device=states.device)[None] <= end[:, None].to(states.device),
        )


def load(folder: str | Path, *, device: str = "cpu") -> Karlo:
    """A diffusers folder of Karlo -> its prior. Raises WeightsError where it is another, lacks a tensor or has more."""
    folder = Path(folder)
    config = config_of_diffusers(read_json(folder / "prior" / "config.json"))
    with torch.device("meta"):
        network = KarloPrior(config)
    fill_exactly(network, folder / "prior", device)
    tower = load_tower(folder / "text_encoder", device, vision=False)
    assert isinstance(tower, TextTower)
    if tower.text_projection is None or tower.config.projected != config.embedding:
        raise WeightsError(
            f"the text encoder of {folder.name} gives no sentence embedding of {config.embedding} numbers"
        )
    return Karlo(network, tower, folder)
