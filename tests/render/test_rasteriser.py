"""Differentiable rasterising: twins agree, gradients in float64, and the outline has the gradient that areas have."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from anyform.errors import BadInput, BadSetting
from anyform.render import silhouette, silhouette_numba
from anyform.render.raster import rasterise as rasterise_in_numpy
from anyform.render.rasteriser import Compiled, Definition, rasteriser

BACKENDS = [Compiled(), Definition()]
NAMES = ["numba", "torch"]


def ball(triangles: int, bumps: float = 0.06) -> tuple[np.ndarray, Tensor]:
    """Vertices (V, 3) and faces (F, 3) of a bumpy sphere of radius about 0.6."""
    m = int((triangles / 4) ** 0.5)
    theta, phi = np.meshgrid(np.arange(m + 1) / m * np.pi, np.arange(2 * m) / m * np.pi, indexing="ij")
    radius = 0.6 + bumps * np.sin(7 * phi) * np.sin(theta) ** 2 * np.sin(5 * theta)
    unit = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1)
    i, j = np.meshgrid(np.arange(m), np.arange(2 * m), indexing="ij")
    k = (j + 1) % (2 * m)
    a, b, c, d = i * 2 * m + j, i * 2 * m + k, (i + 1) * 2 * m + j, (i + 1) * 2 * m + k
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    return (radius[..., None] * unit).reshape(-1, 3), torch.from_numpy(faces)


def torus(around: int, across: int, tilt: float) -> tuple[np.ndarray, Tensor]:
    """A torus of radii 0.5 and 0.2, tilted by radians so that it hides part of itself."""
    a, b = np.meshgrid(np.arange(around) / around * 2 * np.pi, np.arange(across) / across * 2 * np.pi, indexing="ij")
    ring = 0.5 + 0.2 * np.cos(b)
    v = np.stack([ring * np.cos(a), ring * np.sin(a), 0.2 * np.sin(b)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")

    def vertex(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return (i % around) * across + j % across

    quads = [
        (vertex(i, j), vertex(i + 1, j), vertex(i + 1, j + 1)),
        (vertex(i, j), vertex(i + 1, j + 1), vertex(i, j + 1)),
    ]
    c, s = np.cos(tilt), np.sin(tilt)
    return v @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), torch.from_numpy(
        np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in quads])
    )


def clip(v: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    """Clip positions of points seen from (0, 0, 2.5), turned by 0.4, fov 40°."""
    c, s = np.cos(0.4), np.sin(0.4)
    p = v @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + [0, 0, -2.5]
    f, near, far = 1 / np.tan(np.deg2rad(20)), 0.1, 10
    z = (far + near) / (near - far) * p[:, 2] + 2 * far * near / (near - far)
    return torch.from_numpy(np.stack([f * p[:, 0], f * p[:, 1], z, -p[:, 2]], 1)).to(dtype)


def covered(position: Tensor, faces: Tensor, size: int, backend: Compiled | Definition) -> Tensor:
    """Antialiased mask (H, W)."""
    visible = backend.rasterise(position, faces, size, size)
    mask = (visible.face >= 0).to(position.dtype)[..., None]
    return backend.antialias(mask, position, faces, visible)[..., 0]


def true_area(position: Tensor, faces: Tensor, size: int, factor: int, only: slice = slice(None)) -> float:
    """Covered pixels of a picture of `size`, from one `factor` times finer; `only` counts these face ids alone."""
    fine = Compiled().rasterise(position, faces, size * factor, size * factor).face
    return torch.isin(fine, torch.arange(len(faces))[only]).sum().item() / factor**2


def scaled(position: Tensor, scale: Tensor, which: Tensor | float = 1.0) -> Tensor:
    """Positions whose screen coordinates are multiplied by `scale` where `which` is 1."""
    return torch.cat([position[:, :2] * (1 + (scale - 1) * which), position[:, 2:]], 1)


def test_both_see_what_the_numpy_rasteriser_sees() -> None:
    v, faces = ball(300)
    position = clip(v)
    expected = rasterise_in_numpy(position.numpy(), faces.numpy(), 24, 20)
    for backend in BACKENDS:
        seen = backend.rasterise(position, faces, 24, 20)
        assert (seen.face.numpy() == expected.face).all()
        np.testing.assert_allclose(seen.z, expected.z, atol=1e-12)
        np.testing.assert_allclose(seen.uv, expected.uv, atol=1e-8)


def test_equal_depths_show_the_lower_face() -> None:
    quad = torch.tensor([[-0.9, -0.9, 0, 1], [0.9, -0.9, 0, 1], [0.9, 0.9, 0, 1.0]]).double()
    faces = torch.tensor([[0, 1, 2], [2, 1, 0], [0, 1, 2]])
    for backend in BACKENDS:
        seen = backend.rasterise(quad, faces, 9, 9).face
        assert set(seen.flatten().tolist()) == {-1, 0}


def test_pairs_are_those_of_the_definition() -> None:
    for v, faces, size in ((*ball(300), 24), (*torus(20, 9, 1.2), 31)):
        position = clip(v)
        seen = Compiled().rasterise(position, faces, size, size)
        narrow = faces.int().numpy()
        opposite = silhouette_numba.neighbours(narrow, len(v))
        ours = silhouette_numba.pairs(position.numpy(), narrow, opposite, seen.native.face, seen.native.z)
        definition = silhouette.pairs(position, faces, seen.face, seen.z)
        assert len(ours) > size
        assert torch.equal(torch.from_numpy(ours).long(), definition)


def test_edges_of_one_two_and_three_faces() -> None:
    faces = torch.tensor([[0, 1, 2], [1, 0, 3], [4, 5, 6], [4, 5, 7], [5, 4, 8]])
    index, corners, opposite = silhouette.edges(faces, 9)
    found = {tuple(c[:2]): o for c, o in zip(corners.tolist(), opposite.tolist(), strict=True)}
    assert found[0, 1] == 3
    assert (4, 5) not in found
    assert (5, 4) not in found
    assert list(found.values()).count(-1) == len(found) - 1
    assert (torch.diff(index) > 0).all()
    marks = silhouette_numba.neighbours(faces.int().numpy(), 9)
    assert marks[0, 0] == 3
    assert marks[1, 0] == silhouette_numba.SEEN
    assert marks[2, 0] == silhouette_numba.NON_MANIFOLD
    assert max(marks[3, 0], marks[4, 0]) < silhouette_numba.BOUNDARY


@pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)
def test_gradients_in_float64(backend: Compiled | Definition) -> None:
    v, faces = torus(12, 6, 1.2)
    position, attributes = clip(v).requires_grad_(), torch.rand(len(v), 2, dtype=torch.float64, requires_grad=True)

    def draw(position: Tensor, attributes: Tensor) -> Tensor:
        visible = backend.rasterise(position, faces, 14, 14)
        return backend.antialias(backend.interpolate(attributes, position, faces, visible), position, faces, visible)

    assert torch.autograd.gradcheck(draw, (position, attributes), eps=1e-7, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_values_and_gradients_are_those_of_the_definition(dtype: torch.dtype, close: float) -> None:
    v, faces = ball(300)
    results = []
    for backend in BACKENDS:
        position = clip(v, dtype).requires_grad_()
        attributes = torch.linspace(0, 1, 3 * len(v), dtype=dtype).view(-1, 3).requires_grad_()
        visible = backend.rasterise(position, faces, 24, 24)
        color = backend.antialias(backend.interpolate(attributes, position, faces, visible), position, faces, visible)
        pull = torch.linspace(-1, 1, 24, dtype=dtype)[:, None, None].expand(24, 24, 3)  # stride 0
        results.append((color, *torch.autograd.grad(color, (position, attributes), pull)))
    for one, other in zip(*results, strict=True):
        assert one.dtype == dtype
        assert (one - other).abs().max() < close * max(1.0, other.abs().max().item())


@pytest.mark.parametrize(("triangles", "size"), [(1000, 128), (20_000, 128), (200_000, 128), (200_000, 512)])
def test_the_gradient_of_the_mask_by_scale_is_twice_its_area(triangles: int, size: int) -> None:
    v, faces = ball(triangles)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    mask = covered(scaled(clip(v), scale), faces, size, Compiled())
    mask.sum().backward()
    area = true_area(clip(v), faces, size, 1024 // size)
    assert scale.grad is not None
    assert 0.97 < scale.grad.item() / (2 * area) < 1.03
    assert abs(mask.sum().item() / area - 1) < 0.01


@pytest.mark.parametrize(("triangles", "size"), [(900, 128), (20_000, 128)])
def test_a_ball_in_front_of_a_ball_has_the_gradient_of_its_own_outline(triangles: int, size: int) -> None:
    v, faces = ball(triangles)
    c, s = np.cos(0.4), np.sin(0.4)
    front = v * 0.4 + np.array([-s, 0, c])
    both, all_faces = np.concatenate([v, front]), torch.cat([faces, faces + len(v)])
    which = torch.cat([torch.zeros(len(v), 1), torch.ones(len(v), 1)]).double()
    color = torch.cat([torch.full((len(faces),), 0.5), torch.ones(len(faces))]).double()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    position, backend = scaled(clip(both), scale, which), Compiled()
    visible = backend.rasterise(position, all_faces, size, size)
    shade = torch.where(visible.face >= 0, color[visible.face.clamp(min=0)], 0.0)[..., None]
    backend.antialias(shade, position, all_faces, visible).sum().backward()
    area = true_area(clip(both), all_faces, size, 8, slice(len(faces), None))
    assert scale.grad is not None
    # brightness rises by 1 − 0.5 over twice the front ball's area
    assert 0.97 < scale.grad.item() / area < 1.03


def test_a_torus_that_hides_itself() -> None:
    v, faces = torus(100, 50, np.deg2rad(70))
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    covered(scaled(clip(v), scale), faces, 128, Compiled()).sum().backward()
    assert scale.grad is not None
    assert 0.97 < scale.grad.item() / (2 * true_area(clip(v), faces, 128, 8)) < 1.03


@pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)
def test_moving_a_mask_inside_the_picture_does_not_change_its_sum(backend: Compiled | Definition) -> None:
    v, faces = ball(300)
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    position = clip(v)
    moved = torch.cat([position[:, :2] + shift * position[:, 3:], position[:, 2:]], 1)
    mask = covered(moved, faces, 32, backend)
    assert mask.min() >= 0
    assert mask.max() <= 1
    mask.sum().backward()
    assert shift.grad is not None
    # less than one line of pixels at one side gives; the whole side gives about twenty times that
    assert (shift.grad.abs() < 32 / 2).all()


def test_bad_input_is_refused_before_the_kernel() -> None:
    v, faces = ball(60)
    position = clip(v)
    for backend in BACKENDS:
        with pytest.raises(BadInput, match="names vertex"):
            backend.rasterise(position, faces + 1, 8, 8)
        with pytest.raises(BadInput, match="1 of"):
            backend.rasterise(position.index_fill(0, torch.tensor([3]), float("nan")), faces, 8, 8)
        with pytest.raises(BadInput, match="behind the camera"):
            backend.rasterise(-position, faces, 8, 8)
        with pytest.raises(BadInput, match="int64"):
            backend.rasterise(position, faces.int(), 8, 8)
        assert (backend.rasterise(position, faces[:0], 8, 8).face == -1).all()
    with pytest.raises(BadSetting, match="does not work on cuda"):
        rasteriser("cuda", "numba")
    with pytest.raises(BadSetting, match="does not work on cpu"):
        rasteriser("cpu", "nvdiffrast")


def test_without_nvdiffrast_its_adapter_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    with pytest.raises(BadSetting, match=r"nvdiffrast is not installed .* licence"):
        rasteriser("cuda", "nvdiffrast")
