"""Refinement brings a wrong start to what the views show; colours on the mesh are the views'."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from anyform.errors import GateFailed
from anyform.fields.sparse_neus import rays_of
from anyform.systems.tunemv3d.config import TuneMV3DSettings
from anyform.systems.tunemv3d.latent_neus import Rig
from anyform.systems.tunemv3d.references import preset
from anyform.systems.tunemv3d.refine import RefinePlan, foreground, refine
from anyform.systems.tunemv3d.surface import mesh_of
from anyform.types.camera import Cameras
from anyform.types.progress import silent

SIZE, RADIUS = 24, 0.4
RED, BLUE = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.8])
SETTINGS = TuneMV3DSettings(quality="draft", resolution=40, refinement_steps=0, smoothing=0)


def sphere(size: int, radius: float) -> Tensor:
    """(4, G, G, G): distances to a grey ball."""
    along = torch.linspace(-1, 1, size)
    z, y, x = torch.meshgrid(along, along, along, indexing="ij")
    return torch.cat([(x**2 + y**2 + z**2).sqrt()[None] - radius, torch.full((3, size, size, size), 0.5)])


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    return preset(8, SIZE)


@pytest.fixture(scope="module")
def pictures(cameras: Cameras) -> Tensor:
    """A ball of radius .4, red where x > 0 and blue elsewhere, on white."""
    origins, directions = rays_of(cameras)
    along = -(origins * directions).sum(-1)
    inside = RADIUS**2 - (origins + along[..., None] * directions).square().sum(-1)
    surface = origins + (along - inside.clamp(min=0).sqrt())[..., None] * directions
    color = torch.where(surface[..., :1] > 0, RED, BLUE)
    return torch.where(inside[..., None] > 0, color, torch.ones(3)).permute(0, 3, 1, 2)


def test_foreground_is_what_is_not_white() -> None:
    pixels = torch.tensor([1.0, 0.97, 0.9, 0.84, 0.0]).reshape(1, 1, 1, 5).expand(1, 3, 1, 5)
    soft = foreground(pixels)[0, 0, 0]
    assert soft[0] == 0 and soft[1] == 0 and 0 < soft[2] < 1 and soft[3] == 1 and soft[4] == 1


def test_refinement_shrinks_a_ball_that_is_too_large_and_colours_it(pictures: Tensor, cameras: Cameras) -> None:
    plan = RefinePlan(steps=90, resolution=20, rays=1024, sections=24, rate_distance=0.02)
    heard: list[int] = []
    made = refine(sphere(12, 0.6), pictures, Rig.of(cameras, SIZE), plan, seed=0, on_step=heard.append)
    assert made.shape == (4, 20, 20, 20) and heard == list(range(1, 91))
    radius = (float((made[0] < 0).float().mean()) * 8 * 3 / (4 * math.pi)) ** (1 / 3)
    assert abs(radius - RADIUS) < 0.08
    shell = (made[0].abs() < 0.1)[None].expand(3, -1, -1, -1)
    right, left = made[1:, :, :, 12:], made[1:, :, :, :8]
    reds = [part[shell[..., cut]].reshape(3, -1).mean(1) for part, cut in ((right, slice(12, 20)), (left, slice(0, 8)))]
    assert reds[0][0] > reds[0][2] and reds[1][2] > reds[1][0]
    again = refine(sphere(12, 0.6), pictures, Rig.of(cameras, SIZE), plan, seed=0, on_step=heard.append)
    assert torch.equal(made, again)


def test_the_mesh_takes_its_colours_from_the_views(pictures: Tensor, cameras: Cameras) -> None:
    mesh, notes = mesh_of(sphere(24, RADIUS), pictures, cameras, SETTINGS, seed=0, report=silent)
    assert notes == () and mesh.vertex_color is not None
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - RADIUS).max() < 0.03
    for side, color in ((mesh.vertices[:, 0] > 0.15, RED), (mesh.vertices[:, 0] < -0.15, BLUE)):
        middle = side & (np.abs(mesh.vertices[:, 1]) < 0.2)
        assert np.abs(mesh.vertex_color[middle] - color.numpy()).mean() < 0.08


def test_an_empty_field_is_no_mesh(pictures: Tensor, cameras: Cameras) -> None:
    empty = sphere(8, -1.0)
    with pytest.raises(GateFailed, match="empty"):
        mesh_of(empty, pictures, cameras, SETTINGS, seed=0, report=silent)
