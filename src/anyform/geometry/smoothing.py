"""Taubin smoothing: removes ripples of a few edges' length and keeps volume, unlike plain averaging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from anyform.geometry.mesh import Mesh

SHRINK, GROW = 0.5, -0.53  # λ and μ of Taubin, "A Signal Processing Approach to Fair Surface Design" (1995), §4


def smooth(mesh: Mesh, rounds: int) -> Mesh:
    """The mesh after `rounds` pairs of a shrinking and a growing step; faces and colours stay as they are.

    Every vertex moves towards, then away from, the mean of its neighbours. Vertices on seams would come apart: smooth
    before unwrapping.
    """
    if rounds == 0 or not len(mesh.faces):
        return mesh
    from scipy.sparse import csr_matrix

    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    count = len(mesh.vertices)
    links = csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    links.sum_duplicates()
    links.data[:] = 1.0  # an edge of two faces counts once
    degree = np.maximum(np.asarray(links.sum(1)).ravel(), 1.0)[:, None]
    vertices = mesh.vertices.astype(np.float64)
    for _ in range(rounds):
        for step in (SHRINK, GROW):
            vertices = vertices + step * (links @ vertices / degree - vertices)
    return replace(mesh, vertices=vertices.astype(np.float32))
