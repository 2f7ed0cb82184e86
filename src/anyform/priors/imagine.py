"""Reference views: several candidates from a 2D prior, ranked, so that the best or the user's choice goes on.

A candidate's rank is its similarity to the prompt in the joint space times how well it shows one whole object: on a
plain background, 10 to 70 % of the picture, in one piece, clear of the border (specs/xbind.md §2.3 b).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyform.diffusion.prior import Condition, Prior
from anyform.priors.sampling import sample, to_bytes

TOLERANCE = 24  # of 255: how far a pixel of the background may lie from the border's colour
LEAST, MOST = 0.10, 0.70  # share of the picture that a well-framed object covers

Similarity = Callable[[NDArray[np.uint8]], float]  # a picture (H, W, 3) -> cosine to the prompt


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Pictures (K, S, S, 3) uint8, best first, with the seed each was made from and what it was ranked by.

    similarity (K,): cosine to the prompt in the joint space; foreground (K,) in [0, 1]; score: their product, with the
    cosine mapped to [0, 1].
    """

    pictures: NDArray[np.uint8]
    seeds: tuple[int, ...]
    similarity: NDArray[np.float64]
    foreground: NDArray[np.float64]

    @property
    def score(self) -> NDArray[np.float64]:
        """(K,) what they are ranked by."""
        return (1 + self.similarity) / 2 * self.foreground


def imagine(
    prior: Prior,
    condition: Condition,
    similarity: Similarity,
    seeds: Sequence[int],
    *,
    num_inference_steps: int = 30,
    guidance_scale: float = 3.0,
    device: str | torch.device = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> Candidates:
    """One candidate a seed, ranked. A candidate's picture depends on its own seed alone, not on its company."""
    made: Tensor = sample(
        prior,
        condition,
        seeds,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        device=device,
        on_step=on_step,
    )
    return ranked(to_bytes(made), seeds, similarity)


def ranked(pictures: NDArray[np.uint8], seeds: Sequence[int], similarity: Similarity) -> Candidates:
    """Pictures (K, H, W, 3) with their scores, best first; equals keep their order."""
    alike = np.array([similarity(picture) for picture in pictures])
    shown = np.array([foreground_score(object_mask(picture)) for picture in pictures])
    order = np.argsort(-(1 + alike) * shown, kind="stable")
    return Candidates(pictures[order], tuple(int(seeds[i]) for i in order), alike[order], shown[order])


def object_mask(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W, 3) -> (H, W): what differs from the middle colour of the border."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]]).astype(np.int64)
    return (np.abs(picture.astype(np.int64) - np.median(border, 0)) > TOLERANCE).any(-1)


def foreground_score(mask: NDArray[np.bool_]) -> float:
    """How well a mask (H, W) is one whole object, in [0, 1]: a product of three shares.

    Its area against 10 to 70 % of the picture; its largest piece against all of it; the border's free pixels.
    """
    from skimage.measure import label

    area = float(mask.mean())
    if area == 0:
        return 0.0
    framed = min(1.0, area / LEAST, (1 - area) / (1 - MOST))
    pieces = np.asarray(label(mask, connectivity=2))
    whole = np.bincount(pieces[pieces > 0]).max() / mask.sum()
    touching = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean()
    return float(framed * whole * (1 - touching))
