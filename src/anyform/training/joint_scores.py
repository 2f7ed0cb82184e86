"""How well the joint space finds what belongs together: recall per pair of kinds, words heard, speech or not.

Two things belong together when their captions are equal. Pictures and sketches are seen on white, four views an object;
points are 1,024 of an object's; sentences are the split's different captions, written plainly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyform.encoders.joint import Joint, heard
from anyform.encoders.speech import window
from anyform.training.contrastive import chance_at, recall_at
from anyform.training.joint import JointArrays

_VIEWS, _POINTS, _BATCH = slice(0, 12, 3), 1024, 64


@torch.inference_mode()
def scores(
    model: Joint, arrays: JointArrays, catalogue: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]],
    split: str,
) -> dict[str, float]:  # fmt: skip
    """{"image>text R1": …, "image>text R5", "image>text chance1", …} in percent, and shares for words and speech."""
    objects = np.flatnonzero([row["split"] == split for row in catalogue])
    vectors, groups = _objects(model, arrays, objects)
    pairs = [(a, b) for a in vectors for b in vectors if a != b]
    found: dict[str, float] = {}
    for a, b in pairs:
        found |= _recall(f"{a}>{b}", (vectors[a], groups[a]), (vectors[b], groups[b]))
    for seen, name in ((True, "seen"), (False, "unseen")):
        sounds = [
            at for at, row in enumerate(rows) if row["split"] == split and row["text"] and bool(row["seen"]) is seen
        ]
        vectors_heard, _, words = _sounds(model, arrays, sounds)
        captions = {str(catalogue[at]["caption"]): int(arrays.group[at]) for at in objects.tolist()}
        spoken = vectors_heard, np.array([captions[str(rows[at]["text"])] for at in sounds])
        for kind in ("text", "image", "points"):
            found |= _recall(f"speech {name}>{kind}", spoken, (vectors[kind], groups[kind]))
        truth = torch.from_numpy(arrays.words[arrays.said[sounds]])
        named = words > 0
        found[f"words recalled, {name} voices"] = _percent((named & truth).sum() / truth.sum())
        found[f"words right, {name} voices"] = _percent((named & truth).sum() / named.sum().clamp(min=1))
    return found | _any_speech(model, arrays, rows, split)


def _objects(
    model: Joint, arrays: JointArrays, objects: NDArray[np.int64]
) -> tuple[dict[str, Tensor], dict[str, NDArray[np.int64]]]:
    """Vectors and caption groups of each kind; an object's views follow each other."""
    framed = torch.from_numpy(np.ascontiguousarray(arrays.framed[objects][:, _VIEWS])).flatten(0, 1).float() / 255
    white = framed[..., :3] * framed[..., 3:] + 1 - framed[..., 3:]
    ink = torch.from_numpy(np.ascontiguousarray(arrays.sketch[objects][:, _VIEWS])).flatten(0, 1).float() / 255
    cloud = torch.from_numpy(np.asarray(arrays.points[objects][:, ::4][:, :_POINTS], np.float32))
    group = arrays.group[objects]
    views = np.repeat(group, len(white) // len(objects))
    once, first = np.unique(group, return_index=True)
    text = torch.from_numpy(np.asarray(arrays.text[objects[first], 0], np.float32))
    vectors = {
        "text": model.text(text),
        "image": _batched(lambda x: model.image(x.permute(0, 3, 1, 2)), white),
        "sketch": _batched(lambda x: model.sketch(x[:, None]), ink),
        "points": _batched(model.points, cloud),
    }
    return vectors, {"text": once, "image": views, "sketch": views, "points": group}


def _sounds(model: Joint, arrays: JointArrays, sounds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    mel = np.stack([window(arrays.mel[at, : arrays.length[at]]) for at in sounds])
    parts = [model.speech(part) for part in torch.from_numpy(mel).split(_BATCH)]
    vectors, spoken, words = (torch.cat(column) for column in zip(*parts, strict=True))
    return vectors, spoken, words


def _any_speech(model: Joint, arrays: JointArrays, rows: Sequence[Mapping[str, Any]], split: str) -> dict[str, float]:
    wordless = [at for at, row in enumerate(rows) if row["split"] == split and not row["text"]]
    unseen = [at for at, row in enumerate(rows) if row["split"] == split and row["text"] and not row["seen"]]
    refused, taken = (heard(*_sounds(model, arrays, some)[1:]) for some in (wordless, unseen))
    return {"sounds refused": _percent((~refused).float().mean()), "speech taken": _percent(taken.float().mean())}


def _recall(
    name: str, query: tuple[Tensor, NDArray[np.int64]], gallery: tuple[Tensor, NDArray[np.int64]]
) -> dict[str, float]:
    truth = torch.from_numpy(query[1][:, None] == gallery[1][None])
    found = {f"{name} R{k}": _percent(recall_at(query[0], gallery[0], truth, k)) for k in (1, 5)}
    return found | {f"{name} chance{k}": _percent(chance_at(truth, k)) for k in (1, 5)}


def _batched(encode: Any, values: Tensor) -> Tensor:
    return torch.cat([encode(part) for part in values.split(_BATCH)])


def _percent(share: Tensor | float) -> float:
    return round(100 * float(share), 1)
