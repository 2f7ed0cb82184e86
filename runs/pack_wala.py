"""Write the shipped files: `python runs/pack_wala.py TRAIN CODEC DENOISER [--measured FILE]`.

TRAIN holds codec.safetensors and retrieval.safetensors, CODEC is a later checkpoint of the same codec whose decoder
trained on (or the folder's own), DENOISER the stage-2 checkpoint. FILE is the JSON of `anyform evaluate wala --json`,
whose headline figures go into the metadata. Then run `runs/index_weights.py`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path

from safetensors.torch import load_file, save_file

from anyform.systems.wala.trained import configuration_of, packed
from anyform.systems.wala.training_plan import embedded_plan
from anyform.training.loop import load_state

EMBEDDED = Path(__file__).resolve().parent.parent / "src" / "anyform" / "embedded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("denoiser", type=Path)
    parser.add_argument("--measured", type=Path)
    args = parser.parse_args()
    codec = load_file(args.train / "codec.safetensors")
    decoder = load_state(args.codec).average
    codec.update({key: decoder[key] for key in decoder if key.startswith(("vqvae.decoder.", "refine."))})
    state = load_state(args.denoiser)
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    metadata = {
        "licence": "Apache-2.0",
        "commercial_use": "yes",
        "data": "2,483 training objects of the open corpus (CC0-1.0, CC-BY-3.0); see ATTRIBUTION.md",
        "recipe": "runs/embedded_wala.sh, seed 0",
        "revision": revision.stdout.strip(),
        "samples": f"{state.step} denoiser steps of 32",
    }
    if args.measured:
        headline = json.loads(args.measured.read_text(encoding="utf-8"))["headline"]
        metadata |= {key: str(value) for key, value in headline.items()}
    plan = embedded_plan()
    metadata["config"] = json.dumps(configuration_of(plan.codec, plan.prompts, plan.uvit))
    save_file(packed(codec, state.average), EMBEDDED / "wala.safetensors", metadata)
    shutil.copyfile(args.train / "retrieval.safetensors", EMBEDDED / "retrieval.safetensors")
    for name in ("wala", "retrieval"):
        print(name, (EMBEDDED / f"{name}.safetensors").stat().st_size // 1000, "kB")


if __name__ == "__main__":
    main()
