"""Grid encoding: linear fields exactly, float64 gradients, the compiled form against the definition."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

from anyform.errors import BadInput, BadSetting
from anyform.nn.grid_encoding import GridConfig, GridEncoding, encode, encode_reference, hashed, levels

SMALL = hashed(num_levels=4, base=4, growth=1.7, log2_rows=7)  # 4³ fits its table, 6³ to 19³ are hashed


def inputs(
    config: GridConfig, count: int = 23, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(int(levels(config).offset[-1]), 2, generator=generator, dtype=dtype)
    return torch.rand(count, 3, generator=generator, dtype=dtype).requires_grad_(), table.requires_grad_()


@pytest.mark.parametrize("config", [SMALL, GridConfig(resolutions=(3, 5, 5))], ids=["hashed", "dense"])
def test_gradients_in_float64(config: GridConfig) -> None:
    grid = levels(config)
    points, table = inputs(config, 7)
    active = len(grid.resolution)
    assert torch.autograd.gradcheck(lambda x, t: encode(x, t, grid, active), (points, table), atol=1e-6)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-3)])
@pytest.mark.parametrize("active", [0, 2, 4])
def test_values_and_gradients_are_those_of_the_definition(active: int, dtype: torch.dtype, close: float) -> None:
    grid = levels(SMALL)
    points, table = inputs(SMALL, 200, dtype)
    ours, definition = encode(points, table, grid, active), encode_reference(points, table, grid, active)
    assert ours.shape == (200, SMALL.width)
    assert (ours - definition).abs().max() < close
    assert (ours[:, 2 * active :] == 0).all()
    if active:
        pull = torch.randn_like(ours).T.contiguous().T  # a gradient that is not contiguous
        for one, other in zip(
            *(torch.autograd.grad(y, (points, table), pull) for y in (ours, definition)), strict=True
        ):
            assert (one - other).abs().max() < close


def test_a_row_of_a_hashed_level_is_instant_ngps() -> None:
    grid = levels(GridConfig(resolutions=(64,), log2_rows=10))
    table = torch.zeros(1024, 2, dtype=torch.float64)
    i, j, k = 37, 5, 61
    table[(i ^ (j * 2654435761) % 2**32 ^ (k * 805459861) % 2**32) % 1024] = torch.tensor(
        [1.0, 2.0], dtype=torch.float64
    )
    at_vertex = torch.tensor([[i, j, k]], dtype=torch.float64) / 64
    for function in (encode, encode_reference):
        assert function(at_vertex, table, grid, 1).tolist() == [[1.0, 2.0]]


def test_a_linear_field_is_reproduced_exactly_by_every_dense_level() -> None:
    config = GridConfig(resolutions=(2, 5, 9))
    grid = levels(config)
    slope, table = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64), torch.zeros(int(grid.offset[-1]), 2).double()
    for n, offset in zip(config.resolutions, grid.offset, strict=False):
        axis = torch.arange(n + 1, dtype=torch.float64) / n
        vertices = torch.cartesian_prod(axis, axis, axis)
        table[offset : offset + len(vertices), 0] = vertices @ slope
    points = torch.rand(50, 3, dtype=torch.float64)
    encoded = encode(torch.cat([points, torch.ones(1, 3).double(), torch.zeros(1, 3).double()]), table, grid, 3)
    expected = torch.cat([points @ slope, slope.sum()[None], torch.zeros(1).double()])
    for level in range(3):
        torch.testing.assert_close(encoded[:, 2 * level], expected)


def test_same_bits_for_one_thread_and_two() -> None:
    most, results = numba.get_num_threads(), []
    grid = levels(SMALL)
    for threads in (1, most):
        numba.set_num_threads(threads)
        points, table = inputs(SMALL, 500, torch.float32)
        encoded = encode(points, table, grid, 4)
        results.append((encoded, *torch.autograd.grad(encoded.sin().sum(), (points, table))))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_sizes_of_xbinds_grid() -> None:
    grid = levels(hashed())
    assert grid.resolution[0] == 16
    assert grid.resolution[-1] == 4095  # 16 · b^15 in floating point, floored; the paper writes 4096
    assert 12.5e6 < 2 * grid.offset[-1] < 12.7e6
    assert grid.dense.tolist() == [True] * 5 + [False] * 11
    assert (grid.offset % 8 == 0).all()


def test_the_module_starts_small_and_learns() -> None:
    torch.manual_seed(0)
    encoding = GridEncoding(GridConfig(resolutions=(4, 8)))
    assert 0 < encoding.table.abs().max() <= 1e-4
    points, target = torch.rand(64, 3), torch.rand(64, 4)
    optimiser = torch.optim.Adam(encoding.parameters(), lr=0.1)
    first = None
    for _ in range(60):
        loss = (encoding(points) - target).square().mean()
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert first is not None
    assert loss.item() < 0.05 * first


def test_bad_input_is_refused_before_the_kernel() -> None:
    grid = levels(SMALL)
    points, table = inputs(SMALL)
    with pytest.raises(BadInput, match="1 of 23 points"):
        encode(points.detach().index_fill(0, torch.tensor([4]), float("nan")), table, grid, 4)
    with pytest.raises(BadInput, match="do not fit"):
        encode(points, table[:-1], grid, 4)
    with pytest.raises(BadInput, match="5 of them active"):
        encode(points, table, grid, 5)
    for wrong in (GridConfig(resolutions=()), GridConfig(resolutions=(0,)), GridConfig(resolutions=(2000,))):
        with pytest.raises(BadSetting):
            levels(wrong)
    outside = torch.tensor([[-0.5, 2.0, 0.5]], dtype=torch.float64)
    np.testing.assert_allclose(
        encode(outside, table, grid, 4).detach(), encode_reference(outside, table, grid, 4).detach(), atol=1e-12
    )
