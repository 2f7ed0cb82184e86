"""Measure the embedded WaLa on held-out objects of the corpus: reconstruction, every kind of prompt, baselines."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anyform.data.corpus import SPLITS, open_collection
from anyform.device import home
from anyform.errors import BadInput
from anyform.evaluation.circumstances import circumstances
from anyform.evaluation.protocol import CONDITIONS, Plan, evaluate_wala, fix_guidance
from anyform.evaluation.report import sheet, write_report
from anyform.geometry.mesh import Mesh
from anyform.systems.wala import finishing, held_out
from anyform.systems.wala.config import WalaSettings
from anyform.systems.wala.system import EmbeddedWala, load
from anyform.types.progress import Report, silent
from anyform.types.prompt import Prompt

CORPUS = Path("../shared/data/corpus")
TUNING_OBJECTS = 48  # of the val split, for `--fix-guidance`


class EmbeddedSubject:
    """The embedded WaLa behind the functions of `evaluation.protocol.Subject`."""

    def __init__(self, wala: EmbeddedWala) -> None:
        self.wala = wala

    def describe(self) -> dict[str, Any]:
        """Name, weights and settings."""
        settings = self.wala.settings
        return {
            "name": "wala (embedded)",
            "weights": {record.id: record.sha256 for record in self.wala.weights},
            "steps": settings.steps,
            "variation": settings.variation,
            "from_scratch": settings.from_scratch,
        }

    @torch.inference_mode()
    def reconstruct(self, sdf: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode, quantise, decode."""
        codec = self.wala.codec
        return codec.decode(codec.encode(torch.from_numpy(np.ascontiguousarray(sdf))[None]))[0].float().numpy()

    def generate(self, prompt: Prompt, seed: int, guidance: float | None) -> NDArray[np.float32]:
        """What `Wala.generate` would mesh."""
        wala = self.wala
        if guidance is not None:
            wala = copy.copy(wala)
            wala.settings = replace(wala.settings, guidance_scale=guidance)
        return wala.generate_sdf(prompt, seed=seed)

    def crude(self, prompt: Prompt) -> NDArray[np.float32] | None:
        """The lifted field that the network is given."""
        return self.wala.conditions.read(prompt).lifted

    def retrieve(self, prompt: Prompt) -> tuple[str, int] | None:
        """First hit of the shipped index."""
        found = self.wala.conditions.neighbours(self.wala.conditions.read(prompt), 1)
        return (self.wala.conditions.index.owners[found[0].row].id, found[0].turn) if found else None

    def text_vectors(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Sentence vectors of the embedded text encoder."""
        from anyform.encoders import embedded

        return embedded.load().text(list(captions))[0].numpy()

    def mesh(self, sdf: NDArray[np.float32]) -> Mesh:
        """Surface, bodies and number of faces as in a generation."""
        return finishing.shape(sdf, self.wala.settings, self.wala.codec.config.first, silent)[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `anyform evaluate wala`."""
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/corpus"), help="the corpus, or a folder of meshes"
    )
    parser.add_argument("--limit", type=int, help="at most so many objects, spread over the split")
    parser.add_argument("--conditions", default=",".join(CONDITIONS), help="comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from-scratch", action="store_true", help="the model alone, without retrieved shapes")
    parser.add_argument("--variation", type=float, default=WalaSettings().variation)
    parser.add_argument("--fix-guidance", action="store_true", help=f"choose it on {TUNING_OBJECTS} val objects first")
    parser.add_argument("--report", type=Path, metavar="HTML", help="one self-contained page")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="26 random objects × every condition")
    parser.add_argument(
        "--log", type=Path, action="append", default=[], metavar="JSONL", help="training logs for curves"
    )
    parser.add_argument("--cache", type=Path, help="where the training shapes are kept")


def run(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Evaluate, write what was asked for, return the record."""
    collection = open_collection(arguments.data)
    rows = {split: [item for item in collection.items if item.split == split] for split in SPLITS}
    if not rows[arguments.split] or not rows["train"]:
        raise BadInput(f"{arguments.data.name} has no objects in its {arguments.split} or train split")
    wala = load(settings=WalaSettings(from_scratch=arguments.from_scratch, variation=arguments.variation))
    if not isinstance(wala, EmbeddedWala):
        raise BadInput("this protocol measures the embedded weights only")
    subject, size = EmbeddedSubject(wala), wala.codec.config.size
    conditions = tuple(arguments.conditions.split(","))
    plan = Plan(split=arguments.split, conditions=conditions, seed=arguments.seed)
    if arguments.fix_guidance:
        tuning = held_out.targets(collection, spread(rows["val"], TUNING_OBJECTS), size, report)
        plan = replace(plan, guidance=fix_guidance(subject, tuning, conditions, seed=arguments.seed))
    targets = held_out.targets(collection, spread(rows[arguments.split], arguments.limit), size, report)
    cache = arguments.cache or home() / "evaluation"
    reference = held_out.reference(collection, rows["train"], cache, size, report)
    record = {**circumstances(), **evaluate_wala(subject, targets, reference, plan, report)}
    picture = None
    if arguments.sheet or arguments.report:
        picture = sheet(subject, targets, seed=arguments.seed, conditions=conditions)
    if arguments.sheet and picture:
        picture.save(arguments.sheet)
    if arguments.report:
        curves = {path.parent.name or path.stem: path for path in arguments.log}
        title = f"{min(26, len(targets))} random {arguments.split} objects × every condition"
        write_report(record, arguments.report, {title: picture} if picture else {}, curves)
    return json.loads(json.dumps(record))


def spread(items: Sequence[Any], limit: int | None) -> list[Any]:
    """At most `limit` items, evenly over the list; all of them without a limit."""
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise BadInput(f"at least one object is needed, not {limit}")
    return [items[i * len(items) // limit] for i in range(limit)]
