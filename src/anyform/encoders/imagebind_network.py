"""ImageBind (Girdhar et al. 2023): six transformers, one space of 1,024 dimensions. Opt-in: weights CC BY-NC-SA 4.0.

Written from specs/encoders.md §1; names of parameters are those of the public `imagebind_huge.pth`, so that its state
dict loads strictly. Only vision vectors are of unit length after `embed`; normalise before any cosine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkConfig:
    """One transformer. tokens: positions, the class token included. gain: fixed factor after normalising, None = none,
    0 = learnable. bias_kv: a learned key and value beside the tokens'.
    """

    width: int
    layers: int
    heads: int
    tokens: int
    mlp_ratio: int = 4
    pre_norm: bool = False
    bias_kv: bool = True
    gain: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBindConfig:
    """Defaults: imagebind_huge, 1,200.8 M values."""

    dim: int = 1024
    vocabulary: int = 49408
    patch: int = 14
    frames: int = 2
    grid_patch: int = 16  # of audio, depth and thermal pictures
    imu_window: int = 8
    imu_channels: int = 6
    trunks: dict[str, TrunkConfig] = field(default_factory=lambda: dict(_HUGE))


_HUGE = {
    "vision": TrunkConfig(width=1280, layers=32, heads=16, tokens=257, pre_norm=True, bias_kv=False),
    "text": TrunkConfig(width=1024, layers=24, heads=16, tokens=77, bias_kv=False, gain=0),
    "audio": TrunkConfig(width=768, layers=12, heads=12, tokens=229, gain=20),
    "depth": TrunkConfig(width=384, layers=12, heads=8, tokens=197, gain=5),
    "thermal": TrunkConfig(width=768, layers=12, heads=12, tokens=197, gain=10),
    "imu": TrunkConfig(width=512, layers=6, heads=8, tokens=251, gain=5),
}
AUDIO_STRIDE = 10
MODALITIES = tuple(_HUGE)


class Positions(nn.Module):
    """Learned positions (1, L, D)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))


class PatchStem(nn.Module):
    """A convolution, or Linear for windows, then LayerNorm where the modality has one (eps 1e-5, not 1e-6)."""

    def __init__(self, proj: nn.Module, norm_width: int | None) -> None:
        super().__init__()
        self.proj = proj
        self.norm_layer = nn.Identity() if norm_width is None else nn.LayerNorm(norm_width)


class PicturePreprocessor(nn.Module):
    """Picture-like (B, C, H, W) -> tokens: patches row by row, class token first, positions added."""

    def __init__(self, stem_name: str, stem: PatchStem, config: TrunkConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.stem_name = stem_name
        self.add_module(stem_name, stem)
        self.pos_embedding_helper = Positions(config.tokens, config.width)

    def forward(self, pictures: Tensor) -> Tensor:
        stem = self.get_submodule(self.stem_name)
        assert isinstance(stem, PatchStem)
        tokens = stem.norm_layer(stem.proj(pictures).flatten(2).transpose(1, 2))
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1) + self.pos_embedding_helper.pos_embed


class RepeatFrames(nn.Module):
    """(B, C, H, W) -> (B, C, T, H, W): a still is a film of equal frames; a film (B, C, T, H, W) passes."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.ndim == 5:
            return pictures
        return pictures.unsqueeze(2).expand(-1, -1, self.frames, -1, -1)


class TextPreprocessor(nn.Module):
    """Ids (B, 77) -> tokens. The causal mask is saved with the weights."""

    mask: Tensor

    def __init__(self, vocabulary: int, config: TrunkConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, config.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.register_buffer("mask", torch.full((config.tokens, config.tokens), float("-inf")).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.pos_embed


class ImuPreprocessor(nn.Module):
    """(B, 6, T) acceleration and rotation at 200 Hz -> tokens: windows of 8 samples, channel by channel."""

    def __init__(self, window: int, channels: int, config: TrunkConfig) -> None:
        super().__init__()
        self.window = window
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        proj = nn.Linear(window * channels, config.width, bias=False)
        self.imu_stem = PatchStem(proj, config.width)

    def forward(self, motion: Tensor) -> Tensor:
        windows = motion.unfold(-1, self.window, self.window).transpose(1, 2).flatten(2)
        tokens = self.imu_stem.norm_layer(self.imu_stem.proj(windows))
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1) + self.pos_embed


class MlpLayers(nn.Module):
    """Linear, exact GELU, Linear, under the public names."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """x += attention(norm_1(x)); x += mlp(norm_2(x)); sequence first (L, B, D)."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(config.width, config.heads, add_bias_kv=config.bias_kv)
        self.norm_1 = nn.LayerNorm(config.width, eps=_EPS)
        self.mlp = MlpLayers(config.width, config.mlp_ratio)
        self.norm_2 = nn.LayerNorm(config.width, eps=_EPS)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        h = self.norm_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.norm_2(x))


class Trunk(nn.Module):
    """Tokens (B, L, D) -> (B, L, D)."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        if config.pre_norm:
            self.pre_transformer_layer = nn.Sequential(nn.LayerNorm(config.width, eps=_EPS))
        else:
            self.pre_transformer_layer = nn.Sequential()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.pre_transformer_layer(tokens).transpose(0, 1)
        for block in self.blocks:
            x = block(x, mask)
        return x.transpose(0, 1)


class ClassToken(nn.Module):
    """(B, L, D) -> (B, D): the first token."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


class TextHead(nn.Module):
    """Tokens and ids -> (B, dim) from the token of the largest id, which is the end mark."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.LayerNorm(width, eps=_EPS), nn.Linear(width, dim, bias=False))

    def forward(self, tokens: Tensor, ids: Tensor) -> Tensor:
        return self.proj(tokens[torch.arange(len(ids), device=ids.device), ids.argmax(1)])


class Gain(nn.Module):
    """x · min(exp(log_logit_scale), 100). The value is saved; training moves the text's alone."""

    def __init__(self, start: float, learnable: bool) -> None:
        super().__init__()
        value = torch.tensor(float(start)).log()
        if learnable:
            self.log_logit_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_logit_scale", value)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.log_logit_scale.exp().clamp(max=100)


class UnitLength(nn.Module):
    """x / |x| over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=-1)


class ImageBind(nn.Module):
    """All modalities. `features` is the head's output, `embed` the post-processed vector, both (B, dim)."""

    def __init__(self, config: ImageBindConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ImageBindConfig()
        trunks = config.trunks
        self.modality_preprocessors = nn.ModuleDict({name: _preprocessor(name, config) for name in trunks})
        self.modality_trunks = nn.ModuleDict({name: Trunk(trunk) for name, trunk in trunks.items()})
        heads = {name: _head(name, trunk.width, config.dim) for name, trunk in trunks.items()}
        self.modality_heads = nn.ModuleDict(heads)
        self.modality_postprocessors = nn.ModuleDict({name: _post(trunk) for name, trunk in trunks.items()})

    def features(self, modality: str, value: Tensor) -> Tensor:
        """vision (B, 3, 224, 224) or (B, 3, T, 224, 224), text ids (B, 77), audio (B, 1, 128, 204), depth and thermal
        (B, 1, 224, 224), imu (B, 6, 2000) -> head output (B, dim).
        """
        tokens = self.modality_preprocessors[modality](value)
        if modality == "text":
            preprocessor = self.modality_preprocessors[modality]
            assert isinstance(preprocessor, TextPreprocessor)
            return self.modality_heads[modality](self.modality_trunks[modality](tokens, preprocessor.mask), value)
        return self.modality_heads[modality](self.modality_trunks[modality](tokens))

    def embed(self, modality: str, value: Tensor) -> Tensor:
        """As `features`, or clips (B, S, ...) of them, then post-processed and averaged over the clips: (B, dim).

        Five axes or more are clips, so a film alone has to come as one clip: (B, 1, 3, T, 224, 224).
        """
        clips = value.ndim >= 5
        flat = value.flatten(0, 1) if clips else value
        vectors = self.modality_postprocessors[modality](self.features(modality, flat))
        return vectors.reshape(*value.shape[:2], -1).mean(1) if clips else vectors


def _preprocessor(name: str, config: ImageBindConfig) -> nn.Module:
    trunk, patch = config.trunks[name], config.grid_patch
    if name == "text":
        return TextPreprocessor(config.vocabulary, trunk)
    if name == "imu":
        return ImuPreprocessor(config.imu_window, config.imu_channels, trunk)
    if name == "vision":
        size = (config.frames, config.patch, config.patch)
        films = nn.Conv3d(3, trunk.width, size, stride=size, bias=False)
        stem = PatchStem(nn.Sequential(RepeatFrames(config.frames), films), None)
        return PicturePreprocessor("rgbt_stem", stem, trunk)
    stride = AUDIO_STRIDE if name == "audio" else patch
    proj = nn.Conv2d(1, trunk.width, patch, stride=stride, bias=False)
    return PicturePreprocessor("depth_stem" if name == "depth" else "rgbt_stem", PatchStem(proj, trunk.width), trunk)


def _head(name: str, width: int, dim: int) -> nn.Module:
    if name == "text":
        return TextHead(width, dim)
    # the public imu head drops features in training, which moves its Linear from place 2 to 3
    between: tuple[Callable[[], nn.Module], ...] = (ClassToken, nn.Dropout) if name == "imu" else (ClassToken,)
    layers = [make() for make in between]
    return nn.Sequential(nn.LayerNorm(width, eps=_EPS), *layers, nn.Linear(width, dim, bias=False))


def _post(trunk: TrunkConfig) -> nn.Module:
    if trunk.gain is None:
        return UnitLength()
    return nn.Sequential(UnitLength(), Gain(trunk.gain or 1 / 0.07, learnable=trunk.gain == 0))
