"""Stage 1 of WaLa at the released shape: the coefficient loss, balanced fine-tuning, and the supplement's metrics.

Differs: distances come from our shards, cell-centred, clipped at 0.125 and in steps of 0.001 world units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anyform.data.shards import TRUNCATION
from anyform.systems.wala.codec import ShapeCodec
from anyform.systems.wala.training_codec import Rebalance, adaptive_sampled_loss

Groups = tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CoefficientRecipe:
    """How stage 1 of the released shape learns; `balanced_per_dataset` concerns its fine-tuning (0 = none)."""

    batch: int = 8
    variant: Rebalance = "rebalanced"
    balanced_per_dataset: int = 10_000


def balanced_groups(sources: Sequence[str], rows: NDArray[np.int64], per_dataset: int, seed: int) -> Groups:
    """The rows of each data set, at most `per_dataset` of each, chosen at random (WaLa supplement B).

    sources: data set of every object; rows: the objects to choose from.
    """
    named, rng = np.array(sources)[rows], np.random.default_rng(seed)
    return tuple(np.sort(rng.permutation(rows[named == name])[:per_dataset]) for name in sorted(set(named.tolist())))


class CoefficientLoss:
    """Adaptive sampled loss and quantiser loss of a batch of whole shapes; see `training.loop.Loss`.

    Each object of a batch comes from a data set drawn uniformly, so that all weigh the same however large they are; one
    group of all rows is the unbalanced first phase.
    """

    def __init__(self, path: Path, groups: Groups, recipe: CoefficientRecipe) -> None:
        self.fields: NDArray[np.int8] = np.load(path, mmap_mode="r")
        self.groups, self.recipe = groups, recipe

    def rows(self, rng: np.random.Generator) -> list[int]:
        """The objects of one batch."""
        chosen = rng.integers(len(self.groups), size=self.recipe.batch)
        return [int(rng.choice(self.groups[group])) for group in chosen]

    def __call__(self, model: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        assert isinstance(model, ShapeCodec)
        target = model.pack(network_fields(model, np.stack([self.fields[row] for row in self.rows(rng)])))
        decoded, _, quantiser = model.vqvae(target)
        loss, parts = adaptive_sampled_loss(decoded.float(), target, variant=self.recipe.variant)
        return loss + quantiser, {**parts, "quantiser": float(quantiser.detach())}


def network_fields(codec: ShapeCodec, levels: NDArray[np.int8]) -> Tensor:
    """Stored fields (B, N, N, N) -> what the codec's transform sees, on its device."""
    world = torch.from_numpy(np.asarray(levels)).to(next(codec.parameters()).device).float() * (TRUNCATION / 127)
    return codec.to_network(world)


@torch.no_grad()
def reconstruction_scores(
    codec: ShapeCodec, fields: NDArray[np.int8], sources: Sequence[str], batch: int = 4
) -> dict[str, float]:
    """IoU and MSE of reconstructions from codes, over all objects, and D-IoU and D-MSE (`dataset_mean`).

    IoU of strict insides at full resolution; MSE of the truncated field in world units.

    Implements: WaLa-supp table 1 metrics
    """
    iou, mse = [], []
    for start in range(0, len(fields), batch):
        target = network_fields(codec, fields[start : start + batch])
        passed = codec.vqvae.quantise(codec.vqvae.encode(codec.pack(target)).float())[0]
        made = codec.unpack(codec.vqvae.decoder(passed).float())
        inside, truth = (made < 0).flatten(1), (target < 0).flatten(1)
        iou += ((inside & truth).sum(1) / (inside | truth).sum(1).clamp(min=1)).tolist()
        scale = codec.config.truncation if codec.config.unit_scale else 1.0
        mse += ((codec.to_network(made * scale) - target).square().flatten(1).mean(1) * scale**2).tolist()
    means = {"iou": float(np.mean(iou)), "mse": float(np.mean(mse))}
    return {**means, "d_iou": dataset_mean(iou, sources), "d_mse": dataset_mean(mse, sources)}


def dataset_mean(values: Sequence[float], sources: Sequence[str]) -> float:
    """The mean of the data sets' means: every data set counts the same, whatever its size."""
    named = np.array(sources)
    return float(np.mean([np.mean(np.array(values)[named == name]) for name in sorted(set(sources))]))
