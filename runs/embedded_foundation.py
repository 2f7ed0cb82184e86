"""The embedded foundation: `python runs/embedded_foundation.py train|judge|evaluate|sheet|pack DATA OUT`.

DATA is the folder of runs/embedded_pictures.py (pictures, words and labels made); OUT holds checkpoint.pt, log.jsonl
and what the other jobs write. A killed run goes on with the same command. On a GPU: `--device cuda --batch 256 --bf16`;
about 16 samples a second on one core of a CPU with bfloat16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image as Pictures
from safetensors.torch import save_file

from anyform.diffusion.prior import Prior
from anyform.evaluation.picture_judge import JudgeLoss, PictureJudge, recall
from anyform.nn.int8 import dequantise, quantise
from anyform.priors.arrays import PriorArrays
from anyform.priors.embedded import PriorConfig, PriorNetwork, foundation_of
from anyform.priors.sampling import contact_sheet, sample, to_bytes
from anyform.priors.training import PriorLoss, PriorRecipe, compose, velocity_errors
from anyform.training.loop import TrainConfig, fit, load_state
from anyform.types.progress import Progress

Kind = Literal["foundation", "view"]
FIXED = (100, 300, 500, 700, 900)  # timesteps of the held-out loss
GUIDANCE, STEPS = 3.0, 25


def show(progress: Progress) -> None:
    print(f"{progress.stage} {progress.step}/{progress.total} {progress.message}", flush=True)


def held_out(model: torch.nn.Module, *, data: Path, split: str, kind: Kind, batches: int = 4) -> dict[str, float]:
    """Mean error of v at fixed timesteps on a split, the same pictures, conditions and noise at every call."""
    assert isinstance(model, PriorNetwork)
    loss = PriorLoss(data, PriorArrays.open(data).objects(split), PriorRecipe(drop=0, drop_all=0, white=1), kind)
    state, means = torch.get_rng_state(), {}
    torch.manual_seed(0)
    with torch.inference_mode():
        for t in FIXED:
            rng, errors = np.random.default_rng(t), []
            for _ in range(batches):
                batch = loss.batch(rng).to(model.text.weight.device)
                errors.append(velocity_errors(model, loss, batch, torch.full((len(batch.clean),), t)).mean().item())
            means[f"{split}_v_{t}"] = round(float(np.mean(errors)), 5)
    torch.set_rng_state(state)
    print(means, flush=True)
    return means


def train(args: argparse.Namespace, kind: Kind) -> None:
    """Continues OUT/checkpoint.pt where there is one; `view` starts from the foundation's average."""
    torch.manual_seed(args.seed)
    model = PriorNetwork(PriorConfig(view=kind == "view"))
    if args.start is not None:
        adopt(model, load_state(args.start).average)
    model = model.to(args.device, memory_format=torch.channels_last)
    rows = PriorArrays.open(args.data).objects("train")
    make_loss = partial(PriorLoss, args.data, rows, PriorRecipe(batch=args.batch), kind)
    config = TrainConfig(
        steps=args.steps,
        learning_rate=args.rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        warmup=min(200, args.steps // 5),
        ema_decay=0.999,
        seed=args.seed,
        workers=args.workers,
        bf16=args.bf16,
        log_every=args.log_every,
        checkpoint_every=args.checkpoint_every,
        evaluate_every=args.evaluate_every,
    )
    evaluate = partial(held_out, data=args.data, split="val", kind=kind)
    fit(model, make_loss, config, args.out, show, evaluate)


def adopt(model: PriorNetwork, state: Mapping[str, torch.Tensor]) -> None:
    """The foundation's weights in the view network: the new input channels and the pose token start at zero."""
    own = model.state_dict()
    for name, value in own.items():
        if name in state and state[name].shape == value.shape:
            own[name] = state[name]
        elif name == "unet.conv_in.weight":
            own[name] = torch.cat([state[name], torch.zeros_like(value[:, state[name].shape[1] :])], 1)
        else:
            own[name] = torch.zeros_like(value)
    model.load_state_dict(own)


def judge(args: argparse.Namespace, _: Kind) -> None:
    """The independent retriever, in OUT/judge; give renders of another --seed as DATA for one that saw other views."""
    arrays = PriorArrays.open(args.data)
    make_loss = partial(
        JudgeLoss, arrays.rgba, np.load(args.data / "vectors.npy"), arrays.captions, arrays.objects("train")
    )
    config = TrainConfig(steps=args.steps, learning_rate=1e-3, warmup=100, ema_decay=0.995, bf16=args.bf16)
    torch.manual_seed(0)
    fit(PictureJudge().to(args.device), make_loss, config, args.out / "judge", show)


def trained(out: Path, kind: Kind, device: str) -> PriorNetwork:
    """The average of a run as the packed file will give it: int8 and back."""
    model = PriorNetwork(PriorConfig(view=kind == "view"))
    model.load_state_dict(dequantise(quantise(load_state(out / "checkpoint.pt").average)))
    return model.eval().requires_grad_(False).to(device)


def prior_of(args: argparse.Namespace) -> tuple[Prior, PriorArrays]:
    """The trained foundation, reading the captions of the data by their stored tokens."""
    arrays = PriorArrays.open(args.data)
    place = {text: index for index, text in enumerate(arrays.sentences)}
    read = lambda text: torch.from_numpy(arrays.tokens[place[text]].astype(np.float32))  # noqa: E731
    return foundation_of(trained(args.out, "foundation", args.device), read), arrays


def unit(vector: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(vector.astype(np.float32))


def evaluate(args: argparse.Namespace, _: Kind) -> None:
    """OUT/measured.json: held-out loss, and recall of 4 pictures a test caption, a test picture's embedding, and of
    true renders (the ceiling), by OUT/judge."""
    torch.manual_seed(0)  # the little noise of the class labels
    prior, arrays = prior_of(args)
    model = PictureJudge()
    model.load_state_dict(load_state(args.out / "judge" / "checkpoint.pt").average)
    rows = arrays.objects(args.split)[: args.limit]
    chosen = {int(row): arrays.captions[row][0][min(2, len(arrays.captions[row][0]) - 1)] for row in rows}
    known = sorted(set(chosen.values()))
    vectors = unit(np.load(args.data / "vectors.npy")[known])
    measured: dict[str, object] = dict(
        held_out(trained(args.out, "foundation", args.device), data=args.data, split=args.split, kind="foundation")
    )
    pictures: dict[str, list[torch.Tensor]] = {"caption": [], "embedding": [], "true": []}
    for row in rows:
        sentence = chosen[int(row)]
        asked = {
            "caption": prior.condition(arrays.sentences[sentence], unit(arrays.joint_captions[sentence])),
            "embedding": prior.condition("", unit(arrays.joint_pictures[row, 0])),
        }
        for name, condition in asked.items():
            seeds = [4 * int(row) + k for k in range(4)]
            made = sample(
                prior, condition, seeds, num_inference_steps=STEPS, guidance_scale=GUIDANCE, device=args.device
            )
            pictures[name].append(made)
        pictures["true"].append(torch.stack([compose(arrays.rgba[row, v], np.ones(3)) for v in range(4)]))
        show(Progress("pictures", len(pictures["true"]), len(rows)))
    truth = np.repeat([known.index(chosen[int(row)]) for row in rows], 4)
    for name, some in pictures.items():
        measured[f"{args.split} {name}"] = recall(model.eval(), torch.cat(some), vectors, truth)
    (args.out / "measured.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
    print(json.dumps(measured, indent=1))


def sheet(args: argparse.Namespace, _: Kind) -> None:
    """OUT/sheet.png: twelve captions of a split, a true render and six seeds of each."""
    prior, arrays = prior_of(args)
    rows = arrays.objects(args.split)
    tiles = []
    for row in rows[:: max(1, len(rows) // 12)][:12]:
        sentence = arrays.captions[row][0][min(2, len(arrays.captions[row][0]) - 1)]
        condition = prior.condition(arrays.sentences[sentence], unit(arrays.joint_captions[sentence]))
        made = sample(
            prior, condition, range(6), num_inference_steps=STEPS, guidance_scale=GUIDANCE, device=args.device
        )
        tiles.append(np.concatenate([to_bytes(compose(arrays.rgba[row, 0], np.ones(3))[None]), to_bytes(made)]))
        print(arrays.sentences[sentence], flush=True)
    Pictures.fromarray(contact_sheet(np.concatenate(tiles), 7)).save(args.out / "sheet.png")


def pack(args: argparse.Namespace, kind: Kind) -> None:
    """OUT/<kind>.safetensors: int8, with the configuration and the figures of OUT/measured.json."""
    state = load_state(args.out / "checkpoint.pt")
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    metadata = {
        "config": PriorConfig(view=kind == "view").to_json(),
        "licence": "Apache-2.0",
        "commercial_use": "yes",
        "data": "renders of the open corpus' training objects (CC0-1.0, CC-BY-3.0); see ATTRIBUTION.md",
        "recipe": f"runs/embedded_{kind}.py, seed {args.seed}",
        "revision": revision.stdout.strip(),
        "samples": f"{state.step} steps of {args.batch}",
    }
    measured = args.out / "measured.json"
    if measured.exists():
        metadata |= {key: json.dumps(value) for key, value in json.loads(measured.read_text(encoding="utf-8")).items()}
    path = args.out / f"{kind}.safetensors"
    save_file(quantise(state.average), path, metadata)
    path.chmod(0o644)
    print(path, path.stat().st_size // 1000, "kB")


def parse(doc: str | None, jobs: Mapping[str, object]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=tuple(jobs))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--checkpoint-every", type=int, default=200)
    parser.add_argument("--evaluate-every", type=int, default=1000)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=134, help="objects of the split that are measured")
    parser.add_argument("--start", type=Path, help="view: the foundation's checkpoint.pt to begin from")
    return parser.parse_args()


def main() -> None:
    jobs = {"train": train, "judge": judge, "evaluate": evaluate, "sheet": sheet, "pack": pack}
    args = parse(__doc__, jobs)
    jobs[args.job](args, "foundation")


if __name__ == "__main__":
    main()
