"""Distances between shapes, pictures, colours and captions, each with its convention in the docstring. numpy, scipy.

Points are (N, 3) in any unit; volumes are bool (R, R, R); distance fields are negative inside. Everything returns plain
floats, larger = better for IoU, F and precision, smaller = better for distances.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.types.camera import Cameras

SURFACE_VOXELS, MATCH_VOXELS = 0.6, 1.2
# Words at the end of a caption that say which one, not what: colours, sizes, variants.
_VARIANT = re.compile(
    "[a-z]|.*[0-9].*"
    "|black|grey|gray|white|red|orange|brown|beige|yellow|golden|green|olive|turquoise|blue|purple|pink|light|dark"
    "|small|large|big|long|short|wide|narrow|thin|thick|high|low|tall|tiny|single|double|triple|half|quarter|full|empty"
    "|square|round|open|closed|inner|outer|left|right|top|bottom|front|back|old|new|color|colour|modern|simple"
)
_CUT = re.compile(r"\b(?:with|of|for|in|on|at|and|from|without|by|to|under|over)\b|,")


def _points(points: NDArray[np.floating], name: str) -> NDArray[np.float64]:
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array) or not np.isfinite(array).all():
        raise BadInput(f"{name} must be finite points (N, 3) with N >= 1, not an array {np.shape(points)}")
    return array


def nearest_distances(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Euclidean distance of every point of a (N, 3) to its nearest of b (M, 3): (N,)."""
    from scipy.spatial import KDTree

    return KDTree(_points(b, "b")).query(_points(a, "a"))[0]


def chamfer(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Chamfer distance of two point sets: the **mean of both directions** of the mean **unsquared** nearest distance.

    ½ · (mean_a min_b |a − b| + mean_b min_a |a − b|), in the unit of the points. Others report the sum of the
    directions (twice this) or squared distances. Symmetric, 0 exactly for sets that cover each other.
    """
    return float((nearest_distances(a, b).mean() + nearest_distances(b, a).mean()) / 2)


def f_score(a: NDArray[np.floating], b: NDArray[np.floating], threshold: float) -> float:
    """Harmonic mean of precision and recall, in [0, 1]: the shares of a and of b with the other set within `threshold`.

    A point exactly at the threshold counts. 0 where nothing matches. threshold in the unit of the points, unsquared.
    """
    precision = float((nearest_distances(a, b) <= threshold).mean())
    recall = float((nearest_distances(b, a) <= threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def volume_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two occupancy grids of the same shape; 1 where both are empty.

    For distance fields pass `sdf < 0`: strict insides.
    """
    first, second = np.asarray(a, np.bool_), np.asarray(b, np.bool_)
    if first.shape != second.shape:
        raise BadInput(f"the IoU of volumes needs equal shapes, not {first.shape} and {second.shape}")
    union = int((first | second).sum())
    return float((first & second).sum() / union) if union else 1.0


def surface_f1(a: NDArray[np.floating], b: NDArray[np.floating], spacing: float) -> float:
    """F1 at one voxel of two distance fields (N, N, N) with samples `spacing` apart, in the same unit.

    Surface voxels have |sdf| < 0.6 voxel; one is matched where the other field has |sdf| < 1.2 voxels. Unlike IoU this
    is fair to shells and slabs a voxel thick. 0 where one has no surface, 1 where both have none.
    """
    if np.shape(a) != np.shape(b):
        raise BadInput(f"the F1 of fields needs equal shapes, not {np.shape(a)} and {np.shape(b)}")
    first, second = np.abs(a) / spacing, np.abs(b) / spacing
    surface_a, surface_b = first < SURFACE_VOXELS, second < SURFACE_VOXELS
    if not surface_a.any() or not surface_b.any():
        return float(surface_a.any() == surface_b.any())
    precision = float((second[surface_a] < MATCH_VOXELS).mean())
    recall = float((first[surface_b] < MATCH_VOXELS).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def retrieval_precision(
    views: NDArray[np.floating], texts: NDArray[np.floating], truth: NDArray[np.integer], vote: bool = False
) -> float:
    """R-precision: how often the text an object was made from is the nearest of all texts (cosine), in [0, 1].

    views (O, V, D): embeddings of V renders of O objects; texts (T, D); truth (O,): index of each object's own text.
    vote=False: share of views whose nearest text is the object's, averaged over views, then objects (XBind's CLIP-R).
    vote=True: each object's text is the one most of its views chose; of texts with equally many votes the one with the
    highest single-view cosine, then the lowest index (TuneMV3D's protocol).
    """
    views, texts, truth = np.asarray(views, np.float64), np.asarray(texts, np.float64), np.asarray(truth)
    if views.ndim != 3 or texts.ndim != 2 or views.shape[2] != texts.shape[1] or truth.shape != views.shape[:1]:
        raise BadInput(f"shapes (O, V, D), (T, D), (O,) are needed, not {views.shape}, {texts.shape}, {truth.shape}")
    cosine = _unit(views) @ _unit(texts).T
    best = cosine.argmax(-1)
    if not vote:
        return float((best == truth[:, None]).mean(1).mean())
    chosen = []
    for similarity, nearest in zip(cosine, best, strict=True):
        votes = np.bincount(nearest, minlength=len(texts))
        tied = np.flatnonzero(votes == votes.max())
        chosen.append(tied[similarity.max(0)[tied].argmax()])
    return float((np.array(chosen) == truth).mean())


def hull_iou(masks: NDArray[np.bool_], cameras: Cameras, resolution: int = 64) -> float:
    """Do silhouettes (V, H, W) belong to one object? Mean IoU of each with the silhouette of their common visual hull.

    A cell of [-1, 1]³ (resolution³, tested at its centre) belongs to the hull if every view sees it inside its mask;
    outside a picture is background. The hull is seen again by marching half a cell at a time along every pixel's ray.
    1 up to the grid's roughness for true views, blind to texture.
    """
    masks = np.asarray(masks, np.bool_)
    if masks.shape != (len(cameras), cameras.height, cameras.width):
        raise BadInput(
            f"{len(cameras)} cameras of {cameras.width} x {cameras.height} need masks (V, H, W), not {masks.shape}"
        )
    along = -1 + (2 * np.arange(resolution) + 1) / resolution
    centres = np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)
    hull = np.ones(len(centres), np.bool_)
    for mask, where in zip(masks, cameras.project(centres), strict=True):
        column, row = np.floor(where[:, 0]).astype(np.int64), np.floor(where[:, 1]).astype(np.int64)
        inside = (column >= 0) & (column < cameras.width) & (row >= 0) & (row < cameras.height) & (where[:, 2] > 0)
        hull &= inside
        hull[inside] &= mask[row[inside], column[inside]]
    solid = hull.reshape((resolution,) * 3)
    return float(
        np.mean([volume_iou(seen, mask) for seen, mask in zip(_silhouettes(solid, cameras), masks, strict=True)])
    )


def _silhouettes(solid: NDArray[np.bool_], cameras: Cameras) -> list[NDArray[np.bool_]]:
    """(H, W) of each camera: does the pixel's ray meet an occupied cell?"""
    resolution = len(solid)
    seen = []
    for origins, directions in zip(*cameras.rays(), strict=True):
        middle = -(origins * directions).sum(-1)
        hit = np.zeros(middle.shape, np.bool_)
        for offset in np.arange(-np.sqrt(3), np.sqrt(3), 1 / resolution):
            along = middle + offset
            cell = np.floor((origins + directions * along[..., None] + 1) * resolution / 2).astype(np.int64)
            within = ((cell >= 0) & (cell < resolution)).all(-1) & (along > 0)
            x, y, z = cell[within].T
            hit[within] |= solid[x, y, z]
        seen.append(hit)
    return seen


def delta_e(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """CIEDE2000 colour differences (N,) of sRGB colours a, b (N, 3) in [0, 1] (D65, 2°); about 2 is just visible."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.shape[-1:] != (3,):
        raise BadInput(f"colours (N, 3) of equal number are needed, not {first.shape} and {second.shape}")
    return deltaE_ciede2000(rgb2lab(first), rgb2lab(second))


def head_noun(caption: str) -> str:
    """What a caption names: its last word before a preposition, without variants (colours, sizes, numbers) or plural s.

    "chair with cushion" -> "chair", "banner thin red" -> "banner", "jar b small" -> "jar", "two pears" -> "pear".
    A rule of thumb for corpus captions, no grammar.
    """
    kept: list[str] = re.findall(r"[a-z0-9]+", _CUT.split(caption.lower().strip())[0])
    while len(kept) > 1 and _VARIANT.fullmatch(kept[-1]):
        kept.pop()
    noun = kept[-1] if kept else caption.lower().strip()
    return noun[:-1] if len(noun) > 3 and noun.endswith("s") and not noun.endswith(("ss", "us", "is")) else noun


def category_accuracy(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of captions whose head noun is that of the caption at the same place."""
    if len(found) != len(wanted) or not wanted:
        raise BadInput(f"{len(found)} captions cannot be compared with {len(wanted)}")
    return float(np.mean([head_noun(a) == head_noun(b) for a, b in zip(found, wanted, strict=True)]))


def bootstrap(values: NDArray[np.floating], level: float = 0.9, draws: int = 2000) -> tuple[float, float]:
    """Interval of the mean of `values` (N,): quantiles of means of N draws with replacement, the same every time."""
    values = np.asarray(values, np.float64)
    rows = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[rows].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
