"""Write a full-size checkpoint with random weights in the published layout: `checkpoint.ckpt` (4 GB) + `args.json`.

    python tests/systems/wala/full_size.py FOLDER [--kind voxels|image|depths] [--depth 32] [--seed 0]

Needs twice the memory of the file. The weights mean nothing, but the decoder is made smooth, so that what comes out is
blobs that mesh, and a whole run from prompt to saved file works: `anyform generate --voxels FILE --weights FOLDER`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import released_miniature as released

_VIEWS = {"use_multiple_views_grids": True, "use_camera_index": True}
CONDITIONS = {
    "voxels": {"use_voxel_conditions": True, "voxel_dim": 8},
    "points": {"use_pointcloud_conditions": True, "num_inds": 256},
    "image": {"use_image_conditions": True, "clip_model_type": "dino-l-14"},
    "depth": {"use_depth_conditions": True},
    "views": {**_VIEWS, "training_views": [3, 6, 10, 26]},
    "depths4": {**_VIEWS, "use_depth_conditions": True, "training_views": [3, 6, 10, 26]},
    "depths": {**_VIEWS, "use_depth_conditions": True, "training_views": [3, 6, 10, 26, 49, 50]},
}


def state_of(kind: str, seed: int, depth: int = 32) -> released.State:
    """Every tensor of one released model at its published size."""
    sizes = {"width": 1152, "heads": 16, "channels": 128, "res": 3, "grid": 12, "context": 1024, "factor": 128}
    state = released.uvit_state(seed, depth=depth, **sizes)
    vq = released.vq_state(seed + 1, hidden=128, grid=12, codes=1024)
    weight, bias = vq["autoencoder.decoder.out_conv.2.weight"], vq["autoencoder.decoder.out_conv.2.bias"]
    weight[1:] *= 0.002  # little detail: smooth blobs, about a sixth of the box
    bias[1:] *= 0.002
    bias[0] = 1.0
    state |= vq
    if kind == "voxels":
        return state | released.voxel_state(seed + 2, width=1024, hidden=128, stem=64)
    if kind == "points":
        sizes = {"width": 1024, "heads": 16, "depth": 4, "queries": 256}
        return state | released.pointnet_state(seed + 2, points=(64, 256, 1024, 1024), **sizes)
    views = len(CONDITIONS[kind].get("training_views", ()))
    return state | released.dino_state(seed + 2, views=views, width=1024, depth=24, trained=37, cells=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=CONDITIONS, default="voxels")
    parser.add_argument("--depth", type=int, default=32, help="transformer blocks; fewer for a quick look")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    state = state_of(options.kind, options.seed, options.depth)
    released.write(options.folder, state, {"resolution": 256, **CONDITIONS[options.kind]})
    count = sum(value.numel() for value in state.values())
    size = (options.folder / "checkpoint.ckpt").stat().st_size
    print(f"{options.folder}: {count / 1e6:.1f} M numbers, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
