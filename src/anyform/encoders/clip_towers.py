"""CLIP's two towers as released pipelines carry them: pictures to an embedding, sentences to token states.

Parameter names are those of transformers' CLIPVisionModelWithProjection and CLIPTextModel, whose folders load as they
are; `openai_name` knows the layout of OpenAI's own code, as it sits inside Zero-1-to-3's checkpoints. Source: Radford
et al., "Learning Transferable Visual Models from Natural Language Supervision".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anyform.errors import WeightsError
from anyform.nn.attention import join_heads, split_heads

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """Sizes of one tower. Defaults: the vision tower of ViT-L/14. quick: x·sigmoid(1.702 x) instead of GELU.

    length: patches an edge for pictures, tokens for sentences. projected: width of the picture embedding.
    """

    width: int = 1024
    layers: int = 24
    heads: int = 16
    hidden: int = 4096
    patch: int = 14
    length: int = 16
    projected: int = 768
    vocabulary: int = 49408
    quick: bool = True
    eps: float = 1e-5


def config_of_transformers(table: Mapping[str, Any], *, vision: bool) -> TowerConfig:
    """The `config.json` of an `image_encoder` or `text_encoder` folder -> ours. Raises WeightsError."""
    table = table.get("vision_config" if vision else "text_config", table)
    activation = table.get("hidden_act", "quick_gelu")
    if activation not in {"quick_gelu", "gelu"}:
        raise WeightsError(f"this CLIP tower uses the activation {activation!r}, not gelu or quick_gelu")
    length = table.get("image_size", 224) // table["patch_size"] if vision else table.get("max_position_embeddings", 77)
    return TowerConfig(
        width=table["hidden_size"],
        layers=table["num_hidden_layers"],
        heads=table["num_attention_heads"],
        hidden=table["intermediate_size"],
        patch=table["patch_size"] if vision else 0,
        length=length,
        projected=table.get("projection_dim", 512),
        vocabulary=table.get("vocab_size", 49408),
        quick=activation == "quick_gelu",
        eps=table.get("layer_norm_eps", 1e-5),
    )


class SelfAttention(nn.Module):
    """Multi-head attention with separate projections, causal or not."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(config.width, config.width) for _ in range(4))

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        q, k, v = (split_heads(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(join_heads(functional.scaled_dot_product_attention(q, k, v, is_causal=causal)))


class Mlp(nn.Module):
    """Linear, activation, Linear."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.width)
        self.quick = config.quick

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x) if self.quick else functional.gelu(x))


class Layer(nn.Module):
    """Pre-normalised attention and MLP."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.layer_norm1, self.self_attn = nn.LayerNorm(config.width, config.eps), SelfAttention(config)
        self.layer_norm2, self.mlp = nn.LayerNorm(config.width, config.eps), Mlp(config)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        x = x + self.self_attn(self.layer_norm1(x), causal)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        for layer in self.layers:
            x = layer(x, causal)
        return x


class PictureEmbeddings(nn.Module):
    """Patches, the class token before them, learned positions."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(config.width))
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, config.patch, bias=False)
        self.position_embedding = nn.Embedding(config.length**2 + 1, config.width)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 1 + patches, W)."""
        patches = self.patch_embedding(pictures).flatten(2).mT
        first = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat([first, patches], 1) + self.position_embedding.weight


class VisionTransformer(nn.Module):
    """The tower without its projection."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.embeddings = PictureEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, config.eps)  # the released spelling
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, config.eps)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, W): the class token at the end."""
        return self.post_layernorm(self.encoder(self.pre_layrnorm(self.embeddings(pictures)))[:, 0])


class VisionTower(nn.Module):
    """Pictures, normalised by MEAN and STD, -> embeddings, not normalised."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionTransformer(config)
        self.visual_projection = nn.Linear(config.width, config.projected, bias=False)

    def forward(self, pictures: Tensor) -> Float[Tensor, "b d"]:
        """(B, 3, S, S), S = patch · length, -> (B, projected)."""
        return self.visual_projection(self.vision_model(pictures))

    @property
    def size(self) -> int:
        """Pixels an edge."""
        return self.config.patch * self.config.length


class TextEmbeddings(nn.Module):
    """Word pieces and learned positions."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.length, config.width)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, W)."""
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class TextTransformer(nn.Module):
    """The causal tower."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.width, config.eps)


class TextTower(nn.Module):
    """Ids of sentences -> the states of every token, as Stable Diffusion's cross attention reads them.

    projects: it has the matrix from the end mark's state to the sentence embedding, `text_projection`.
    """

    def __init__(self, config: TowerConfig, projects: bool = False) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTransformer(config)
        self.text_projection = nn.Linear(config.width, config.projected, bias=False) if projects else None

    def forward(self, ids: Tensor) -> Float[Tensor, "b l w"]:
        """(B, L) int64 -> (B, L, W), normalised by the last LayerNorm."""
        inner = self.text_model
        return inner.final_layer_norm(inner.encoder(inner.embeddings(ids), causal=True))


def clip_pixels(pictures: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, size, size), resized and normalised as Zero-1-to-3 does.

    Bicubic with corners aligned and no antialiasing, on values in [−1, 1] (specs/xbind.md §3.5).
    """
    resized = functional.interpolate(pictures * 2 - 1, (size, size), mode="bicubic", align_corners=True)
    mean, std = (torch.tensor(part).to(resized)[:, None, None] for part in (MEAN, STD))
    return ((resized + 1) / 2 - mean) / std


def config_of_openai(state: Mapping[str, tuple[int, ...]]) -> TowerConfig:
    """Sizes of a vision tower in OpenAI's layout, from the shapes of its tensors; heads are 64 wide as released."""
    width, _, patch, _ = state["conv1.weight"]
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("transformer.resblocks."))
    return TowerConfig(
        width=width,
        layers=layers,
        heads=max(1, width // 64),
        hidden=state["transformer.resblocks.0.mlp.c_fc.weight"][0],
        patch=patch,
        length=round((state["positional_embedding"][0] - 1) ** 0.5),
        projected=state["proj"][1],
    )


def openai_name(name: str) -> tuple[str, int | None, bool]:
    """A parameter of `VisionTower` -> (its name in OpenAI's layout, which third of its rows or None, transposed)."""
    fixed = {
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
        "visual_projection.weight": "proj",
    }
    if name in fixed:
        return fixed[name], None, name == "visual_projection.weight"
    parts = name.removeprefix("vision_model.").split(".")
    if parts[0] in {"pre_layrnorm", "post_layernorm"}:
        return f"{'ln_pre' if parts[0] == 'pre_layrnorm' else 'ln_post'}.{parts[1]}", None, False
    block, inner, kind = f"transformer.resblocks.{parts[2]}", parts[3:-1], parts[-1]
    if inner[0] == "self_attn" and inner[1] != "out_proj":
        return f"{block}.attn.in_proj_{kind}", ("q_proj", "k_proj", "v_proj").index(inner[1]), False
    renamed = {
        "self_attn.out_proj": "attn.out_proj",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }[".".join(inner)]
    return f"{block}.{renamed}.{kind}", None, False
