"""Light: the constant world, lamps, mirrors, and gradients to the material."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anyform.errors import BadInput
from anyform.render.lighting import Environment, LitPoints, PointLight, to_linear, to_srgb


def points(count: int = 40, roughness: float = 0.6, metallic: float = 0.0, albedo: float = 0.5) -> LitPoints:
    """Points on a unit ball seen from where they face the eye."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    one = torch.ones(count, 1)
    return LitPoints(albedo * torch.ones(count, 3), metallic * one, roughness * one, normal, normal, normal * 3)


def sky(row_light: Tensor) -> Tensor:
    """(16, 32, 3) environment whose light depends on the row alone."""
    return row_light[:, None, None].expand(16, 32, 3)


def test_in_a_world_of_light_one_a_matt_surface_shows_its_albedo_and_little_more() -> None:
    light = Environment(torch.ones(8, 16, 3))
    torch.testing.assert_close(light.irradiance(points().normal), torch.ones(40, 3), atol=2e-3, rtol=0)
    shown = to_linear(light(points()))
    assert (shown - to_linear(torch.tensor(0.5))).abs().max() < 0.05
    assert (shown > to_linear(torch.tensor(0.5)) - 1e-3).all()


def test_a_white_metal_in_a_world_of_light_one_is_as_bright_as_the_world() -> None:
    light = Environment(torch.ones(8, 16, 3))
    shown = light(points(metallic=1.0, albedo=1.0, roughness=0.2))
    assert (shown > 0.93).all()


def test_light_from_above_falls_on_what_faces_up() -> None:
    light = Environment(sky((torch.arange(16) < 8).float()))
    up = torch.tensor([[0.0, 1, 0], [0, -1, 0], [1, 0, 0]])
    torch.testing.assert_close(light.irradiance(up)[:, 0], torch.tensor([1, 0, 0.5]), atol=0.06, rtol=0)


def test_a_mirror_sees_the_place_it_reflects_and_a_rough_one_sees_it_blurred() -> None:
    picture = torch.zeros(16, 32, 3)
    picture[7:9, 15:17, 0] = 1.0  # straight ahead: azimuth 0 is +z
    picture[7:9, 23:25, 1] = 1.0  # azimuth 90° is +x
    light = Environment(picture)
    towards = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, -1]])
    sharp = light.reflected(towards, torch.full((4, 1), 0.08))
    torch.testing.assert_close(sharp[:2, :2], torch.eye(2), atol=1e-3, rtol=0)
    assert sharp[2:].abs().max() < 1e-3
    rough = light.reflected(towards, torch.full((4, 1), 1.0))
    assert 0 < rough[0, 0] < 0.2
    assert rough[0, 0] > rough[0, 1] > 0


def test_the_seam_behind_is_no_seam() -> None:
    generator = torch.Generator().manual_seed(0)
    light = Environment(torch.rand(16, 32, 3, generator=generator))
    sides = torch.tensor([[1e-4, 0.1, -1.0], [-1e-4, 0.1, -1.0]])
    left, right = light.reflected(torch.nn.functional.normalize(sides, dim=1), torch.full((2, 1), 0.3))
    torch.testing.assert_close(left, right, atol=1e-3, rtol=0)


def test_a_lamp_lights_by_the_cosine_and_can_hide_the_texture() -> None:
    at = points(1)._replace(normal=torch.tensor([[0.0, 0, 1]]), place=torch.zeros(1, 3))
    for angle in (0.0, 0.7, 2.0):
        lamp = torch.tensor([math.sin(angle), 0, math.cos(angle)]) * 5
        expected = 0.1 + 0.9 * max(math.cos(angle), 0)
        lit = to_linear(PointLight(lamp)(at))
        torch.testing.assert_close(lit, to_linear(torch.full((1, 3), 0.5)) * expected, atol=1e-5, rtol=0)
        white = to_linear(PointLight(lamp, textureless=True)(at))
        torch.testing.assert_close(white, torch.full((1, 3), expected), atol=1e-5, rtol=0)


def test_gradients_reach_every_property_of_the_material() -> None:
    light = Environment(torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(1)) + 0.1)
    at = points(6, 0.5, 0.4)
    parts = [part.double().requires_grad_() for part in at[:4]]

    def shade(albedo: Tensor, metallic: Tensor, roughness: Tensor, normal: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(normal, dim=1)
        return light(LitPoints(albedo, metallic, roughness, unit, at.place.double(), at.eye.double() + 0.3))

    assert torch.autograd.gradcheck(shade, parts, eps=1e-6, atol=1e-3, rtol=1e-2)


def test_srgb_round_trip_with_finite_slopes() -> None:
    value = torch.linspace(0, 1, 50, requires_grad=True)
    torch.testing.assert_close(to_srgb(to_linear(value)), value, atol=1e-5, rtol=0)
    to_srgb(value).sum().backward()
    assert value.grad is not None
    assert torch.isfinite(value.grad).all()


def test_negative_or_endless_light_is_refused() -> None:
    for bad in (-torch.ones(4, 8, 3), torch.full((4, 8, 3), math.inf), torch.ones(4, 8)):
        with pytest.raises(BadInput, match="finite light"):
            Environment(bad)
