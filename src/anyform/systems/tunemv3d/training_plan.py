"""What `anyform train tunemv3d` trains and how: a plan is a frozen dataclass, a preset a function that returns one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from anyform import configuration
from anyform.systems.tunemv3d.config import BranchConfig, faithful, tiny
from anyform.systems.tunemv3d.training import BranchRecipe, paper_recipe
from anyform.training.loop import TrainConfig

PHASES = ("field", "joint")


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchPlan:
    """Sizes, batches and optimisation. field: E and the field alone, so that O does not learn to ignore them; joint:
    everything, with the foundation (specs/tunemv3d.md §5.3)."""

    branch: BranchConfig = field(default_factory=BranchConfig)
    recipe: BranchRecipe = field(default_factory=BranchRecipe)
    field: TrainConfig
    joint: TrainConfig
    validation: int = 8  # held-out objects a score in training is taken on


def embedded_plan() -> BranchPlan:
    """The branch that comes with the package: about a second an object on two cores, so 15,000 objects in 5 hours."""
    joint = TrainConfig(
        steps=6000, learning_rate=1e-4, weight_decay=1e-3, warmup=200, ema_decay=0.999, decay_part=0.3,
        checkpoint_every=100, evaluate_every=500,
    )  # fmt: skip
    alone = TrainConfig(
        steps=1500, learning_rate=1.5e-4, weight_decay=1e-3, warmup=50, ema_decay=0.998, decay_part=0.3,
        checkpoint_every=100, evaluate_every=500,
    )  # fmt: skip
    return BranchPlan(recipe=BranchRecipe(batch=2), field=alone, joint=joint)


def paper_plan() -> BranchPlan:
    """S B.3 on a GPU: AdamW 5e-5, weight decay 1e-3, batches of 4, nothing but the two published terms, no warm-up of
    the field; the point evaluator. 10,000 steps is where the paper reports diverse results (P 4.6)."""
    joint = TrainConfig(
        steps=10_000, learning_rate=5e-5, weight_decay=1e-3, ema_decay=0.9999, decay_part=0.0, bf16=True
    )
    nothing = TrainConfig(steps=0)
    return BranchPlan(branch=faithful(), recipe=paper_recipe(), field=nothing, joint=joint, validation=16)


def smoke() -> BranchPlan:
    """The same chain, so small that it ends in seconds; it learns nothing."""
    short = TrainConfig(steps=4, learning_rate=1e-3, warmup=1, ema_decay=0.9, log_every=2, checkpoint_every=2)
    return BranchPlan(branch=replace(tiny(), num_views=8), field=short, joint=short, validation=1)


PLANS: dict[str, Callable[[], BranchPlan]] = {"embedded": embedded_plan, "paper": paper_plan, "smoke": smoke}
_SHARED = {each.name for each in fields(TrainConfig)}


def changed(plan: BranchPlan, assignments: list[str]) -> BranchPlan:
    """`plan` with "path=value" settings; a bare field of TrainConfig ("steps=100") goes to both phases.

    Raises BadSetting for unknown names and values that do not fit.
    """
    for assignment in assignments:
        path, value = configuration.parse(assignment)
        for each in [f"{phase}.{path}" for phase in PHASES] if path in _SHARED else [path]:
            plan = configuration.override(plan, each, value)
    return plan
