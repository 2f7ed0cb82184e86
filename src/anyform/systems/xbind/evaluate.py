"""Measure XBind or one of its baselines on frozen prompts: CLIP-R, CLIP-I, ARCC, Janus score, geometry; intervals.

With a CLIP folder the scores are CLIP's; without one the embedded joint space judges, which the similarity term also
optimises: the record says so, and such numbers are no CLIP numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anyform.errors import BadInput, GateFailed
from anyform.evaluation import turntable as scores
from anyform.evaluation.circumstances import circumstances
from anyform.geometry.asset import Asset
from anyform.render.shading import picture
from anyform.systems.xbind import presets
from anyform.systems.xbind.models import JointSpace
from anyform.systems.xbind.system import XBind, load
from anyform.systems.xbind.views import turntable
from anyform.types.progress import Progress, Report, silent
from anyform.types.prompt import Audio, Image, Prompt, Text

BATCH = 16  # pictures at a time
ELEVATION_DEG = 0.0  # of the views: the reference's own, specs/xbind.md §11


@dataclass(frozen=True, slots=True, eq=False)
class Retriever:
    """What judges: a joint space with its name. independent: whether no term of the system optimises it."""

    space: JointSpace
    name: str
    independent: bool

    @torch.inference_mode()
    def views(self, asset: Asset, num_views: int, size: int) -> NDArray[np.float32]:
        """Embeddings (V, D) of views around an asset, on white."""
        points = turntable(num_views, size, float(np.radians(ELEVATION_DEG)))
        shown = picture(asset.mesh, points.cameras)[..., :3]
        pixels = torch.from_numpy(shown.astype(np.float32) / 255).permute(0, 3, 1, 2)
        return torch.cat([self.space.images(part).cpu() for part in pixels.split(BATCH)]).numpy()

    @torch.inference_mode()
    def of(self, prompt: Prompt) -> NDArray[np.float32]:
        """Embedding (D,) of a prompt."""
        return self.space.embed(prompt).reshape(-1).float().cpu().numpy()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `anyform evaluate xbind`."""
    parser.add_argument("--prompts", type=int, default=24, metavar="N", help="prompts, spread over the list")
    parser.add_argument("--list", default=scores.PROMPTS, help="frozen prompt list")
    parser.add_argument("--captions", type=Path, metavar="TXT", help="prompts of your own, one a line, instead")
    parser.add_argument("--protocol", choices=("paper", "quick"), default="quick", help="120 views of 512 or 8 of 128")
    parser.add_argument("--preset", choices=sorted(presets.VARIANTS), help="a baseline or ablation instead of XBind")
    parser.add_argument("--quality", choices=sorted(presets.QUALITIES), default="draft")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of networks instead of the embedded ones")
    parser.add_argument("--clip", type=Path, metavar="DIR", help="CLIP folder that judges instead of the joint space")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep the assets as GLB")
    parser.add_argument("--device", default="auto")


def run(arguments: argparse.Namespace, report: Report = silent) -> dict[str, Any]:
    """The record that `--json` prints."""
    prompts = _prompts(arguments)
    settings = presets.QUALITIES[arguments.quality]()
    if arguments.preset is not None:
        settings = presets.VARIANTS[arguments.preset](settings)
    system = load(arguments.weights, arguments.device, settings, _draft(arguments.device))
    judge = retriever(system, arguments.clip)
    views = (scores.NUM_VIEWS, 512) if arguments.protocol == "paper" else (8, 128)
    measured = evaluate(system, prompts, judge, views=views, seed=arguments.seed, report=report, save=arguments.save)
    return {
        "system": "xbind",
        "preset": arguments.preset or "xbind",
        "quality": arguments.quality,
        "list": arguments.captions.name if arguments.captions else arguments.list,
        **measured,
        "circumstances": circumstances(),
    }


def retriever(system: XBind, clip: Path | None) -> Retriever:
    """CLIP of a folder, or the system's own joint space."""
    if clip is None:
        name = "embedded joint space, because no CLIP weights were given: these are no CLIP scores"
        return Retriever(system.models.space, name, independent=False)
    from anyform.encoders.clip import load as load_clip

    return Retriever(load_clip(clip), f"CLIP of {clip.name}", independent=True)


def evaluate(
    system: XBind,
    prompts: Sequence[Prompt],
    judge: Retriever,
    *,
    views: tuple[int, int],
    seed: int,
    report: Report = silent,
    save: Path | None = None,
) -> dict[str, Any]:
    """Make an asset of every prompt and score it. views: their number and edge in pixels.

    A prompt whose run fails counts as a miss in CLIP-R and is named under `failed`; the other means are over what was
    made. Raises GateFailed where nothing was.
    """
    embedded = np.stack([judge.of(prompt) for prompt in prompts])
    rows, seen, truth, failed, seconds = [], [], [], [], []
    for number, prompt in enumerate(prompts):
        report(Progress("evaluate", number, len(prompts)))
        begun = time.monotonic()
        try:
            asset = system.generate(prompt, seed=seed, report=report)
        except GateFailed as error:
            failed.append({"prompt": number, "reason": str(error)})
            continue
        seconds.append(time.monotonic() - begun)
        if save is not None:
            save.mkdir(parents=True, exist_ok=True)
            asset.save(save / f"{number:03d}.glb", force=True)
        seen.append(judge.views(asset, *views))
        truth.append(number)
        rows.append({"janus": scores.janus(seen[-1]), **scores.sanity(asset.mesh)})
    if not rows:
        raise GateFailed(f"none of the {len(prompts)} prompts gave an asset: {failed[0]['reason']}")
    _, each = scores.clip_r(np.stack(seen), embedded, np.array(truth))
    hits = [*each, *[0.0] * len(failed)]
    return {
        "retriever": judge.name,
        "independent": judge.independent,
        "objects": len(prompts),
        "views": views[0],
        "failed": failed,
        "clip_r": scores.interval(hits),
        "clip_r_chance": round(1 / len(prompts), 4),
        **_by_kind(prompts, truth, seen, embedded),
        "janus": scores.interval([row["janus"] for row in rows]),
        "closed": round(float(np.mean([row["watertight"] for row in rows])), 4),
        "bodies": round(float(np.mean([row["bodies"] for row in rows])), 2),
        "seconds_median": round(float(np.median(seconds)), 1),
    }


def _by_kind(
    prompts: Sequence[Prompt], truth: Sequence[int], seen: Sequence[NDArray[Any]], embedded: NDArray[Any]
) -> dict[str, Any]:
    """CLIP-I of picture prompts and ARCC of sounds, where there are any."""
    found: dict[str, Any] = {}
    for name, kind in (("clip_i", Image), ("arcc", Audio)):
        values = [
            scores.mean_cosine(views, embedded[number])
            for number, views in zip(truth, seen, strict=True)
            if isinstance(prompts[number], kind)
        ]
        if values:
            found[name] = scores.interval(values)
    return found


def _prompts(arguments: argparse.Namespace) -> list[Prompt]:
    if arguments.captions is not None:
        lines = arguments.captions.read_text(encoding="utf-8").splitlines()
        known = [line.strip() for line in lines if line.strip()]
    else:
        known = list(scores.prompt_list(arguments.list))
    if not 1 <= arguments.prompts <= len(known):
        raise BadInput(f"--prompts lies between 1 and {len(known)}, the length of the list, not {arguments.prompts}")
    return [Text(known[k * len(known) // arguments.prompts]) for k in range(arguments.prompts)]


def _draft(device: str) -> Callable[[Any, int, Report], Asset] | None:
    """Systems do not know each other: an evaluation of drafts gets its first shapes through `anyform.generate`."""
    import anyform

    def draft(prompt: Any, seed: int, report: Report) -> Asset:
        return anyform.generate(prompt, system="wala", quality="draft", seed=seed, device=device, report=report)

    return draft
