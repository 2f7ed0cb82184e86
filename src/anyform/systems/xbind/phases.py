"""Optimise a representation under loss terms: the one loop of all three phases.

Resuming is by construction: cameras, noise and augmentation of a step are functions of (seed, phase, step) alone, so a
checkpoint is the representation, the optimiser and a few numbers, and a continued run equals the uninterrupted one bit
for bit on a CPU. Every step's gradient has to be finite, and every `check_every` steps the object has to be there; if
not, the phase goes on once from the last good state at a lower rate, and a second failure ends it.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from anyform.errors import BadInput, GateFailed, Interrupted
from anyform.faults import fault_point
from anyform.fields.representation import Representation
from anyform.systems.xbind.looks import Bus, Look, picture_norm
from anyform.systems.xbind.views import Viewpoints, turntable
from anyform.training.ramp import Ramp, value_at
from anyform.types.progress import Progress, Report

LOWER_RATE = 0.3  # after trouble
EMPTY, FULL = 0.002, 0.98  # mean alpha of the watching views outside which the object has vanished or filled the box
MEMORY = 0.9  # of the running norms that a balanced weight is made of
FROZEN_AT = 0.1  # share of the phase, at most FROZEN_STEPS, after which balanced weights stay
FROZEN_STEPS = 200


@runtime_checkable
class Optimisable(Representation, Protocol):
    """A representation that is an nn.Module."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...


@runtime_checkable
class Companion(Protocol):
    """Something with a state of its own, such as the low-rank copy of variational distillation."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerm:
    """One term of a phase's sum.

    on: "views" is called with the Look of every random view and averaged, "reference" with that of the reference view,
    "rays" with (ray_weights, t, start) of all views, "object" with the representation itself. balance: (name of an
    earlier term, ratio): instead of `weight`, the ratio of that term's gradient on the picture to this one's.
    normal: whether it looks at normals.
    """

    name: str
    weight: float | Ramp
    loss: Callable[..., Tensor]
    on: Literal["views", "reference", "rays", "object"] = "views"
    balance: tuple[str, float] | None = None
    normal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseConfig:
    """How to optimise. optimiser: from the representation's parameters to what steps them.

    folder: for the checkpoint, the log and previews; None = nothing is written. resume: continue a checkpoint that is
    there. before_step: called with the representation and the step. preview: representation -> pixels (H, W, 3) uint8.
    companion: something else that learns on the way and belongs into the checkpoint.
    """

    name: str
    steps: int
    seed: int
    optimiser: Callable[[Any], torch.optim.Optimizer]
    random_background: float = 0.0
    folder: Path | None = None
    resume: bool = False
    checkpoint_every: int = 100
    check_every: int = 25
    preview_every: int = 0
    preview: Callable[[Any], np.ndarray] | None = None
    before_step: Callable[[Any, int], None] | None = None
    companion: Companion | None = None

    @property
    def checkpoint(self) -> Path | None:
        """The file that a continued run begins with."""
        return None if self.folder is None else self.folder / f"{self.name}.pt"


@dataclass(slots=True)
class State:
    """What a checkpoint holds. rate: factor on learning rates; restarts: used up; norms: of balanced weights."""

    step: int
    module: dict[str, Any]
    optimiser: dict[str, Any]
    rate: float
    restarts: int
    norms: dict[str, float]
    companion: dict[str, Any]


Cameras = Callable[[float, np.random.Generator], Viewpoints]


class _Trouble(ArithmeticError):
    """A step that must not be taken; the message says what is wrong."""


def optimise(
    representation: Optimisable, cameras: Cameras, terms: Sequence[LossTerm], config: PhaseConfig, report: Report
) -> Optimisable:
    """Take `config.steps` steps and return the representation, in eval mode.

    cameras: (part done, generator) -> viewpoints, the reference view first where a term looks at it. Raises GateFailed
    naming phase and step where the gradient is not finite or the object vanishes a second time, Interrupted after
    Ctrl-C, and BadInput for a checkpoint of another representation. The last good state stays in the checkpoint.
    """
    return _Run(representation, cameras, terms, config, report).run()


class _Run:
    def __init__(
        self, representation: Any, cameras: Cameras, terms: Sequence[LossTerm], config: PhaseConfig, report: Report
    ) -> None:
        self.field, self.cameras, self.terms, self.config, self.report = representation, cameras, terms, config, report
        self.optimiser = config.optimiser(representation)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.rate, self.restarts, self.step = 1.0, 0, 0
        self.norms: dict[str, float] = {}
        self.has_reference = any(term.on == "reference" for term in terms)
        self.numbers: dict[str, float] = {}

    def run(self) -> Any:
        """See `optimise`."""
        self._resume()
        good = self._state()
        config = self.config
        try:
            while self.step < config.steps:
                try:
                    self._step()
                    if self.step % config.check_every == 0 or self.step == config.steps:
                        self._check()
                        good = self._kept(good)
                except _Trouble as trouble:
                    self._restart(good, str(trouble))
        except KeyboardInterrupt as stop:
            self._save(good)
            where = f"{config.name}, step {good.step} of {config.steps}"
            raise Interrupted(
                f"stopped; the state of {where} is kept: the same command with --resume goes on"
            ) from stop
        self._save(good)
        self.field.train(False)
        return self.field

    def _kept(self, good: State) -> State:
        """The state just checked; written where its time has come."""
        state, every = self._state(), self.config.checkpoint_every
        if state.step // every > good.step // every:
            self._save(state)
        return state

    def _step(self) -> None:
        config, part = self.config, self.step / self.config.steps
        rng = seeded(config.seed, config.name, self.step)
        torch.manual_seed(int(rng.integers(2**63)))
        self.field.train(True)
        if config.before_step is not None:
            config.before_step(self.field, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        bus = self._render(part, rng)
        if bus is not None:
            for term in self.terms:
                self._add(term, bus, part, rng)
            bus.send()
        for term in (term for term in self.terms if term.on == "object"):
            value = term.loss(self.field)
            self.numbers[term.name] = float(value.detach())
            if value.requires_grad:
                (value * value_at(term.weight, part)).backward()
        self._finite()
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.rate
        self.optimiser.step()
        self.step += 1
        self._tell()

    def _render(self, part: float, rng: np.random.Generator) -> Bus | None:
        if all(term.on == "object" for term in self.terms):
            return None
        points = self.cameras(part, rng)
        device = next(iter(self.field.parameters())).device
        colour = rng.random(3) if rng.random() < self.config.random_background else np.ones(3)
        background = torch.tensor(colour, dtype=torch.float32, device=device)
        white = torch.ones(3, device=device)
        try:
            render = self.field.render(points.cameras, white, normal=any(term.normal for term in self.terms))
        except GateFailed as error:
            raise _Trouble(f"there is nothing left to see ({error})") from error
        return Bus(render, points, background)

    def _add(self, term: LossTerm, bus: Bus, part: float, rng: np.random.Generator) -> None:
        """One term's gradient onto the bus."""
        if term.on == "object":
            return
        first = int(self.has_reference)
        count = len(bus.points) - first
        total: dict[str, Tensor] = {}
        value = 0.0
        for argument, share in self._arguments(term, bus, part, rng, first, count):
            loss = term.loss(*argument)
            value += share * float(loss.detach())
            for name, gradient in bus.gradient(loss).items():
                total[name] = total[name] + share * gradient if name in total else share * gradient
        self.numbers[term.name] = value
        bus.add(total, self._weight(term, total, part))

    def _arguments(
        self, term: LossTerm, bus: Bus, part: float, rng: np.random.Generator, first: int, count: int
    ) -> Iterable[tuple[tuple[Any, ...], float]]:
        if term.on == "rays":
            rays = bus.rays()
            if rays is not None:
                yield rays, 1.0
        elif term.on == "reference":
            yield (bus.look(0, self.step, part, rng),), 1.0
        else:
            for view in range(first, first + count):
                yield (bus.look(view, self.step, part, rng),), 1 / count

    def _weight(self, term: LossTerm, gradient: dict[str, Tensor], part: float) -> float:
        """The term's weight now; a balanced one follows the two running norms until it is frozen."""
        weight = value_at(term.weight, part)
        frozen = self.step >= min(FROZEN_STEPS, max(1, round(FROZEN_AT * self.config.steps)))
        followed = [other.balance[0] for other in self.terms if other.balance is not None]
        if (term.balance is not None or term.name in followed) and not frozen:
            now = picture_norm(gradient) * (1.0 if term.balance is not None else weight)
            before = self.norms.get(term.name, now)
            self.norms[term.name] = MEMORY * before + (1 - MEMORY) * now
        if term.balance is None:
            return weight
        other, ratio = term.balance
        own = self.norms.get(term.name, 0.0)
        weight = ratio * self.norms.get(other, 0.0) / own if own > 0 else 0.0
        self.numbers[f"{term.name} weight"] = weight
        return weight

    def _finite(self) -> None:
        """Raise _Trouble for a gradient that is not finite, before it reaches a parameter."""
        gradients = [p.grad for p in self.field.parameters() if p.grad is not None]
        if fault_point(self.config.name, self.step):
            gradients = [torch.full((1,), math.nan)]
        if not gradients:
            raise _Trouble("no term has a gradient: the object is out of every view")
        norm = float(nn.utils.get_total_norm(gradients))
        self.numbers["gradient"] = norm
        if not math.isfinite(norm):
            broken = [name for name, value in self.numbers.items() if not math.isfinite(value)]
            raise _Trouble(f"the gradient is not finite (from {', '.join(broken)})")

    @torch.no_grad()
    def _check(self) -> None:
        """Raise _Trouble where the object has vanished, filled everything, or has values that are not finite."""
        self.field.train(False)
        watching = turntable(2, 32, 0.2)
        device = next(iter(self.field.parameters())).device
        try:
            alpha = self.field.render(watching.cameras, torch.ones(3, device=device), color=False).alpha
        except GateFailed as error:
            raise _Trouble(f"there is nothing left to see ({error})") from error
        covered = float(alpha.mean())
        if not all(bool(torch.isfinite(p).all()) for p in self.field.parameters()) or not math.isfinite(covered):
            raise _Trouble("the representation holds values that are not finite")
        if not EMPTY <= covered <= FULL:
            kind = "vanished" if covered < EMPTY else "filled the whole box"
            raise _Trouble(f"the object has {kind}: it covers {covered:.1%} of the views")

    def _restart(self, good: State, reason: str) -> None:
        """Back to the last good state at a lower rate, once; GateFailed afterwards."""
        name, step = self.config.name, self.step
        if self.restarts:
            self._save(good)
            raise GateFailed(
                f"phase {name} failed in step {step} of {self.config.steps}, also at a lower rate: {reason}; "
                "try another seed or prompt"
            )
        self._load(good)
        self.rate, self.restarts = good.rate * LOWER_RATE, 1
        message = f"step {step}: {reason}; once more from step {good.step} at {LOWER_RATE} of the rate"
        self._log({"step": step, "restart": message})
        self.report(Progress(name, self.step, self.config.steps, message))

    def _state(self) -> State:
        return State(
            self.step,
            _copied(self.field.state_dict()),
            _copied(self.optimiser.state_dict()),
            self.rate,
            self.restarts,
            dict(self.norms),
            {} if self.config.companion is None else _copied(self.config.companion.state_dict()),
        )

    def _load(self, state: State) -> None:
        self.field.load_state_dict(_copied(state.module))
        self.optimiser.load_state_dict(_copied(state.optimiser))
        if self.config.companion is not None:
            self.config.companion.load_state_dict(_copied(state.companion))
        self.step, self.rate, self.restarts, self.norms = state.step, state.rate, state.restarts, dict(state.norms)

    def _save(self, state: State) -> None:
        """Atomic: a kill leaves the old checkpoint or the new one."""
        target = self.config.checkpoint
        if target is None:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        torch.save({name: getattr(state, name) for name in State.__slots__}, partial)
        partial.replace(target)

    def _resume(self) -> None:
        target = self.config.checkpoint
        if target is None or not self.config.resume or not target.is_file():
            return
        try:
            self._load(State(**torch.load(target, map_location="cpu", weights_only=True)))
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise BadInput(f"{target.name} is no checkpoint of this run: start again without --resume") from error
        self.report(Progress(self.config.name, self.step, self.config.steps, f"resumed at step {self.step}"))

    def _tell(self) -> None:
        """Progress, the log every `check_every` steps, a preview in its time."""
        config = self.config
        preview = None
        if config.preview_every and self.step % config.preview_every == 0:
            preview = self._preview()
        if self.step % config.check_every == 0 or self.step == config.steps:
            self._log({"step": self.step, "rate": self.rate, **self.numbers})
        self.report(Progress(config.name, self.step, config.steps, preview=preview))

    @torch.no_grad()
    def _preview(self) -> Path | None:
        if self.config.folder is None or self.config.preview is None:
            return None
        from PIL import Image

        self.field.train(False)
        path = self.config.folder / "preview.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name("preview.partial")
        Image.fromarray(self.config.preview(self.field)).save(partial, "WEBP", quality=80)
        partial.replace(path)
        return path

    def _log(self, row: dict[str, Any]) -> None:
        if self.config.folder is None:
            return
        self.config.folder.mkdir(parents=True, exist_ok=True)
        with (self.config.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"phase": self.config.name, **row}) + "\n")


def seeded(seed: int, phase: str, step: int) -> np.random.Generator:
    """The draws of one step."""
    return np.random.default_rng(np.random.SeedSequence((seed, zlib.crc32(phase.encode()), step)))


def _copied(value: Any) -> Any:
    """A state dict that later steps do not change."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return value


__all__ = ["Look", "LossTerm", "Optimisable", "PhaseConfig", "optimise", "seeded"]
