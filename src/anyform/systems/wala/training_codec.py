"""Stage 1 of WaLa: training the codec (wavelet VQ-VAE) on distance fields.

Two recipes. `SurfaceRecipe` trains the embedded codec on random 32³ crops near surfaces and on whole volumes, with the
48 symmetries of the cube, a continuous noisy latent first and the codebook fitted afterwards (`fit_codebook`, then
`quantised=True`). `adaptive_sampled_loss` is the paper's coefficient loss (supplement B), for the released shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anyform.systems.wala.codec import ShapeCodec, overlap_loss, surface_loss

Rebalance = Literal["rebalanced", "plain", "dense"]


def rich_positions(packed: Tensor, threshold_ratio: float = 1 / 32) -> Tensor:
    """(B, c, c, c) bool: where some coarsest detail exceeds `threshold_ratio` of its band's largest (WaLa-supp B)."""
    coarse = packed[:, 57:64].abs()
    return (coarse > threshold_ratio * coarse.amax((2, 3, 4), keepdim=True)).any(1)


def adaptive_sampled_loss(
    decoded: Tensor, target: Tensor, generator: torch.Generator | None = None, variant: Rebalance = "rebalanced"
) -> tuple[Tensor, dict[str, float]]:
    """Loss on packed coefficients (B, 64, c, c, c): low band everywhere, details at rich and as many random positions.

    L = L_base + Σ_s stopgrad(L_base / L_s)·L_s for `rebalanced`; without the factor for `plain`; details averaged over
    all positions and channels for `dense` (the ablation of supplement table 1). Groups s: the coarsest 7 channels and
    the 56 of the next level; sums over channels, divided by the number of rich positions. The rebalanced value is
    always about 3·L_base, so the parts are returned for logging.

    Implements: WaLa-supp B sampled loss
    """
    base = (decoded[:, 0] - target[:, 0]).square().mean()
    groups = {"coarse": slice(57, 64), "fine": slice(1, 57)}
    parts: dict[str, Tensor] = {}
    if variant == "dense":
        for name, channels in groups.items():
            parts[name] = (decoded[:, channels] - target[:, channels]).square().mean()
    else:
        rich = rich_positions(target)
        chosen = rich | _as_many_elsewhere(rich, generator)
        count = rich.flatten(1).sum(1).clamp(min=1)
        for name, channels in groups.items():
            squares = (decoded[:, channels] - target[:, channels]).square().sum(1) * chosen
            parts[name] = (squares.flatten(1).sum(1) / count).mean()
    loss = base
    for part in parts.values():
        factor = base.detach() / (part.detach() + 1e-10) if variant == "rebalanced" else 1.0
        loss = loss + factor * part
    return loss, {"base": float(base.detach()), **{name: float(part.detach()) for name, part in parts.items()}}


def _as_many_elsewhere(rich: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random mask outside `rich` with as many positions as `rich` (all of the rest where there are fewer)."""
    score = torch.rand(rich.shape, generator=generator, device=rich.device).masked_fill(rich, 2.0).flatten(1)
    order = score.argsort(1).argsort(1)
    wanted = torch.minimum(rich.flatten(1).sum(1), (~rich).flatten(1).sum(1))
    return (order < wanted[:, None]).view_as(rich)


@dataclass(frozen=True, slots=True)
class SdfArray:
    """int8 distance fields on disk: value / 127 is the field in [-1, 1] at unit scale. `rows`: the objects to use."""

    path: Path
    rows: NDArray[np.int64]

    def open(self) -> NDArray[np.int8]:
        """Memory-mapped (O, N, N, N): workers share the pages."""
        return np.load(self.path, mmap_mode="r")


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceRecipe:
    """How each worker draws a stage-1 batch of the embedded codec."""

    crop: int = 32
    crop_batch: int = 16
    whole_batch: int = 3
    whole_share: float = 0.15
    overlap: float = 0.7  # weight of `overlap_loss`
    latent_noise: float = 0.15  # of the latent's own spread: what quantisation will cost later
    latent_penalty: float = 2e-3  # keeps the latent's scale near one
    quantised: bool = False  # straight-through codes instead of noise; the encoder and the codebook stay as they are


class SurfaceLoss:
    """Stage-1 loss of the embedded codec; see `training.loop.Loss`."""

    def __init__(self, data: SdfArray, recipe: SurfaceRecipe) -> None:
        self.recipe, self.rows = recipe, data.rows
        self.fields = data.open()

    def _batch(self, rng: np.random.Generator) -> Tensor:
        recipe, size = self.recipe, self.fields.shape[-1]
        if rng.random() < recipe.whole_share:
            chosen = np.stack([self.fields[row] for row in rng.choice(self.rows, recipe.whole_batch)])
        else:
            crops = []
            for row in rng.choice(self.rows, recipe.crop_batch):
                corner = self._corner(self.fields[row], size, rng)
                x, y, z = (slice(c, c + recipe.crop) for c in corner)
                crops.append(self.fields[row, x, y, z])
            chosen = np.stack(crops)
        return torch.from_numpy(symmetry(chosen, rng)).float() / 127

    def _corner(self, field: NDArray[np.int8], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """A crop corner, multiple of nothing, that keeps a random surface voxel inside the crop."""
        surface = np.argwhere(np.abs(field[::4, ::4, ::4]) < 100)
        centre = surface[rng.integers(len(surface))] * 4 if len(surface) else np.full(3, size // 2)
        return np.clip(centre - rng.integers(4, self.recipe.crop - 4, 3), 0, size - self.recipe.crop)

    def _shape(self, decoded: Tensor, target: Tensor) -> Tensor:
        return surface_loss(decoded, target) + self.recipe.overlap * overlap_loss(decoded, target)

    def __call__(self, model: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        assert isinstance(model, ShapeCodec)
        target = self._batch(rng).to(next(model.parameters()).device)
        packed = model.pack(target)
        if self.recipe.quantised:
            with torch.no_grad():
                latent = model.vqvae.encode(packed).float()
                passed, _ = model.vqvae.quantise(latent)
            decoded = model.unpack(model.vqvae.decoder(passed).float())
            return self._shape(decoded, target), {}
        latent = model.vqvae.encode(packed).float()
        noisy = latent + self.recipe.latent_noise * torch.randn_like(latent) * latent.detach().std()
        decoded = model.unpack(model.vqvae.decoder(noisy).float())
        penalty = self.recipe.latent_penalty * latent.square().mean()
        return self._shape(decoded, target) + penalty, {"spread": float(latent.detach().std())}


def symmetry(volumes: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.int8]:
    """One of the 48 symmetries of the cube, the same for the batch (B, n, n, n)."""
    turned = volumes.transpose(0, *(rng.permutation(3) + 1))
    flips = tuple(int(axis) + 1 for axis in np.flatnonzero(rng.random(3) < 0.5))
    return np.ascontiguousarray(np.flip(turned, flips) if flips else turned)


@torch.no_grad()
def fit_codebook(codec: ShapeCodec, vectors: Tensor, rounds: int, seed: int) -> float:
    """k-means of latent rows (N, code_width) into the codebook; returns the mean squared error over the variance."""
    generator = torch.Generator().manual_seed(seed)
    table = codec.vqvae.codebook.embedding
    codes = vectors[torch.randperm(len(vectors), generator=generator)[: len(table)]].clone()
    nearest = torch.zeros(len(vectors), dtype=torch.int64)
    for _ in range(rounds):
        for start in range(0, len(vectors), 65536):
            part = vectors[start : start + 65536]
            nearest[start : start + 65536] = (codes.square().sum(1) - 2 * part @ codes.T).argmin(1)
        counts = torch.bincount(nearest, minlength=len(codes)).float()
        sums = torch.zeros_like(codes).index_add_(0, nearest, vectors)
        codes = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], codes)
        empty = counts == 0
        if empty.any():  # a code nobody uses starts again at a random vector
            codes[empty] = vectors[torch.randint(len(vectors), (int(empty.sum()),), generator=generator)]
    table.copy_(codes)
    return float((codes[nearest] - vectors).square().mean() / vectors.var())


@torch.no_grad()
def strict_iou(codec: ShapeCodec, fields: NDArray[np.int8], quantised: bool, batch: int = 8) -> Tensor:
    """(O,) IoU of strict insides of reconstructions, at the codec's own resolution."""
    scores = []
    for start in range(0, len(fields), batch):
        levels = torch.from_numpy(np.asarray(fields[start : start + batch]))
        target = levels.to(next(codec.parameters()).device).float() / 127
        latent = codec.vqvae.encode(codec.pack(target)).float()
        passed = codec.vqvae.quantise(latent)[0] if quantised else latent
        inside = codec.unpack(codec.vqvae.decoder(passed).float()) < 0
        truth = target < 0
        both = (inside & truth).flatten(1).sum(1).float()
        scores.append(both / (inside | truth).flatten(1).sum(1).clamp(min=1))
    return torch.cat(scores)
