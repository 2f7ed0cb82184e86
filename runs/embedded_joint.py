"""The embedded joint space, whole: `python runs/embedded_joint.py STEP --arrays TRAIN --out OUT`.

STEP is one of, in this order:
  speech  says the captions with every voice into OUT (espeak-ng and flite on PATH), about 4 CPU minutes
  train   trains in OUT; a killed run continues from OUT/checkpoint.pt
  score   R@1 and R@5 of every pair on --split, chance beside it
  pack    writes src/anyform/embedded/joint.safetensors; then run runs/index_weights.py
TRAIN is the folder of arrays that `anyform train wala` gathers: framed, sketch, text, points, catalog.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from anyform.data.spoken import common_words, read_spoken, record, script
from anyform.encoders import embedded
from anyform.encoders.joint import Joint, JointConfig
from anyform.nn.int8 import quantise
from anyform.training.joint import JointArrays, JointLoss, read_text, vocabulary
from anyform.training.joint_scores import scores
from anyform.training.loop import TrainConfig, fit, load_state
from anyform.types.progress import Progress
from anyform.weights import embedded_file

ROOT = Path(__file__).resolve().parent.parent
COMMON_WORDS = 600


def show(progress: Progress) -> None:
    print(f"{progress.stage} {progress.step}/{progress.total} {progress.message}", flush=True)


def speech(arrays: Path, out: Path) -> None:
    rows = json.loads((arrays / "catalog.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(embedded_file("text").with_name("tokenizer.json")))
    rng = np.random.default_rng(0)
    record(list(script(rows, common_words(tokenizer, COMMON_WORDS, rng), rng)), out, 0, show)


def read_arrays(arrays: Path, out: Path) -> tuple[JointArrays, list[dict], list[dict], tuple[str, ...]]:
    """Everything `JointLoss` reads, with the catalogue's and the sounds' rows and the words."""
    catalogue = json.loads((arrays / "catalog.json").read_text(encoding="utf-8"))
    mel, rows = read_spoken(out)
    sentences = sorted({str(row["text"]) for row in rows} - {""})
    place = {sentence: at for at, sentence in enumerate(sentences)}
    vectors = out / "sentences.npy"
    if not vectors.is_file():
        np.save(vectors, embedded.load().text(sentences)[0].numpy().astype(np.float16))
    words = vocabulary([str(row["text"]) for row in rows if row["split"] == "train"])
    held = np.array([[word in sentence.lower().split() for word in words] for sentence in sentences])
    read = {name: np.load(arrays / f"{name}.npy", mmap_mode="r") for name in ("framed", "sketch", "points", "text")}
    said = np.array([place.get(str(row["text"]), -1) for row in rows])
    length = np.array([row["length"] for row in rows])
    joint = JointArrays(
        **read, group=read_text(catalogue), mel=mel, length=length, said=said, sentences=np.load(vectors), words=held
    )
    return joint, catalogue, rows, words


def train(args: argparse.Namespace) -> None:
    arrays, catalogue, rows, words = read_arrays(args.arrays, args.out)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = Joint(JointConfig(words=words))
    print("parameters", sum(p.numel() for p in model.parameters()), "words", len(words), flush=True)
    objects = np.flatnonzero([row["split"] == "train" for row in catalogue])
    sounds = np.flatnonzero([row["split"] == "train" for row in rows])
    config = TrainConfig(
        steps=args.steps, learning_rate=args.rate, weight_decay=0.05, betas=(0.9, 0.98), warmup=60, decay_part=0.6,
        ema_decay=0.995, bf16=args.bf16, log_every=20, checkpoint_every=50, evaluate_every=args.evaluate_every,
    )  # fmt: skip

    def evaluate(average: torch.nn.Module) -> dict[str, float]:
        assert isinstance(average, Joint)
        row = scores(average, arrays, catalogue, rows, "val")
        print(row, flush=True)
        return row

    fit(model, lambda: JointLoss(arrays, objects, sounds, args.batch, args.batch), config, args.out, show, evaluate)


def load(args: argparse.Namespace) -> tuple[Joint, JointArrays, list[dict], list[dict]]:
    arrays, catalogue, rows, words = read_arrays(args.arrays, args.out)
    model = Joint(JointConfig(words=words))
    model.load_state_dict(load_state(args.out / "checkpoint.pt").average)
    return model.eval().requires_grad_(False), arrays, catalogue, rows


def score(args: argparse.Namespace) -> None:
    model, arrays, catalogue, rows = load(args)
    print(json.dumps(scores(model, arrays, catalogue, rows, args.split), indent=1))


def pack(args: argparse.Namespace) -> None:
    model, arrays, catalogue, rows = load(args)
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    stored = quantise(model.state_dict())
    metadata = {
        "config": model.config.to_json(),
        "licence": "Apache-2.0",
        "commercial_use": "yes",
        "data": "2,483 training objects of the open corpus (CC0-1.0, CC-BY-3.0; see ATTRIBUTION.md); captions spoken "
        "by flite (CMU, permissive) and espeak-ng (GPL-3.0-or-later program, own output, no MBROLA voices)",
        "recipe": "runs/embedded_joint.py, seed 0",
        "revision": revision,
        "steps": str(load_state(args.out / "checkpoint.pt").step),
        "val": json.dumps(scores(model, arrays, catalogue, rows, "val")),
        "test": json.dumps(scores(model, arrays, catalogue, rows, "test")),
    }
    save_file(stored, ROOT / "src" / "anyform" / "embedded" / "joint.safetensors", metadata=metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("speech", "train", "score", "pack"))
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64, help="objects, and sounds, a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--evaluate-every", type=int, default=200)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.step == "speech":
        speech(args.arrays, args.out)
    else:
        {"train": train, "score": score, "pack": pack}[args.step](args)


if __name__ == "__main__":
    main()
