"""How a WaLa model is measured, so that two numbers can be compared (specs/data.md §9, specs/embedded.md §5).

Shapes are distance fields on the cell-centred N³ grid of [-1, 1]³; IoU is that of strict insides, sdf < 0; F1 is at one
voxel; Chamfer (mean of directions, unsquared) and F-score are of 4,096 surface points, world units (half the cube = 1).
Pictures and sketches show their object from anywhere: the truth is turned about +y by the quarter turn that brings the
camera's azimuth nearest to the front, so that the side in view faces +z. Everything else keeps the object's own front.

Beside every figure stand the ones it must beat:
- oracle: the training shape (or its mirror image) nearest to the truth, which it sees. For prompts that carry geometry
  it bounds every retrieval from above.
- prompt: the prompt turned into a surface without any learning (blown-up voxels, closed points, carved views, extruded
  silhouette).
- retrieval: a copy of the training shape that the system's own search finds for the prompt (text: nearest caption of
  the whole train split; pictures and sketches: the shipped index).
- random: any training shape.
Category of a shape: head noun of the caption of the training shape nearest to it in IoU. Intervals are 90 % bootstraps.
Test results are to be looked at once; guidance is fixed on val (`fix_guidance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anyform.errors import AnyformError, BadSetting
from anyform.evaluation import metrics
from anyform.evaluation.reference import Reference
from anyform.geometry.gate import gate
from anyform.geometry.marching_cubes import surface
from anyform.geometry.mesh import Mesh
from anyform.geometry.topology import face_cross
from anyform.types.progress import Progress, Report, silent
from anyform.types.prompt import Prompt

CONDITIONS = ("voxels", "points", "depth", "views", "image", "sketch", "text")
FREE = ("image", "sketch", "text")  # prompts that leave the shape open: different seeds should differ
FILLED = 0.03  # share of the cube; below it an object is mostly one-voxel sheets
SURFACE_POINTS = 4096
F_THRESHOLD = 0.02
GUIDANCE_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)

Volume = NDArray[np.float32]

# What issue 3 asks of the embedded model on the test split: path in the result -> bar.
BARS: dict[str, float] = {
    "reconstruction.iou.mean": 0.88,
    "reconstruction.iou.median": 0.94,
    "reconstruction.iou_filled.mean": 0.93,
    "reconstruction.f1.mean": 0.99,
    "generation.voxels.iou.mean": 0.72,
    "generation.points.iou.mean": 0.70,
    "generation.depth.iou.mean": 0.66,
    "generation.views.iou.mean": 0.45,
    "generation.image.iou.mean": 0.40,
    "generation.sketch.iou.mean": 0.35,
}


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One held-out object: its field (N, N, N), a prompt for each condition, and the quarter turns of the truth (0..3).

    A condition that is missing from `quarters` keeps the object's own front.
    """

    id: str
    caption: str
    sdf: Volume
    prompts: Mapping[str, Prompt]
    quarters: Mapping[str, int]

    def truth(self, condition: str) -> Volume:
        """The field as the condition's prompt shows it: a camera at azimuth 90° · quarters looks at +z."""
        return turned(self.sdf, self.quarters.get(condition, 0))


class Subject(Protocol):
    """What is measured: a system behind the few functions that the protocol needs."""

    def describe(self) -> dict[str, Any]:
        """Name, weights with their SHA-256, settings: JSON."""
        ...

    def reconstruct(self, sdf: Volume) -> Volume:
        """Through the codec and back."""
        ...

    def generate(self, prompt: Prompt, seed: int, guidance: float | None) -> Volume:
        """A field for a prompt; guidance None = the system's own."""
        ...

    def crude(self, prompt: Prompt) -> Volume | None:
        """The prompt turned into a field without learning; None where it carries no shape."""
        ...

    def retrieve(self, prompt: Prompt) -> tuple[str, int] | None:
        """Id of the training object that the system's own search finds, and its quarter turn; None without a search."""
        ...

    def text_vectors(self, captions: Sequence[str]) -> NDArray[np.floating]:
        """Unit vectors (N, D) of captions, for the nearest-caption baseline."""
        ...

    def mesh(self, sdf: Volume) -> Mesh:
        """The surface as it would be saved. Raises an AnyformError where there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure. guidance: condition -> scale, fixed on val; a missing one is the system's own."""

    split: str = "test"
    conditions: tuple[str, ...] = CONDITIONS
    seed: int = 0
    guidance: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.conditions if name not in CONDITIONS]
        if unknown:
            raise BadSetting(f"there is no condition {unknown[0]!r}; there are {', '.join(CONDITIONS)}")


def turned(volume: NDArray[Any], quarters: int) -> NDArray[Any]:
    """An [x, y, z] volume turned by −90° · quarters about +y: what was at azimuth 90° · quarters comes to +z."""
    return np.rot90(volume, quarters, (0, 2))


def quarter_of(azimuth: float) -> int:
    """The quarter turn (0..3) nearest to an azimuth in radians."""
    return round(azimuth / (np.pi / 2)) % 4


def evaluate_wala(
    subject: Subject, targets: Sequence[Target], reference: Reference, plan: Plan | None = None, report: Report = silent
) -> dict[str, Any]:
    """Measure everything of the module's docstring; JSON data.

    Every target is generated once from every condition, twice from image, sketch and text: for the IoU between seeds.
    """
    plan = plan or Plan()
    result: dict[str, Any] = {
        "subject": subject.describe(),
        "split": plan.split,
        "objects": len(targets),
        "seed": plan.seed,
        "guidance": dict(plan.guidance or {}),
        "reconstruction": _reconstruction(subject, targets, report),
        "baselines": _shape_baselines(targets, reference, plan.seed),
        "generation": {},
    }
    for condition in plan.conditions:
        shapes = _generate(subject, targets, condition, plan, report)
        measured = _compare(subject, targets, condition, shapes)
        measured["baselines"] = _prompt_baselines(subject, targets, condition, reference)
        if condition in FREE:
            again = _generate(subject, targets, condition, plan, report, plan.seed + 1)
            measured["between_seeds"] = summary([_iou(a, b) for a, b in zip(shapes, again, strict=True)])
        if condition == "text":
            measured["category"] = _categories(subject, targets, shapes, reference)
        result["generation"][condition] = measured
    result["bars"] = check_bars(result)
    return result


def fix_guidance(
    subject: Subject,
    targets: Sequence[Target],
    conditions: Sequence[str] = CONDITIONS,
    scales: Sequence[float] = GUIDANCE_SCALES,
    seed: int = 0,
) -> dict[str, float]:
    """Condition -> the guidance scale with the best mean IoU on these (val) targets; the lowest of equals."""
    best = {}
    for condition in conditions:
        scores = [
            np.mean([_iou(subject.generate(t.prompts[condition], seed, scale), t.truth(condition)) for t in targets])
            for scale in scales
        ]
        best[condition] = float(scales[int(np.argmax(scores))])
    return best


def summary(values: Sequence[float]) -> dict[str, float]:
    """mean, median, p10 (a tenth is below), the 90 % interval of the mean (low, high), and their number n."""
    array = np.asarray(values, np.float64)
    if not len(array):
        return {"n": 0}
    low, high = metrics.bootstrap(array)
    numbers = {
        "mean": array.mean(),
        "median": np.median(array),
        "p10": np.quantile(array, 0.1),
        "low": low,
        "high": high,
    }
    return {**{key: round(float(value), 4) for key, value in numbers.items()}, "n": len(array)}


def look_up(result: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path of a result, None where it was not measured."""
    value: Any = result
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return float(value)


def check_bars(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every bar that the result can answer: what, value, bar, ok; first fixed figures, then comparisons."""
    rows: list[tuple[str, float | None, float | None, str]] = [
        (path, look_up(result, path), bar, "at least") for path, bar in BARS.items()
    ]
    oracle = look_up(result, "baselines.oracle.mean")
    for condition in ("voxels", "points", "depth", "views"):
        value = look_up(result, f"generation.{condition}.iou.mean")
        rows.append((f"{condition} above the oracle training shape", value, oracle, "above"))
    for condition in FREE:
        value = look_up(result, f"generation.{condition}.iou.mean")
        bar = look_up(result, f"generation.{condition}.baselines.retrieval.mean")
        rows.append((f"{condition} at least its retrieval", value, bar, "at least"))
    category = "generation.text.category"
    value, bar = look_up(result, f"{category}.generated"), look_up(result, f"{category}.retrieval")
    rows.append(("text category at least retrieval's", value, bar, "at least"))
    rows.append(("text IoU between seeds", look_up(result, "generation.text.between_seeds.mean"), 0.9, "below"))
    for condition in CONDITIONS:
        rows.append(
            (
                f"{condition} meshes that pass the check",
                look_up(result, f"generation.{condition}.passes_check"),
                1.0,
                "at least",
            )
        )
    holds = {"at least": np.greater_equal, "above": np.greater, "below": np.less}
    return [
        {"what": what, "value": value, "sense": sense, "bar": bar, "ok": bool(holds[sense](value, bar))}
        for what, value, bar, sense in rows
        if value is not None and bar is not None
    ]


def _reconstruction(subject: Subject, targets: Sequence[Target], report: Report) -> dict[str, Any]:
    iou, f1 = [], []
    for done, target in enumerate(targets):
        decoded = subject.reconstruct(target.sdf)
        iou.append(_iou(decoded, target.sdf))
        f1.append(metrics.surface_f1(decoded, target.sdf, 2 / len(target.sdf)))
        report(Progress("reconstruct", done + 1, len(targets)))
    filled = [float((target.sdf < 0).mean()) > FILLED for target in targets]
    solid = [value for value, is_filled in zip(iou, filled, strict=True) if is_filled]
    return {"iou": summary(iou), "iou_filled": summary(solid), "f1": summary(f1)}


def _generate(
    subject: Subject, targets: Sequence[Target], condition: str, plan: Plan, report: Report, seed: int | None = None
) -> list[Volume | None]:
    """One field a target; None where the system refuses to give one (it scores 0)."""
    shapes: list[Volume | None] = []
    guidance = (plan.guidance or {}).get(condition)
    for done, target in enumerate(targets):
        try:
            shapes.append(subject.generate(target.prompts[condition], plan.seed if seed is None else seed, guidance))
        except AnyformError:
            shapes.append(None)
        report(Progress(f"generate from {condition}", done + 1, len(targets)))
    return shapes


def _compare(
    subject: Subject, targets: Sequence[Target], condition: str, shapes: Sequence[Volume | None]
) -> dict[str, Any]:
    """Generated fields against the truth. `failures` has a sentence for everything that came to no acceptable mesh.

    Without a field IoU and F1 are 0; without a mesh the F-score is 0 and Chamfer is left out.
    """
    iou, f1, distance, f_score, failures = [], [], [], [], []
    for target, shape in zip(targets, shapes, strict=True):
        truth = target.truth(condition)
        iou.append(_iou(shape, truth))
        f1.append(0.0 if shape is None else metrics.surface_f1(shape, truth, 2 / len(truth)))
        mesh, reason = _mesh(subject, shape)
        if reason:
            failures.append(f"{target.id} {target.caption}: {reason}")
        if mesh is None:
            f_score.append(0.0)
            continue
        real = surface_samples(surface(np.ascontiguousarray(truth), -1 + 1 / len(truth), 2 / len(truth)))
        made = surface_samples(mesh)
        distance.append(1e3 * metrics.chamfer(made, real))
        f_score.append(metrics.f_score(made, real, F_THRESHOLD))
    return {
        "iou": summary(iou),
        "f1": summary(f1),
        "chamfer_e3": summary(distance),
        "f_score_002": summary(f_score),
        "passes_check": round(1 - len(failures) / len(targets), 4),
        "failures": failures,
    }


def _mesh(subject: Subject, shape: Volume | None) -> tuple[Mesh | None, str]:
    """The mesh of a field, and why there is none or why it does not pass the gate ("" where all is well)."""
    if shape is None:
        return None, "nothing was generated"
    try:
        mesh = subject.mesh(shape)
    except AnyformError as error:
        return None, str(error)
    return mesh, "; ".join(gate(mesh, allow_parts=True).failures)


def surface_samples(mesh: Mesh, count: int = SURFACE_POINTS) -> NDArray[np.float64]:
    """(count, 3) points spread over the surface by area, the same every time."""
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    area = np.linalg.norm(face_cross(mesh.vertices, mesh.faces), axis=1).cumsum()
    rng = np.random.default_rng(0)
    face = np.searchsorted(area, rng.random(count) * area[-1]).clip(max=len(area) - 1)
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = np.moveaxis(corners[face], 1, 0)
    return a + u * (b - a) + v * (c - a)


def _shape_baselines(targets: Sequence[Target], reference: Reference, seed: int) -> dict[str, Any]:
    insides = [target.sdf < 0 for target in targets]
    _, oracle = reference.nearest(insides)
    rows = np.random.default_rng(seed).integers(0, len(reference.ids), len(targets))
    chance = [metrics.volume_iou(reference.inside(row), inside) for row, inside in zip(rows, insides, strict=True)]
    return {"oracle": summary(list(oracle)), "random": summary(chance)}


def _prompt_baselines(
    subject: Subject, targets: Sequence[Target], condition: str, reference: Reference
) -> dict[str, Any]:
    """What the prompt gives without a model, and what copying gives."""
    found: dict[str, Any] = {}
    crude = [subject.crude(target.prompts[condition]) for target in targets]
    if any(field is not None for field in crude):
        found["prompt"] = summary([_iou(f, t.truth(condition)) for f, t in zip(crude, targets, strict=True)])
    if condition == "text":
        copies = [reference.inside(row) for row in _nearest_captions(subject, targets, reference)]
    else:
        row_of = {name: row for row, name in enumerate(reference.ids)}
        hits = [subject.retrieve(target.prompts[condition]) for target in targets]
        copies = [turned(reference.inside(row_of[hit[0]]), hit[1]) for hit in hits if hit is not None]
    if len(copies) == len(targets):
        ious = [metrics.volume_iou(c, t.truth(condition) < 0) for c, t in zip(copies, targets, strict=True)]
        found["retrieval"] = summary(ious)
    return found


def _nearest_captions(subject: Subject, targets: Sequence[Target], reference: Reference) -> NDArray[np.int64]:
    """Row of the training caption nearest to each target's."""
    wanted = subject.text_vectors([target.caption for target in targets])
    return (wanted @ subject.text_vectors(reference.captions).T).argmax(1)


def _categories(
    subject: Subject, targets: Sequence[Target], shapes: Sequence[Volume | None], reference: Reference
) -> dict[str, float]:
    """Category accuracy of what was generated, of copying the nearest caption's shape, of the truth, and of chance."""
    wanted = [target.caption for target in targets]
    size = reference.size
    insides = [np.zeros((size,) * 3, np.bool_) if shape is None else shape < 0 for shape in shapes]
    sources = {
        "generated": insides,
        "retrieval": [reference.inside(row) for row in _nearest_captions(subject, targets, reference)],
        "truth": [target.sdf < 0 for target in targets],
    }
    accuracy = {}
    for name, volumes in sources.items():
        rows, _ = reference.nearest(volumes)
        found = [reference.captions[int(row)] for row in rows]
        accuracy[name] = round(metrics.category_accuracy(found, wanted), 4)
    nouns = [metrics.head_noun(caption) for caption in reference.captions]
    accuracy["chance"] = round(float(np.mean([nouns.count(metrics.head_noun(c)) / len(nouns) for c in wanted])), 4)
    return accuracy


def _iou(a: Volume | None, b: Volume | None) -> float:
    """IoU of strict insides; 0 where either is missing."""
    return 0.0 if a is None or b is None else metrics.volume_iou(a < 0, b < 0)
