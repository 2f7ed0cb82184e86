"""The tetrahedral surface: renders, gradients that fit shapes, conversion from fields and grids, its failures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from anyform.errors import GateFailed
from anyform.fields.dmtet import DMTet, DmtetConfig, dmtet_from_nerf, dmtet_from_sdf, vertex_normals
from anyform.fields.nerf import NeRF, NerfConfig
from anyform.fields.representation import Representation
from anyform.fields.texture import TextureConfig, TextureField, texture_from_nerf
from anyform.geometry.tets import grid_vertices
from anyform.geometry.topology import topology
from anyform.nn.grid_encoding import GridConfig
from anyform.render.lighting import PointLight
from anyform.types.camera import Cameras

CAMERAS = Cameras.orbit(np.array([0.0, 1.2]), np.array([0.0, 0.5]), 2.5, np.deg2rad(40), 24)
WHITE = torch.ones(3)
GRID = GridConfig(resolutions=(4, 8))
FIELD = NerfConfig(encoding=GRID, hidden=16, hidden_layers=1, samples=64, occupancy=8, start_levels=1, start_step=5)


def ball(resolution: int = 8, radius: float = 0.5, texture: TextureField | None = None) -> DMTet:
    distance = torch.from_numpy(grid_vertices(resolution) * 2 - 1).norm(dim=1) - radius
    return DMTet(DmtetConfig(resolution=resolution), distance, texture)


def small_texture(physical: bool = False) -> TextureField:
    torch.manual_seed(1)
    return TextureField(TextureConfig(encoding=GRID, hidden=8, hidden_layers=1, physical=physical))


def test_a_ball_looks_like_a_ball() -> None:
    tets = ball(12)
    assert isinstance(tets, Representation)
    render = tets.render(CAMERAS, WHITE, normal=True)
    assert render.rgb.shape == (2, 24, 24, 3)
    # what a ball of radius 0.5 covers at distance 2.5, in pixels
    focal = 12 / np.tan(np.deg2rad(20))
    area = np.pi * (focal * 0.5 / np.sqrt(2.5**2 - 0.5**2)) ** 2
    assert abs(render.alpha.sum().item() / 2 / area - 1) < 0.07  # a polyhedron inside the ball
    assert render.normal is not None
    assert render.depth is not None
    towards = torch.from_numpy(CAMERAS.camera_to_world[:, :3, 2]).float()
    assert ((render.normal[:, 12, 12] * towards).sum(-1) > 0.95).all()
    torch.testing.assert_close(render.depth[:, 12, 12, 0], torch.full((2,), 2.0), atol=0.03, rtol=0)
    torch.testing.assert_close(render.rgb[0, 0, 0], WHITE)


def test_row_zero_is_the_top() -> None:
    tets = ball(8, 0.3)
    with torch.no_grad():
        tets.low += torch.tensor([0, 0.4, 0])
        tets.high += torch.tensor([0, 0.4, 0])
    alpha = tets.render(CAMERAS, WHITE).alpha[..., 0]
    assert (alpha[:, :12].sum((1, 2)) > 5 * alpha[:, 12:].sum((1, 2))).all()


def test_gradients_of_a_mask_make_a_ball_grow() -> None:
    tets = ball(8, 0.35)
    with torch.no_grad():
        target = ball(8, 0.55).render(CAMERAS, WHITE).alpha
    optimiser = torch.optim.Adam(tets.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        loss = (tets.render(CAMERAS, WHITE, color=False).alpha - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]
    assert tets.deformation.grad is not None
    assert tets.deformation.grad.abs().sum() > 0


def test_vertices_never_leave_their_cell() -> None:
    tets = ball(8)
    with torch.no_grad():
        tets.deformation.normal_(0, 100)
        places = tets._positions(torch.arange(9**3))
    lattice = torch.from_numpy(grid_vertices(8) * 2 - 1)
    assert (places - lattice).abs().max() <= 0.5 * 2 / 8 + 1e-6


def test_colours_reach_the_texture_and_not_the_shape() -> None:
    tets = ball(8, texture=small_texture())
    tets.render(CAMERAS, WHITE).rgb[:, 10:14, 10:14].sum().backward()
    assert tets.texture is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tets.texture.parameters())
    assert tets.sdf.grad is None or tets.sdf.grad.abs().max() < 1e-6
    assert set(tets.parameter_groups()) == {"geometry", "encoding", "networks"}


def test_a_frozen_shape_is_the_same_shape_without_gradients() -> None:
    tets = ball(8, texture=small_texture(physical=True))
    tets.lighting = PointLight(torch.tensor([2.0, 2.0, 2.0]))
    before = tets.render(CAMERAS, WHITE)
    tets.freeze_geometry()
    after = tets.render(CAMERAS, WHITE)
    assert torch.equal(before.rgb, after.rgb)
    assert tets.surface() is tets.surface()
    after.rgb.sum().backward()
    assert tets.sdf.grad is None


def test_to_mesh_is_closed_and_coloured() -> None:
    mesh = ball(8, texture=small_texture()).to_mesh()
    facts = topology(mesh)
    assert facts.open_edges == facts.flipped_edges == 0
    assert facts.volumes[0] > 0
    assert mesh.vertex_color is not None
    with pytest.raises(ValueError, match="8 cubes a side"):
        ball(8).to_mesh(9)


def test_vertex_normals_of_a_cube_corner() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    normals = vertex_normals(vertices, torch.tensor([[0, 2, 1], [0, 3, 2], [0, 1, 3]]))
    torch.testing.assert_close(normals[0], torch.full((3,), -(3**-0.5)))


def blob(blob_density: float = 40.0) -> NeRF:
    torch.manual_seed(0)
    nerf = NeRF(replace(FIELD, blob_density=blob_density))
    nerf.step.fill_(1000)
    return nerf


def test_from_a_field_at_its_threshold_with_its_colours() -> None:
    nerf = blob()
    tets = dmtet_from_nerf(nerf, density_threshold=10.0, resolution=16)
    assert float(tets.density_threshold) == 10.0
    mesh = tets.to_mesh()
    radius = np.linalg.norm(mesh.vertices, axis=1)
    # 40 (1 − r / 0.5) = 10 at r = 0.375
    assert abs(radius.mean() - 0.375) < 0.01
    assert radius.std() < 0.01
    assert float(tets.high.max()) < 0.65
    assert mesh.vertex_color is not None
    expected = nerf.color(torch.from_numpy(mesh.vertices)).detach().numpy()
    np.testing.assert_allclose(mesh.vertex_color, expected, atol=1e-5)
    slope = np.stack(np.gradient(tets.sdf.detach().view(17, 17, 17).numpy(), *((tets.high - tets.low) / 16).tolist()))
    near = tets.sdf.detach().abs().view(17, 17, 17).numpy() < 0.05
    assert abs(np.linalg.norm(slope, axis=0)[near].mean() - 1) < 0.15


def test_a_faint_field_lowers_the_threshold_and_an_empty_one_is_an_error() -> None:
    tets = dmtet_from_nerf(blob(8.0), resolution=12)
    assert float(tets.density_threshold) == 5.0
    nerf = blob(0.0)
    with torch.no_grad():
        for weights in nerf.density_network.parameters():
            weights.zero_()
    with pytest.raises(GateFailed, match="holds no surface"):
        dmtet_from_nerf(nerf, resolution=8)


def test_from_a_distance_grid() -> None:
    axis = -1 + (2 * np.arange(32) + 1) / 32
    sdf = np.sqrt(axis[:, None, None] ** 2 + (axis[:, None] - 0.2) ** 2 + axis**2) - 0.4
    mesh = dmtet_from_sdf(sdf, resolution=16).to_mesh()
    radius = np.linalg.norm(mesh.vertices - [0, 0.2, 0], axis=1)
    assert abs(radius - 0.4).max() < 0.02
    assert topology(mesh).open_edges == 0
    with pytest.raises(GateFailed, match="is empty"):
        dmtet_from_sdf(np.ones((4, 4, 4)))


def test_a_shape_that_fills_its_box_is_still_closed() -> None:
    tets = ball(6, radius=3.0)
    facts = topology(tets.to_mesh())
    assert facts.open_edges == 0
    assert abs(facts.volumes.sum() - 8) < 1


def test_a_vanished_surface_says_so() -> None:
    tets = ball(6)
    with torch.no_grad():
        tets.sdf.fill_(1.0)
    with pytest.raises(GateFailed, match=r"vanished: no signed distance .* \(1 to 1\)"):
        tets.render(CAMERAS, WHITE)


def test_the_torch_backend_renders_the_same() -> None:
    compiled, definition = ball(8, 0.47), ball(8, 0.47)
    definition.config = replace(definition.config, backend="torch")
    gradients: list[Tensor] = []
    for tets in (compiled, definition):
        render = tets.render(CAMERAS, WHITE, normal=True)
        assert render.normal is not None
        (render.alpha.sum() + render.normal[..., 1].sum()).backward()
        assert tets.sdf.grad is not None
        gradients.append(tets.sdf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-2, rtol=1e-3)


def test_a_texture_from_a_field_is_silent_in_levels_not_yet_in_use() -> None:
    nerf = blob()
    nerf.step.zero_()
    points = torch.rand(30, 3) * 2 - 1
    for physical in (False, True):
        texture = texture_from_nerf(nerf, physical=physical)
        torch.testing.assert_close(texture.color(points), nerf.color(points), atol=1e-6, rtol=0)
    assert (texture.material(points).metallic <= 0.9).all()
    assert (texture.material(points).roughness >= 0.08).all()


def test_colors_at_takes_and_gives_arrays() -> None:
    texture = small_texture()
    points = np.random.default_rng(0).uniform(-2, 2, (5, 3))
    expected = texture.color(torch.from_numpy(points).float()).detach().numpy()
    np.testing.assert_allclose(texture.colors_at(points), expected, atol=1e-6)
    assert texture.colors_at(np.zeros((0, 3))).shape == (0, 3)
