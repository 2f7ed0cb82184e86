"""Marching against its definition bit for bit, and sampling laws."""

from __future__ import annotations

import threading

import numba
import numpy as np
import pytest
import torch

from anyform.errors import BadInput
from anyform.render.rays import Rays, box_interval, camera_rays, march, march_reference, starts, sum_along
from anyform.types.camera import Cameras

STEP = 2 * 3**0.5 / 256


def scene(dtype: torch.dtype = torch.float32, share: float = 0.1) -> tuple[Rays, torch.Tensor, torch.Tensor]:
    """Rays of two cameras, one inside the box, a random occupancy, a random jitter."""
    generator = torch.Generator().manual_seed(1)
    cameras = Cameras.orbit(np.array([0.3, 2.0]), np.array([0.2, -0.5]), np.array([2.5, 0.6]), np.deg2rad(50), 12)
    rays = camera_rays(cameras, 1.0, dtype=dtype)
    occupied = torch.rand(8, 8, 8, generator=generator) < share
    return rays, occupied, torch.rand(len(rays), generator=generator, dtype=dtype)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_skipping_free_cells_changes_no_sample(share: float) -> None:
    rays, occupied, jitter = scene(share=share)
    ours, definition = march(rays, occupied, 1.0, STEP, jitter), march_reference(rays, occupied, 1.0, STEP, jitter)
    assert torch.equal(ours.start, definition.start)
    assert torch.equal(ours.ray, definition.ray)
    assert torch.equal(ours.t, definition.t)
    assert (len(ours.t) > 0) == (share > 0)


def test_samples_lie_in_occupied_cells_on_the_lattice_of_their_ray() -> None:
    rays, occupied, jitter = scene()
    found = march(rays, occupied, 1.0, STEP, jitter)
    cell = ((rays.points(found) + 1) * 4).long().clamp(0, 7)
    assert occupied[cell[:, 0], cell[:, 1], cell[:, 2]].all()
    lattice = (found.t - rays.near[found.ray]) / STEP - jitter[found.ray]
    assert (lattice - lattice.round()).abs().max() < 1e-3
    inner = torch.diff(found.ray) == 0
    assert (torch.diff(found.t)[inner] > 0.99 * STEP).all()


def test_a_full_grid_is_sampled_to_the_length_of_the_ray() -> None:
    rays, occupied, _ = scene(share=1.0)
    found = march(rays, occupied, 1.0, STEP)
    length = torch.diff(found.start) * STEP
    assert (length - (rays.far - rays.near)).abs().max() <= STEP


def test_box_interval_ends_on_the_faces_and_misses_are_empty() -> None:
    origins = torch.tensor([[0.0, 0, 3], [0, 0, 0], [5, 5, 5], [0.5, 3, 0]], dtype=torch.float64)
    directions = torch.tensor([[0.0, 0, -1], [0.6, 0.8, 0], [0, 1, 0], [0, -1, 0]], dtype=torch.float64)
    near, far = box_interval(origins, directions, 1.0)
    torch.testing.assert_close(near, torch.tensor([2, 0, far[2], 2], dtype=torch.float64))
    torch.testing.assert_close(far[[0, 1, 3]], torch.tensor([4, 1.25, 4], dtype=torch.float64))


def test_same_samples_for_one_thread_and_two() -> None:
    rays, occupied, jitter = scene(share=0.5)
    most = numba.get_num_threads()
    results = []
    for threads in (1, most):
        numba.set_num_threads(threads)
        results.append(march(rays, occupied, 1.0, STEP, jitter))
    assert torch.equal(results[0].t, results[1].t)
    assert torch.equal(results[0].ray, results[1].ray)


def test_two_python_threads_may_march_at_once() -> None:
    rays, occupied, jitter = scene()
    expected, found = march(rays, occupied, 1.0, STEP, jitter).t, []
    workers = [
        threading.Thread(target=lambda: found.extend(march(rays, occupied, 1.0, STEP, jitter).t for _ in range(20)))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 40
    assert all(torch.equal(t, expected) for t in found)


def test_no_rays_and_bad_input() -> None:
    rays, occupied, _ = scene()
    none = Rays(*(part[:0] for part in (rays.origins, rays.directions, rays.near, rays.far)))
    assert march(none, occupied, 1.0, STEP).start.tolist() == [0]
    with pytest.raises(BadInput, match="bool grid"):
        march(rays, occupied.float(), 1.0, STEP)
    with pytest.raises(BadInput, match="must be positive"):
        march(rays, occupied, 1.0, 0.0)


def test_sums_along_rays() -> None:
    start = starts(torch.tensor([2, 0, 3]))
    assert start.tolist() == [0, 2, 2, 5]
    assert sum_along(torch.tensor([1.0, 2, 3, 4, 5]), start).tolist() == [3, 0, 12]
