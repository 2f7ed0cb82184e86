#!/bin/sh
# The embedded WaLa from meshes to shipped files, read from top to bottom: `runs/embedded_wala.sh CORPUS RUN`.
# Every line can be killed and called again. CORPUS: a folder with catalog.json and objects.zip, or any folder of meshes.
# Hours on two cores: shards 0.5, arrays 0.5, stage 1 6, latents 0.1, stage 2 4.
set -eu
corpus=$1 run=$2
workers=${WORKERS:-2}

# 1. Meshes -> distance grids, views, depth maps, sketches, points, captions.
anyform data prepare "$corpus" --output "$run-shards" --workers "$workers"

# 2. Arrays, stage 1 (continuous latents, then codes), latents, neighbours and index, stage 2, a model's folder.
resume=$([ -e "$run/run.json" ] && echo --resume || true)
anyform train wala "$run-shards" --out "$run" --preset embedded --workers "$workers" $resume

# 3. Into the package (a checkout's own), and the hashes of what is there.
python runs/pack_wala.py "$run/arrays" "$run/second/checkpoint.pt" "$run/denoiser/checkpoint.pt"
python runs/index_weights.py

# 4. What it reached, with the curves of all three phases.
anyform evaluate wala --data "$corpus" --split val --report "$run/val.html" \
  --log "$run/first/log.jsonl" --log "$run/second/log.jsonl" --log "$run/denoiser/log.jsonl"
