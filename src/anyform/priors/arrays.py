"""The arrays that the embedded priors are trained on, as `data/pictures.py` and `runs/embedded_pictures.py` left them.

Beside `rgba.npy`, `camera.npy` and `words-*.jsonl` (data/pictures.py) a folder holds `captions.json` (the S unique
sentences), `tokens.npy` (S, 16, 384) and the joint embeddings `joint_pictures.npy` (N, V, 256), `joint_captions.npy`
(S, 256), all float16.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput

MAX_TOKENS = 16  # word pieces a prompt, start and end marks included


def sentences(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The unique captions of all objects and groups in a fixed order, after the null prompt ""."""
    found = {text for row in rows for group in row.get("captions", ()) for text in group}
    return ["", *sorted(found - {""})]


@dataclass(frozen=True, slots=True)
class PriorArrays:
    """What a training step reads; the large arrays stay on disk.

    rgba (N, V, S, S, 4) uint8; camera (N, V, 3) float32; tokens (C, 16, 384), joint_captions (C, D) and joint_pictures
    (N, V, D) float16; captions[n][g] = indices of the sentences of object n's group g, empty for unusable objects;
    split (N,) of "train", "val", "test" or "".
    """

    rgba: NDArray[np.uint8]
    camera: NDArray[np.float32]
    tokens: NDArray[np.float16]
    joint_pictures: NDArray[np.float16]
    joint_captions: NDArray[np.float16]
    captions: list[list[list[int]]]
    split: NDArray[np.str_]
    sentences: list[str]

    @classmethod
    def open(cls, folder: Path) -> PriorArrays:
        """Raises BadInput that names the command whose file is missing."""
        for name, job in (
            ("rgba.npy", "pictures"),
            ("camera.npy", "pictures"),
            ("captions.json", "words"),
            ("tokens.npy", "words"),
            ("joint_captions.npy", "labels"),
            ("joint_pictures.npy", "labels"),
        ):
            if not (folder / name).is_file():
                raise BadInput(f"{folder.name} has no {name}: make it with runs/embedded_pictures.py {job}")
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("rgba", "camera", "tokens", "joint_pictures", "joint_captions")
        }
        known = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
        place = {text: index for index, text in enumerate(known)}
        captions: list[list[list[int]]] = [[] for _ in range(len(arrays["rgba"]))]
        split = np.full(len(captions), "", dtype="<U8")
        for path in sorted(folder.glob("words-*.jsonl")):
            lines = path.read_text(encoding="utf-8").splitlines()
            for row in (json.loads(line) for line in lines if line.endswith("}")):  # a killed run leaves half a line
                if "captions" in row:
                    captions[row["index"]] = [[place[text] for text in group] for group in row["captions"]]
                    split[row["index"]] = row["split"]
        return cls(**arrays, captions=captions, split=split, sentences=known)

    def objects(self, split: str) -> NDArray[np.int64]:
        """Rows of the usable objects of one split."""
        return np.flatnonzero(self.split == split)

    def group(self, view: int) -> int:
        """Which group of colours a view belongs to."""
        groups = next((len(groups) for groups in self.captions if groups), 1)
        return view // (self.rgba.shape[1] // groups)
