"""Fewer faces: quadric edge collapse by fast-simplification, and the repair that keeps the surface closed.

The collapse does not look at topology: on thin shapes two sheets can end up sharing an edge, which then has four faces.
`separate` splits such edges into one per sheet and draws the sheets a hair apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput, BadSetting
from anyform.geometry.marching_cubes import keep_bodies
from anyform.geometry.mesh import Mesh
from anyform.geometry.topology import face_cross, submesh, topology, weld

MIN_SHARE = 0.8  # of the faces asked for
_HAIR = 2e-5  # of the longest side: how far sheets that touched are drawn back


def simplify(mesh: Mesh, faces: int) -> Mesh:
    """A mesh of 0.8 to 1.0 times `faces` faces, watertight if the given one is; unchanged if it has no more already.

    Vertex colours come from the nearest old vertex. Texture coordinates do not survive: simplify before `unwrap`.
    Raises BadSetting for fewer than four faces, BadInput where the shape cannot get there and stay closed.
    """
    if faces < 4:
        raise BadSetting(f"a solid needs at least 4 faces, not {faces}")
    if mesh.uv is not None:
        raise BadInput("a mesh with texture coordinates cannot be simplified; simplify it before its texture is made")
    if len(mesh.faces) <= faces:
        return mesh
    facts = topology(mesh)
    closed = facts.open_edges == 0 and facts.flipped_edges == 0
    for target, aggressiveness in ((faces, 7), (faces, 5), (int(0.95 * faces), 8), (int(0.9 * faces), 6)):
        smaller = _collapse(mesh, max(target, 4), aggressiveness)
        if closed:
            smaller = _closed(smaller, len(facts.volumes))
        if smaller is not None and MIN_SHARE * faces <= len(smaller.faces) <= faces:
            return _colored(smaller, mesh)
    raise BadInput(
        f"the shape cannot go from {len(mesh.faces)} to {faces} faces and stay closed; try {2 * faces} or more"
    )


def _collapse(mesh: Mesh, faces: int, aggressiveness: int) -> Mesh:
    import fast_simplification

    label = weld(mesh.vertices)
    _, first = np.unique(label, return_index=True)
    vertices, triangles = fast_simplification.simplify(
        mesh.vertices[first].astype(np.float64),
        label[mesh.faces].astype(np.int32),
        target_count=faces,
        agg=aggressiveness,
    )[:2]
    return Mesh(vertices.astype(np.float32), triangles.astype(np.int32))


def _closed(mesh: Mesh, bodies: int) -> Mesh | None:
    """The mesh without pinches and without bodies that the collapse tore off; None where that does not close it."""
    facts = topology(mesh)
    if facts.open_edges or facts.flipped_edges:
        separated = separate(mesh)
        if separated is None:
            return None
        mesh, facts = separated, topology(separated)
        if facts.open_edges or facts.flipped_edges:
            return None
    if len(facts.volumes) > bodies and facts.volumes.max() > 0:
        largest = np.sort(facts.volumes)[-bodies]
        mesh = keep_bodies(mesh, min_share=float(largest / facts.volumes.max()))
    return mesh


def separate(mesh: Mesh) -> Mesh | None:
    """Splits edges that an even number of faces share, and vertices where several sheets meet, into one for each sheet.

    Sheets that bound the same piece of solid stay together; where a vertex was split, each copy moves a hair into its
    own solid. None where some edge is walked more often in one direction than in the other: then there is a hole.
    """
    label = weld(mesh.vertices)
    faces = label[mesh.faces]
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    _, first = np.unique(label, return_index=True)
    vertices = mesh.vertices[first].astype(np.float64)
    corner = _corners(vertices, faces)
    if corner is None:
        return None
    count = int(corner.max()) + 1
    origin = np.zeros(count, np.int64)
    origin[corner] = faces.ravel()
    split = np.bincount(origin, minlength=len(vertices))[origin] > 1
    new_faces = corner.reshape(-1, 3)
    cross = face_cross(vertices, faces)
    normal = np.stack([np.bincount(corner, np.repeat(cross[:, axis], 3), count) for axis in range(3)], 1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    moved = vertices[origin] - split[:, None] * normal * (_HAIR * np.ptp(vertices, 0).max())
    return submesh(Mesh(moved.astype(np.float32), new_faces.astype(np.int32)), np.ones(len(new_faces), np.bool_))


def _corners(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """(3F,) the new vertex of every corner, so that each edge has two faces. None where no gluing does that."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    # Half-edge h = 3 face + k runs from corner k to corner k + 1; its partner runs the other way.
    half = np.arange(faces.size)
    after = half - half % 3 + (half + 1) % 3
    edges = _edge_keys(faces.ravel(), len(vertices))
    outside: set[int] = set()
    for _ in range(4):
        partner = _partners(vertices, faces, outside)
        if partner is None:
            return None
        joined = np.concatenate([half, after]), np.concatenate([after[partner], partner])
        graph = coo_matrix((np.ones(2 * len(half), np.bool_), joined), shape=(len(half), len(half)))
        count, corner = connected_components(graph, directed=False)
        _, index, uses = np.unique(_edge_keys(corner, count), return_inverse=True, return_counts=True)
        crowded = set(edges[uses[index] != 2].tolist())
        if not crowded:
            return corner
        # Both sheets of such an edge meet again around each of its ends; glued the other way they come apart.
        outside ^= crowded
    return None


def _edge_keys(corners: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """(3F,) one number for the undirected edge of every half-edge; corners: (3F,) vertex of each corner."""
    start = corners.astype(np.int64)
    end = start.reshape(-1, 3)[:, [1, 2, 0]].ravel()
    return np.minimum(start, end) * size + np.maximum(start, end)


def _partners(vertices: NDArray[np.float64], faces: NDArray[np.int64], outside: set[int]) -> NDArray[np.int64] | None:
    """(3F,) the half-edge that each half-edge is glued to, running the other way along the same edge.

    Edges in `outside` are glued across the empty wedge instead of the solid one.
    """
    start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    edge = _edge_keys(start, len(vertices))
    order = np.argsort(edge, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(edge[order]) > 0])
    count = np.diff(np.r_[first, len(order)])
    partner = np.full(len(start), -1, np.int64)
    forward = start < end
    pairs = first[count == 2]
    left, right = order[pairs], order[pairs + 1]
    if (forward[left] == forward[right]).any():
        return None
    partner[left], partner[right] = right, left
    for begin, many in zip(first[count != 2], count[count != 2], strict=True):
        crowd = order[begin : begin + many]
        glued = _around(vertices, faces, crowd, forward, -1 if int(edge[crowd[0]]) in outside else 1)
        if glued is None:
            return None
        for one, other in glued:
            partner[one], partner[other] = other, one
    return partner


def _around(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    half: NDArray[np.int64],
    forward: NDArray[np.bool_],
    turn: int,
) -> list[tuple[int, int]] | None:
    """Glues the half-edges of one crowded edge in pairs that bound the same wedge, of solid (turn 1) or not (−1).

    Seen along the edge, the solid of a face that runs forward lies on its clockwise side: its partner is the next face
    in that direction that runs backward and is still free.
    """
    ahead, behind = half[forward[half]], half[~forward[half]]
    if len(ahead) != len(behind):
        return None
    face, k = half // 3, half % 3
    low = np.minimum(faces[face, k], faces[face, (k + 1) % 3])[0]
    high = np.maximum(faces[face, k], faces[face, (k + 1) % 3])[0]
    axis = vertices[high] - vertices[low]
    axis = axis / max(np.linalg.norm(axis), np.finfo(np.float64).tiny)
    side = vertices[faces[face, (k + 2) % 3]] - vertices[low]
    side -= (side @ axis)[:, None] * axis
    reference = side[0]
    angle = dict(zip(half, np.arctan2(side @ np.cross(axis, reference), side @ reference), strict=True))
    free = list(behind)
    pairs = []
    for one in ahead:
        other = min(free, key=lambda candidate: turn * (angle[one] - angle[candidate]) % (2 * np.pi))
        free.remove(other)
        pairs.append((int(one), int(other)))
    return pairs


def _colored(smaller: Mesh, mesh: Mesh) -> Mesh:
    """The vertex colours and the material of `mesh`, carried to the nearest vertices."""
    if mesh.vertex_color is None:
        return replace(smaller, material=mesh.material)
    from scipy.spatial import KDTree

    _, nearest = KDTree(mesh.vertices).query(smaller.vertices)
    return replace(smaller, vertex_color=mesh.vertex_color[nearest], material=mesh.material)


def with_fewer_faces(mesh: Mesh, wanted: int) -> tuple[Mesh, tuple[str, ...]]:
    """At most `wanted` triangles; a rugged surface that so few cannot close gets the least doubling that can."""
    target = wanted
    while target < len(mesh.faces):
        try:
            smaller = simplify(mesh, target)
        except BadInput:  # the only refusal of `simplify` for a closed mesh: too few faces to stay closed
            target *= 2
            continue
        return smaller, () if target == wanted else (f"{target} faces instead of {wanted}: fewer would leave holes",)
    return mesh, () if target == wanted else (f"{len(mesh.faces)} faces instead of {wanted}: fewer would leave holes",)
