"""The latent field: closed forms of a sphere, cameras that agree with `Cameras`, and the two evaluators as twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from anyform.fields import sparse_neus
from anyform.fields.sparse_neus import (
    START_RADIUS,
    FieldConfig,
    Scene,
    SparseNeuS,
    alphas,
    ball_edges,
    encode_position,
    gather,
    project,
    projections,
    rays_of,
    read_lattice,
    section_weights,
)
from anyform.types.camera import Cameras


def orbit(size: int, views: int = 4) -> Cameras:
    azimuth = np.arange(views) * 2 * np.pi / views
    return Cameras.orbit(azimuth, np.radians(np.where(np.arange(views) % 2, -5.0, 20.0)), 3.0, np.radians(40.0), size)


def field(seed: int = 0, spread: float = 0.0, **sizes: int | bool) -> SparseNeuS:
    """A field whose surface is the start sphere, moved by `spread` of the network's output."""
    torch.manual_seed(seed)
    made = SparseNeuS(FieldConfig(feature_channels=4, hidden=16, time_width=8, **sizes))  # type: ignore[arg-type]
    torch.nn.init.normal_(made.distance.leave.weight[:1], 0, spread)
    torch.nn.init.constant_(made.sharpness, 0.3)
    with torch.no_grad():
        made.distance.enter.weight[:, 9:] = 0  # no frequency above 2 rad a unit: a coarse lattice can hold the field
    return made


def scene_of(made: SparseNeuS, cameras: Cameras, t: int = 300) -> Scene:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(len(cameras), 4, 4, 4, generator=generator)
    features = torch.nn.functional.interpolate(coarse, size=cameras.height, mode="bilinear")
    return made.scene(features, projections(cameras), torch.tensor([t]))


def test_alphas_equal_the_closed_form() -> None:
    sdf, inv_s = torch.tensor([[0.5, 0.1, -0.2, 0.3]], dtype=torch.float64), 7.0
    phi = 1 / (1 + torch.exp(-inv_s * sdf))
    expected = [max((phi[0, i] - phi[0, i + 1] + 1e-5) / (phi[0, i] + 1e-5), torch.tensor(0.0)) for i in range(3)]
    assert torch.allclose(alphas(sdf, inv_s)[0], torch.stack(expected), atol=1e-12)
    assert alphas(sdf, inv_s)[0, 2] == 0  # leaving the surface adds nothing


def test_weights_telescope_to_the_alpha_of_the_ray() -> None:
    alpha = torch.rand(5, 9, dtype=torch.float64)
    weights = section_weights(alpha)
    assert torch.allclose(weights.sum(-1), 1 - (1 - alpha).prod(-1), atol=1e-5)
    opaque = torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(section_weights(opaque), torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64), atol=1e-6)


def test_a_steep_plane_hides_everything_behind_it() -> None:
    sdf = torch.linspace(1, -1, 41)[None]
    weights = section_weights(alphas(sdf, 300.0))
    assert weights.sum() == pytest.approx(1, abs=1e-3)
    assert weights.argmax() in (19, 20)


def test_projection_agrees_with_cameras_and_brings_ray_points_back_to_their_pixels() -> None:
    cameras = orbit(12)
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 3))
    where, depth = project(torch.from_numpy(points).float(), projections(cameras))
    pixels = cameras.project(points)
    assert np.allclose((where.numpy() + 1) * 6, pixels[..., :2], atol=1e-4)
    assert np.allclose(depth.numpy(), pixels[..., 2], atol=1e-5)
    origins, directions = rays_of(cameras)
    on_rays = (origins + 2.7 * directions)[1]
    found, _ = project(on_rays.reshape(-1, 3), projections(cameras))
    row, column = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    centres = (torch.stack([column, row], -1) + 0.5) / 6 - 1
    assert torch.allclose(found[1].reshape(12, 12, 2), centres, atol=1e-5)


def test_a_wide_picture_keeps_square_pixels() -> None:
    square = orbit(16)
    wide = Cameras(square.camera_to_world, square.fov_y, 16, 32)
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (20, 3))
    where, _ = project(torch.from_numpy(points).float(), projections(wide))
    assert np.allclose((where.numpy() + 1) * [16, 8], wide.project(points)[..., :2], atol=1e-4)


def test_gather_is_the_mean_over_views_that_see_the_point() -> None:
    cameras = orbit(8)
    features = torch.randn(4, 3, 8, 8)
    projection = projections(cameras)
    origin = torch.zeros(1, 3)
    centre = features[:, :, 3:5, 3:5].mean((2, 3))  # the ball's centre projects between the four middle pixels
    assert torch.allclose(gather(origin, features, projection)[0], centre.mean(0), atol=1e-5)
    order = [2, 0, 3, 1]
    points = torch.rand(30, 3) - 0.5
    mixed = gather(points, features[order], projection[order])
    assert torch.allclose(gather(points, features, projection), mixed, atol=1e-5)


def test_gather_leaves_out_views_that_do_not_see_the_point() -> None:
    cameras = orbit(8)
    features = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
    beside = torch.tensor([[1.4, 0.0, 0.0]])  # too far to the side for the cameras on the z axis
    pixels = cameras.project(beside.double().numpy())[:, 0]
    seen_by = [v for v in range(4) if (np.abs(pixels[v, :2] - 4) <= 4).all() and pixels[v, 2] > 0]
    assert seen_by == [1, 3]
    assert gather(beside, features, projections(cameras)).item() == pytest.approx(2.0)
    nowhere = torch.tensor([[0.0, 90.0, 0.0]])
    assert gather(nowhere, features, projections(cameras)).item() == pytest.approx(1.5)


def test_position_code_has_the_paper_s_layout() -> None:
    code = encode_position(torch.tensor([[0.1, -0.2, 0.3]]), omega=1.5)
    assert code.shape == (1, 39)
    assert torch.allclose(code[0, :3], torch.tensor([0.1, -0.2, 0.3]))
    assert code[0, 3].item() == pytest.approx(math.sin(0.15), abs=1e-6)
    assert code[0, 6].item() == pytest.approx(math.cos(0.15), abs=1e-6)
    assert code[0, 9].item() == pytest.approx(math.sin(0.3), abs=1e-6)  # the next frequency doubles


def test_ray_edges_span_the_ball_and_jitter_moves_them_together() -> None:
    origins, directions = (part.reshape(-1, 3) for part in rays_of(orbit(4)))
    edges = ball_edges(origins, directions, 8, jitter=False)
    middle = origins + directions * edges[:, 4:5]
    assert torch.allclose((middle * directions).sum(-1), torch.zeros(len(edges)), atol=1e-5)
    torch.manual_seed(0)
    moved = ball_edges(origins, directions, 8, jitter=True) - edges
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-6)
    assert 0 < moved.abs().max() <= 0.125


def test_a_sphere_has_its_silhouette_and_its_depth() -> None:
    cameras, made = orbit(32, views=2), field()
    scene = scene_of(made, cameras)
    origins, directions = (part.reshape(-1, 3) for part in rays_of(cameras))
    with torch.no_grad():
        torch.nn.init.constant_(made.sharpness, 0.6)
        seen = made.render_points(scene, origins, directions, torch.ones(3), sections=64, importance=32)
    closest = (origins + directions * -(origins * directions).sum(-1, keepdim=True)).norm(dim=-1)
    assert (seen.alpha[closest < START_RADIUS - 0.05] > 0.95).all()
    assert (seen.alpha[closest > START_RADIUS + 0.05] < 0.05).all()
    depth = (seen.weights * seen.middles).sum(-1) / seen.alpha
    truth = -(origins * directions).sum(-1) - (START_RADIUS**2 - closest**2).clamp(min=0).sqrt()
    inner = closest < 0.4
    assert (depth - truth)[inner].abs().max() < 2 / 64
    assert torch.allclose(seen.value[closest > 0.7], torch.ones(3), atol=1e-2)


@pytest.mark.parametrize("is_color", [True, False])
def test_the_lattice_and_the_points_are_twins(is_color: bool) -> None:
    cameras, made = orbit(12), field(spread=0.05, is_color=is_color)
    for layer in (made.latent.enter, made.latent.leave):
        torch.nn.init.normal_(layer.weight, 0, 0.2)
    with torch.no_grad():
        made.latent.enter.weight[:, -3:] = 0  # the lattice knows no view direction
    scene = scene_of(made, cameras)
    origins, directions = (part.reshape(-1, 3) for part in rays_of(cameras))
    background = torch.zeros(3)
    with torch.no_grad():
        lattice = made.lattice(scene, 64)
        fast = made.render_lattice(lattice, origins, directions, background, sections=48, jitter=False)
        exact = made.render_points(scene, origins, directions, background, sections=48, importance=0)
    assert torch.equal(fast.edges, exact.edges)
    assert (fast.alpha - exact.alpha).abs().max() < 0.05
    assert (fast.value - exact.value).abs().mean() < 0.01
    assert (fast.rgb is None) == is_color
    spread = exact.value.std(0).min()
    assert spread > 0.02  # else the comparison would say nothing


def test_the_twins_agree_in_gradients() -> None:
    cameras, made = orbit(6, views=2), field(spread=0.05)
    with torch.no_grad():
        made.latent.enter.weight[:, -3:] = 0
    origins, directions = (part.reshape(-1, 3) for part in rays_of(cameras))

    def gradient(fast: bool) -> torch.Tensor:
        scene = scene_of(made, cameras)
        if fast:
            lattice = made.lattice(scene, 48)
            seen = made.render_lattice(lattice, origins, directions, torch.ones(3), sections=32, jitter=False)
        else:
            seen = made.render_points(scene, origins, directions, torch.ones(3), sections=32, importance=0)
        made.zero_grad()
        (seen.value.square().mean() + seen.alpha.mean()).backward()
        parts = [made.sharpness.grad, made.distance.leave.weight.grad, made.distance.enter.weight.grad]
        return torch.cat([part.flatten() for part in parts if part is not None])

    exact, fast = gradient(False), gradient(True)
    assert torch.nn.functional.cosine_similarity(exact, fast, dim=0) > 0.99
    assert fast.norm() / exact.norm() == pytest.approx(1, abs=0.1)


def test_lattices_are_read_where_they_were_written() -> None:
    made = field()
    scene = scene_of(made, orbit(8))
    with torch.no_grad():
        lattice, volume = made.lattice(scene, 9), made.sdf_lattice(scene, 9)
    point = torch.tensor([[0.25, -0.5, 0.5]])  # the sample (5, 2, 6)
    assert torch.allclose(read_lattice(lattice, point)[0, 0], lattice[0, 6, 2, 5], atol=1e-6)
    assert torch.allclose(lattice[0, 6, 2, 5], volume[5, 2, 6], atol=1e-6)
    assert torch.allclose(volume[5, 2, 6], point.norm() - START_RADIUS, atol=1e-6)


def test_distances_never_see_the_view_direction_but_values_do() -> None:
    made = field(spread=0.1)
    torch.nn.init.normal_(made.latent.leave.weight)
    scene = scene_of(made, orbit(8))
    points = torch.rand(10, 3) - 0.5
    _, geometry, code = made.sdf(points, scene)
    one = made.values(geometry, torch.zeros(10, 3), code)
    other = made.values(geometry, torch.ones(10, 3), code)
    assert (one - other).abs().max() > 1e-4
    assert one.abs().max() <= 1


def test_the_untrained_slope_is_sparse_neus_own() -> None:
    made = SparseNeuS(FieldConfig())
    assert made.inv_s.item() == pytest.approx(math.exp(2), rel=1e-5)
    assert sum(p.numel() for p in made.parameters()) == pytest.approx(83_000, rel=0.25)
    assert sparse_neus.NUM_FREQUENCIES == 6
