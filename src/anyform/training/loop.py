"""One training loop for every trained model of anyform.

Resuming is by construction: a batch, its augmentation and its noise are functions of (seed, worker, step) alone, so a
checkpoint is the weights, the optimiser, the average and the step number, and a killed run continues as if it had not
been. `workers=2` runs two one-thread processes on shared weights (Hogwild): faster than two threads on shared machines,
but not bit-reproducible; `workers=1` is.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from anyform.errors import BadInput
from anyform.types.progress import Progress, Report


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How to optimise. Defaults: AdamW with a short warm-up, constant rate, cosine to zero over the last part."""

    steps: int = 1000  # optimiser steps, all workers together
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: int = 100
    decay_part: float = 0.3  # last share of the steps over which the rate falls to `final_rate` of itself
    final_rate: float = 0.02
    clip: float = 1.0  # largest gradient norm
    ema_decay: float = 0.9999
    seed: int = 0
    workers: int = 1
    bf16: bool = False  # autocast of the loss; only where the CPU has bf16 instructions, or on a GPU
    log_every: int = 50
    checkpoint_every: int = 500
    evaluate_every: int = 0  # 0 = only at the end

    def rate(self, step: int) -> float:
        """Learning rate at `step`: linear warm-up, constant, cosine decay."""
        decay_from = self.steps * (1 - self.decay_part)
        rate = self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1))
        if step > decay_from:
            part = min(1.0, (step - decay_from) / max(self.steps - decay_from, 1))
            rate *= self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * part))
        return rate


class Loss(Protocol):
    """`loss(model, rng)` -> (scalar, numbers to log); draws its batch from `rng` and torch's seeded generator."""

    def __call__(self, model: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]: ...


@dataclass(slots=True)
class State:
    """What a checkpoint holds."""

    step: int
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Any]


def save_state(path: Path, state: State) -> None:
    """Atomic: a kill leaves the old checkpoint or the new one, never half of one."""
    partial = path.with_suffix(".partial")
    torch.save({name: getattr(state, name) for name in State.__slots__}, partial)
    partial.replace(path)


def load_state(path: Path) -> State:
    """Read a checkpoint written by `save_state` (tensors and plain containers only)."""
    return State(**torch.load(path, map_location="cpu", weights_only=True))


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _seed(config: TrainConfig, worker: int, step: int) -> np.random.Generator:
    sequence = np.random.SeedSequence((config.seed, worker, step))
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
    return np.random.default_rng(sequence)


def _work(
    worker: int,
    model: nn.Module,
    average: nn.Module,
    counter: Tensor,
    make_loss: Callable[[], Loss],
    config: TrainConfig,
    folder: Path,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
    report: Report,
    start_line: Barrier | None,
) -> None:
    """One worker's life: steps until `counter` reaches the total; worker 0 also logs and saves."""
    loss_of = make_loss()
    if start_line is not None:
        torch.set_num_threads(1)
        start_line.wait()  # else a quick worker could take all the steps while another still starts
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        optimiser.load_state_dict(load_state(checkpoint).optimiser)
    device = next(model.parameters()).device.type
    start, first, seen = time.monotonic(), int(counter[worker]), []
    while int(counter.sum()) < config.steps:
        own, total = int(counter[worker]), int(counter.sum())
        rng = _seed(config, worker, own)
        for group in optimiser.param_groups:
            group["lr"] = config.rate(total)
        with torch.autocast(device, torch.bfloat16) if config.bf16 else nullcontext():
            loss, numbers = loss_of(model, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        counter[worker] += 1
        total = int(counter.sum())
        decay = min(config.ema_decay, total / (9 + total))
        with torch.no_grad():  # by every worker: a slow first one must not leave the average behind
            for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
            for mean, value in zip(average.buffers(), model.buffers(), strict=True):
                mean.copy_(value)
        if worker:
            continue
        seen.append({"loss": float(loss.detach()), **numbers})
        if (own + 1) % config.log_every == 0 or total >= config.steps:
            means = {key: round(float(np.mean([row[key] for row in seen if key in row])), 5) for key in seen[-1]}
            seen.clear()
            row = {"step": total, "seconds": round(time.monotonic() - start, 1), "rate": config.rate(total), **means}
            _log(folder, row)
            report(Progress("train", total, config.steps, f"loss {means['loss']:.4f}"))
        if config.evaluate_every and (own + 1) % config.evaluate_every == 0 and evaluate is not None:
            _log(folder, {"step": total, "seconds": round(time.monotonic() - start, 1), **evaluate(average)})
        if (own + 1) % config.checkpoint_every == 0 and own + 1 > first:
            save_state(
                checkpoint,
                State(total, _copy(model.state_dict()), _copy(average.state_dict()), optimiser.state_dict()),
            )
    if worker == 0:
        save_state(
            checkpoint,
            State(int(counter.sum()), _copy(model.state_dict()), _copy(average.state_dict()), optimiser.state_dict()),
        )


def _log(folder: Path, row: Mapping[str, Any]) -> None:
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def fit(
    model: nn.Module,
    make_loss: Callable[[], Loss],
    config: TrainConfig,
    folder: Path,
    report: Report,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
) -> nn.Module:
    """Train `model` in `folder` (created; a `checkpoint.pt` there is continued) and return its moving average.

    `make_loss` is called once in every worker and must be picklable for workers > 1. `log.jsonl` gets one JSON row per
    `log_every` steps. Raises BadInput when a checkpoint belongs to another model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(model).requires_grad_(False)
    counter = torch.zeros(config.workers, dtype=torch.int64)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = load_state(checkpoint)
        try:
            model.load_state_dict(state.model)
            average.load_state_dict(state.average)
        except RuntimeError as error:
            raise BadInput(
                f"{checkpoint.name} in {folder.name} is of another model: remove it or choose another folder"
            ) from error
        for worker in range(config.workers):  # workers share the finished steps evenly
            counter[worker] = state.step // config.workers + (worker < state.step % config.workers)
        report(Progress("train", state.step, config.steps, f"resumed at step {state.step}"))
    if config.workers == 1:
        _work(0, model, average, counter, make_loss, config, folder, evaluate, report, None)
        return average
    model.share_memory()
    average.share_memory()
    counter.share_memory_()
    context = torch.multiprocessing.get_context("spawn")
    start_line = context.Barrier(config.workers)
    processes = [
        context.Process(
            target=_work,
            args=(worker, model, average, counter, make_loss, config, folder, evaluate, report, start_line),
        )
        for worker in range(config.workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"a training worker died (exit codes {[process.exitcode for process in processes]})")
    return average
