"""int8 weights: bounded rounding, exact names back, damage refused."""

from __future__ import annotations

import pytest
import torch

from anyform.errors import WeightsError
from anyform.nn.int8 import dequantise, quantise


def test_round_trip_is_within_half_a_step_of_every_row() -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        "matrix": torch.randn(256, 128, generator=generator) * torch.logspace(-3, 3, 256)[:, None],
        "kernel": torch.randn(64, 16, 3, 3, 3, generator=generator),
        "bias": torch.randn(256, generator=generator),
        "small": torch.randn(4, 4, generator=generator),
        "zero": torch.zeros(128, 128),
    }
    stored = quantise(state)
    assert stored["matrix.int8"].dtype == stored["kernel.int8"].dtype == torch.int8
    assert stored["bias"].dtype == stored["small"].dtype == torch.float16
    back = dequantise(stored)
    assert back.keys() == state.keys() and all(v.dtype == torch.float32 for v in back.values())
    for name in ("matrix", "kernel", "zero"):
        step = state[name].flatten(1).abs().amax(1) / 127
        assert ((back[name] - state[name]).flatten(1).abs().amax(1) <= step * 0.5001).all()
    torch.testing.assert_close(back["bias"], state["bias"], rtol=1e-3, atol=1e-3)


def test_a_matrix_without_its_scales_is_refused() -> None:
    stored = quantise({"matrix": torch.ones(256, 128)})
    with pytest.raises(WeightsError, match="one scale per row, found shape"):
        dequantise(stored | {"matrix.scale": torch.ones(3)})
    del stored["matrix.scale"]
    with pytest.raises(WeightsError, match="found none"):
        dequantise(stored)
