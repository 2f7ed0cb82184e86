"""Between the stages: latents, neighbours and the retrieval index of the embedded WaLa.

`python runs/embedded_latents.py DATA CODEC TRAIN`: DATA holds sdf64.npy, text.npz, color16.npz and catalog.json, CODEC is
the checkpoint of `embedded_codec.py --quantised`, TRAIN the folder of arrays of stage 2 (`Arrays`), which gets latent.npy,
near_text.npy, near_view.npy, text.npy, field.npy, codec.safetensors and retrieval.safetensors.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from anyform.systems.wala.codec import ShapeCodec, embedded
from anyform.systems.wala.lifting import turn
from anyform.systems.wala.retrieval import normalised_keys
from anyform.training.loop import load_state


@torch.no_grad()
def encode(codec: ShapeCodec, fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(O, N, N, N) int8 -> latents (O, 4, C, g, g, g) float16 in every quarter turn, and codes (O, n) uint16 of the first."""
    latents, codes = [], []
    for number, field in enumerate(fields):
        turns = np.stack([turn(np.asarray(field), quarter) for quarter in range(4)]).astype(np.float32) / 127
        with torch.autocast("cpu", torch.bfloat16):
            latent = codec.vqvae.encode(codec.pack(torch.from_numpy(turns))).float()
        latents.append(latent.numpy().astype(np.float16))
        codes.append(codec.vqvae.quantise(latent[:1])[1][0].numpy().astype(np.uint16))
        if number % 200 == 0:
            print("encoded", number, flush=True)
    return np.stack(latents), np.stack(codes)


def neighbours(rows: list[dict], text: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest training objects of another near-duplicate group: (O, 8) rows, and (O, 4, 8) rows·4 + turn by pictures."""
    split = np.array([row["split"] for row in rows])
    group = np.array([row["group"] for row in rows])
    train = np.flatnonzero(split == "train")
    vectors = text.astype(np.float32).mean(1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors[train].T
    same = group[:, None] == group[train][None]
    near_text = train[np.argsort(np.where(same, -9, similarity), 1)[:, ::-1][:, :8]]
    unit = normalised_keys(keys)
    near_view = np.zeros((len(rows), 4, 8), np.int32)
    for quarter in range(4):
        query = unit[:, 3 * quarter]
        best = np.full((len(rows), len(train), 4), -9, np.float32)
        for candidate in range(4):
            for shift in (-1, 0, 1):
                found = query @ unit[train, (3 * candidate + shift) % 12].T
                best[:, :, candidate] = np.maximum(best[:, :, candidate], np.where(same, -9, found))
        which, score = best.argmax(2), best.max(2)
        order = np.argsort(-score, 1)[:, :8]
        near_view[:, quarter] = train[order] * 4 + np.take_along_axis(which, order, 1)
    return near_text.astype(np.int32), near_view


def write_index(rows: list[dict], codes: np.ndarray, text: np.ndarray, keys: np.ndarray, colours: np.ndarray, out: Path) -> None:
    """The shipped index: CC0 training objects only, so that results stay free of attribution."""
    chosen = [i for i, row in enumerate(rows) if row["split"] == "train" and row["license"] == "CC0-1.0"]
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
    credits = [[rows[i][k] for k in ("id", "caption", "name", "author", "license")] for i in chosen]
    metadata = {
        "credits": json.dumps(credits, ensure_ascii=False),
        "licence": "CC0-1.0",
        "commercial_use": "yes",
        "data": f"{len(chosen)} CC0 training objects of the open corpus: codes of their latents, caption vectors, view keys, colours",
    }
    save_file(tensors, out, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "codec", "train"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    rows = json.loads((args.data / "catalog.json").read_text(encoding="utf-8"))
    codec = ShapeCodec(embedded())
    codec.load_state_dict(load_state(args.codec).average, strict=True)
    latents, codes = encode(codec, np.load(args.data / "sdf64.npy", mmap_mode="r"))
    split = np.array([row["split"] for row in rows])
    flat = latents[split == "train"].astype(np.float32)
    mean, spread = flat.mean((0, 1, 3, 4, 5)), flat.std((0, 1, 3, 4, 5))
    codec.latent_mean.copy_(torch.from_numpy(mean))
    codec.latent_spread.copy_(torch.from_numpy(spread))
    shaped = (slice(None), None, None, None)
    np.save(args.train / "latent.npy", ((latents - mean[shaped]) / spread[shaped]).astype(np.float16))
    save_file({k: v.contiguous() for k, v in codec.state_dict().items()}, args.train / "codec.safetensors")
    text, keys = np.load(args.data / "text.npz")["emb"], np.load(args.train / "key.npy")
    near_text, near_view = neighbours(rows, text, keys)
    np.save(args.train / "text.npy", text)
    np.save(args.train / "near_text.npy", near_text)
    np.save(args.train / "near_view.npy", near_view)
    field = args.train / "field.npy"
    if not field.exists():
        os.link(args.data / "sdf64.npy", field)
    write_index(rows, codes, text, keys, np.load(args.data / "color16.npz")["grid"], args.train / "retrieval.safetensors")


if __name__ == "__main__":
    main()
