"""Train the branch of TuneMV3D from the pictures of `anyform data views` to a file that `anyform.load` reads.

Two phases, each skipped when it is whole and continued when it was interrupted: the field alone, then everything. The
objects of some nouns are held out (`recipe.held_out`), to see whether the foundation's knowledge survives.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from anyform import device as devices
from anyform.data.multiview import ViewArrays
from anyform.errors import BadInput, Interrupted
from anyform.systems.tunemv3d.branch_file import write_branch
from anyform.systems.tunemv3d.config import BranchConfig
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.foundation import Foundation
from anyform.systems.tunemv3d.foundations import load_foundation
from anyform.systems.tunemv3d.training import BranchLoss, Samples, is_held_out, scores
from anyform.systems.tunemv3d.training_plan import PHASES, PLANS, BranchPlan, changed
from anyform.training.loop import fit, load_state
from anyform.training.run_folder import begin, write_json
from anyform.types.progress import Report

BRANCH = "branch.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `anyform train tunemv3d`."""
    parser.add_argument("data", type=Path, help="what `anyform data views` made")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of everything the run makes")
    parser.add_argument("--preset", choices=tuple(PLANS), default="embedded", help="what to train (default embedded)")
    parser.add_argument(
        "--foundation", default="embedded", metavar="W", help="embedded, a weights file, a diffusers folder, or random"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="any setting, as steps=9 or recipe.batch=4"
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default cpu)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def run(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Train; the record names the branch and its last scores. Raises Interrupted where the user stops it."""
    try:
        return _run(arguments, report)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command with --resume goes on with {arguments.out.name}") from None


def _run(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    chosen = devices.choose(arguments.device)
    plan = changed(PLANS[arguments.preset](), arguments.set)
    arrays = ViewArrays.open(arguments.data)
    split_rows(arrays, plan.recipe.held_out, plan.branch.num_views)  # before the run's folder is made
    foundation = load_foundation(arguments.foundation, chosen.name)
    plan = replace(plan, branch=for_foundation(plan.branch, foundation))
    for phase in PHASES:
        config = getattr(plan, phase)
        plan = replace(plan, **{phase: replace(config, bf16=config.bf16 and chosen.autocast is not None)})
    begin(arguments.out, arguments.preset, plan, resume=arguments.resume)
    return train(plan, arrays, foundation, arguments.out, chosen.name, report)


def for_foundation(config: BranchConfig, foundation: Foundation) -> BranchConfig:
    """The branch's sizes with what the foundation decides: channels of the field, and whether they are colours."""
    spec = foundation.spec
    return replace(config, field=replace(config.field, channels=spec.channels, is_color=spec.kind == "pixel"))


def train(
    plan: BranchPlan, arrays: ViewArrays, foundation: Foundation, out: Path, device: str, report: Report
) -> dict[str, Any]:
    """Both phases and the branch's file in `out`; the record of the last scores."""
    rows = split_rows(arrays, plan.recipe.held_out, plan.branch.num_views)
    if not rows["train"]:
        raise BadInput(f"none of the {len(arrays.rows)} objects is for training: lower recipe.held_out")
    torch.manual_seed(plan.joint.seed)
    branch = ControlBranch(foundation, plan.branch).to(device)
    validation = (rows["val"] or rows["train"])[: plan.validation]
    record: dict[str, Any] = {name: len(some) for name, some in rows.items()}
    average = branch
    for phase in PHASES:
        config = getattr(plan, phase)
        if config.steps == 0:
            continue
        folder = out / phase
        samples = Samples(foundation, arrays, rows["train"], device)

        def make_loss(samples: Samples = samples, only_field: bool = phase == "field") -> BranchLoss:
            return BranchLoss(samples, plan.recipe, only_field)

        def evaluate(model: torch.nn.Module, samples: Samples = samples) -> dict[str, float]:
            assert isinstance(model, ControlBranch)
            return scores(model, samples, validation)

        average = fit(branch, make_loss, config, folder, report, evaluate)
        if not (folder / "result.json").is_file():
            write_json(folder / "result.json", {"step": config.steps, **evaluate(average)})
        record[phase] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        branch.load_state_dict(load_state(folder / "checkpoint.pt").model)
    assert isinstance(average, ControlBranch)
    metadata = {
        "licence": "unknown: of a local run",
        "commercial_use": "unknown" if foundation.spec.commercial_use != "no" else "no",
        "recipe": f"anyform train tunemv3d, seed {plan.joint.seed}",
        "held_out": str(plan.recipe.held_out),
    }
    write_branch(out / BRANCH, average.cpu(), foundation, metadata)
    return {**record, "branch": str(out / BRANCH)}


def split_rows(arrays: ViewArrays, held_out: float, num_views: int) -> dict[str, list[dict[str, Any]]]:
    """Objects by use: train, val and test of the nouns that are shown, and held_out with those that are not."""
    if arrays.plan.num_ring != num_views:
        raise BadInput(
            f"the pictures have a ring of {arrays.plan.num_ring} views and the branch takes {num_views}:"
            f" make them with `anyform data views --ring {num_views}`"
        )
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": [], "held_out": []}
    for row in arrays.rows:
        rows["held_out" if is_held_out(row["caption"], held_out) else row["split"]].append(row)
    return rows
