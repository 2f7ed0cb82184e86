"""Mesh to signed distance grid, for any triangle soup: open, self-intersecting, inverted or watertight.

Grid: cell-centred on the cube [-1, 1]³, sample i of every axis sits at -1 + (2i + 1)/N; arrays are indexed [x, y, z].
Distances are in world units (half the cube's edge is 1), negative inside.

The recipe, measured against five others in docs/results.md:
1. the distance to the nearest triangle, exact within three cells of the surface (`sdf_numba`);
2. cells farther than 0.87 of a cell (just over half a cell's diagonal) from the surface are free: those reachable from
   the border are outside, the other free cells inside (sealed cavities are filled on purpose);
3. in the shell between them |winding number| > 0.5 decides, the absolute value because some sources are inside out;
4. sheets with no inside cell beside them are given a thickness, so that thin walls survive.
Known limit: parts thinner than a cell are drawn a cell thick.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput, MissingDependency

MAX_FACES = 5_000_000
SHELL_CELLS = 0.87  # just over √3/2: no free path of face neighbours can slip through a closed surface
SHEET_CELLS = 1.0  # a cell this close to a sheet without inside belongs to the thickened sheet ...
SHEET_HALF_THICKNESS = 0.6  # ... which reaches this far to both sides, in cells
BOX_FRACTION = 0.9  # the longest side of a normalised object fills this share of the cube's edge


def check_triangles(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> None:
    """Raise `BadInput` unless vertices (V, 3) are finite and faces (F, 3) are triangles over them with some extent.

    The compiled kernels do not check bounds: nothing may reach them before this function has passed it.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise BadInput(f"vertices and faces must be (V, 3) and (F, 3), not {vertices.shape} and {faces.shape}")
    if not np.issubdtype(faces.dtype, np.integer):
        raise BadInput(f"faces must be integers, not {faces.dtype}")
    if len(faces) == 0 or len(vertices) == 0:
        raise BadInput("the mesh has no triangles; a point cloud can be given as points instead")
    if len(faces) > MAX_FACES:
        raise BadInput(f"the mesh has {len(faces):,} triangles, more than {MAX_FACES:,}; simplify it first")
    lowest, highest = int(faces.min()), int(faces.max())
    if lowest < 0 or highest >= len(vertices):
        wrong = lowest if lowest < 0 else highest
        raise BadInput(f"a face names vertex {wrong}, but the mesh has only vertices 0 to {len(vertices) - 1}")
    bad = int((~np.isfinite(vertices)).any(1).sum())
    if bad:
        raise BadInput(f"{bad} of {len(vertices)} vertices are not finite numbers; repair the mesh first")


def normalise(
    vertices: NDArray[np.floating], faces: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Centre of the bounding box to the origin, longest side to 1.8, so the object lies in [-0.9, 0.9]³.

    Only vertices that faces use count for the box. Returns (moved vertices (V, 3), centre (3,), scale) with
    moved = (vertices - centre) · scale, so a generated shape goes back by moved / scale + centre.
    """
    check_triangles(vertices, faces)
    exact = np.asarray(vertices, np.float64)
    used = exact[np.unique(faces)]
    low, high = used.min(0), used.max(0)
    longest = float((high - low).max())
    if not longest > 0:
        raise BadInput("all vertices of the mesh are the same point, so it has no size")
    centre, scale = (low + high) / 2, 2 * BOX_FRACTION / longest
    return (exact - centre) * scale, centre, scale


def unsigned_distance(vertices: NDArray[np.floating], faces: NDArray[np.integer], size: int) -> NDArray[np.float32]:
    """Distance of every grid sample to the triangles, (N, N, N) float32 in world units.

    Exact (float64 evaluation, float32 storage) within 3 cells of the surface; farther away the distance to a triangle
    that is nearly always the nearest (largest error measured at 64³: 0.5 cell). Same bits for any number of threads.
    """
    _check_in_box(vertices, faces, size)
    from anyform.geometry import sdf_numba

    corners = np.asarray(vertices, np.float64)[faces]
    return sdf_numba.nearest_triangles((corners + 1) * (size / 2) - 0.5, size) * np.float32(2 / size)


def mesh_to_sdf(vertices: NDArray[np.floating], faces: NDArray[np.integer], size: int) -> NDArray[np.float32]:
    """Signed distance (N, N, N) float32 of a mesh inside [-1, 1]³ (see `normalise`); the module says how.

    Raises BadInput before any kernel runs, MissingDependency without point_cloud_utils.
    """
    distance = unsigned_distance(vertices, faces, size)
    inside = _inside(vertices, faces, distance)
    return _with_thin_sheets(distance, inside)


def unsigned_distance_reference(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], size: int
) -> NDArray[np.float64]:
    """The definition `unsigned_distance` is tested against: every sample against every triangle, float64.

    Time and memory N³ · F: for small grids and few triangles only.
    """
    _check_in_box(vertices, faces, size)
    axis = -1 + (2 * np.arange(size) + 1) / size
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 1, 3)
    a, b, c = np.moveaxis(np.asarray(vertices, np.float64)[faces], 1, 0)
    squared = np.minimum.reduce([_segment_squared(points, p, q) for p, q in ((a, b), (b, c), (c, a))])
    normal = np.cross(b - a, c - a)
    area2 = (normal**2).sum(-1)
    height = ((points - a) * normal).sum(-1)
    above = area2 > 0
    for p, q in ((a, b), (b, c), (c, a)):
        above = above & ((np.cross(normal, q - p) * (points - p)).sum(-1) >= 0)
    plane = height**2 / np.where(area2 > 0, area2, 1)
    return np.sqrt(np.where(above, plane, squared).min(1)).reshape(size, size, size)


def _segment_squared(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Squared distances (P, F) of points (P, 1, 3) to segments (F, 3)."""
    along = end - start
    length2 = (along**2).sum(-1)
    t = ((points - start) * along).sum(-1) / np.where(length2 > 0, length2, 1)
    return ((points - start - np.clip(t, 0, 1)[..., None] * along) ** 2).sum(-1)


def _check_in_box(vertices: NDArray[np.floating], faces: NDArray[np.integer], size: int) -> None:
    """The checks of `check_triangles`, and that the object lies in the cube the grid covers."""
    if not 2 <= size <= 1024:
        raise BadInput(f"a distance grid of {size} samples a side was asked for; 2 to 1024 are possible")
    check_triangles(vertices, faces)
    reach = float(np.abs(vertices[faces]).max())
    if reach > 1:
        raise BadInput(f"the mesh reaches {reach:.4g} but the grid covers [-1, 1]; call normalise() first")


def _inside(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], distance: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Steps 2 and 3 of the module's recipe: (N, N, N) bool."""
    from scipy import ndimage

    size = len(distance)
    free = distance > SHELL_CELLS * 2 / size
    # A ring of free cells around the grid joins every region that touches the border into label [0, 0, 0].
    labels = np.empty(np.add(free.shape, 2), np.int32)
    ndimage.label(np.pad(free, 1, constant_values=True), output=labels)
    inside = free & (labels[1:-1, 1:-1, 1:-1] != labels[0, 0, 0])
    shell = np.argwhere(~free)
    inside[tuple(shell.T)] = np.abs(_winding_numbers(vertices, faces, -1 + (2 * shell + 1) / size)) > 0.5
    return inside


def _winding_numbers(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fast winding numbers (P,) of a triangle soup (Barill et al. 2018), 1 inside an outward-wound closed surface."""
    try:
        from point_cloud_utils import triangle_soup_fast_winding_number
    except ImportError as error:
        raise MissingDependency("point-cloud-utils", extra="data") from error
    if len(points) == 0:
        return np.zeros(0)
    # The library wants contiguous arrays of one float type, and int32 faces.
    soup = np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces, np.int32)
    return triangle_soup_fast_winding_number(*soup, np.ascontiguousarray(points, np.float64))


def _with_thin_sheets(distance: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Step 4: signs, and a thickness for sheets that have no inside cell beside them."""
    from scipy import ndimage

    cell = np.float32(2 / len(distance))
    signed = np.where(inside, -distance, distance)
    beside_inside = np.asarray(ndimage.binary_dilation(inside, np.ones((3, 3, 3), bool)))
    sheet = ndimage.binary_dilation((distance < SHEET_CELLS * cell) & np.logical_not(beside_inside))
    return np.where(sheet, np.minimum(signed, distance - np.float32(SHEET_HALF_THICKNESS) * cell), signed)
