"""Symmetric contrastive loss between two kinds of prompts, as CLIP trains (Radford et al. 2021; van den Oord 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(a: Tensor, b: Tensor, scale: Tensor | float, same: Tensor) -> Tensor:
    """Unit vectors a, b (B, D), a[i] belongs to b[i]; scale = 1 / temperature -> mean over both directions.

    same (B, B) bool: pairs that mean the same though they are others (equal captions); they are not held against it.
    """
    logits = scale * a @ b.T
    others = same & ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    logits = logits.masked_fill(others, float("-inf"))
    target = torch.arange(len(a), device=a.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def recall_at(query: Tensor, gallery: Tensor, truth: Tensor, k: int) -> float:
    """Share of queries (Q, D) with one of their own among the k nearest of the gallery (G, D).

    truth (Q, G) bool says which are their own; `chance_at` is the level to compare with.
    """
    nearest = (query @ gallery.T).topk(min(k, len(gallery)), dim=1).indices
    return float(truth.gather(1, nearest).any(1).float().mean())


def chance_at(truth: Tensor, k: int) -> float:
    """What `recall_at` gives on average for a random order of the gallery: 1 − C(G − m, k) / C(G, k), m own ones."""
    size = truth.shape[1]
    missed = torch.ones(len(truth), dtype=torch.float64)
    own = truth.sum(1).double()
    for taken in range(min(k, size)):
        missed *= ((size - own - taken) / (size - taken)).clamp(min=0)
    return float((1 - missed).mean())
