"""Sketches for training (WaLa supplement D): techniques 1 and 2 of its six, as strokes, and their augmentation.

1. `line_art`: silhouettes, creases and borders found on the mesh, hidden parts removed against the depth map.
2. `canny_strokes`: Canny edges of the depth map, traced, simplified and smoothed.

Techniques 3 to 5 (HED edges in three styles) and 6 (CLIPasso) need a trained edge network and CLIP. Their weights come
with the released-checkpoint work, and so do they: nothing here imitates them.

A stroke is (M, 2) float64 pixel coordinates (column, row), pixel centres at + 0.5. `ink` is (H, W) float32, 1 = stroke.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.data.views import face_normals
from anyform.types.camera import Cameras

Stroke = NDArray[np.float64]

CREASE_ANGLE = float(np.radians(140))  # faces that meet at less than this make a line (WaLa supplement D)
MERGE_DISTANCE = 1e-6
CANNY_SIGMA, CANNY_THRESHOLD = 1.0, 0.05
_DEPTH_SLACK = 0.02  # world units an edge may lie behind the depth map and still count as visible
_DRAW_SCALE = 4  # strokes are drawn this much larger, then averaged


def line_art(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    cameras: Cameras,
    depth: NDArray[np.float32],
    crease_angle: float = CREASE_ANGLE,
) -> list[list[Stroke]]:
    """Visible silhouette, crease and border lines of a mesh, one list of strokes a view.

    depth (V, H, W): the views' depth maps, inf as background (`views.render_views`). Every object has outlines, so an
    empty list means that the mesh is not in view.
    """
    points, corners = _merged(vertices, faces)
    normals = face_normals(points, corners)
    edges, beside = _edges(corners)
    always = _is_border_or_crease(normals, beside, crease_angle)
    strokes = []
    for v, screen in enumerate(cameras.project(points)):
        towards = cameras.camera_to_world[v, :3, 3] - points[corners[:, 0]]
        wanted = always | _is_silhouette((normals * towards).sum(1), beside)
        strokes.append(_visible_strokes(screen, edges[wanted], depth[v]))
    return strokes


def canny_strokes(depth: NDArray[np.float32]) -> list[Stroke]:
    """Canny edges of a depth map (H, W) with inf as background: traced, simplified to 1 pixel, corners cut once."""
    from skimage.feature import canny
    from skimage.measure import approximate_polygon

    hit = np.isfinite(depth)
    if not hit.any():
        return []
    near, far = depth[hit].min(), depth[hit].max()
    # Nearest 1, farthest 0.25, background 0: outlines are always the strongest edges, whatever the object's depth.
    grey = np.where(hit, 1 - 0.75 * (np.where(hit, depth, near) - near) / max(far - near, 1e-6), 0)
    edge = canny(grey, CANNY_SIGMA, CANNY_THRESHOLD, CANNY_THRESHOLD)
    pixels = np.argwhere(edge)
    traced = [pixels[path][:, ::-1] + 0.5 for path in chain(_pixel_links(edge))]
    return [_cut_corners(approximate_polygon(stroke, 1.0)) for stroke in traced]


def draw(strokes: list[Stroke], height: int, width: int, thickness: float = 2.0) -> NDArray[np.float32]:
    """Strokes as ink (H, W), anti-aliased; thickness in pixels."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (width * _DRAW_SCALE, height * _DRAW_SCALE), 0)
    pen = ImageDraw.Draw(canvas)
    for stroke in strokes:
        corners = [(x, y) for x, y in (stroke * _DRAW_SCALE).tolist()]
        pen.line(corners, 255, round(thickness * _DRAW_SCALE), "curve")
    ink = np.asarray(canvas, np.float32) / 255
    return ink.reshape(height, _DRAW_SCALE, width, _DRAW_SCALE).mean((1, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchAugmentation:
    """Ranges of the random changes, lengths in shares of the picture's size. The paper names kinds, not sizes."""

    translate: float = 0.05
    rotate: float = float(np.radians(8))
    scale: tuple[float, float] = (0.85, 1.1)
    jitter: float = 0.006
    cage: float = 0.06


def augment(
    strokes: list[Stroke], size: int, rng: np.random.Generator, settings: SketchAugmentation | None = None
) -> list[Stroke]:
    """Stroke jitter, cage warp, then one rotation, scale and shift about the middle; size: picture edge in pixels."""
    settings = settings or SketchAugmentation()
    cage = cage_corners(rng, settings.cage)
    angle = rng.uniform(-settings.rotate, settings.rotate)
    turn = rng.uniform(*settings.scale) * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shift = rng.uniform(-settings.translate, settings.translate, 2)
    changed = []
    for stroke in strokes:
        unit = cage_warp(_jittered(stroke / size, settings.jitter, rng), cage)
        changed.append(((unit - 0.5) @ turn + 0.5 + shift) * size)
    return changed


def cage_corners(rng: np.random.Generator, amount: float) -> NDArray[np.float64]:
    """Nodes (4, 4, 2) of a 3 × 3 grid on the unit square, the four inner ones moved independently by up to `amount`."""
    line = np.linspace(0, 1, 4)
    nodes = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    nodes[1:3, 1:3] += rng.uniform(-amount, amount, (2, 2, 2))
    return nodes


def cage_warp(points: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Carry points (M, 2) of the unit square along with the nodes (4, 4, 2): bilinear in each of the nine cells.

    Points outside the square move with its nearest cell's extension. WaLa supplement D: a non-affine change.
    """
    cell = np.clip(np.floor(points * 3).astype(int), 0, 2)
    x, y = np.moveaxis(points * 3 - cell, 1, 0)[..., None]
    i, j = cell.T
    low = nodes[i, j] * (1 - x) + nodes[i + 1, j] * x
    high = nodes[i, j + 1] * (1 - x) + nodes[i + 1, j + 1] * x
    return low * (1 - y) + high * y


def chain(links: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """Undirected links (E, 2) between node ids -> paths of node ids ending at junctions, each link in exactly one."""
    around: dict[int, list[int]] = {}
    for a, b in links.tolist():
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)
    used: set[tuple[int, int]] = set()
    paths: list[NDArray[np.int64]] = []
    # Ends and junctions first, so that a path is only started in its middle when it is a closed loop.
    for start in sorted(around, key=lambda node: (len(around[node]) == 2, node)):
        for step in around[start]:
            path = [start]
            while (min(path[-1], step), max(path[-1], step)) not in used:
                used.add((min(path[-1], step), max(path[-1], step)))
                path.append(step)
                if len(around[step]) != 2 or step == start:
                    break
                first, second = around[step]
                step = second if first == path[-2] else first
            if len(path) > 1:
                paths.append(np.array(path))
    return paths


def _jittered(stroke: Stroke, amount: float, rng: np.random.Generator) -> Stroke:
    """Smooth random displacement along a stroke: noise at its ends and a few knots between, interpolated."""
    knots = max(2, min(8, len(stroke) // 4))
    offsets = rng.normal(0, amount, (knots, 2))
    if np.array_equal(stroke[0], stroke[-1]):
        offsets[-1] = offsets[0]
    where = np.linspace(0, knots - 1, len(stroke))
    return stroke + np.stack([np.interp(where, np.arange(knots), offsets[:, axis]) for axis in range(2)], 1)


def _merged(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices closer than MERGE_DISTANCE as one; faces that lost a corner and exact doubles dropped."""
    _, first, group = np.unique(np.round(vertices / MERGE_DISTANCE), axis=0, return_index=True, return_inverse=True)
    corners = group.reshape(-1)[faces]
    kept = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 2] != corners[:, 0])
    _, single = np.unique(np.sort(corners[kept], 1), axis=0, return_index=True)
    return vertices[first], corners[kept][np.sort(single)]


def _edges(faces: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges (E, 2), low id first, and `beside` (E, 3): two of their faces (-1 none), and 1 if both run the same way."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    owner = np.repeat(np.arange(len(faces)), 3)
    edges, index = np.unique(np.sort(directed, 1), axis=0, return_inverse=True)
    order = np.argsort(index.reshape(-1), kind="stable")
    start = np.searchsorted(index.reshape(-1)[order], np.arange(len(edges)))
    count = np.diff(np.append(start, len(order)))
    second = np.minimum(start + 1, len(order) - 1)
    same = directed[order[start], 0] == directed[order[second], 0]
    beside = np.stack([owner[order[start]], np.where(count > 1, owner[order[second]], -1), (count > 1) & same], 1)
    return edges, beside


def _is_border_or_crease(
    normals: NDArray[np.float64], beside: NDArray[np.int64], crease_angle: float
) -> NDArray[np.bool_]:
    """(E,) whether an edge has one face only, or two that meet at less than `crease_angle`.

    Neighbours wound against each other (frequent in the sources) are compared as if one of them were turned round.
    """
    first, second, same_way = beside.T
    along = (normals[first] * normals[second]).sum(1) * np.where(same_way == 1, -1.0, 1.0)
    return (second < 0) | (along < np.cos(np.pi - crease_angle))


def _is_silhouette(facing: NDArray[np.float64], beside: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(E,) whether one of an edge's two faces looks at the camera and the other away; facing (F,): n · v."""
    first, second, same_way = beside.T
    return (second >= 0) & (facing[first] * facing[second] * np.where(same_way == 1, -1.0, 1.0) < 0)


def _visible_strokes(screen: NDArray[np.float64], edges: NDArray[np.int64], depth: NDArray[np.float32]) -> list[Stroke]:
    """Edges (E, 2) over projected points (N, 3: column, row, depth) without what a surface of the map (H, W) hides.

    Wholly visible edges are joined into long strokes; of the others the visible pieces remain.
    """
    start, end = screen[edges[:, 0]], screen[edges[:, 1]]
    count = np.maximum(np.ceil(np.linalg.norm((end - start)[:, :2], axis=1)), 1).astype(int) + 1
    owner = np.repeat(np.arange(len(edges)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    samples = start[owner] + (end - start)[owner] * (step / (count[owner] - 1))[:, None]
    shown = _in_front(samples, depth)
    whole = np.bincount(owner, shown, len(edges)) == count
    strokes = [screen[path, :2] for path in chain(edges[whole])]
    partly = shown & ~whole[owner]
    begins = partly & ~(np.roll(partly, 1) & (step > 0))
    ends = partly & ~(np.roll(partly, -1) & (step < count[owner] - 1))
    pieces = np.stack([samples[begins, :2], samples[ends, :2]], 1)
    return strokes + list(pieces[np.flatnonzero(begins) < np.flatnonzero(ends)])


def _in_front(samples: NDArray[np.float64], depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(S,) whether samples (S, 3) are no farther than the surface at their pixel or at one of its four neighbours.

    Outlines lie between object and background, where either may have won the pixel.
    """
    height, width = depth.shape
    column, row = np.floor(samples[:, :2]).astype(int).T
    shown = np.zeros(len(samples), bool)
    for dx, dy in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
        i, j = np.clip(row + dy, 0, height - 1), np.clip(column + dx, 0, width - 1)
        shown |= samples[:, 2] <= depth[i, j] + _DEPTH_SLACK
    return shown


def _pixel_links(edge: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Links (E, 2) of neighbouring set pixels, ids in `argwhere` order; a diagonal only where no corner joins them."""
    number = np.full(np.add(edge.shape, 2), -1)
    number[1:-1, 1:-1][edge] = np.arange(edge.sum())
    row, column = np.nonzero(number >= 0)
    here = number[row, column]
    links = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        there = number[row + dy, column + dx]
        joined = there >= 0
        if dy and dx:
            joined &= (number[row + dy, column] < 0) & (number[row, column + dx] < 0)
        links.append(np.stack([here[joined], there[joined]], 1))
    return np.concatenate(links)


def _cut_corners(stroke: Stroke) -> Stroke:
    """One round of Chaikin's corner cutting; the ends stay."""
    if len(stroke) < 3:
        return stroke
    quarter, three_quarters = 0.75 * stroke[:-1] + 0.25 * stroke[1:], 0.25 * stroke[:-1] + 0.75 * stroke[1:]
    middle = np.stack([quarter, three_quarters], 1).reshape(-1, 2)
    return np.concatenate([stroke[:1], middle, stroke[-1:]])
