from __future__ import annotations

import pytest

from anyform.errors import BadSetting
from anyform.training.ramp import Ramp, value_at


def test_a_ramp_is_constant_outside_and_straight_inside() -> None:
    ramp = Ramp(start=100.0, end=30.0, begin=0.2, finish=0.6)
    assert [ramp.at(part) for part in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([100, 100, 65, 30, 30])


def test_a_root_ramp_falls_fast_first() -> None:
    """Consistent3D's annealing: 300 − 280 √(step/N)."""
    ramp = Ramp(start=300.0, end=20.0, shape="sqrt")
    assert [ramp.at(part) for part in (0.0, 0.25, 1.0)] == pytest.approx([300, 160, 20])


def test_constants_and_ramps_are_read_alike() -> None:
    assert value_at(3, 0.7) == 3.0
    assert value_at(Ramp(start=0.0, end=2.0), 0.5) == 1.0


@pytest.mark.parametrize("bad", [{"begin": 0.5, "finish": 0.5}, {"finish": 1.5}, {"start": float("nan")}])
def test_a_ramp_that_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadSetting):
        Ramp(**{"start": 1.0, "end": 0.0, **bad})
