"""Between the stages: latents, neighbours and the retrieval index of the embedded WaLa.

`python runs/embedded_latents.py DATA CODEC TRAIN`: CODEC is the checkpoint of `embedded_codec.py --quantised`, TRAIN
the folder of arrays of stage 2 (`training_denoiser.Arrays`), to which `wala.latents.build` adds. What TRAIN lacks comes
from DATA: catalog.json, sdf64.npy, the sentence vectors of text.npz and the colour grids of color16.npz.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

from anyform.systems.wala.latents import build
from anyform.systems.wala.stages import fill, new_codec
from anyform.systems.wala.training_plan import embedded_plan
from anyform.types.progress import Progress


def show(progress: Progress) -> None:
    if progress.step % 200 == 0:
        print(f"{progress.stage} {progress.step}/{progress.total}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "codec", "train"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    if not (args.train / "catalog.json").exists():
        shutil.copyfile(args.data / "catalog.json", args.train / "catalog.json")
    if not (args.train / "field.npy").exists():
        os.link(args.data / "sdf64.npy", args.train / "field.npy")
    for name, archive, key in (("text", "text.npz", "emb"), ("color", "color16.npz", "grid")):
        if not (args.train / f"{name}.npy").exists():
            np.save(args.train / f"{name}.npy", np.load(args.data / archive)[key])
    codec = new_codec(embedded_plan().codec)
    fill(codec, args.codec)
    build(args.train, codec, show, bf16=True)


if __name__ == "__main__":
    main()
