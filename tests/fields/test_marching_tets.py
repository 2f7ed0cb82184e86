"""Marching tetrahedra with gradients: closed, outward, the areas of spheres, float64 gradients, the definition."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from anyform.fields.marching_tets import marching_tets, marching_tets_reference, off_zero
from anyform.geometry.mesh import Mesh
from anyform.geometry.tets import crossings, grid_tets, grid_vertices
from anyform.geometry.topology import topology


def sphere(resolution: int, radius: float = 0.3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Grid positions in [0, 1]³ and the distance to a sphere in the middle."""
    positions = torch.from_numpy(grid_vertices(resolution)).to(dtype)
    return positions, (positions - 0.5).norm(dim=1) - radius


def doubled_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a)


def test_a_sphere_is_closed_faces_outward_and_has_its_area() -> None:
    positions, sdf = sphere(24)
    vertices, faces = marching_tets(positions.__getitem__, sdf, 24)
    facts = topology(Mesh(vertices.numpy(), faces.numpy()))
    assert facts.open_edges == facts.flipped_edges == 0
    assert len(facts.volumes) == 1
    normals = doubled_normals(vertices, faces)
    assert ((normals * (vertices[faces].mean(1) - 0.5)).sum(1) > 0).all()
    assert abs(normals.norm(dim=1).sum().item() / 2 / (4 * np.pi * 0.09) - 1) < 0.006
    edges = len(torch.unique(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).sort(1).values, dim=0))
    assert len(vertices) - edges + len(faces) == 2


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-3)])
def test_the_surface_and_its_gradient_are_the_definitions(dtype: torch.dtype, close: float) -> None:
    results = []
    tets = torch.from_numpy(grid_tets(8))
    for fast in (True, False):
        positions, sdf = sphere(8, dtype=dtype)
        offset, sdf = (
            torch.zeros_like(positions).requires_grad_(),
            (sdf + 0.02 * torch.sin(40 * positions[:, 0])).requires_grad_(),
        )
        moved = positions + 0.3 / 8 * torch.tanh(offset + positions)
        vertices, faces = (
            marching_tets(moved.__getitem__, sdf, 8) if fast else marching_tets_reference(moved, sdf, tets)
        )
        area = doubled_normals(vertices, faces).norm(dim=1).sum()
        corners = vertices.detach()[faces].mean(1)
        order = np.lexsort(corners.numpy().round(4).T)
        results.append((area, *torch.autograd.grad(area, (offset, sdf)), corners[order]))
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < close


def test_gradients_in_float64() -> None:
    positions, sdf = sphere(4, 0.33)

    def run(positions: Tensor, sdf: Tensor) -> Tensor:
        return marching_tets(positions.__getitem__, sdf, 4)[0]

    assert torch.autograd.gradcheck(
        run, (positions.requires_grad_(), sdf.requires_grad_()), eps=1e-7, atol=1e-5, fast_mode=True
    )


def test_growing_the_sphere_grows_its_area_as_it_should() -> None:
    positions, sdf = sphere(24)
    level = torch.zeros((), dtype=torch.float64, requires_grad=True)
    vertices, faces = marching_tets(positions.__getitem__, sdf - level, 24)
    (doubled_normals(vertices, faces).norm(dim=1).sum() / 2).backward()
    assert level.grad is not None
    assert abs(level.grad.item() / (8 * np.pi * 0.3) - 1) < 0.02


def test_values_at_zero_keep_their_gradient() -> None:
    sdf = torch.tensor([0.0, 1e-12, -1e-12, 0.5], dtype=torch.float64, requires_grad=True)
    moved = off_zero(sdf)
    assert moved.tolist() == [-1e-8, 1e-8, -1e-8, 0.5]
    moved.sum().backward()
    assert sdf.grad is not None
    assert sdf.grad.tolist() == [1, 1, 1, 1]


def test_same_bits_for_one_thread_and_two() -> None:
    most, results = numba.get_num_threads(), []
    sdf = sphere(12)[1].numpy()
    for threads in (1, most):
        numba.set_num_threads(threads)
        results.append(crossings(sdf, 12))
    assert all((one == two).all() for one, two in zip(*results, strict=True))
