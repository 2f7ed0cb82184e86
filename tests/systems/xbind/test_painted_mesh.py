from __future__ import annotations

import numpy as np
import pytest
import torch

from anyform.errors import GateFailed
from anyform.fields.representation import Representation
from anyform.fields.texture import TextureConfig, TextureField
from anyform.geometry.marching_cubes import surface
from anyform.geometry.mesh import Mesh
from anyform.nn.grid_encoding import GridConfig
from anyform.systems.xbind.painted_mesh import PaintedMesh
from anyform.systems.xbind.views import reference_view, turntable


def ball(radius: float = 0.6) -> PaintedMesh:
    axis = np.linspace(-1, 1, 24, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    mesh = surface(np.sqrt((grid**2).sum(0)) - np.float32(radius), -1.0, float(axis[1] - axis[0]))
    torch.manual_seed(0)
    config = TextureConfig(encoding=GridConfig(resolutions=(8, 8)), hidden=16, hidden_layers=1)
    return PaintedMesh(mesh, TextureField(config))


def test_a_ball_is_seen_as_a_disc_with_its_normals_towards_the_camera() -> None:
    painted = ball()
    assert isinstance(painted, Representation)
    shown = painted.render(reference_view(48).cameras, torch.ones(3), normal=True)
    covered = float(shown.alpha.mean())
    seen = 0.6 / np.sqrt(2.5**2 - 0.6**2) / np.tan(np.radians(20))  # radius of the disc, half the picture = 1
    assert covered == pytest.approx(np.pi * seen**2 / 4, rel=0.02)
    assert shown.normal is not None
    middle = shown.normal[0, 24, 24]
    assert float(middle[2]) > 0.98  # +z, where the camera is
    upper = shown.normal[0, 14, 24]
    assert float(upper[1]) > 0.3  # row 0 is the top
    assert torch.allclose(shown.rgb[0, 0, 0], torch.ones(3))


def test_the_background_shows_through_its_alpha() -> None:
    painted = ball()
    cameras = turntable(2, 24, 0.3).cameras
    white, red = (painted.render(cameras, torch.tensor(c)) for c in ([1.0, 1.0, 1.0], [1.0, 0.0, 0.0]))
    difference = (white.rgb - red.rgb)[..., 1:]
    assert torch.allclose(difference, (1 - white.alpha).expand_as(difference), atol=1e-4)
    alone = painted.render(cameras, torch.ones(3), color=False)
    assert torch.allclose(alone.rgb, (1 - alone.alpha).expand_as(alone.rgb), atol=1e-4)


def test_colours_learn_and_the_surface_stays() -> None:
    painted = ball()
    before = painted.vertices.clone()
    groups = painted.parameter_groups()
    assert {id(p) for group in groups.values() for p in group} == {id(p) for p in painted.parameters()}
    optimiser = torch.optim.Adam(painted.parameters(), lr=0.05)
    wanted = torch.tensor([0.9, 0.2, 0.1])
    for _ in range(40):
        shown = painted.render(turntable(2, 24).cameras, wanted)
        loss = (shown.rgb - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 5e-3
    assert torch.equal(painted.vertices, before)
    colors = painted.to_mesh(8).vertex_color
    assert colors is not None and np.abs(colors.mean(0) - wanted.numpy()).max() < 0.15


def test_nothing_cannot_be_painted() -> None:
    empty = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    with pytest.raises(GateFailed, match="no surface to paint"):
        PaintedMesh(empty, TextureField(TextureConfig(encoding=GridConfig(resolutions=(4,)))))
