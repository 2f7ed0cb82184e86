"""The radiance field: blob, renders against dense quadrature, normals, occupancy, levels, from a distance field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anyform.errors import GateFailed
from anyform.fields.nerf import NeRF, NerfConfig, nerf_from_sdf, trilinear
from anyform.fields.representation import Representation
from anyform.nn.grid_encoding import GridConfig, hashed
from anyform.render.rays import camera_rays
from anyform.render.volume import ray_weights
from anyform.types.camera import Cameras
from anyform.types.render import normal_picture

SMALL = NerfConfig(
    encoding=GridConfig(resolutions=(4, 8)), hidden=16, hidden_layers=1, samples=64, occupancy=8, min_alpha=0.0
)
CAMERAS = Cameras.orbit(np.array([0.0, 1.5]), np.array([0.0, 0.4]), 2.5, np.deg2rad(40), 12)
WHITE = torch.ones(3)


def blob(config: NerfConfig = SMALL) -> NeRF:
    torch.manual_seed(0)
    nerf = NeRF(config)
    nerf.update(0)
    return nerf


def ball_sdf(size: int = 24, radius: float = 0.5) -> np.ndarray:
    axis = -1 + (2 * np.arange(size) + 1) / size
    return np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) - radius


def test_an_untrained_field_is_the_published_blob() -> None:
    nerf = blob()
    assert isinstance(nerf, Representation)
    points = torch.tensor([[0.0, 0, 0], [0.25, 0, 0], [0, 0.5, 0]])
    expected = torch.nn.functional.softplus(torch.tensor([10.0, 5, 0]))
    torch.testing.assert_close(nerf.density(points).detach(), expected, atol=1e-3, rtol=0)


def test_a_render_is_the_dense_quadrature_of_its_rays() -> None:
    nerf = blob().eval()
    nerf.occupied.fill_(True)
    render = nerf.render(CAMERAS, torch.rand(2, 3))
    rays = camera_rays(CAMERAS, 1.0)
    t = rays.near[:, None] + (torch.arange(64) + 0.5) * nerf.step_length
    points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    density = nerf.density(points.reshape(-1, 3)).view(t.shape) * (t < rays.far[:, None])
    weights = ray_weights(density, torch.full_like(density, nerf.step_length))
    torch.testing.assert_close(render.alpha.flatten(), weights.sum(1), atol=2e-4, rtol=0)
    assert render.depth is not None
    assert render.samples is not None
    torch.testing.assert_close(render.depth.flatten(), (weights * t).sum(1), atol=1e-3, rtol=0)
    assert len(render.samples.start) == 2 * 144 + 1
    assert render.samples.start[-1] == len(render.samples.t) == len(render.samples.ray_weights)


def test_the_background_shows_where_nothing_is_and_per_pixel_backgrounds_work() -> None:
    nerf = blob()
    colors = torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    render = nerf.render(CAMERAS, colors)
    torch.testing.assert_close(render.rgb[:, 0, 0], colors, atol=2e-3, rtol=0)
    assert render.alpha[:, 5:7, 5:7].min() > 0.9
    again = nerf.eval().render(CAMERAS, colors[:, None, None].expand(2, 12, 12, 3))
    torch.testing.assert_close(again.rgb, nerf.render(CAMERAS, colors).rgb)


def test_free_cells_and_faint_samples_change_little_and_save_work() -> None:
    nerf = blob().eval()
    for _ in range(12):  # a cell is judged by its densest place so far
        nerf.update(0)
    skipped = nerf.render(CAMERAS, WHITE)
    nerf.occupied.fill_(True)
    full = nerf.render(CAMERAS, WHITE)
    assert (skipped.rgb - full.rgb).abs().max() < 0.1
    assert skipped.samples is not None
    assert full.samples is not None
    assert len(skipped.samples.t) < 0.8 * len(full.samples.t)
    pruned = blob(replace(SMALL, min_alpha=0.01)).eval()
    faint = pruned.render(CAMERAS, WHITE)
    assert faint.samples is not None
    assert len(faint.samples.t) < len(skipped.samples.t)
    assert (faint.rgb - full.rgb).abs().max() < 0.15


@pytest.mark.parametrize("analytic", [False, True])
def test_normals_of_the_blob_point_outward_in_render_and_field(analytic: bool) -> None:
    config = replace(SMALL, analytic_normals=analytic)
    nerf = blob(config).eval()
    points = torch.nn.functional.normalize(torch.randn(20, 3), dim=1) * 0.4
    outward = torch.nn.functional.normalize(points, dim=1)
    assert ((nerf.normals(points) * outward).sum(1) > 0.99).all()
    render = nerf.render(CAMERAS, WHITE, normal=True)
    assert render.normal is not None
    torch.testing.assert_close(render.normal.norm(dim=-1, keepdim=True), render.alpha, atol=1e-4, rtol=0)
    towards = torch.from_numpy(CAMERAS.camera_to_world[:, :3, 2]).float()
    assert ((render.normal[:, 6, 6] * towards).sum(-1) > 0.8).all()  # soft: what lies behind tilts it
    assert normal_picture(render).min() >= 0
    with pytest.raises(ValueError, match="without normals"):
        normal_picture(nerf.render(CAMERAS, WHITE))


def test_gradients_reach_every_parameter_and_colour_can_be_left_out() -> None:
    nerf = blob()
    render = nerf.render(CAMERAS, WHITE, normal=True)
    assert render.normal is not None
    (render.rgb.square().mean() + render.normal[..., 0].square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in nerf.parameters())
    groups = nerf.parameter_groups()
    assert sum(len(g) for g in groups.values()) == len(list(nerf.parameters()))
    plain = nerf.eval().render(CAMERAS, WHITE, color=False)
    torch.testing.assert_close(plain.rgb, (1 - plain.alpha).expand_as(plain.rgb))


def test_training_jitters_from_the_seed_and_evaluation_does_not() -> None:
    nerf = blob()
    renders = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        renders.append(nerf.train().render(CAMERAS, WHITE).rgb)
    assert torch.equal(renders[0], renders[1])
    assert not torch.equal(renders[0], renders[2])
    assert torch.equal(nerf.eval().render(CAMERAS, WHITE).rgb, nerf.render(CAMERAS, WHITE).rgb)


def test_levels_of_detail_come_as_xbinds_do() -> None:
    nerf = NeRF(NerfConfig(encoding=hashed(log2_rows=8), hidden=8))
    steps = {0: 8, 1999: 8, 2000: 9, 2299: 9, 2300: 10, 4100: 16, 9999: 16}
    for step, active in steps.items():
        nerf.step.fill_(step)
        assert nerf.active_levels == active


def test_what_was_emptied_is_found_free_and_state_is_saved() -> None:
    nerf = blob()
    occupied = nerf.occupied.float().mean().item()
    assert 0.02 < occupied < 0.6
    with torch.no_grad():
        for p in nerf.density_network.parameters():
            p.zero_()
    nerf.config = replace(nerf.config, blob_density=-20.0, blob_radius=100.0)
    for step in range(16, 1600, 16):
        nerf.update(step, every_cell=True)
    assert nerf.occupancy.max() < 0.05
    other = NeRF(SMALL)
    other.load_state_dict(nerf.state_dict())
    assert int(other.step) == 1584
    assert torch.equal(other.occupied, nerf.occupied)


def test_from_a_distance_field_and_back_to_a_mesh() -> None:
    torch.manual_seed(0)
    sdf = ball_sdf()
    config = NerfConfig(encoding=GridConfig(resolutions=(8, 16)), hidden=16, hidden_layers=1, samples=64, occupancy=8)
    nerf = nerf_from_sdf(sdf, config, color_at=lambda points: (points + 1) / 2, steps=100, batch=1024)
    mesh = nerf.to_mesh(24)
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert abs(radius.mean() - 0.5) < 0.03
    assert radius.std() < 0.03
    assert mesh.vertex_color is not None
    assert np.abs(mesh.vertex_color - (mesh.vertices + 1) / 2).mean() < 0.12
    with pytest.raises(GateFailed, match="no surface"):
        nerf_from_sdf(np.ones((8, 8, 8)), config, steps=1)


def test_trilinear_reads_cell_centres_and_what_is_linear_between_them() -> None:
    axis = -1 + (2 * torch.arange(6) + 1) / 6
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    grid = x - 2 * y + 3 * z
    points = torch.rand(40, 3) * 1.6 - 0.8
    torch.testing.assert_close(trilinear(grid, points), points @ torch.tensor([1.0, -2, 3]), atol=1e-5, rtol=0)
