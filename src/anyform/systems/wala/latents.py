"""Between the stages of the embedded WaLa: latents in every quarter turn, neighbours, and the retrieval index.

`build` adds to a folder of arrays (`gather`): latent.npy, near_text.npy and near_view.npy (`training_denoiser.Arrays`),
codec.safetensors with the latents' scale, and retrieval.safetensors (`retrieval.Index`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from anyform.errors import BadInput
from anyform.systems.wala.codec import ShapeCodec
from anyform.systems.wala.lifting import turn
from anyform.systems.wala.retrieval import normalised_keys
from anyform.types.progress import Progress, Report

Rows = Sequence[Mapping[str, Any]]
NEIGHBOURS = 8
# Objects without a licence are a user's own meshes; those of the corpus all have one.
FREE_LICENCES = ("CC0-1.0", "")


def build(arrays: Path, codec: ShapeCodec, report: Report, *, bf16: bool) -> ShapeCodec:
    """All of it, unless it is there already for this codec; returns the codec with its latents' scale.

    Raises BadInput where no training object may be retrieved.
    """
    if is_built(arrays, codec):
        codec.load_state_dict(load_file(arrays / "codec.safetensors"))
        return codec
    rows = json.loads((arrays / "catalog.json").read_text(encoding="utf-8"))
    train = np.array([row["split"] == "train" for row in rows])
    raw = arrays / "latent.npy.partial"
    codes = encode(codec, np.load(arrays / "field.npy", mmap_mode="r"), raw, report, bf16=bf16)
    standardise(codec, raw, train)
    text, keys = np.load(arrays / "text.npy", mmap_mode="r"), np.load(arrays / "key.npy", mmap_mode="r")
    near_text, near_view = neighbours(rows, text, keys)
    np.save(arrays / "near_text.npy", near_text)
    np.save(arrays / "near_view.npy", near_view)
    write_index(rows, codes, text, keys, np.load(arrays / "color.npy", mmap_mode="r"), arrays / "retrieval.safetensors")
    raw.replace(arrays / "latent.npy")
    # last: its presence says that the rest is whole
    partial = arrays / "codec.safetensors.partial"
    save_file({key: value.contiguous() for key, value in codec.state_dict().items()}, partial)
    partial.replace(arrays / "codec.safetensors")
    return codec


def is_built(arrays: Path, codec: ShapeCodec) -> bool:
    """Whether the folder's latents are those of this codec (whose own scale of latents does not count)."""
    path = arrays / "codec.safetensors"
    if not path.is_file():
        return False
    stored, own = load_file(path), codec.state_dict()
    names = [name for name in own if not name.startswith("latent_")]
    return all(name in stored and torch.equal(stored[name], own[name].cpu()) for name in names)


@torch.no_grad()
def encode(codec: ShapeCodec, fields: NDArray[np.int8], out: Path, report: Report, *, bf16: bool) -> NDArray[np.uint16]:
    """(O, N, N, N) int8 -> latents (O, 4 turns, C, g, g, g) float16 in the file `out`, and codes of the first turn."""
    config, device = codec.config.vqvae, next(codec.parameters()).device
    shape = (len(fields), 4, config.latent_channels, *(config.latent_size,) * 3)
    latents = np.lib.format.open_memmap(out, "w+", np.float16, shape)
    codes = []
    for number, field in enumerate(fields):
        turns = np.stack([turn(np.asarray(field), quarter) for quarter in range(4)]).astype(np.float32) / 127
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            latent = codec.vqvae.encode(codec.pack(torch.from_numpy(turns).to(device))).float()
        latents[number] = latent.cpu().numpy().astype(np.float16)
        codes.append(codec.vqvae.quantise(latent[:1])[1][0].cpu().numpy().astype(np.uint16))
        report(Progress("latents", number + 1, len(fields)))
    latents.flush()
    return np.stack(codes)


@torch.no_grad()
def standardise(codec: ShapeCodec, path: Path, train: NDArray[np.bool_]) -> None:
    """Measure mean and spread of the training objects' latents into the codec, and apply them to the file in place."""
    latents = np.load(path, mmap_mode="r+")
    axes = (0, 2, 3, 4)
    sums = np.zeros((2, latents.shape[2]))
    for row in np.flatnonzero(train):
        values = latents[row].astype(np.float64)
        sums += np.stack([values.mean(axes), np.square(values).mean(axes)])
    mean, square = sums / max(int(train.sum()), 1)
    spread = np.sqrt(np.maximum(square - mean**2, 1e-12))
    codec.latent_mean.copy_(torch.from_numpy(mean))
    codec.latent_spread.copy_(torch.from_numpy(spread))
    shaped = (slice(None), None, None, None)
    for row in range(len(latents)):
        latents[row] = (latents[row].astype(np.float64) - mean[shaped]) / spread[shaped]
    latents.flush()


def neighbours(
    rows: Rows, text: NDArray[np.floating], keys: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Nearest training objects of another near-duplicate group: (O, 8) rows, and (O, 4, 8) rows·4 + turn by pictures.

    text (O, T, D) sentence vectors, keys (O, 12, K). Fewer than 8 columns where there are fewer training objects.
    """
    split, group = (np.array([str(row[key]) for row in rows]) for key in ("split", "group"))
    train = np.flatnonzero(split == "train")
    count = min(NEIGHBOURS, len(train))
    vectors = text.astype(np.float32).mean(1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    same = group[:, None] == group[train][None]
    similarity = np.where(same, -9, vectors @ vectors[train].T)
    near_text = train[np.argsort(-similarity, 1, kind="stable")[:, :count]]
    unit = normalised_keys(keys)
    near_view = np.zeros((len(rows), 4, count), np.int32)
    for quarter in range(4):
        query = unit[:, 3 * quarter]
        best = np.full((len(rows), len(train), 4), -9, np.float32)
        for candidate in range(4):
            for shift in (-1, 0, 1):
                found = query @ unit[train, (3 * candidate + shift) % 12].T
                best[:, :, candidate] = np.maximum(best[:, :, candidate], np.where(same, -9, found))
        which, score = best.argmax(2), best.max(2)
        order = np.argsort(-score, 1, kind="stable")[:, :count]
        near_view[:, quarter] = train[order] * 4 + np.take_along_axis(which, order, 1)
    return near_text.astype(np.int32), near_view


def write_index(
    rows: Rows,
    codes: NDArray[np.uint16],
    text: NDArray[np.floating],
    keys: NDArray[np.uint8],
    colours: NDArray[np.uint8],
    out: Path,
) -> None:
    """The index of training objects that owe nobody attribution (`FREE_LICENCES`). Raises BadInput without any."""
    chosen = [i for i, row in enumerate(rows) if row["split"] == "train" and row["license"] in FREE_LICENCES]
    if not chosen:
        raise BadInput("no training object is CC0 or of your own (without a licence): nothing could be retrieved")
    mean = text[chosen].astype(np.float32).mean(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    blobs = [zlib.compress(colours[i].tobytes(), 9) for i in chosen]
    tensors = {
        "codes": torch.from_numpy(codes[chosen].astype(np.int16)),
        "text": torch.from_numpy(np.rint(mean * 127 / np.abs(mean).max(1, keepdims=True)).astype(np.int8)),
        "keys": torch.from_numpy(keys[chosen]),
        "colours": torch.frombuffer(bytearray(b"".join(blobs)), dtype=torch.uint8),
        "offsets": torch.from_numpy(np.cumsum([0, *map(len, blobs)])),
    }
    owners = [[rows[i][key] for key in ("id", "caption", "name", "author", "license")] for i in chosen]
    free = all(rows[i]["license"] == "CC0-1.0" for i in chosen)
    what = f"{len(chosen)} CC0 training objects of the open corpus" if free else f"{len(chosen)} training objects"
    metadata = {
        "credits": json.dumps(owners, ensure_ascii=False),
        "licence": "CC0-1.0" if free else "unknown: of a local run",
        "commercial_use": "yes" if free else "unknown",
        "data": f"{what}: codes of their latents, caption vectors, view keys, colours",
    }
    save_file(tensors, out, metadata)
