"""How the triangles of a mesh hang together: coincident vertices, shared edges, bodies and the volume each encloses.

Vertices at the same position count as one, so a mesh that a texture atlas has cut along its seams still reads as
closed. A body is a set of faces connected through edges that exactly two faces share. numpy and scipy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyform.geometry.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Topology:
    """What `topology` measured.

    open_edges: edges with any number of faces but two. flipped_edges: edges walked twice in the same direction.
    degenerate: (F,) bool, faces with coincident corners or no area. body: (F,) int32, −1 for faces with coincident
    corners. volumes: (B,) float64, signed: negative for a surface that faces inwards, such as the wall of a void.
    """

    open_edges: int
    flipped_edges: int
    area: NDArray[np.float64]
    degenerate: NDArray[np.bool_]
    body: NDArray[np.int32]
    volumes: NDArray[np.float64]


def weld(vertices: NDArray[np.float32]) -> NDArray[np.int64]:
    """(V, 3) positions -> (V,) labels in 0..U−1, equal exactly where the positions are equal (−0 counts as 0)."""
    bits = (vertices + np.float32(0.0)).view(np.uint32).astype(np.uint64)
    _, plane = np.unique((bits[:, 0] << np.uint64(32)) | bits[:, 1], return_inverse=True)
    _, label = np.unique((plane.astype(np.uint64) << np.uint64(32)) | bits[:, 2], return_inverse=True)
    return label


def face_cross(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """(F, 3) cross products of the first two edges of every face: twice its area long, along its normal."""
    x, y, z = vertices.T.astype(np.float64)
    a, b, c = faces.T
    ux, uy, uz, vx, vy, vz = x[b] - x[a], y[b] - y[a], z[b] - z[a], x[c] - x[a], y[c] - y[a], z[c] - z[a]
    return np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], 1)


def topology(mesh: Mesh) -> Topology:
    """Measures a mesh with at least one face, finite vertices and face indices in range; about 0.1 s at 250 k faces."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    label = weld(mesh.vertices)
    faces = label[mesh.faces]
    pinched = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    extent = float(np.ptp(mesh.vertices, 0).max())
    cross = face_cross(mesh.vertices, mesh.faces)
    area = np.sqrt(np.einsum("fi,fi->f", cross, cross)) / 2
    body = np.full(len(faces), -1, np.int32)
    kept = np.flatnonzero(~pinched)
    if not len(kept):
        return Topology(0, 0, area, np.ones(len(faces), np.bool_), body, np.zeros(0))

    start, end = faces[kept].ravel(), faces[kept][:, [1, 2, 0]].ravel()
    directed = start * (label.max() + 1) + end
    undirected = np.minimum(start, end) * (label.max() + 1) + np.maximum(start, end)
    order = np.argsort(undirected)
    ordered = undirected[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    count = np.diff(np.r_[first, len(ordered)])
    pairs = first[count == 2]
    left, right = order[pairs] // 3, order[pairs + 1] // 3
    graph = coo_matrix((np.ones(len(left), np.bool_), (left, right)), shape=(len(kept), len(kept)))
    bodies, body[kept] = connected_components(graph, directed=False)
    # Six times the tetrahedron from the middle of the mesh to a face is its first corner times its cross product.
    middle = mesh.bounds.astype(np.float64).mean(0)
    volume = np.einsum("fi,fi->f", mesh.vertices[mesh.faces[kept, 0]] - middle, cross[kept]) / 6
    return Topology(
        open_edges=int((count != 2).sum()),
        flipped_edges=int((directed[order[pairs]] == directed[order[pairs + 1]]).sum()),
        area=area,
        degenerate=pinched | (area <= 1e-14 * extent**2),
        body=body,
        volumes=np.bincount(body[kept], volume, bodies).astype(np.float64),
    )


def submesh(mesh: Mesh, keep: NDArray[np.bool_]) -> Mesh:
    """The faces where keep (F,) is true, with the vertices they use and those vertices' attributes; order kept."""
    faces = mesh.faces[keep]
    used = np.zeros(len(mesh.vertices), np.bool_)
    used[faces.ravel()] = True
    renumber = np.cumsum(used) - 1
    return Mesh(
        vertices=mesh.vertices[used],
        faces=renumber[faces],
        uv=None if mesh.uv is None else mesh.uv[used],
        vertex_color=None if mesh.vertex_color is None else mesh.vertex_color[used],
        material=mesh.material,
    )
