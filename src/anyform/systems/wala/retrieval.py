"""The nearest CC0 training shape of a text, picture or sketch: where embedded sampling starts from.

Retrieval of the nearest training object is a strong and honest baseline at this data size (specs/embedded.md §5); the
index holds CC0 objects only, so that results owe nobody attribution, and every result still names what it began with.
Text is compared by MiniLM sentence vectors, pictures by a 16×16 silhouette and an 8×8 grey picture of twelve stored
views of each object, in any quarter turn.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.systems.wala.lifting import turn
from anyform.weights import embedded_file, read_safetensors

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
    colours: the objects' 16³ colour grids, each compressed by zlib, one after the other, and offsets (O + 1,).
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

    def codes(self, neighbour: Neighbour) -> NDArray[np.int64]:
        """(g³·groups,) code indices of the neighbour's latent, not turned."""
        return self.arrays["codes"][neighbour.row].astype(np.int64)

    def colours(self, neighbour: Neighbour) -> NDArray[np.uint8]:
        """(16, 16, 16, 3) sparse colour grid of the neighbour in its turn, as `paint` takes it."""
        start, stop = self.arrays["offsets"][neighbour.row : neighbour.row + 2].tolist()
        raw = zlib.decompress(self.arrays["colours"][start:stop].tobytes())
        grid = np.moveaxis(np.frombuffer(raw, np.uint8).reshape(16, 16, 16, 3), -1, 0)
        return np.ascontiguousarray(np.moveaxis(turn(grid, neighbour.turn), 0, -1))


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
