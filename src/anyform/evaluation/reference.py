"""The training shapes that baselines copy from, and the nearest of them to a given shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.evaluation.metrics import volume_iou

CANDIDATES = 5  # nearest at half resolution that are compared exactly
_ROWS = 256  # training shapes unpacked at a time


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """O training shapes: ids, captions, and strict insides (N, N, N) [x, y, z] packed to bits, (O, N³/8) uint8."""

    ids: Sequence[str]
    captions: Sequence[str]
    packed: NDArray[np.uint8]
    size: int = 64

    def __post_init__(self) -> None:
        if self.packed.shape != (len(self.ids), self.size**3 // 8) or len(self.captions) != len(self.ids):
            raise BadInput(f"{len(self.ids)} reference shapes of {self.size}³ do not fit an array {self.packed.shape}")

    @classmethod
    def of(cls, ids: Sequence[str], captions: Sequence[str], insides: Sequence[NDArray[np.bool_]]) -> Reference:
        """From unpacked insides (N, N, N)."""
        return cls(ids, captions, np.stack([np.packbits(inside) for inside in insides]), len(insides[0]))

    def inside(self, row: int) -> NDArray[np.bool_]:
        """One shape, (N, N, N)."""
        return np.unpackbits(self.packed[row]).astype(np.bool_).reshape((self.size,) * 3)

    def nearest(
        self, shapes: Sequence[NDArray[np.bool_]], mirrored: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Row and IoU of the nearest training shape of each of Q shapes (N, N, N): (Q,), (Q,).

        Candidates are the five best at half resolution (a block counts where half of it is filled); they are compared
        exactly. `mirrored` tries every training shape in its mirror image (x → −x) too.
        """
        coarse = np.stack([_half(shape) for shape in shapes] + [_half(shape[::-1]) for shape in shapes] * mirrored)
        overlap = np.split(self._overlap(coarse.astype(np.float32)), 1 + mirrored)
        rows, ious = np.zeros(len(shapes), np.int64), np.zeros(len(shapes))
        for q, shape in enumerate(shapes):
            score = np.concatenate([part[q] for part in overlap])
            for candidate in np.argsort(-score, kind="stable")[:CANDIDATES]:
                flip, row = divmod(int(candidate), len(self.ids))
                other = self.inside(row)
                iou = volume_iou(other[::-1] if flip else other, shape)
                if iou > ious[q]:
                    rows[q], ious[q] = row, iou
        return rows, ious

    def _overlap(self, coarse: NDArray[np.float32]) -> NDArray[np.float32]:
        """(Q, O) IoU at half resolution of coarse shapes (Q, (N/2)³)."""
        scores = []
        for start in range(0, len(self.ids), _ROWS):
            stop = min(start + _ROWS, len(self.ids))
            block = np.stack([_half(self.inside(row)) for row in range(start, stop)]).astype(np.float32)
            common = coarse @ block.T
            union = coarse.sum(1)[:, None] + block.sum(1)[None] - common
            scores.append(common / np.maximum(union, 1))
        return np.concatenate(scores, 1)


def _half(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, N, N) -> ((N/2)³,): blocks of 2³ that are at least half filled."""
    half = len(inside) // 2
    return (inside.reshape(half, 2, half, 2, half, 2).sum((1, 3, 5)) >= 4).ravel()
