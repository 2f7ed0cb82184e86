"""Evaluate TuneMV3D on the pictures of `anyform data views`: are its views one object, and the right one?

Every figure stands beside its baselines: the foundation's independent views (branch off), the field without pairwise
attention and the other way round, K = 0, true views (the ceiling) and true views of different objects (the floor). The
same captions and seeds serve all; intervals are 90 % bootstraps over objects. Objects of held-out nouns are reported
beside the others. A branch trained with another kind of attention joins by `--also NAME=RUN`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anyform.data.multiview import ViewArrays
from anyform.errors import BadInput
from anyform.evaluation.circumstances import circumstances
from anyform.evaluation.consistency import leave_out_psnr, reprojection
from anyform.evaluation.metrics import bootstrap, hull_iou, retrieval_precision
from anyform.systems.tunemv3d.config import TuneMV3DSettings
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.latent_neus import Rig
from anyform.systems.tunemv3d.refine import foreground
from anyform.systems.tunemv3d.sampling import SamplingPlan, sample_views
from anyform.systems.tunemv3d.system import TuneMV3D, load
from anyform.systems.tunemv3d.training import is_held_out, psnr
from anyform.types.camera import Cameras
from anyform.types.progress import Progress, Report
from anyform.types.prompt import Image

TEXTS = 100  # candidates of R-precision, the true one included (supplement C)
SOLID = 0.5  # coverage from which a pixel belongs to a silhouette


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """pictures (V, 3, S, S) in [0, 1] of one object by one method; own: PSNR of the last x_0r against them, or None."""

    pictures: Tensor
    own: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One object: row of the data, its true ring of views (V, 3, S, S) and their cameras."""

    row: dict[str, Any]
    pictures: Tensor
    cameras: Cameras


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `anyform evaluate tunemv3d`."""
    parser.add_argument("--data", type=Path, required=True, metavar="VIEWS", help="what `anyform data views` made")
    parser.add_argument("--weights", metavar="RUN", help="a branch; default embedded")
    parser.add_argument("--foundation", metavar="W", help="where the branch's foundation lies; default embedded")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=RUN", help="another branch to compare")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument(
        "--prompts", type=int, default=32, metavar="N", help="captions (default 32, the least to quote)"
    )
    parser.add_argument("--steps", type=int, default=25, help="sampling steps of every method (default 25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default cpu)")


def run(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Evaluate; the record holds a table of methods, the claims it supports, and the circumstances."""
    settings = TuneMV3DSettings(num_inference_steps=arguments.steps, foundation=arguments.foundation, preview_every=0)
    system = load(arguments.weights, arguments.device, settings)
    arrays = ViewArrays.open(arguments.data)
    held_out = _held_out_share(arguments.weights)
    targets = targets_of(arrays, system, arguments.split, arguments.prompts)
    methods = methods_of(system)
    for entry in arguments.also:
        name, equals, place = entry.partition("=")
        if not equals or name in methods:
            raise BadInput(f"--also takes NAME=RUN with a new name, not {entry[:80]!r}")
        other = load(place, arguments.device, settings)
        methods[name] = sampler(other, other.branch, other.plan())
    drawings = draw_all(methods, targets, arguments.seed, report)
    drawings["ground_truth"] = [Drawing(target.pictures) for target in targets]
    drawings["shuffled"] = shuffled(targets)
    table = {name: consistency_row(some, targets, report, name) for name, some in drawings.items()}
    record: dict[str, Any] = {
        **circumstances(),
        "weights": [row.id for row in system.weights],
        "split": arguments.split,
        "prompts": len(targets),
        "steps": arguments.steps,
        "methods": {name: summary(row) for name, row in table.items()},
        "text": text_accuracy(drawings, targets, arrays, held_out),
        "diversity": diversity(methods, targets, arguments.seed, report),
        "image_to_views": image_to_views(system, targets, arguments.seed, report),
        "claims": claims(table),
    }
    return json.loads(json.dumps(record))


def targets_of(arrays: ViewArrays, system: TuneMV3D, split: str, count: int) -> list[Target]:
    """`count` objects spread over the split, as the system's foundation sees pictures. Raises BadInput for none."""
    views, size = system.branch.config.num_views, system.foundation.spec.picture_size
    if arrays.plan.num_ring != views:
        raise BadInput(f"the pictures have a ring of {arrays.plan.num_ring} views, the branch draws {views}")
    rows = [row for row in arrays.rows if row["split"] == split]
    if not rows or count < 1:
        raise BadInput(f"there are {len(rows)} objects in the {split} split and {count} prompts were asked for")
    chosen = [rows[i * len(rows) // min(count, len(rows))] for i in range(min(count, len(rows)))]
    targets = []
    for row in chosen:
        rgba = torch.from_numpy(arrays.pictures(row["index"])[:views]).permute(0, 3, 1, 2)
        pictures = functional.interpolate(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:], (size, size), mode="area")
        cameras = arrays.plan.cameras(arrays.angles[row["index"], :views])
        targets.append(Target(row, pictures, Cameras(cameras.camera_to_world, cameras.fov_y, size, size)))
    return targets


Method = Callable[[Target, int], Drawing]


def sampler(system: TuneMV3D, branch: ControlBranch | None, plan: SamplingPlan) -> Method:
    """Caption and cameras of a target -> its views by one way of sampling."""

    def draw(target: Target, seed: int) -> Drawing:
        rig = Rig.of(target.cameras, system.foundation.spec.size, system.device)
        caption = system.foundation.captions([str(target.row["captions"][0])]).to(system.device)
        made = sample_views(branch, system.foundation, caption, rig, plan, seed=seed)
        own = None if made.seen is None else psnr(made.seen.views, made.views)
        return Drawing(system.foundation.codec.decode(made.views).cpu(), own)

    return draw


def methods_of(system: TuneMV3D) -> dict[str, Method]:
    """The system and its ablations; `independent` is what has to be beaten."""
    plan = system.plan()
    return {
        "tunemv3d": sampler(system, system.branch, plan),
        "without_consistency_guidance": sampler(system, system.branch, replace(plan, consistency_fraction=0.0)),
        "field_only": sampler(system, system.branch, replace(plan, without="pairwise")),
        "pairwise_only": sampler(system, system.branch, replace(plan, without="render")),
        "independent": sampler(system, None, replace(plan, consistency_fraction=0.0)),
    }


def draw_all(
    methods: dict[str, Method], targets: Sequence[Target], seed: int, report: Report
) -> dict[str, list[Drawing]]:
    """Every method on every target, with the same seed for the same target."""
    drawings: dict[str, list[Drawing]] = {name: [] for name in methods}
    for number, target in enumerate(targets):
        for name, method in methods.items():
            drawings[name].append(method(target, seed + number))
        report(Progress("draw", number + 1, len(targets), str(target.row["captions"][0])))
    return drawings


def shuffled(targets: Sequence[Target]) -> list[Drawing]:
    """View v of object k is that of object k + v: real pictures that show no one object."""
    count = len(targets)
    return [
        Drawing(torch.stack([targets[(k + v) % count].pictures[v] for v in range(len(targets[k].pictures))]))
        for k in range(count)
    ]


def consistency_row(
    drawings: Sequence[Drawing], targets: Sequence[Target], report: Report, name: str
) -> dict[str, NDArray[np.float64]]:
    """Figures (O,) of one method; NaN where an object gives none."""
    rows = []
    for number, (drawing, target) in enumerate(zip(drawings, targets, strict=True)):
        masks = foreground(drawing.pictures)[:, 0].numpy() > SOLID
        error, visible = reprojection(drawing.pictures, target.cameras)
        rows.append(
            {
                "leave_out_psnr": leave_out_psnr(drawing.pictures, target.cameras),
                "hull_iou": hull_iou(masks, target.cameras),
                "reprojection_error": error if visible else np.nan,
                "visible": visible,
                "foreground": float(masks.mean()),
                "field_psnr": np.nan if drawing.own is None else drawing.own,
            }
        )
        report(Progress(f"measure {name}", number + 1, len(drawings)))
    return {key: np.array([row[key] for row in rows], np.float64) for key in rows[0]}


def summary(row: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Mean and 90 % interval of each figure that is there."""
    found = {}
    for key, values in row.items():
        kept = values[np.isfinite(values)]
        if len(kept):
            low, high = bootstrap(kept)
            found[key] = {"mean": round(float(kept.mean()), 4), "interval": [round(low, 4), round(high, 4)]}
    return found


def claims(table: dict[str, dict[str, NDArray[np.float64]]]) -> dict[str, Any]:
    """What issue 5 asks: better than independent outside the interval, and at least half way to the truth."""
    found: dict[str, Any] = {}
    for key in ("leave_out_psnr", "hull_iou"):
        ours, alone, truth = (table[name][key] for name in ("tunemv3d", "independent", "ground_truth"))
        low, high = bootstrap(ours - alone)
        way = float((ours.mean() - alone.mean()) / max(truth.mean() - alone.mean(), 1e-9))
        found[key] = {
            "gain": round(float((ours - alone).mean()), 4),
            "interval": [round(low, 4), round(high, 4)],
            "above_independent": bool(low > 0),
            "way_to_truth": round(way, 4),
            "half_way": bool(way >= 0.5),
        }
    return found


def text_accuracy(
    drawings: dict[str, list[Drawing]], targets: Sequence[Target], arrays: ViewArrays, held_out: float
) -> dict[str, Any]:
    """R-precision (own retriever) by the supplement's vote, in-domain and on held-out nouns; ceiling and chance beside.

    The retriever is the embedded joint space. Where its picture side is not there, the record says so and no figure is
    given: it is never called CLIP.
    """
    embed = _retriever()
    if isinstance(embed, str):
        return {"measured": False, "reason": embed}
    own = [str(target.row["captions"][0]) for target in targets]
    pool = list(dict.fromkeys([*own, *(str(row["captions"][0]) for row in arrays.rows)]))[: max(TEXTS, len(own))]
    texts = np.stack([embed(text) for text in pool])
    truth = np.array([pool.index(text) for text in own])
    unseen = np.array([is_held_out(str(target.row["caption"]), held_out) for target in targets])
    found: dict[str, Any] = {"measured": True, "chance": round(1 / len(pool), 4), "retriever": "embedded joint space"}
    for name, some in drawings.items():
        views = np.stack([[embed(picture) for picture in drawing.pictures] for drawing in some])
        rows = {"all": np.ones(len(own), bool), "in_domain": ~unseen, "held_out": unseen}
        found[name] = {
            key: round(retrieval_precision(views[use], texts, truth[use], vote=True), 4)
            for key, use in rows.items()
            if use.any()
        }
    return found


def _retriever() -> Callable[[str | Tensor], NDArray[np.float64]] | str:
    """Text or picture (3, S, S) -> unit vector; or the sentence that says why there is none."""
    from anyform.encoders import embedded
    from anyform.errors import AnyformError
    from anyform.types.prompt import Text

    encoder = embedded.load()

    def embed(value: str | Tensor) -> NDArray[np.float64]:
        if isinstance(value, str):
            prompt: Any = Text(value)
        else:
            prompt = Image.from_rgba(value.clamp(0, 1).permute(1, 2, 0).numpy())
        return encoder.embed(prompt).reshape(-1).double().numpy()

    try:
        probe = torch.zeros(3, 16, 16)
        probe[:, 4:12, 4:12] = 1
        same = embed(probe).shape == embed("a thing").shape
    except AnyformError as error:
        return str(error)
    return embed if same else "text and pictures are not embedded in one space yet"


def diversity(methods: dict[str, Method], targets: Sequence[Target], seed: int, report: Report) -> dict[str, float]:
    """Mean absolute difference of the views of two seeds, on at most 8 captions: consistency by repetition shows."""
    some, found = targets[:8], {}
    for name in ("tunemv3d", "independent"):
        gaps = []
        for number, target in enumerate(some):
            one, two = (methods[name](target, seed + number + add).pictures for add in (0, 10_000))
            gaps.append(float((one - two).abs().mean()))
            report(Progress(f"diversity {name}", number + 1, len(some)))
        found[name] = round(float(np.mean(gaps)), 4)
    return found


def image_to_views(system: TuneMV3D, targets: Sequence[Target], seed: int, report: Report) -> dict[str, Any]:
    """The first true view given: PSNR and SSIM on the unseen ones, against copying it and against the mean view.

    The mean view is that of all the targets at the same slot, an oracle of the average object.
    """
    from skimage.metrics import structural_similarity

    plan, rows = system.plan(), []
    mean = torch.stack([target.pictures for target in targets]).mean(0)
    for number, target in enumerate(targets):
        given = system.foundation.codec.encode(target.pictures[:1].to(system.device))[0]
        rig = Rig.of(target.cameras, system.foundation.spec.size, system.device)
        caption = system.foundation.captions([""]).to(system.device)
        made = sample_views(
            system.branch, system.foundation, caption, rig, plan, seed=seed + number, references={0: given}
        )
        found = {
            "tunemv3d": system.foundation.codec.decode(made.views).cpu(),
            "copy": target.pictures[:1].expand_as(target.pictures),
            "mean_view": mean,
        }
        for name, pictures in found.items():
            for slot in range(1, len(pictures)):
                one, two = pictures[slot], target.pictures[slot]
                planes = (part.permute(1, 2, 0).numpy() for part in (one, two))
                similarity: Any = structural_similarity(*planes, channel_axis=-1, data_range=1.0)
                rows.append((name, number, psnr(one, two, span=1.0), float(similarity)))
        report(Progress("image to views", number + 1, len(targets)))
    table = {}
    for name in ("tunemv3d", "copy", "mean_view"):
        mine = [[row[2:] for row in rows if row[0] == name and row[1] == number] for number in range(len(targets))]
        figures = np.array([np.mean(some, axis=0) for some in mine])
        table[name] = summary({"psnr": figures[:, 0], "ssim": figures[:, 1]})
    return table


def _held_out_share(weights: str | None) -> float:
    """What share of the nouns the branch has not seen, as its file says; 0 where it does not."""
    from anyform.systems.tunemv3d.system import branch_path
    from anyform.weights import read_header

    try:
        return float(read_header(branch_path(weights))[1].get("held_out", 0.0))
    except ValueError:
        return 0.0
