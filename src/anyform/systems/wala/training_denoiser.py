"""Stage 2 of WaLa: training the embedded denoiser on latents, every condition at once.

A batch mixes the kinds of prompt in fixed shares. The object is shown in one of four quarter turns about +y (all kinds
but text, which keeps the object's own front): for pictures the turn that brings the camera nearest to the front.
Everything a batch needs lies in one folder of arrays in catalogue order, memory-mapped so that workers share pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from anyform.diffusion.schedule import NoiseSchedule, broadcast, cosine
from anyform.systems.wala.codec import CodecConfig, ShapeCodec
from anyform.systems.wala.conditions import (
    KINDS,
    Features,
    PromptEncoder,
    PromptEncoderConfig,
    empty_features,
    stack_features,
    with_encoded,
)
from anyform.systems.wala.lifting import from_silhouette, from_voxels, turn
from anyform.systems.wala.uvit import UVit, UVitConfig


@dataclass(frozen=True, slots=True)
class Arrays:
    """The training folder. O objects in catalogue order; int8 fields are 127 times the unit-scale field.

    latent (O, 4 turns, C, g, g, g) float16 standardised; field (O, N, N, N) int8; points_field (O, 2, N, N, N) from
    2,500 and 800 noisy points; depth_field (O, 3, N, N, N) from 1, 4 and 6 fixed views; hull_field (O, N, N, N) from 4
    fixed silhouettes; framed (O, 12, 64, 64, 4) pictures, sketch and outline (O, 12, 64, 64), view v at azimuth about
    30°·v; text (O, 4, 384) sentence vectors of four captions; near_text (O, 8) object rows; near_view (O, 4 turns, 8)
    rows·4 + turn.
    """

    latent: NDArray[np.float16]
    field: NDArray[np.int8]
    points_field: NDArray[np.int8]
    depth_field: NDArray[np.int8]
    hull_field: NDArray[np.int8]
    framed: NDArray[np.uint8]
    sketch: NDArray[np.uint8]
    outline: NDArray[np.uint8]
    text: NDArray[np.float16]
    near_text: NDArray[np.int32]
    near_view: NDArray[np.int32]

    @classmethod
    def open(cls, folder: Path) -> Arrays:
        """Memory-map `<name>.npy` for every field of this class."""
        return cls(**{field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(cls)})


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserRecipe:
    """What a stage-2 batch is made of, and how much of it is dropped."""

    shares: Mapping[str, int]  # samples of each kind in a batch
    drop: float = 0.1  # the whole condition
    drop_retrieved: float = 0.3
    drop_lifted_picture: float = 0.1  # pictures without their extruded silhouette
    empty_share: float = 0.25  # samples with an empty input at the last timestep: the expected latent, see `Wala.mean`
    noise_power: float = 0.75  # timesteps 999·u^power: below 1 favours noisy ones, where the condition decides


def default_recipe() -> DenoiserRecipe:
    """What each of two workers drew for a batch of the shipped model."""
    return DenoiserRecipe(shares={"text": 3, "image": 5, "sketch": 3, "points": 2, "voxels": 1, "depth": 1, "views": 1})


class Denoiser(nn.Module):
    """The U-ViT and its prompt encoder, trained together."""

    def __init__(self, uvit: UVitConfig, prompts: PromptEncoderConfig) -> None:
        super().__init__()
        self.uvit = UVit(uvit)
        self.prompts = PromptEncoder(prompts)

    def forward(self, x_t: Tensor, t: Tensor, features: Features) -> Tensor:
        """The v prediction, (B, C, g, g, g) float32."""
        return self.uvit(x_t, t, self.prompts(features)).float()


def embedded_uvit(prompts: PromptEncoderConfig) -> UVitConfig:
    """The embedded U-ViT: 4³ tokens of width 192 between residual convolutions at 8³."""
    return UVitConfig(
        latent_channels=prompts.latent_channels,
        grid=prompts.grid,
        width=prompts.width,
        depth=6,
        heads=prompts.heads,
        channels=64,
        num_res_blocks=1,
        patch=2,
        condition_width=prompts.width,
        condition_channels=64,
        grid_condition_channels=prompts.grid_channels,
        prediction="v",
    )


class FeatureMaker:
    """Training arrays -> `Features` of chosen objects in chosen turns."""

    def __init__(self, arrays: Arrays, config: PromptEncoderConfig, recipe: DenoiserRecipe) -> None:
        self.arrays, self.config, self.recipe = arrays, config, recipe

    def rows(
        self, kind: str, objects: NDArray[np.int64], turns: NDArray[np.int64], rng: np.random.Generator | None
    ) -> Features:
        """A batch of one kind. `rng` None = evaluation: no augmentation, first variant, nearest neighbour, no drops."""
        values = empty_features(self.config, len(objects))
        values["kind"][:] = KINDS.index(kind)
        for place, (row, quarter) in enumerate(zip(objects, turns, strict=True)):
            self._fill(values, place, kind, int(row), int(quarter), rng)
        return Features(**values)

    def _fill(
        self, values: dict[str, Tensor], place: int, kind: str, row: int, quarter: int, rng: np.random.Generator | None
    ) -> None:
        arrays = self.arrays
        neighbours: NDArray[np.int32] | None = None
        if kind == "text":
            variant = int(rng.integers(arrays.text.shape[1])) if rng is not None else 0
            values["text"][place] = torch.from_numpy(arrays.text[row, variant].astype(np.float32))
            values["has_text"][place] = True
            neighbours = arrays.near_text[row] * 4
        elif kind in ("image", "sketch"):
            view = (3 * quarter + (int(rng.integers(-1, 2)) if rng is not None else 0)) % 12
            picture, mask = self._picture(kind, row, view, rng)
            values["image"][place] = torch.from_numpy(picture)
            values["has_image"][place] = True
            if rng is None or rng.random() > self.recipe.drop_lifted_picture:
                self._lift(values, place, from_silhouette(mask))
            neighbours = arrays.near_view[row, quarter]
        else:
            self._lift(values, place, np.ascontiguousarray(turn(self._field(kind, row, rng), quarter)))
        if neighbours is not None and (rng is None or rng.random() > self.recipe.drop_retrieved):
            chosen = int(neighbours[0] if rng is None else rng.choice(neighbours[:4]))
            latent = arrays.latent[chosen // 4, chosen % 4].astype(np.float32)
            values["retrieved"][place] = torch.from_numpy(latent)
            values["has_retrieved"][place] = True

    def _lift(self, values: dict[str, Tensor], place: int, field: NDArray[np.floating]) -> None:
        values["lifted"][place] = torch.from_numpy(field.astype(np.float32))
        values["has_lifted"][place] = True

    def _field(self, kind: str, row: int, rng: np.random.Generator | None) -> NDArray[np.floating]:
        """The crude field of a geometry-carrying prompt, canonical turn, unit scale."""
        arrays = self.arrays
        if kind == "voxels":
            size = arrays.field.shape[-1] // 16
            inside = (arrays.field[row] < 0).reshape(16, size, 16, size, 16, size).any((1, 3, 5))
            return from_voxels(inside)
        if kind == "views":
            stored = arrays.hull_field[row]
        elif kind == "depth":
            stored = arrays.depth_field[row, int(rng.choice(3, p=(0.2, 0.5, 0.3))) if rng is not None else 1]
        else:
            stored = arrays.points_field[row, int(rng.integers(2)) if rng is not None else 0]
        return stored.astype(np.float32) / 127

    def _picture(
        self, kind: str, row: int, view: int, rng: np.random.Generator | None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """((4, 64, 64) picture as `Features.image`, (64, 64) silhouette)."""
        arrays = self.arrays
        if kind == "sketch":
            ink = arrays.sketch[row, view].astype(np.float32) / 255
            alpha = arrays.outline[row, view].astype(np.float32) / 255
            return sketch_input(ink, alpha), alpha > 0.5
        rgba = arrays.framed[row, view].astype(np.float32) / 255
        if rng is not None:
            rgba = recolour(rgba, rng)
        return image_input(rgba), rgba[..., 3] > 0.5


def image_input(rgba: NDArray[np.float32]) -> NDArray[np.float32]:
    """Framed (64, 64, 4) in [0, 1], straight alpha -> (4, 64, 64): colours in [-1, 1] times alpha, alpha."""
    color = (rgba[..., :3] * 2 - 1) * rgba[..., 3:]
    return np.concatenate([color, rgba[..., 3:]], -1).transpose(2, 0, 1).astype(np.float32)


def sketch_input(ink: NDArray[np.float32], outline: NDArray[np.float32]) -> NDArray[np.float32]:
    """Framed ink and filled outline (64, 64) in [0, 1] -> (4, 64, 64) as for images: dark lines on a light body."""
    body = (1 - 2 * ink) * outline
    return np.stack([body, body, body, outline]).astype(np.float32)


def recolour(rgba: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Grey, swapped channels or gamma, so that shape is not read from colour."""
    color, choice = rgba[..., :3], rng.random()
    if choice < 0.3:
        color = np.repeat(color.mean(-1, keepdims=True), 3, -1)
    elif choice < 0.6:
        color = color[..., rng.permutation(3)]
    color = np.clip(color, 0, 1) ** rng.uniform(0.6, 1.4)
    return np.concatenate([color, rgba[..., 3:]], -1).astype(np.float32)


class DenoiserLoss:
    """Stage-2 loss: mean squared error of v over a mixed batch; see `training.loop.Loss`."""

    def __init__(
        self,
        folder: Path,
        rows: NDArray[np.int64],
        config: PromptEncoderConfig,
        recipe: DenoiserRecipe,
        codec: CodecConfig,
    ) -> None:
        """folder: `Arrays`, and codec.safetensors with the codec that the latents are of."""
        self.maker = FeatureMaker(Arrays.open(folder), config, recipe)
        self.rows, self.recipe = rows, recipe
        self.schedule: NoiseSchedule = cosine(1000)
        self.codec = ShapeCodec(codec).eval().requires_grad_(False)
        self.codec.load_state_dict(load_file(folder / "codec.safetensors"))

    def batch(self, rng: np.random.Generator) -> tuple[Features, Tensor]:
        """(features, clean latents) of one step."""
        parts, latents = [], []
        for kind, count in self.recipe.shares.items():
            objects = rng.choice(self.rows, count)
            turns = np.zeros(count, np.int64) if kind == "text" else rng.integers(0, 4, count)
            parts.append(self.maker.rows(kind, objects, turns, rng))
            latents += [self.maker.arrays.latent[o, q] for o, q in zip(objects, turns, strict=True)]
        features = stack_features(parts)
        kept = torch.from_numpy(rng.random(len(latents)) > self.recipe.drop)
        return features.keep(kept), torch.from_numpy(np.stack(latents).astype(np.float32))

    def __call__(self, model: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        assert isinstance(model, Denoiser)
        device = next(model.parameters()).device
        features, clean = self.batch(rng)
        features, clean = features.to(device), clean.to(device)
        if self.maker.config.encoded_lift:
            features = with_encoded(features, self.codec.to(device).encode_standardised)
        count = len(clean)
        spread = (rng.random() + rng.permutation(count) / count) % 1
        empty = torch.from_numpy(rng.random(count) < self.recipe.empty_share).to(device)
        t = torch.from_numpy(np.rint(999 * spread**self.recipe.noise_power)).long().to(device).where(~empty, 999)
        alpha, sigma = (broadcast(part, clean) for part in self.schedule.alpha_sigma(t))
        # the noise that hides the shape altogether: x_t = 0
        noise = torch.where(empty[:, None, None, None, None], -alpha / sigma * clean, torch.randn_like(clean))
        predicted = model(alpha * clean + sigma * noise, t.float(), features)
        errors = (predicted - (alpha * noise - sigma * clean)).square().mean((1, 2, 3, 4))
        detached = errors.detach()
        logs = {
            name: float(detached[features.kind == number].mean())
            for number, name in enumerate(KINDS)
            if (features.kind == number).any()
        }
        return errors.mean(), logs
