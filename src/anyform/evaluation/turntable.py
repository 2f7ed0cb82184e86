"""Scores of an object seen from all around: XBind's CLIP-R, CLIP-I and ARCC, and how much its back looks like a front.

Views are embeddings (V, D) in turntable order, azimuth 0 first and the endpoint left out, so that none counts twice.
All cosines are of L2-normalised vectors without temperature. CLIP-R is `metrics.retrieval_precision`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.evaluation.metrics import retrieval_precision
from anyform.geometry.gate import gate
from anyform.geometry.mesh import Mesh

NUM_VIEWS = 120  # of the paper's protocol
PROMPTS = "df136-v1"


def prompt_list(name: str = PROMPTS) -> tuple[str, ...]:
    """The frozen prompts of `name`, in their order. Raises BadInput for a list that does not exist.

    df136-v1: 136 prompts for a single object, not the paper's subset, which is not published. Made from the public
    gallery prompts of DreamFusion as threestudio lists them: the photo phrase cut off, lower case, those that name a
    place, a second object or a point of view left out, sorted, and 136 taken evenly.
    """
    if name != PROMPTS:
        raise BadInput(f"there is no prompt list {name[:40]!r}; there is {PROMPTS}")
    path = Path(__file__).with_name(f"{name}.txt")
    return tuple(path.read_text(encoding="utf-8").split("\n")[:-1])


def azimuths(num_views: int = NUM_VIEWS) -> NDArray[np.float64]:
    """`num_views` azimuths in radians evenly over the circle; 2π, which is 0 again, is not among them."""
    return np.arange(num_views, dtype=np.float64) * (2 * np.pi / num_views)


def clip_r(
    views: NDArray[np.floating], texts: NDArray[np.floating], truth: NDArray[np.integer]
) -> tuple[float, NDArray[np.float64]]:
    """(mean, per object (O,)): share of views (O, V, D) whose nearest of all texts (T, D) is the object's own."""
    each = [retrieval_precision(views[k : k + 1], texts, truth[k : k + 1]) for k in range(len(views))]
    return float(np.mean(each)), np.array(each)


def mean_cosine(views: NDArray[np.floating], prompt: NDArray[np.floating]) -> float:
    """Mean cosine of views (V, D) and one prompt (D,): CLIP-I for a picture's embedding, ARCC for a sound's."""
    views, prompt = np.asarray(views, np.float64), np.asarray(prompt, np.float64)
    if views.ndim != 2 or prompt.shape != views.shape[1:]:
        raise BadInput(f"views (V, D) and a prompt (D,) are needed, not {views.shape} and {prompt.shape}")
    length = np.linalg.norm(views, axis=1) * np.linalg.norm(prompt)
    if not (length > 0).all():
        raise BadInput("an embedding is zero: it has no direction to compare")
    return float((views @ prompt / length).mean())


def janus(views: NDArray[np.floating]) -> float:
    """How much more the back looks like the front than the sides do, in [−2, 2]; 0 or less is good.

    cos(view at 180°, view at 0°) less the mean of cos(view at ±90°, view at 0°). An object that shows its face on both
    sides scores high; one that looks alike from everywhere, such as a ball, scores 0.
    """
    count = len(views)
    if count < 4 or count % 4:
        raise BadInput(f"the Janus score needs views in multiples of four around the object, not {count}")
    front = np.asarray(views[0])
    back = mean_cosine(views[count // 2 : count // 2 + 1], front)
    return back - mean_cosine(np.stack([views[count // 4], views[3 * count // 4]]), front)


def sanity(mesh: Mesh) -> dict[str, Any]:
    """Geometry in a few numbers: closed, in how many bodies, share of its own bounding box that is filled."""
    report = gate(mesh, allow_parts=True)
    box = float(np.prod(report.extents))
    return {
        "ok": report.ok,
        "watertight": report.watertight,
        "bodies": report.bodies,
        "faces": report.faces,
        "filled": round(report.volume / box, 4) if box > 0 else 0.0,
    }


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean of one number an object with its bootstrap 90 % interval; the interval is None for fewer than two."""
    from anyform.evaluation.metrics import bootstrap

    numbers = np.asarray(values, np.float64)
    spread = None if len(numbers) < 2 else [round(bound, 4) for bound in bootstrap(numbers)]
    return {"mean": round(float(numbers.mean()), 4), "interval90": spread, "n": len(numbers)}
