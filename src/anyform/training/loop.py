"""One training loop for every trained model of anyform.

Resuming is by construction: a batch, its augmentation and its noise are functions of (seed, worker, step) alone, so a
checkpoint is the weights, the optimiser, the average and the step number, and a killed run continues as if it had not
been. `workers=2` runs two one-thread processes, each with a batch of its own, that average their gradients in every
step: faster than two threads on shared machines, and as reproducible as one. (Workers that step shared weights without
waiting for each other were tried: twice the steps, but a loss that spiked and an IoU behind that of one worker.)
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from anyform.errors import BadInput
from anyform.types.progress import Progress, Report


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How to optimise. Defaults: AdamW with a short warm-up, constant rate, cosine to zero over the last part."""

    steps: int = 1000  # optimiser steps; each takes a batch of every worker
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


@runtime_checkable
class Paced(Protocol):
    """A model whose parts learn at different paces: (factor on the learning rate, parameters), each parameter once."""

    def paces(self) -> Sequence[tuple[float, Sequence[nn.Parameter]]]: ...


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


class Exchange:
    """Gradient averaging between worker processes through shared memory; every worker reads the same mean."""

    def __init__(self, context: SpawnContext, workers: int, model: nn.Module) -> None:
        self.barrier = context.Barrier(workers)
        size = sum(parameter.numel() for parameter in model.parameters())
        # two buffers by turns: a quick worker writes the next step while a slow one still reads this one
        self.buffers = torch.zeros(2, workers, size).share_memory_()

    def average(self, model: nn.Module, worker: int, step: int) -> None:
        """Replace the gradients of `model` by the mean over workers; a parameter that nobody used gets zero."""
        buffer = self.buffers[step % 2]
        sizes = [parameter.numel() for parameter in model.parameters()]
        for parameter, part in zip(model.parameters(), buffer[worker].split(sizes), strict=True):
            if parameter.grad is None:
                part.zero_()
            else:
                part.copy_(parameter.grad.flatten())
        self.barrier.wait()
        for parameter, part in zip(model.parameters(), buffer.mean(0).split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)


def _work(
    worker: int,
    model: nn.Module,
    average: nn.Module,
    make_loss: Callable[[], Loss],
    config: TrainConfig,
    folder: Path,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
    report: Report,
    exchange: Exchange | None,
) -> None:
    """One worker's life: every worker holds the same weights; worker 0 also averages, logs and saves."""
    given = model
    if exchange is not None:
        torch.set_num_threads(1)
        model = copy.deepcopy(model)  # what a process is given lies in memory that all of them share
    paces = model.paces() if isinstance(model, Paced) else [(1.0, list(model.parameters()))]
    optimiser = torch.optim.AdamW(
        [{"params": list(parameters), "pace": pace} for pace, parameters in paces],
        lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay,
    )  # fmt: skip
    checkpoint, first = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = load_state(checkpoint)
        optimiser.load_state_dict(state.optimiser)
        first = state.step
        del state
    loss_of = make_loss()
    device = next(model.parameters()).device.type
    start, seen = time.monotonic(), []
    for step in range(first, config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.rate(step) * group.get("pace", 1.0)
        with torch.autocast(device, torch.bfloat16) if config.bf16 else nullcontext():
            loss, numbers = loss_of(model, _seed(config, worker, step))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if exchange is not None:
            exchange.average(model, worker, step)
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        if worker:
            continue
        done = step + 1
        _follow(average, model, min(config.ema_decay, done / (9 + done)))
        seen.append({"loss": float(loss.detach()), **numbers})
        if done % config.log_every == 0 or done == config.steps:
            means = {key: round(float(np.mean([row[key] for row in seen if key in row])), 5) for key in seen[-1]}
            seen.clear()
            row = {"step": done, "seconds": round(time.monotonic() - start, 1), "rate": config.rate(step), **means}
            _log(folder, row)
            report(Progress("train", done, config.steps, f"loss {means['loss']:.4f}"))
        if config.evaluate_every and done % config.evaluate_every == 0 and evaluate is not None:
            _log(folder, {"step": done, "seconds": round(time.monotonic() - start, 1), **evaluate(average)})
        if done % config.checkpoint_every == 0 or done == config.steps:
            state = State(done, _copy(model.state_dict()), _copy(average.state_dict()), optimiser.state_dict())
            save_state(checkpoint, state)
    if exchange is not None and worker == 0:
        given.load_state_dict(model.state_dict())


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """One step of the moving average; buffers are copied."""
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    for mean, value in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(value)


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
        report(Progress("train", state.step, config.steps, f"resumed at step {state.step}"))
    if config.workers == 1:
        _work(0, model, average, make_loss, config, folder, evaluate, report, None)
        return average
    model.share_memory()
    average.share_memory()
    context = torch.multiprocessing.get_context("spawn")
    exchange = Exchange(context, config.workers, model)
    processes = [
        context.Process(
            target=_work, args=(worker, model, average, make_loss, config, folder, evaluate, report, exchange)
        )
        for worker in range(config.workers)
    ]
    for process in processes:
        process.start()
    _join(processes, exchange)
    return average


def _join(processes: Sequence[BaseProcess], exchange: Exchange) -> None:
    """Wait for all; where one dies the others are let go, for they would wait for it for ever."""
    running = list(processes)
    while running:
        wait([process.sentinel for process in running])
        for process in [process for process in running if process.exitcode is not None]:
            running.remove(process)
            if process.exitcode:
                exchange.barrier.abort()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"a training worker died (exit codes {[process.exitcode for process in processes]})")
