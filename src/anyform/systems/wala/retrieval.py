"""The nearest CC0 training shape of a text, picture or sketch: where embedded sampling starts from.

Retrieval of the nearest training object is a strong and honest baseline at this data size (specs/embedded.md §5); the
index holds CC0 objects only, so that results owe nobody attribution, and every result still names what it began with.
A first guess compares texts by MiniLM sentence vectors, pictures by a 16×16 silhouette and an 8×8 grey picture of
twelve stored views of each object. What the network then expects of the prompt (`EmbeddedWala.mean`) is compared with
the shapes themselves (`shape_key`), in any quarter turn: that finds nearer ones (docs/results.md).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.systems.wala.lifting import turn
from anyform.weights import embedded_file, read_safetensors

SHAPE_SIZE, SHAPE_LEVELS = 16, 15
FAR_TEXT = 0.6  # cosine below which a sentence is called far: 10 to 25 % of val captions; theremin, violin, toaster


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One retrieved object in one quarter turn, nearest first; similarity is a cosine."""

    row: int
    turn: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Credit:
    """Whose object it is."""

    id: str
    caption: str
    title: str
    author: str
    licence: str


class Index:
    """The shipped index of O objects.

    codes (O, g³·groups) of each latent, text (O, 384) int8 caption vectors, keys (O, 12, 320) uint8 of twelve views,
    shapes: `shape_key` of every object, compressed together by zlib, colours: the objects' 16³ colour grids, each
    compressed by zlib, one after the other, and offsets (O + 1,).
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], owners: list[Credit]) -> None:
        self.arrays, self.owners = arrays, owners

    @classmethod
    def load(cls, path: Path | None = None) -> Index:
        """Read an index; None = the one that comes with the package (`embedded/retrieval.safetensors`)."""
        tensors, metadata = read_safetensors(path or embedded_file("retrieval"))
        owners = [Credit(*row) for row in json.loads(metadata["credits"])]
        return cls({name: tensor.numpy() for name, tensor in tensors.items()}, owners)

    @cached_property
    def _text(self) -> NDArray[np.float32]:
        vectors = self.arrays["text"].astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    @cached_property
    def _keys(self) -> NDArray[np.float32]:
        return normalised_keys(self.arrays["keys"])

    @cached_property
    def _shapes(self) -> NDArray[np.float32]:
        """(O, 16³) inside shares in [0, 1]."""
        raw = zlib.decompress(self.arrays["shapes"].tobytes())
        return np.frombuffer(raw, np.uint8).reshape(len(self.owners), -1).astype(np.float32) / SHAPE_LEVELS

    def near_text(self, vector: NDArray[np.float32], count: int = 8) -> list[Neighbour]:
        """The objects with the nearest captions; their own front."""
        similarity = self._text @ vector
        return [Neighbour(int(row), 0, float(similarity[row])) for row in np.argsort(-similarity)[:count]]

    def near_picture(self, key: NDArray[np.uint8], count: int = 8) -> list[Neighbour]:
        """The objects that look most alike from some of their stored views; the turn brings that view to the front."""
        similarity = (self._keys @ normalised_keys(key)).reshape(len(self._keys), 12)
        by_turn = np.stack([similarity[:, [(3 * q - 1) % 12, 3 * q, (3 * q + 1) % 12]].max(1) for q in range(4)], 1)
        best = np.argsort(-by_turn.max(1))[:count]
        return [Neighbour(int(row), int(by_turn[row].argmax()), float(by_turn[row].max())) for row in best]

    def near_shape(self, key: NDArray[np.uint8], turns: Sequence[int], count: int = 8) -> list[Neighbour]:
        """The objects whose insides overlap most with those of `shape_key`, in the best of `turns`; a soft IoU."""
        # an object in turn q overlaps with the key as the object itself does with the key in turn -q
        queries = np.stack([turn(key, -q % 4).ravel() for q in turns]).astype(np.float32) / SHAPE_LEVELS
        both = self._shapes @ queries.T
        overlap = both / np.maximum(self._shapes.sum(1)[:, None] + queries.sum(1)[None] - both, 1e-6)
        best = np.argsort(-overlap.max(1), kind="stable")[:count]
        return [Neighbour(int(row), int(turns[int(overlap[row].argmax())]), float(overlap[row].max())) for row in best]

    def codes(self, neighbour: Neighbour) -> NDArray[np.int64]:
        """(g³·groups,) code indices of the neighbour's latent, not turned."""
        return self.arrays["codes"][neighbour.row].astype(np.int64)

    def colours(self, neighbour: Neighbour) -> NDArray[np.uint8]:
        """(16, 16, 16, 3) sparse colour grid of the neighbour in its turn, as `paint` takes it."""
        start, stop = self.arrays["offsets"][neighbour.row : neighbour.row + 2].tolist()
        raw = zlib.decompress(self.arrays["colours"][start:stop].tobytes())
        grid = np.moveaxis(np.frombuffer(raw, np.uint8).reshape(16, 16, 16, 3), -1, 0)
        return np.ascontiguousarray(np.moveaxis(turn(grid, neighbour.turn), 0, -1))


def shape_key(field: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(N, N, N) field in [-1, 1], negative inside -> (16, 16, 16) share of each block that is inside, of 15."""
    part = len(field) // SHAPE_SIZE
    inside = 1 / (1 + np.exp(8 * np.clip(field.astype(np.float32), -1, 1)))
    blocks = inside.reshape(SHAPE_SIZE, part, SHAPE_SIZE, part, SHAPE_SIZE, part).mean((1, 3, 5))
    return np.rint(blocks * SHAPE_LEVELS).astype(np.uint8)


def picture_key(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Framed (64, 64, 4) -> (320,): 16×16 silhouette, then 8×8 darkness under it."""
    alpha = rgba[..., 3].reshape(16, 4, 16, 4).mean((1, 3))
    dark = (255 - rgba[..., :3].mean(-1)) * (rgba[..., 3] / 255.0)
    return np.concatenate([alpha.ravel(), dark.reshape(8, 8, 8, 8).mean((1, 3)).ravel()]).astype(np.uint8)


def normalised_keys(keys: NDArray[np.generic]) -> NDArray[np.float32]:
    """Keys (..., 320) uint8 -> mean-free unit vectors; silhouettes weigh .64, darkness .36 (chosen on val)."""
    values = keys.astype(np.float32)
    parts = []
    for part, weight in ((values[..., :256], 0.64), (values[..., 256:], 0.36)):
        centred = part - part.mean(-1, keepdims=True)
        parts.append(weight**0.5 * centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-6))
    return np.concatenate(parts, -1)
