"""The embedded joint space: text, pictures, sketches, points and speech -> one unit sphere of 256 dimensions.

A small twin of ImageBind: every kind of prompt has a trunk and a linear head, trained together so that what belongs
together lies together (`training/contrastive.py`). Text comes as frozen MiniLM sentence vectors. Speech carries two
more heads, which say whether there was any and which words were in it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyform.encoders.speech import BANDS, WINDOW
from anyform.errors import WeightsError
from anyform.nn.transformer import Mlp, SelfAttention, Stack

PICTURE = 64  # pixels an edge
_SURE = -1.5  # logit of the likeliest word below which nothing was said


@dataclass(frozen=True, slots=True, kw_only=True)
class JointConfig:
    """Sizes of the shipped weights. words: what the speech trunk can recognise, lower case."""

    dim: int = 256
    text_width: int = 384
    picture_widths: tuple[int, ...] = (48, 96, 192)
    sketch_widths: tuple[int, ...] = (32, 64, 160)
    point_widths: tuple[int, int] = (64, 128)
    point_frequencies: int = 4
    speech_width: int = 192
    speech_layers: int = 4
    speech_heads: int = 4
    words: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For the metadata of a weights file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> JointConfig:
        """Raises WeightsError where the text does not describe a configuration."""
        try:
            values: dict[str, Any] = json.loads(text)
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise WeightsError(f"the joint encoder's weights carry no valid config: {error}") from error


class Residual(nn.Module):
    """x + conv(act(norm(conv(act(norm(x))))), 3x3, width unchanged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(h)))


class PictureTrunk(nn.Module):
    """(B, C, 64, 64) in [0, 1] -> (B, dim): 4x4 patches, residual convolutions at 16², 8², 4², mean and maximum."""

    def __init__(self, channels: int, widths: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 4, stride=4)
        stages: list[nn.Module] = [Residual(widths[0])]
        for before, after in pairwise(widths):
            stages += [nn.Conv2d(before, after, 2, stride=2), Residual(after)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(2 * widths[-1])
        self.head = nn.Linear(2 * widths[-1], dim)

    def forward(self, pictures: Tensor) -> Tensor:
        cells = self.stages(self.stem(2 * pictures - 1)).flatten(2)
        return self.head(self.norm(torch.cat([cells.mean(2), cells.amax(2)], 1)))


class PointTrunk(nn.Module):
    """(B, N, 3) points in [-1, 1]³ -> (B, dim), whatever their order: two rounds of per-point layers and maxima."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        first, second = config.point_widths
        self.frequencies = config.point_frequencies
        self.local = Mlp(3 + 6 * self.frequencies, first, second, nn.SiLU())
        self.joined = Mlp(2 * second, 2 * second, 2 * second, nn.SiLU())
        self.norm = nn.LayerNorm(2 * second)
        self.head = nn.Linear(2 * second, config.dim)

    def forward(self, points: Tensor) -> Tensor:
        angles = [points * (2.0**k * torch.pi / 2) for k in range(self.frequencies)]
        waves = torch.cat([points, *(wave for a in angles for wave in (a.sin(), a.cos()))], -1)
        local = self.local(waves)
        whole = local.amax(1, keepdim=True).expand_as(local)
        return self.head(self.norm(self.joined(torch.cat([local, whole], -1)).amax(1)))


class SpeechBlock(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, head_norm=False)
        self.mlp = Mlp(width, 4 * width, width, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SpeechTrunk(nn.Module):
    """(B, WINDOW, BANDS) normalised log mel -> class token (B, width): a token every 80 ms, transformer blocks."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        width = config.speech_width
        self.stem = nn.Conv1d(BANDS, width, 9, stride=4, padding=4)
        self.halve = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, WINDOW // 8 + 1, width))
        self.blocks = Stack(lambda: SpeechBlock(width, config.speech_heads), config.speech_layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor) -> Tensor:
        cells = self.halve(functional.gelu(self.stem(mel.transpose(1, 2)))).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(mel), -1, -1).to(cells.dtype), cells], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


class Joint(nn.Module):
    """All trunks and heads; every method gives unit vectors (B, dim)."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.config = config
        self.text_head = nn.Linear(config.text_width, config.dim, bias=False)
        nn.init.orthogonal_(self.text_head.weight)
        self.picture = PictureTrunk(3, config.picture_widths, config.dim)
        self.drawing = PictureTrunk(1, config.sketch_widths, config.dim)
        self.cloud = PointTrunk(config)
        self.voice = SpeechTrunk(config)
        self.voice_head = nn.Linear(config.speech_width, config.dim)
        self.spoken_head = nn.Linear(config.speech_width, 1)
        self.word_head = nn.Linear(config.speech_width, len(config.words))
        nn.init.constant_(self.word_head.bias, -6.0)  # a sentence holds a few of some hundred words
        self.scale = nn.Parameter(torch.tensor(2.66))  # log of 1/0.07, the contrastive loss' inverse temperature

    def text(self, vectors: Tensor) -> Tensor:
        """MiniLM sentence vectors (B, text_width)."""
        return functional.normalize(self.text_head(vectors), dim=-1)

    def image(self, pictures: Tensor) -> Tensor:
        """(B, 3, 64, 64) sRGB in [0, 1], the object framed as `types.framing.frame` does, on any background."""
        return functional.normalize(self.picture(pictures).float(), dim=-1)

    def sketch(self, ink: Tensor) -> Tensor:
        """(B, 1, 64, 64) ink in [0, 1], framed."""
        return functional.normalize(self.drawing(ink).float(), dim=-1)

    def points(self, points: Tensor) -> Tensor:
        """(B, N, 3), the bounding box centred, its longest side from -0.9 to 0.9, +y up."""
        return functional.normalize(self.cloud(points).float(), dim=-1)

    def speech(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, WINDOW, BANDS) -> unit vectors (B, dim), logit of being speech (B,), logits of words (B, words)."""
        heard = self.voice(mel)
        vectors = functional.normalize(self.voice_head(heard).float(), dim=-1)
        return vectors, self.spoken_head(heard)[:, 0].float(), self.word_head(heard).float()


def heard(spoken: Tensor, words: Tensor) -> Tensor:
    """Logits of `Joint.speech`, (B,) and (B, W) -> (B,) bool: taken for speech, being like it and naming a word."""
    return (spoken > 0) & (words.amax(1) > _SURE)
