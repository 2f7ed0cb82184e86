"""Training data of the embedded priors: `python runs/embedded_pictures.py pictures|words|labels OUT`.

pictures: renders of every corpus object (data/pictures.py), about 0.15 CPU seconds an object; several `--part`s may run
at once, a killed one goes on. words: MiniLM token states of every caption. labels: joint embeddings of every picture
(on white, as a user's cut-out picture is read) and of every caption, which the foundation is conditioned on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from anyform.data.corpus import open_collection
from anyform.data.pictures import PicturePlan, read_words, write_pictures
from anyform.encoders import embedded
from anyform.encoders.joint_inputs import picture
from anyform.priors.arrays import MAX_TOKENS, sentences
from anyform.types.progress import Progress
from anyform.types.prompt import Image


def show(progress: Progress) -> None:
    if progress.step % 100 == 0 or progress.step == progress.total:
        print(f"{progress.stage} {progress.step}/{progress.total} {progress.message}", flush=True)


def words(out: Path) -> None:
    """`captions.json`: the unique sentences; `tokens.npy` (S, 16, 384) float16, `vectors.npy` (S, 384) float16."""
    unique = sentences(read_words(out))
    encoder = embedded.load()
    tokens = np.lib.format.open_memmap(out / "tokens.npy", "w+", np.float16, (len(unique), MAX_TOKENS, 384))
    vectors = np.zeros((len(unique), 384), np.float16)
    for start in range(0, len(unique), 256):
        vector, states, _ = encoder.text(unique[start : start + 256])
        length = min(MAX_TOKENS, states.shape[1])
        tokens[start : start + 256, :length] = states[:, :length].half().numpy()
        vectors[start : start + 256] = vector.half().numpy()
        show(Progress("words", min(start + 256, len(unique)), len(unique)))
    np.save(out / "vectors.npy", vectors)
    (out / "captions.json").write_text(json.dumps(unique, ensure_ascii=False), encoding="utf-8")


def labels(out: Path, joint: Path | None) -> None:
    """`joint_pictures.npy` (N, V, D) and `joint_captions.npy` (S, D), float16 unit vectors of the joint space."""
    encoder = embedded.load(joint)
    rgba = np.load(out / "rgba.npy", mmap_mode="r")
    with torch.inference_mode():
        vectors = torch.from_numpy(np.load(out / "vectors.npy")).float()
        np.save(out / "joint_captions.npy", encoder.joint.text(vectors).half().numpy())
        seen = np.zeros((*rgba.shape[:2], encoder.dim), np.float16)
        rows = [row["index"] for row in read_words(out) if "captions" in row]
        for count, index in enumerate(rows, 1):
            shown = [view for view in range(rgba.shape[1]) if (rgba[index, view, ..., 3] >= 8).any()]
            framed = np.stack([picture(Image(np.ascontiguousarray(rgba[index, view]))) for view in shown])
            seen[index, shown] = encoder.joint.image(torch.from_numpy(framed)).half().numpy()
            show(Progress("labels", count, len(rows)))
    np.save(out / "joint_pictures.npy", seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("pictures", "words", "labels"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/data/corpus"), help="or any folder of meshes")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--joint", type=Path, help="file of the joint network; default the shipped one")
    parser.add_argument("--seed", type=int, default=0, help="other views and colours, for the judge")
    args = parser.parse_args()
    if args.job == "pictures":
        plan, corpus = PicturePlan(seed=args.seed), open_collection(args.corpus)
        write_pictures(corpus, args.out, plan, part=args.part, parts=args.parts, report=show)
    elif args.job == "words":
        words(args.out)
    else:
        labels(args.out, args.joint)


if __name__ == "__main__":
    main()
